"""Views: a version's samples with their files at hand, and files that are what they were."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.data.adding import add
from useg.data.layouts import read_layout
from useg.data.reading import Sample
from useg.data.samples import Source
from useg.data.versions import Dataset
from useg.data.views import CheckedFiles, open_view, sample_of
from useg.errors import DataError
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.store import Memory


def folder_of(place: Path, count: int = 4) -> Path:
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(draw.integers(0, 255, (20, 24), dtype=np.uint8)).save(place / "images" / f"{number}.png")
        mask = (draw.random((20, 24)) > 0.5).astype(np.uint8)
        Image.fromarray(mask).save(place / "masks" / f"{number}.png")
    return place


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    store = Memory()
    return Dataset.open(store, Objects(store), "cells")


@pytest.fixture
def fetcher(dataset: Dataset, tmp_path: Path) -> Fetcher:
    return Fetcher(dataset.objects, Cache(tmp_path / "cache"))


def read(files: Source, sample: Sample) -> Sample:
    with files.local(sample) as local:
        return local


def test_a_view_has_the_bytes_of_the_folder(dataset: Dataset, fetcher: Fetcher, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    add(dataset, data)
    view = open_view(dataset, "", None, fetcher)
    assert [sample.key for sample in view.reading.samples] == [s.key for s in read_layout(data).samples]
    for sample in view.reading.samples:
        with view.files.local(sample) as local:
            for named, file in zip((*sample.images, *sample.labels), (*local.images, *local.labels), strict=True):
                assert Path(file).read_bytes() == (data / named).read_bytes()
                assert Path(file).suffix == Path(named).suffix
        assert view.files.space(sample) == (20, 24)
    assert view.origin.kept
    assert sample_of(next(iter(dataset.contents(dataset.resolve()).manifest.rows()))) == view.reading.samples[0]


def test_a_query_chooses_and_the_version_stays(dataset: Dataset, fetcher: Fetcher, tmp_path: Path) -> None:
    added = add(dataset, folder_of(tmp_path / "data"))
    part = open_view(dataset, "", "key in ('1', '3')", fetcher)
    assert [sample.key for sample in part.reading.samples] == ["1", "3"]
    whole = open_view(dataset, "", None, fetcher)
    assert part.origin.version == whole.origin.version == added.digest
    assert part.origin.view != whole.origin.view
    with pytest.raises(DataError, match=r"no sample for which \"key = 'x'\" holds"):
        open_view(dataset, "", "key = 'x'", fetcher)


def test_linked_files_are_checked_where_they_lie(dataset: Dataset, fetcher: Fetcher, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    add(dataset, data, link=True)
    view = open_view(dataset, "", None, fetcher)
    assert not view.origin.kept
    assert view.origin.record()["reproducible"] == "only while the folder is unchanged"
    first, second = view.reading.samples[:2]
    with view.files.local(first) as local:
        assert local.images == (str(data / "images" / "0.png"),)
    (data / "images" / "1.png").write_bytes(b"other")
    (data / "masks" / "1.png").unlink()
    with pytest.raises(DataError, match=r"(?s)images/1\.png: is not what it was.*masks/1\.png: cannot be read"):
        read(view.files, second)


def test_a_folder_that_was_recorded_is_checked_when_it_is_read(dataset: Dataset, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    version = add(dataset, data).version
    rows = {row.key: row for row in dataset.contents(version).manifest.rows()}
    samples = read_layout(data).samples
    files = CheckedFiles(samples, rows)
    assert [read(files, sample) for sample in samples] == list(samples)
    (data / "masks" / "2.png").write_bytes((data / "masks" / "0.png").read_bytes())
    assert read(files, samples[2]) == samples[2], "each file is compared once"
    with pytest.raises(DataError, match=r"masks/2\.png: is not what it was when it was added"):
        read(CheckedFiles(samples, rows), samples[2])
    assert files.space(samples[0]) == (20, 24)
    strange = replace(samples[0], key="strange")
    with pytest.raises(KeyError):
        CheckedFiles([strange], rows)
