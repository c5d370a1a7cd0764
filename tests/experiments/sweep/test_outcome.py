"""What a sweep tells in the end: right where the truth is known, and silent where it cannot know."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from tests.experiments.sweep.asking import FakeTrials, steer, sweep_of

from useg.cli.sweep import summary
from useg.experiments.sweep.asked import Sweep
from useg.experiments.sweep.log import Known
from useg.experiments.sweep.outcome import outcome
from useg.home.store import Folder

SAMPLES = 24


def made(home: Path, sweep: Sweep, quality: dict[int, float], noise: float) -> Known:
    """A sweep that has ended, its runs with scores of samples: as good as `quality`, and noise between seeds."""
    known, random = Known(), np.random.default_rng(0)
    hard = random.normal(0, 0.1, SAMPLES)
    for number, level in quality.items():
        known.drawn[number] = {"train.lr": [0.001, 0.01, 0.1][number]}
        for place, trial in enumerate(sweep.trials_of(number)):
            fold = place % sweep.asked.folds
            values = level + hard + random.normal(0, noise) + random.normal(0, 0.005, SAMPLES)
            rows = {f"s{n}": {"mean_dice": float(values[n])} for n in range(SAMPLES) if n % sweep.asked.folds == fold}
            run = home / "runs" / f"run{trial}"
            run.mkdir(parents=True)
            (run / "scores.json").write_bytes(orjson.dumps({"samples": rows}))
            score = float(np.mean([row["mean_dice"] for row in rows.values()]))
            known.ended[trial] = {"state": "finished", "run": run.name, "score": score, "seconds": 1.0, "version": "v"}
    return known


def text(seeds: int, folds: int = 1) -> str:
    return f"method = 'grid'\nseeds = {seeds}\nfolds = {folds}\n[search]\ntrain.lr = [0.001, 0.01, 0.1]"


@pytest.mark.parametrize("folds", [1, 3])
def test_a_real_difference_is_told_from_the_noise_between_seeds(tmp_path: Path, folds: int) -> None:
    sweep = sweep_of(text(5, folds))
    found = outcome(sweep, made(tmp_path, sweep, {0: 0.5, 1: 0.7, 2: 0.7}, 0.03), Folder(tmp_path), "finished")
    told = {each["second"]: each for each in found["differences"]}
    assert found["best"]["configuration"] in (1, 2)
    assert told[0]["more_than_noise"] is True
    assert told[0]["samples"] == SAMPLES
    assert told[0]["low"] < told[0]["difference"] < told[0]["high"]
    (close,) = (each for second, each in told.items() if second != 0)
    assert close["more_than_noise"] is False
    assert "more than seed noise" in summary(found | {"log": "x"})


def test_noise_as_large_as_the_difference_is_not_believed(tmp_path: Path) -> None:
    sweep = sweep_of(text(4))
    found = outcome(sweep, made(tmp_path, sweep, {0: 0.6, 1: 0.65, 2: 0.62}, 0.1), Folder(tmp_path), "finished")
    assert [each["more_than_noise"] for each in found["differences"]] == [False, False]
    assert all(each["p_samples"] < 0.05 for each in found["differences"])  # samples alone would have been fooled


def test_one_seed_cannot_tell(tmp_path: Path) -> None:
    sweep = sweep_of(text(1))
    found = outcome(sweep, made(tmp_path, sweep, {0: 0.5, 1: 0.7, 2: 0.6}, 0.0), Folder(tmp_path), "finished")
    assert [each["more_than_noise"] for each in found["differences"]] == [None, None]
    assert any(note.startswith("one seed each") for note in found["notes"])
    assert found["best"]["spread"] is None


def test_data_that_changed_in_between_is_told(tmp_path: Path) -> None:
    sweep = sweep_of(text(1))
    known = made(tmp_path, sweep, {0: 0.5, 1: 0.7, 2: 0.6}, 0.0)
    known.ended[1]["version"] = "w"
    assert any("the data changed" in note for note in outcome(sweep, known, Folder(tmp_path), "finished")["notes"])


def test_without_scores_of_samples_folds_and_seeds_are_compared(tmp_path: Path) -> None:
    sweep = sweep_of(text(3, 2).replace("method", "metric = 'scores.pixel_error'\nmethod"))
    _, log = steer(sweep, tmp_path, FakeTrials())
    found = outcome(sweep, log.known, Folder(tmp_path), "finished")
    assert [row["configuration"] for row in found["configurations"]] == [1, 0, 2] or found["best"]["configuration"] == 1
    assert {each["samples"] for each in found["differences"]} == {None}
    assert all(each["more_than_noise"] for each in found["differences"])
    assert found["best"]["spread"] > 0


def test_an_empty_sweep_has_an_outcome(tmp_path: Path) -> None:
    found = outcome(sweep_of(text(2)), Known(), Folder(tmp_path), "stopped")
    assert found["best"] is None
    assert "trials: none" in summary(found | {"log": "x"})
