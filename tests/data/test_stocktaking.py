"""What is measured of a folder once it was added: counted in the same reading that keeps the inspection."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.data import stocktaking
from useg.data.adding import Added, add
from useg.data.kept_inspections import KeptInspections
from useg.data.layouts import read_layout
from useg.data.query import view_digest
from useg.data.statistics import count, known_statistics, rows_where
from useg.data.stocktaking import take_stock
from useg.data.versions import Dataset
from useg.home.objects import Objects
from useg.home.store import Memory

SIDE = 24


def dataset() -> Dataset:
    store = Memory()
    return Dataset.open(store, Objects(store), "x")


def folder_of(place: Path, masks: list[np.ndarray], suffix: str = ".png", mode: str | None = None) -> Path:
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    for number, mask in enumerate(masks):
        image = draw.integers(0, 255, (*mask.shape[:2], 3), np.uint8)
        Image.fromarray(image).save(place / "images" / f"{number}.png")
        picture = Image.fromarray(mask)
        (picture if mode is None else picture.convert(mode)).save(place / "masks" / f"{number}{suffix}")
    return place


def discs(*values: int, count: int = 4) -> list[np.ndarray]:
    masks = []
    for number in range(count):
        mask = np.zeros((SIDE, SIDE + 2 * number), np.uint8)
        for place, value in enumerate(values):
            mask[3 + 5 * place : 7 + 5 * place, 3 : 9 + number] = value
        masks.append(mask)
    return masks


def coloured(mask: np.ndarray) -> np.ndarray:
    colours = np.array([[0, 0, 0], [0, 128, 0], [200, 10, 99]], np.uint8)
    return colours[mask]


def kept(found: Dataset, added: Added) -> object:
    told = found.contents(added.own).mapping
    return KeptInspections(found.objects, view_digest(added.own.digest, "true", ()), told).find()


def table(found: Dataset) -> list[dict[str, object]]:
    known = known_statistics(found)
    assert known is not None
    rows = [{name: value for name, value in row.items() if value is not None} for row in known.to_pylist()]
    return sorted(rows, key=lambda row: (row["image"], row["label"]))


KINDS = {
    "numbers": (discs(1, 2), ".png", None),
    "white": (discs(255), ".png", None),
    "grey as colour": (discs(1, 2), ".png", "RGB"),
    "grey and alpha": (discs(255), ".png", "LA"),
    "colours": ([coloured(mask) for mask in discs(1, 2)], ".png", None),
    "colours and alpha": ([coloured(mask) for mask in discs(1, 2)], ".png", "RGBA"),
    "palette": (discs(1, 2), ".png", "P"),
    "bits": (discs(255), ".png", "1"),
    "smeared": (discs(255), ".jpg", None),
    "fractions": ([mask.astype(np.float32) / 2 for mask in discs(1, 2)], ".tif", None),
    "floats": ([mask.astype(np.float32) for mask in discs(1, 2)], ".tif", None),
    "many numbers": ([np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)] * 3, ".png", None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_inspected_is_counted_alike(kind: str, tmp_path: Path) -> None:
    masks, suffix, mode = KINDS[kind]
    data = folder_of(tmp_path / "data", masks, suffix, mode)
    one, two = dataset(), dataset()
    take_stock(one, add(one, data).own, data)
    manifest = two.contents(add(two, data).own).manifest
    count(two, manifest, {sample.key: sample for sample in read_layout(data).samples})
    assert table(one) == table(two)
    assert all("height" in row for row in table(one))


def test_each_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder_of(tmp_path / "data", discs(1, 2))
    found = dataset()
    added = add(found, data)

    def never(*arguments: object) -> None:
        raise AssertionError("read once more")

    monkeypatch.setattr("useg.data.statistics.read_image", never)
    monkeypatch.setattr("useg.data.statistics.read_header", never)
    assert take_stock(found, added.own, data) == ()
    assert kept(found, added) is not None
    assert len(rows_where(found, found.contents(added.own), '"pixels.2" > 0')) == 4


def test_what_is_wrong_is_told_and_nothing_is_kept(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", discs(1, 2))
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(data / "masks" / "3.png")
    (data / "images" / "1.png").write_bytes(b"no picture")
    found = dataset()
    added = add(found, data)
    problems = take_stock(found, added.own, data)
    assert {problem.where for problem in problems} == {"images/1.png", "masks/3.png"}
    assert kept(found, added) is None
    assert [row.key for row in rows_where(found, found.contents(added.own), "height is null")] == ["1"]
    (data / "classes.toml").write_text("classes = 3")
    assert take_stock(found, add(found, data).own, data) == (), "nothing is read a second time"


def test_a_mapping_that_is_none_does_not_keep_it_from_being_counted(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", discs(1, 2))
    (data / "classes.toml").write_text("classes = 3")
    found = dataset()
    added = add(found, data)
    take_stock(found, added.own, data)
    assert kept(found, added) is None
    assert len(table(found)) == 4


def test_of_a_change_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder_of(tmp_path / "data", discs(1, 2))
    found = dataset()
    take_stock(found, add(found, data).own, data)
    (data / "masks" / "0.png").write_bytes((data / "masks" / "1.png").read_bytes())
    done = []
    monkeypatch.setattr(stocktaking, "examine_reading", lambda *a, **k: pytest.fail("all are inspected again"))
    take_stock(
        found, add(found, data).own, data, progress=lambda completed, *, total=None, status="": done.append(total)
    )
    assert done == [1]


def test_a_large_set_is_counted_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder_of(tmp_path / "data", discs(1, 2))
    monkeypatch.setattr(stocktaking, "MOST_INSPECTED", 3)
    found = dataset()
    take_stock(found, (added := add(found, data)).own, data)
    assert kept(found, added) is None
    assert len(table(found)) == 4
