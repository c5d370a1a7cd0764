import os
from contextlib import suppress
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from useg.data.adding import add
from useg.data.checkout import checkout
from useg.data.checkout_plan import problems_of_paths
from useg.data.folder_notes import OWN_FOLDER
from useg.data.layouts import read_layout
from useg.data.manifest import FileRef, Manifest, Row
from useg.data.pairs_text import pairs_text
from useg.data.versions import Contents, Dataset
from useg.errors import DataError
from useg.home.objects import Objects
from useg.home.store import Memory


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("USEG_CACHE", str(tmp_path_factory.mktemp("cache")))


def dataset():
    store = Memory()
    return Dataset.open(store, Objects(store), "cells")


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 2, (8, 8), np.uint8) * 255)


def files_of(root):
    found = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    return {path: content for path, content in found.items() if not path.startswith(OWN_FOLDER)}


def samples_of(root):
    """What a folder is read as, with paths relative to it."""
    found = []
    for sample in read_layout(root).samples:
        refs = [tuple(os.path.relpath(ref, root) for ref in refs) for refs in (sample.images, sample.labels)]
        region = sample.region and os.path.relpath(sample.region, root)
        found.append(replace(sample, images=refs[0], labels=refs[1], region=region))
    return found


@pytest.fixture
def line(tmp_path):
    """A data set of two versions, with the folder as it was at each."""
    cells, folders = dataset(), []
    for number, names in enumerate(["abc", "bcd"]):
        root = tmp_path / f"v{number}"
        for name in names:
            picture(root / "train" / "images" / f"{name}.png", ord(name))
            picture(root / "train" / "labels" / f"{name}.png", ord(name) + (number if name == "b" else 0))
        (root / "classes.toml").write_text(f"ignore = [{number}]\n")
        add(cells, root)
        folders.append(root)
    return cells, folders


def test_a_checkout_is_the_folder_that_was_added(line, tmp_path):
    cells, folders = line
    for ref, folder in (("~1", folders[0]), ("main", folders[1]), ("~1", folders[0])):
        out = tmp_path / "out"
        checkout(cells, ref, out)
        found = files_of(out)
        assert found.pop("pairs.csv")
        assert found == files_of(folder)
        assert samples_of(out) == samples_of(folder)
        again = dataset()
        assert add(again, out).digest == cells.resolve(ref).digest


def test_only_what_differs_is_written(line, tmp_path):
    cells, _ = line
    out = tmp_path / "out"
    first = checkout(cells, "~1", out)
    assert (first.written, first.kept, first.removed, first.samples) == (8, 0, 0, 3)
    times = {path: (out / path).stat().st_mtime_ns for path in files_of(out)}
    second = checkout(cells, "main", out)
    # the files of d, the label of b, pairs.csv and classes.toml; those of a go
    assert (second.written, second.kept, second.removed) == (5, 3, 2)
    assert (out / "train/images/c.png").stat().st_mtime_ns == times["train/images/c.png"]
    assert not (out / "train/images/a.png").exists()
    assert checkout(cells, "main", out).written == 0


def test_a_query_chooses(line, tmp_path):
    cells, _ = line
    done = checkout(cells, "main", tmp_path / "out", where="key in ('train/b', 'train/d')")
    assert done.samples == 2
    assert [sample.key for sample in samples_of(tmp_path / "out")] == ["train/b", "train/d"]
    assert not (tmp_path / "out/train/images/c.png").exists()


def test_changes_that_no_version_has_are_not_written_over(line, tmp_path):
    cells, _ = line
    out = tmp_path / "out"
    checkout(cells, "~1", out)
    before = files_of(out)
    picture(out / "train/labels/b.png", 777)
    (out / "pairs.csv").write_text("image\ntrain/images/a.png\n")
    (out / "mine.txt").write_text("mine")
    changed = files_of(out)
    with pytest.raises(DataError, match="2 files are in the way") as caught:
        checkout(cells, "main", out)
    assert {problem.where for problem in caught.value.problems} == {
        str(out / "train/labels/b.png"),
        str(out / "pairs.csv"),
    }
    assert files_of(out) == changed
    checkout(cells, "~1", out, force=True)
    assert files_of(out) == {**before, "mine.txt": b"mine"}


def test_a_changed_file_that_is_not_wanted_any_more_stays(line, tmp_path):
    cells, _ = line
    out = tmp_path / "out"
    checkout(cells, "~1", out)
    picture(out / "train/images/a.png", 777)
    checkout(cells, "main", out)
    assert (out / "train/images/a.png").exists()
    assert not (out / "train/labels/a.png").exists()


def test_changes_that_were_added_may_be_written_over(line, tmp_path):
    cells, _ = line
    out = tmp_path / "out"
    checkout(cells, "main", out)
    picture(out / "train/labels/b.png", 777)
    fixed = add(cells, out)
    checkout(cells, "~1", out)
    checkout(cells, "main", out)
    assert add(cells, out).version == fixed.version


def test_links_are_never_followed(line, tmp_path):
    cells, _ = line
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (elsewhere / "images").mkdir(parents=True)
    (out / "train").mkdir(parents=True)
    (out / "train" / "images").symlink_to(elsewhere / "images")
    (out / "pairs.csv").symlink_to(elsewhere / "pairs.csv")
    with pytest.raises(DataError, match="are in the way") as caught:
        checkout(cells, "main", out)
    assert [problem.what for problem in caught.value.problems] == [
        "a link lies there, a folder was wanted",
        "a link lies there",
    ]
    assert files_of(elsewhere) == {}
    assert sorted(os.listdir(out)) == [OWN_FOLDER, "pairs.csv", "train"]
    (tmp_path / "real").mkdir()
    (tmp_path / "named").symlink_to(tmp_path / "real")
    checkout(cells, "main", tmp_path / "named")
    assert (tmp_path / "real" / "train" / "images" / "b.png").is_file()


def test_an_interrupted_checkout_can_be_repeated(line, tmp_path, monkeypatch):
    cells, folders = line
    out = tmp_path / "out"
    checkout(cells, "~1", out)
    replace_file = os.replace
    for stop_at in range(8):
        calls = []

        def failing(source, target, stop_at=stop_at, calls=calls):
            if OWN_FOLDER not in str(target):
                calls.append(target)
                if len(calls) > stop_at:
                    raise KeyboardInterrupt
            replace_file(source, target)

        for ref, folder in (("main", folders[1]), ("~1", folders[0])):
            monkeypatch.setattr(os, "replace", failing)
            with suppress(KeyboardInterrupt):
                checkout(cells, ref, out)
            monkeypatch.setattr(os, "replace", replace_file)
            checkout(cells, ref, out)
            found = files_of(out)
            found.pop("pairs.csv")
            assert found == files_of(folder)


def commit(cells, *rows):
    return cells.commit(Contents(Manifest.from_rows(list(rows))), "made by hand", base=cells.head())


def one(key, file):
    return Row(key, {"image": (file,)}, None, None, {}, None, None)


def stored(cells, path, content=b"x"):
    with cells.objects.writer() as writer:
        digest = writer.put(content)
        writer.commit()
    return FileRef(path, "", digest, len(content))


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("../up.png", "leads out of the folder"),
        ("a/../../up.png", "leads out of the folder"),
        ("/etc/passwd", "no path relative to the folder"),
        ("C:/x.png", "no path relative"),
        ("a\\b.png", "no path relative"),
        ("a//b.png", "leads out of the folder, or nowhere"),
        (f"{OWN_FOLDER}/files.json", "is kept"),
        ("x" * 300, "more than 255 bytes"),
        ("x/" * 2500 + "a.png", "longer than the 4095 bytes"),
    ],
)
def test_paths_that_lead_out_or_cannot_be_are_refused(tmp_path, path, what):
    cells = dataset()
    commit(cells, one("a", stored(cells, path)))
    with pytest.raises(DataError, match=what):
        checkout(cells, "", tmp_path / "out")
    assert files_of(tmp_path / "out") == {}
    assert os.listdir(tmp_path) == ["out"]


def test_names_alike_but_for_case_are_reported_before_anything_is_written(tmp_path, monkeypatch):
    cells = dataset()
    made = (one(key, stored(cells, f"{key}.png", key.encode())) for key in "aA")
    commit(cells, *made)
    checkout(cells, "", tmp_path / "apart")
    assert files_of(tmp_path / "apart")["a.png"] == b"a"
    monkeypatch.setattr("useg.data.checkout_plan._tells_case", lambda folder: False)
    with pytest.raises(DataError, match=r"A\.png, a\.png: lie in one place"):
        checkout(cells, "", tmp_path / "together")
    assert files_of(tmp_path / "together") == {}
    assert problems_of_paths(tmp_path, ["é.png", "e\u0301.png"])[0].what.startswith("lie in one place")


def test_a_file_that_is_also_a_folder(tmp_path):
    assert "is a file of this version" in problems_of_paths(tmp_path, ["a", "a/b/c"])[0].what


def test_what_the_home_does_not_have_is_named_and_the_rest_is_there(tmp_path):
    cells = dataset()
    there, gone = stored(cells, "a.png"), FileRef("b.png", "", "0" * 64, 5)
    commit(cells, one("a", there), one("b", gone))
    with pytest.raises(DataError, match=r"1 files could not be had(.|\n)*b\.png"):
        checkout(cells, "", tmp_path / "out")
    assert files_of(tmp_path / "out") == {"a.png": b"x"}


def test_large_files_come_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("useg.home.objects.LOT_BYTES", 10)
    cells = dataset()
    contents = [bytes([65 + n]) * 3000 for n in range(4)]
    commit(cells, *(one(f"{n}", stored(cells, f"{n}.png", content)) for n, content in enumerate(contents)))
    told = []
    checkout(cells, "", tmp_path, progress=lambda done, *, total=None, status="": told.append((done, total)))
    assert [files_of(tmp_path)[f"{n}.png"] for n in range(4)] == contents
    assert told[-1] == (12000, 12000)


def test_masks_of_single_objects_regions_and_parts_read_back(tmp_path):
    import h5py

    root = tmp_path / "data"
    for number in (1, 2):
        picture(root / f"s{number}" / "images" / f"s{number}.png", number)
        for mask in range(3):
            picture(root / f"s{number}" / "masks" / f"m{mask}.png", mask)
    with h5py.File(root / "v.h5", "w") as file:
        file["image"] = np.random.default_rng(0).random((8, 9, 10), np.float32)
        file["mask"] = np.ones((8, 9, 10), np.uint8)
    lines = [
        "image,objects,region,key,group,split,age",
        "s1/images/s1.png,s1/masks/m0.png;s1/masks/m1.png,s1/masks/m2.png,one,p;1,train,5.0",
        'v.h5#image,v.h5#mask,,two,"p, ""2""",val,6.5',
    ]
    (root / "pairs.csv").write_text("\n".join(lines))
    cells = dataset()
    added = add(cells, root)
    out = tmp_path / "out"
    checkout(cells, "", out)
    assert samples_of(out) == samples_of(root)
    assert add(dataset(), out).digest == added.digest


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6).filter(
    lambda text: text == text.strip()
)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(texts, st.none() | texts, st.sampled_from([None, "train", "val", "test"]), st.none() | texts),
        min_size=1,
        max_size=4,
        unique_by=lambda each: each[0],
    )
)
def test_whatever_stands_in_a_pairs_csv_is_read_again(tmp_path_factory, made):
    root = tmp_path_factory.mktemp("pairs")
    (root / "a.png").write_bytes(b"x")
    rows = [
        Row(
            key,
            {"image": (FileRef("a.png", "", "0" * 64, 1),)},
            group,
            split,
            {"said": said} if said else {},
            None,
            None,
        )
        for key, group, split, said in made
    ]
    (root / "pairs.csv").write_bytes(pairs_text(rows).encode())
    found = {s.key: (s.group, s.split, s.metadata.get("said")) for s in read_layout(root).samples}
    assert found == {key: (group, split, said) for key, group, split, said in made}


def test_what_a_pairs_csv_cannot_say(monkeypatch):
    file = (FileRef("a.png", "", "0" * 64, 1),)
    both = [
        Row("a", {"image": file, "label": file}, None, None, {}, None, None),
        Row("b", {"image": file, "objects": file}, None, None, {}, None, None),
    ]
    with pytest.raises(DataError, match="label maps or masks of single objects, not both"):
        pairs_text(both)
    monkeypatch.setattr("useg.data.pairs_text.LONGEST_CELL", 100_000)
    long = FileRef("x" * 100, "", "0" * 64, 1)
    with pytest.raises(DataError, match=r"a cell of a pairs\.csv holds at most"):
        pairs_text([Row("a", {"image": file, "objects": (long,) * 2000}, None, None, {}, None, None)])


def test_going_back_in_the_folder_that_was_added(line):
    cells, folders = line
    work = folders[1]
    before = files_of(work)
    back = checkout(cells, "~1", work)
    # the label of b and classes.toml lie there otherwise; d, which the first version does not have, stays
    assert back.replaced == 1
    assert files_of(work)["train/labels/b.png"] == files_of(folders[0])["train/labels/b.png"]
    assert files_of(work)["train/images/d.png"] == before["train/images/d.png"]
    assert [sample.key for sample in samples_of(work)] == ["train/a", "train/b", "train/c"]
    checkout(cells, "main", work)
    after = files_of(work)
    after.pop("pairs.csv")
    assert after == before


def test_own_tables_and_edits_in_the_folder_that_was_added_are_never_lost(line):
    cells, folders = line
    work = folders[1]
    picture(work / "train/labels/b.png", 777)
    (work / "pairs.csv").write_text("image,label\ntrain/images/b.png,train/labels/b.png\n")
    before = files_of(work)
    with pytest.raises(DataError, match="2 files are in the way") as caught:
        checkout(cells, "~1", work)
    told = {os.path.basename(problem.where): str(problem) for problem in caught.value.problems}
    assert "is your own" in told["pairs.csv"]
    assert "add the folder first" in told["b.png"]
    assert all("--force" in each for each in told.values())
    assert files_of(work) == before


def test_a_table_that_was_edited_and_added_may_be_written_over(line, tmp_path):
    cells, _ = line
    out = tmp_path / "out"
    checkout(cells, "main", out)
    kept = [text for text in (out / "pairs.csv").read_text().splitlines() if "images/d" not in text]
    (out / "pairs.csv").write_text("\n".join([*kept, ""]).replace("\n", "\r\n"))
    assert add(cells, out).samples == 2
    checkout(cells, "~1", out)
    assert len(samples_of(out)) == 3


def test_an_image_laid_beside_a_checkout_is_told_of(line, tmp_path):
    cells, _ = line
    out = tmp_path / "out"
    checkout(cells, "main", out)
    assert add(cells, out).problems == ()
    picture(out / "train/images/new.png", 5)
    picture(out / "train/labels/new.png", 6)
    (told,) = add(cells, out).problems
    assert "not added, as are 1 more" in told.what
    assert told.where == "train/images/new.png"
