"""What was measured once holds for every version with the same files, and goes along to other homes."""

from pathlib import Path

import numpy as np
import pytest
from tests.data.test_stocktaking import dataset, discs, folder_of

from useg.data.adding import add
from useg.data.annotating import set_fields
from useg.data.inherited import known_of_version, same_pictures
from useg.data.kept_inspections import KeptInspection
from useg.data.query import query
from useg.data.sharing import send
from useg.data.statistics import with_known_statistics
from useg.data.stocktaking import take_stock
from useg.data.versions import Dataset
from useg.data.views import open_view
from useg.experiments.examining import examined
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.store import Memory


def known(found: Dataset, ref: str = "") -> KeptInspection | None:
    version = found.resolve(ref)
    return known_of_version(found, version, found.contents(version).mapping)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = folder_of(tmp_path / "data", [*discs(1, 2, count=6), discs(1, 2)[0]])
    (folder / "images" / "6.png").write_bytes((folder / "images" / "0.png").read_bytes())
    return folder


def test_a_change_of_fields_needs_no_reading(data: Path, tmp_path: Path) -> None:
    found = dataset()
    take_stock(found, add(found, data).own, data)
    first = known(found)
    assert first is not None
    set_fields(found, {"split": "test"}, where="key = '6'")
    set_fields(found, {"split": "train"}, where="key != '6'")
    set_fields(found, {"stain": "HE"})
    later = known(found)
    assert later is not None
    fetcher = Fetcher(Objects(found.store), Cache(tmp_path / "cache"))
    view = open_view(found, "", None, fetcher)
    told = examined(view, None, None).found
    assert not list((tmp_path / "cache").glob("??/*")), "no file was fetched"
    assert told.fingerprint == later.fingerprint
    # the twin: all of it measured where nothing is known
    other = Dataset.open(store := Memory(), Objects(store), "x")
    send(found, other)
    for entry in list(store.list("refs/inspections/")):
        store.delete(entry.key)
    measured = examined(open_view(other, "", None, Fetcher(Objects(store), Cache(tmp_path / "more"))), None, None).found
    assert list((tmp_path / "more").glob("??/*"))
    assert told.fingerprint is not None
    assert measured.fingerprint is not None
    alike = {"sequence", "neighbour_correlation", "distant_correlation"}
    assert told.fingerprint.model_dump(exclude=alike) == measured.fingerprint.model_dump(exclude=alike)
    assert told.warnings == measured.warnings
    assert any("lie in different splits" in warning for warning in told.warnings)
    assert told.reading.samples == measured.reading.samples


def test_other_files_are_measured_again(data: Path) -> None:
    found = dataset()
    take_stock(found, add(found, data).own, data)
    (data / "masks" / "2.png").write_bytes((data / "masks" / "3.png").read_bytes())
    take_stock(found, add(found, data).own, data)
    assert known(found) is None


def test_another_mapping_is_another_inspection(data: Path) -> None:
    found = dataset()
    take_stock(found, add(found, data).own, data)
    before = found.resolve("")
    (data / "classes.toml").write_text(
        "classes = [{name = 'ground', values = [0]}, {name = 'cell', values = [1, 2]}]\n", encoding="utf-8"
    )
    after = add(found, data).own
    assert after.digest == before.digest, "the samples are the same"
    assert known(found) is None, "what was measured with another mapping does not hold"
    assert known(found, before.commit) is not None


def test_what_is_known_is_sent_along(data: Path) -> None:
    found, other = dataset(), dataset()
    take_stock(found, add(found, data).own, data)
    send(found, other)
    assert known(other) == known(found)
    contents = other.contents(other.resolve(""))
    assert len(query(with_known_statistics(other, contents), "height = 24").keys) == 7
    (data / "images" / "7.png").write_bytes((data / "images" / "1.png").read_bytes())
    (data / "masks" / "7.png").write_bytes((data / "masks" / "2.png").read_bytes())
    take_stock(found, add(found, data).own, data)
    send(found, other)
    contents = other.contents(other.resolve(""))
    assert len(query(with_known_statistics(other, contents), "height = 24").keys) == 8


def test_equal_files_are_pairs_in_order() -> None:
    pairs = same_pictures(list("abcd"), ["train", None, "train", "test"], (), [("a", "d"), ("b", "c"), ("a", "x")])
    assert [(pair.first, pair.second, pair.exact, pair.across_splits) for pair in pairs] == [
        ("a", "d", True, True),
        ("b", "c", True, False),
    ]
    again = same_pictures(list("abc"), [None] * 3, pairs, [])
    assert [(pair.first, pair.second) for pair in again] == [("b", "c")]
    assert np.all([pair.correlation == 1 for pair in again])
