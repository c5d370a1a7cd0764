"""What a training knows of its data before it begins: measured once for each view, and never on what is for testing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.config import load_config
from useg.data.adding import add
from useg.data.versions import Dataset
from useg.data.views import View, open_view
from useg.errors import DataError
from useg.experiments.examining import Examined, examined
from useg.experiments.prepare import prepare
from useg.home.cache import Cache
from useg.home.fetching import Fetcher, Wanted
from useg.home.objects import Objects
from useg.home.store import Memory

SETTINGS = ["network.base=2", "network.depth=1", "network.patch=[16,16]", "train.micro_batch=1"]


class Counting(Fetcher):
    """Counts the files that were asked for one by one, and those that were fetched ahead."""

    def __init__(self, objects: Objects, cache: Cache) -> None:
        super().__init__(objects, cache)
        self.asked: list[str] = []

    def files(self, wanted: Sequence[Wanted], **options: object) -> list[Path]:
        self.asked += [digest for digest, _ in wanted]
        return super().files(wanted, **options)


def folder_of(place: Path, count: int = 8) -> Path:
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(draw.integers(0, 255, (20, 24), dtype=np.uint8)).save(place / "images" / f"{number}.png")
        mask = np.zeros((20, 24), np.uint8)
        mask[: 2 + 2 * number, 3:9] = 255
        Image.fromarray(mask).save(place / "masks" / f"{number}.png")
    return place


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    store = Memory()
    found = Dataset.open(store, Objects(store), "cells")
    add(found, folder_of(tmp_path / "data"))
    return found


def view_on(dataset: Dataset, machine: Path, where: str | None = None) -> tuple[View, Counting]:
    fetcher = Counting(Objects(dataset.store), Cache(machine))
    return open_view(dataset, "", where, fetcher), fetcher


def told(found: Examined) -> tuple[object, ...]:
    reading, inspection = found.found.reading, found.found
    return reading.samples, inspection.mapping, inspection.fingerprint, inspection.repairs, inspection.warnings


def test_a_view_is_measured_once_for_all_machines(dataset: Dataset, tmp_path: Path) -> None:
    view, fetcher = view_on(dataset, tmp_path / "one")
    first = examined(view, None, None)
    assert len(set(fetcher.asked)) == 16
    again, elsewhere = view_on(dataset, tmp_path / "two")
    second = examined(again, None, None)
    assert told(second) == told(first)
    assert {again.files.space(sample) for sample in again.reading.samples} == {(20, 24)}
    assert elsewhere.asked == [], "nothing was fetched"
    part, fetcher = view_on(dataset, tmp_path / "three", "key != '0'")
    assert examined(part, None, None).found.fingerprint != first.found.fingerprint
    assert fetcher.asked, "another view is measured anew"


def test_a_mapping_given_is_another_inspection(dataset: Dataset, tmp_path: Path) -> None:
    examined(view_on(dataset, tmp_path / "one")[0], None, None)
    classes = tmp_path / "classes.toml"
    classes.write_text("classes = [{name = 'ground', values = [0]}, {name = 'cell', values = [255]}]\n")
    found = examined(view_on(dataset, tmp_path / "one")[0], classes, None).found
    assert found.mapping is not None
    assert found.mapping.class_names == ("ground", "cell")
    plain = examined(view_on(dataset, tmp_path / "one")[0], None, None).found
    assert plain.mapping is not None
    assert plain.mapping.class_names != ("ground", "cell")


def test_a_home_that_cannot_be_written_stops_nobody(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> bool:
        raise DataError("read only")

    monkeypatch.setattr(Memory, "put", refuse)
    found = examined(view_on(dataset, tmp_path / "one")[0], None, None)
    assert found.found.fingerprint is not None
    assert found.found.fingerprint.samples == 8


@pytest.mark.parametrize("of", ["folder", "view", "view measured before"])
def test_what_is_for_testing_is_not_learned_from(of: str, dataset: Dataset, tmp_path: Path) -> None:
    if of == "view measured before":
        examined(view_on(dataset, tmp_path / "before")[0], None, None)
    data = tmp_path / "data" if of == "folder" else view_on(dataset, tmp_path / "cache")[0]
    found = examined(data, None, None)
    rest = found.fingerprint_without({"6", "7"})
    assert rest.samples == 6
    assert rest.classes[1].pixels == sum((2 + 2 * number) * 6 for number in range(6))
    assert found.fingerprint_without(()) == found.found.fingerprint
    if of != "folder":
        view, fetcher = view_on(dataset, tmp_path / "other")
        assert examined(view, None, None).fingerprint_without(["7", "6"]) == rest
        assert fetcher.asked == [], "that, too, is measured once"


def test_the_plan_is_made_from_the_rest(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    rows = [f"images/{n}.png,masks/{n}.png,{'test' if n > 5 else 'train'}" for n in range(8)]
    (data / "pairs.csv").write_text("\n".join(["image,label,split", *rows]))
    config = load_config(None, SETTINGS, steps=1)
    with_test = prepare(data, config, tmp_path / "home").plan
    (data / "pairs.csv").write_text("\n".join(["image,label,split", *rows[:6]]))
    assert prepare(data, config, tmp_path / "home").plan == with_test


def test_problems_are_told_by_the_names_of_the_version(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(data / "masks" / "3.png")
    store = Memory()
    dataset = Dataset.open(store, Objects(store), "cells")
    add(dataset, data)
    view, fetcher = view_on(dataset, tmp_path / "cache")
    with pytest.raises(DataError) as caught:
        examined(view, None, None)
    assert "masks/3.png" in str(caught.value)
    assert str(fetcher.cache.folder) not in str(caught.value)


def test_a_cache_smaller_than_the_view_is_enough(dataset: Dataset, tmp_path: Path) -> None:
    fetcher = Fetcher(Objects(dataset.store), Cache(tmp_path / "small", max_bytes=8 * 4096))
    view = open_view(dataset, "", None, fetcher)
    found = examined(view, None, None).found
    assert found.fingerprint is not None
    assert found.fingerprint.samples == 8
    whole = examined(view_on(dataset, tmp_path / "large")[0], None, None).found
    assert whole.fingerprint == found.fingerprint
