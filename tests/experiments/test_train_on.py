"""How many workers train together: what `--workers` means, and which number has room."""

import pytest

from useg.cli.train import workers_of
from useg.config import Config, load_config
from useg.errors import ConfigError
from useg.experiments.train_on import Wanted


def test_a_number_and_a_range_of_workers() -> None:
    assert workers_of(None) == {}
    assert workers_of("4") == {"workers": 4}
    assert workers_of("2:8", elastic=True) == {"workers": 8, "least_workers": 2}


@pytest.mark.parametrize("text", ["a:b", "2:", ":8", "1:2:3", "-1", "2.5", ""])
def test_what_is_no_number_of_workers(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted a number, such as 4"):
        workers_of(text, elastic=True)


def test_a_range_wants_a_cluster() -> None:
    with pytest.raises(ConfigError, match="a range is for a cluster"):
        workers_of("2:8")


@pytest.mark.parametrize(("text", "said"), [("8:2", "the lesser number comes first"), ("0:3", "least_workers")])
def test_ranges_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(**workers_of(text, elastic=True))


def test_the_most_that_share_a_step_evenly_and_have_room() -> None:
    wanted = Wanted.of(Config(workers=8, least_workers=2))
    assert [wanted.world(room, wanted.least) for room in range(10)] == [0, 0, 2, 2, 4, 4, 4, 4, 8, 8]
    assert Wanted.of(Config(workers=4)).least == 4
