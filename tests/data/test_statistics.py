"""What is counted once for each content, and asked for in queries."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.data.adding import add
from useg.data.layouts import read_layout
from useg.data.query import query
from useg.data.statistics import count, known_statistics, rows_where, with_known_statistics
from useg.data.versions import Dataset
from useg.home.objects import Objects
from useg.home.store import Memory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        height = 20 + 10 * (number % 2)
        Image.fromarray(np.full((height, 24, 3), number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
        mask = np.zeros((height, 24), np.uint8)
        mask[: 2 * number] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def test_counts_are_columns_of_queries(data: Path) -> None:
    store = Memory()
    dataset = Dataset.open(store, Objects(store), "x")
    manifest = dataset.contents(add(dataset, data).version).manifest
    samples = {sample.key: sample for sample in read_layout(data).samples}
    assert known_statistics(dataset) is None
    contents = dataset.contents(dataset.resolve())
    assert rows_where(dataset, contents, "height > 1") == []
    assert count(dataset, manifest, samples) == 4
    assert count(dataset, manifest, samples) == 0, "once for each content"
    assert [row.key for row in rows_where(dataset, contents, "height = 30 and channels = 3")] == ["1", "3"]
    assert [row.key for row in rows_where(dataset, contents, '"pixels.255" > 24 * 3')] == ["2", "3"]
    assert [row.key for row in rows_where(dataset, contents, '"pixels.255" is null')] == ["0"]
    joined = with_known_statistics(dataset, contents)
    assert joined.digest() == manifest.digest(), "they are no part of the version"
    assert query(joined, "height = 30").digest != query(manifest, "height = 30").digest
    (data / "masks" / "0.png").write_bytes((data / "masks" / "2.png").read_bytes())
    changed = dataset.contents(add(dataset, data).version).manifest
    assert count(dataset, changed, samples) == 1, "only what is new is read"


def test_objects_and_what_cannot_be_read(data: Path) -> None:
    ids = np.arange(20 * 24).reshape(20, 24).astype(np.uint16)
    Image.fromarray(ids).save(data / "masks" / "0.png")
    store = Memory()
    dataset = Dataset.open(store, Objects(store), "x")
    (data / "masks" / "1.png").write_bytes(b"no picture")
    manifest = dataset.contents(add(dataset, data).version).manifest
    samples = {sample.key: sample for sample in read_layout(data).samples}
    count(dataset, manifest, samples)
    contents = dataset.contents(dataset.resolve())
    assert [row.key for row in rows_where(dataset, contents, "objects = 479")] == ["0"]
    assert [row.key for row in rows_where(dataset, contents, "height is null")] == ["1"]


def test_pixels_of_classes_have_their_names(data: Path) -> None:
    classes = "[[classes]]\nname = 'ground'\nvalues = [0]\n[[classes]]\nname = 'leaf'\nvalues = [255, 7]\n"
    (data / "classes.toml").write_text(classes + "[[classes]]\nname = '255'\nvalues = [9]\n")
    store = Memory()
    dataset = Dataset.open(store, Objects(store), "x")
    manifest = dataset.contents(add(dataset, data).version).manifest
    count(dataset, manifest, {sample.key: sample for sample in read_layout(data).samples})
    contents = dataset.contents(dataset.resolve())
    assert [row.key for row in rows_where(dataset, contents, '"pixels.leaf" > 24 * 3')] == ["2", "3"]
    assert [row.key for row in rows_where(dataset, contents, '"pixels.leaf" = 0')] == ["0"]
    assert [row.key for row in rows_where(dataset, contents, '"pixels.ground" + "pixels.leaf" = 24 * height')] == [
        *"0123"
    ]
    assert [row.key for row in rows_where(dataset, contents, '"pixels.255" > 0')] == ["1", "2", "3"], "the value"


def test_pixels_of_colours_have_the_names_of_classes(data: Path) -> None:
    for number in range(4):
        mask = np.zeros((20 + 10 * (number % 2), 24, 3), np.uint8)
        mask[: 2 * number, :, 1] = 128
        Image.fromarray(mask).save(data / "masks" / f"{number}.png")
    (data / "classes.toml").write_text(
        "[[classes]]\nname = 'ground'\ncolours = ['#000000']\n[[classes]]\nname = 'leaf'\ncolours = [[0, 128, 0]]\n"
    )
    store = Memory()
    dataset = Dataset.open(store, Objects(store), "x")
    manifest = dataset.contents(add(dataset, data).version).manifest
    count(dataset, manifest, {sample.key: sample for sample in read_layout(data).samples})
    contents = dataset.contents(dataset.resolve())
    assert [row.key for row in rows_where(dataset, contents, '"pixels.leaf" > 24 * 3')] == ["2", "3"]
