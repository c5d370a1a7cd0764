"""A training begins before the files of its view have come: planned on a spread of samples, from far away."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.experiments.test_examining import SETTINGS, Counting

from useg.config import load_config
from useg.data.adding import add
from useg.data.samples import Samples
from useg.data.spread import SPREAD
from useg.data.stocktaking import take_stock
from useg.data.versions import Dataset
from useg.data.views import View, open_view
from useg.errors import DataError
from useg.experiments import examining
from useg.experiments.examining import examined
from useg.experiments.prepare import Prepared, prepare
from useg.home.cache import Cache
from useg.home.objects import Objects
from useg.home.store import Memory, Store, open_store
from useg.train.batches import Batches

COUNT, FEW = 110, 64
RARE, TWIN = "00109", "00108"


def folder_of(place: Path, count: int = COUNT, *, rare: bool = True) -> Path:
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros((20, 24), np.uint8)
        mask[2 : 6 + number % 9, 3:9] = 1
        if rare and f"{number:05}" == RARE:
            mask[15:, 10:] = 2
        image = draw.integers(0, 255, (20, 24), dtype=np.uint8)
        Image.fromarray(image).save(place / "images" / f"{number:05}.png")
        Image.fromarray(mask).save(place / "masks" / f"{number:05}.png")
    (place / "images" / f"{TWIN}.png").write_bytes((place / "images" / "00000.png").read_bytes())
    return place


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer samples than usual stand for all, so that the tests need fewer."""
    monkeypatch.setattr(examining, "SPREAD", FEW)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("far") / "data")


def added(store: Store, folder: Path, *, inspected: bool) -> Dataset:
    """The folder as a data set whose samples were all counted, together with their inspection or after it."""
    dataset = Dataset.open(store, Objects(store), "cells")
    first = add(dataset, folder)
    take_stock(dataset, first.own, folder)
    if not inspected:
        rows = [row for row in dataset.contents(first.own).manifest.rows() if row.key != "00007"]
        contents = dataset.contents(first.own)
        less = type(contents)(contents.manifest.changed([], ["00007"]), contents.mapping, contents.links)
        assert dataset.commit(less, "less", base=first.own).samples == len(rows)
    return dataset


def view_on(dataset: Dataset, machine: Path, where: str | None = None) -> tuple[View, Counting]:
    fetcher = Counting(Objects(dataset.store), Cache(machine))
    return open_view(dataset, "", where, fetcher), fetcher


def prepared_on(view: View, machine: Path) -> Prepared:
    return prepare(view, load_config(None, SETTINGS, steps=2), machine)


def first_batch(prepared: Prepared) -> None:
    training = [index for index, split in enumerate(prepared.fold_splits[0]) if "train" in split]
    batches = Batches(prepared.plan, prepared.samples, training)
    assert next(batches.ahead(0, 1, [0]))[0].image.shape == (1, 1, 16, 16)


def test_what_was_added_here_is_planned_without_a_file(folder: Path, tmp_path: Path) -> None:
    dataset = added(Memory(), folder, inspected=True)
    view, fetcher = view_on(dataset, tmp_path / "one")
    found = examined(view, None, None)
    assert fetcher.asked == []
    alone = Dataset.open(store := Memory(), Objects(store), "cells")
    add(alone, folder)
    view, fetcher = view_on(alone, tmp_path / "two")
    measured = examined(view, None, None)
    assert len(set(fetcher.asked)) > COUNT, "nobody had counted or inspected it, so all is read"
    assert found.found.mapping == measured.found.mapping
    assert found.found.fingerprint == measured.found.fingerprint
    assert found.found.reading.samples == measured.found.reading.samples


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("inspected", [True, False], ids=["version inspected", "version counted alone"])
def test_a_new_view_begins_with_a_share_of_its_files(inspected: bool, folder: Path, tmp_path: Path) -> None:
    dataset = added(Memory(), folder, inspected=inspected)
    view, fetcher = view_on(dataset, tmp_path / "one", "key != '00001'")
    prepared = prepared_on(view, tmp_path / "home")
    assert FEW <= len(set(fetcher.asked) & images_of(dataset)) < COUNT - 2
    first_batch(prepared)
    assert prepared.mapping.num_classes == 3, "also the class that one sample alone has"
    assert len(prepared.samples) == len(view.reading.samples)
    pairs = [{pair.first, pair.second} for pair in prepared.fingerprint.duplicates]
    assert {"00000", TWIN} in pairs, "pictures that are the same are known without reading them"
    assert any(f"{FEW} of" in note for note in prepared.notes)
    again, elsewhere = view_on(dataset, tmp_path / "two", "key != '00001'")
    assert examined(again, None, None).found.fingerprint == prepared.fingerprint
    assert elsewhere.asked == []


def images_of(dataset: Dataset) -> set[str]:
    rows = dataset.contents(dataset.resolve("")).manifest.rows()
    return {ref.digest for row in rows for ref in row.files["image"]}


@pytest.mark.usefixtures("few")
def test_the_same_view_is_planned_alike_whatever_a_machine_has(folder: Path, tmp_path: Path) -> None:
    one, two = (added(Memory(), folder, inspected=False) for _ in range(2))
    view, fetcher = view_on(two, tmp_path / "full")
    for sample in view.reading.samples:
        with view.files.local(sample):
            pass
    assert len(set(fetcher.asked)) > COUNT
    full = prepared_on(view, tmp_path / "home")
    empty = prepared_on(view_on(one, tmp_path / "empty")[0], tmp_path / "home")
    assert (full.plan, full.fingerprint, full.fold_splits) == (empty.plan, empty.fingerprint, empty.fold_splits)


@pytest.mark.usefixtures("few")
def test_what_is_for_testing_is_left_out_of_the_spread(folder: Path, tmp_path: Path) -> None:
    dataset = added(Memory(), folder, inspected=True)
    whole, fetcher = view_on(dataset, tmp_path / "one")
    known = examined(whole, None, None)
    tested = {f"{number:05}" for number in range(30)}
    rest = known.fingerprint_without(tested)
    assert (rest.samples, fetcher.asked == []) == (FEW, False)
    assert len(set(fetcher.asked) & images_of(dataset)) <= FEW
    again, elsewhere = view_on(dataset, tmp_path / "two")
    assert examined(again, None, None).fingerprint_without(tested) == rest
    assert elsewhere.asked == []
    part = examined(view_on(dataset, tmp_path / "three", "key != '00001'")[0], None, None)
    most = {f"{number:05}" for number in range(2, 90)}
    assert part.fingerprint_without(most).samples == COUNT - 1 - len(most), "few are left, so all of them are measured"


@pytest.mark.usefixtures("few")
def test_neighbours_that_look_alike_are_noticed_in_runs(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", rare=False)
    draw = np.random.default_rng(1)
    frame = draw.normal(0, 1, (20, 24))
    for number in range(COUNT):
        frame = 0.97 * frame + 0.24 * np.kron(draw.normal(0, 1, (5, 6)), np.ones((4, 4)))
        image = np.clip(128 + 40 * frame, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(data / "images" / f"{number:05}.png")
    dataset = added(Memory(), data, inspected=True)
    whole = examined(view_on(dataset, tmp_path / "one")[0], None, None).found.fingerprint
    part = examined(view_on(dataset, tmp_path / "two", "key != '00001'")[0], None, None).found.fingerprint
    assert whole is not None
    assert part is not None
    assert (whole.samples, whole.sequence) == (COUNT, True)
    assert (part.samples, part.sequence) == (FEW, True)


@pytest.mark.usefixtures("few")
def test_a_value_of_one_sample_alone_is_met_before_the_training(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data")
    (data / "classes.toml").write_text(
        "classes = [{name = 'ground', values = [0]}, {name = 'cell', values = [1]}]\n", encoding="utf-8"
    )
    dataset = Dataset.open(store := Memory(), Objects(store), "cells")
    problems = take_stock(dataset, add(dataset, data).own, data)
    assert [problem.where for problem in problems] == [str(data / "masks" / f"{RARE}.png")] or len(problems) == 1
    for where in (None, "key != '00001'"):
        view, fetcher = view_on(dataset, tmp_path / "cache", where)
        with pytest.raises(DataError, match=f"masks/{RARE}.png: label value 2 is not in the mapping") as caught:
            examined(view, None, None)
        assert str(fetcher.cache.folder) not in str(caught.value)
        assert len(set(fetcher.asked) & images_of(dataset)) <= FEW


@pytest.mark.usefixtures("few")
def test_label_maps_that_do_not_fit_are_told_all_at_once(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", rare=False)
    bad = [f"{number:05}" for number in range(21, 60, 7)]
    for key in bad:
        Image.fromarray(np.zeros((5, 5), np.uint8)).save(data / "masks" / f"{key}.png")
    dataset = Dataset.open(store := Memory(), Objects(store), "cells")
    assert len(take_stock(dataset, add(dataset, data).own, data)) == len(bad)
    view, fetcher = view_on(dataset, tmp_path / "cache")
    with pytest.raises(DataError) as caught:
        examined(view, None, None)
    assert [problem.where for problem in caught.value.problems] == [f"masks/{key}.png" for key in bad]
    assert len(set(fetcher.asked) & images_of(dataset)) <= FEW


def test_a_bad_file_is_named_when_a_training_reads_it(folder: Path, tmp_path: Path) -> None:
    dataset = added(Memory(), folder, inspected=True)
    view, fetcher = view_on(dataset, tmp_path / "cache")
    mapping = examined(view, None, None).found.mapping
    assert mapping is not None
    less = mapping.model_copy(update={"classes": mapping.classes[:2]})
    samples = Samples(view.reading.samples, less, 1, source=view.files)
    with pytest.raises(DataError, match=f"masks/{RARE}.png: label value 2 is not in the mapping") as caught:
        samples[samples.keys.index(RARE)]
    assert str(fetcher.cache.folder) not in str(caught.value)


@pytest.mark.usefixtures("few")
def test_a_view_that_changes_its_samples_begins_with_a_share(folder: Path, tmp_path: Path) -> None:
    dataset = added(Memory(), folder, inspected=True)
    fetcher = Counting(Objects(dataset.store), Cache(tmp_path / "one"))
    view = open_view(dataset, "", None, fetcher, ["resize=40", "merge=2:1"])
    found = examined(view, None, None).found
    assert len(set(fetcher.asked) & images_of(dataset)) == FEW
    assert (found.fingerprint.samples, found.fingerprint.median_space) == (FEW, (33, 40))
    samples = Samples(found.reading.samples, found.mapping, 1, source=view.files)
    assert samples.space(3) == samples[3].space == (33, 40)
    assert np.unique(samples[samples.keys.index(RARE)].classes).tolist() == [0, 1]


@pytest.mark.usefixtures("few")
def test_without_statistics_all_is_read(folder: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(store := Memory(), Objects(store), "cells")
    add(dataset, folder)
    found = examined(view_on(dataset, tmp_path / "cache")[0], None, None).found
    assert found.fingerprint is not None
    assert found.fingerprint.samples == COUNT


@pytest.mark.usefixtures("few")
def test_a_folder_here_is_measured_whole(folder: Path, tmp_path: Path) -> None:
    dataset = added(open_store(tmp_path / "home"), folder, inspected=False)
    found = examined(view_on(dataset, tmp_path / "cache")[0], None, None).found
    assert found.fingerprint is not None
    assert found.fingerprint.samples == COUNT - 1


def test_a_new_view_in_a_bucket_begins_with_a_share(tmp_path: Path, s3_url: str) -> None:
    dataset = added(open_store(s3_url), folder_of(tmp_path / "data", 400), inspected=True)
    prepared = prepared_on(view_on(dataset, tmp_path / "one", "key != '00001'")[0], tmp_path / "home")
    there = {path.name[:64] for path in (tmp_path / "one").glob("??/*")}
    assert SPREAD <= len(there & images_of(dataset)) <= SPREAD + 40, "40 more to see which way is up"
    first_batch(prepared)
