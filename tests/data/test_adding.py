import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from useg.data.adding import add
from useg.data.intake import Intake
from useg.data.layouts import read_layout
from useg.data.locating import LocatedFile
from useg.data.versions import BothChanged, Dataset
from useg.errors import DataError, InputError
from useg.home.objects import Objects
from useg.home.store import Memory, open_store


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))


def dataset(store=None, name="cells"):
    store = store or Memory()
    return Dataset.open(store, Objects(store), name)


def picture(path, seed=0, side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (side, side), np.uint8)
    cv2.imwrite(str(path), values if "labels" not in str(path) else values % 2)
    return path


def folder(root, names="abc"):
    for seed, name in enumerate(names):
        picture(root / "images" / f"{name}.png", seed)
        picture(root / "labels" / f"{name}.png", seed)
    return root


def old(root):
    """As if the folder had been left alone for a while: digests of what changed just now are not trusted."""
    settled = time.time() - 3600
    for path in root.rglob("*"):
        os.utime(path, (settled, settled))
    return root


def rows(cells, ref=""):
    return {row.key: row for row in cells.contents(cells.resolve(ref)).manifest.rows()}


def test_a_folder_becomes_a_version(tmp_path):
    data = folder(tmp_path / "data")
    (data / "classes.toml").write_text("ignore = [7]\n")
    (data / "notes.txt").write_text("not a sample")
    told = []
    cells = dataset()
    added = add(cells, data, "first", progress=lambda done, *, total=None, status="": told.append((done, total)))
    size = sum(path.stat().st_size for path in data.rglob("*.png"))
    assert (added.samples, added.bytes_read, added.changed) == (3, size, True)
    assert added.bytes_stored > 0
    assert told[-1] == (size, size)
    assert added.digest == cells.resolve().digest
    found = rows(cells)["a"]
    (image,) = found.files["image"]
    assert (image.path, image.part, image.bytes) == ("images/a.png", "", (data / "images/a.png").stat().st_size)
    assert cells.objects.get(image.digest) == (data / "images/a.png").read_bytes()
    assert cells.contents(cells.resolve()).mapping == "ignore = [7]\n"
    assert cells.resolve().message == "first"


def test_the_same_again_is_no_new_version_and_reads_no_more_than_what_changed(tmp_path, monkeypatch):
    data = folder(tmp_path / "data")
    monkeypatch.setattr("useg.data.known_files._SETTLED_NS", 0)
    cells = dataset()
    first = add(cells, data)
    again = add(cells, data)
    assert (again.version, again.changed, again.bytes_read, again.bytes_stored) == (first.version, False, 0, 0)
    picture(data / "labels" / "b.png", seed=50)
    third = add(cells, data)
    changed = (data / "labels" / "b.png").stat().st_size
    assert (third.changed, third.bytes_read) == (True, changed)
    difference = cells.contents(first.version).manifest.diff(cells.contents(third.version).manifest)
    assert list(difference.relabelled) == ["b"]
    # renaming costs no bytes
    (data / "images").rename(data / "imgs")
    fourth = add(cells, data)
    assert fourth.changed
    assert [row.key for row in cells.contents(fourth.version).manifest.rows()] == ["a", "b", "c"]
    # another home lacks the bytes, though their digests are known
    other = dataset()
    assert add(other, data).digest == fourth.digest
    assert other.objects.get(rows(other)["a"].files["image"][0].digest)


def test_what_the_home_knows_beyond_the_folder_stays(tmp_path):
    from useg.data.annotating import set_fields

    data = folder(tmp_path / "data")
    cells = dataset()
    add(cells, data)
    set_fields(cells, {"stain": "HE", "split": "val"}, where="key = 'a'")
    picture(data / "labels" / "b.png", seed=50)
    add(cells, data)
    assert (rows(cells)["a"].metadata["stain"], rows(cells)["a"].split) == ("HE", "val")
    assert not rows(cells)["b"].metadata
    for path in data.rglob("a.png"):
        path.unlink()
    assert set(rows_after(cells, data, keep=True)) == set("abc")
    assert set(rows_after(cells, data, keep=False)) == set("bc")


def rows_after(cells, data, *, keep):
    add(cells, data, keep=keep)
    return rows(cells)


def test_two_who_work_in_their_own_checkouts_lose_nothing(tmp_path):
    from useg.data.checkout import checkout

    cells = dataset()
    first = add(cells, folder(tmp_path / "data", "abcd"))
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    checkout(cells, "", mine)
    checkout(cells, "", theirs)
    picture(mine / "labels" / "a.png", 50)
    (mine / "images" / "d.png").unlink()
    (mine / "labels" / "d.png").unlink()
    drop_line(mine / "pairs.csv", "d,")
    add(cells, mine, "mine")
    picture(theirs / "labels" / "b.png", 60)
    added = add(cells, theirs, "theirs")
    assert added.version != added.own
    assert set(rows(cells, added.own.commit)) == set("abcd")
    found = rows(cells)
    assert set(found) == set("abc")
    for key, root in (("a", mine), ("b", theirs)):
        assert cells.objects.get(found[key].files["label"][0].digest) == (root / f"labels/{key}.png").read_bytes()
    # what was merged is not taken back by adding the same folder again, or after a further fix
    assert not add(cells, theirs).changed
    picture(theirs / "labels" / "c.png", 70)
    add(cells, theirs)
    assert rows(cells)["a"] == found["a"]
    picture(mine / "labels" / "b.png", 80)
    with pytest.raises(BothChanged, match="b: both changed files"):
        add(cells, mine)
    checkout(cells, "", theirs)
    assert not add(cells, theirs).changed
    assert cells.resolve(first.version.commit) == first.version


def test_two_folders_that_were_never_checked_out(tmp_path):
    cells = dataset()
    mine = folder(tmp_path / "mine")
    add(cells, mine)
    theirs = tmp_path / "theirs"
    shutil.copytree(mine, theirs)
    picture(theirs / "labels" / "a.png", 50)
    fixed = add(cells, theirs)
    picture(mine / "labels" / "b.png", 60)
    add(cells, mine)
    assert rows(cells)["a"] == rows(cells, fixed.version.commit)["a"]


def test_a_checkout_of_some_samples_changes_those_alone(tmp_path):
    from useg.data.checkout import checkout

    cells = dataset()
    add(cells, folder(tmp_path / "data", "abcd"))
    out = tmp_path / "out"
    checkout(cells, "", out, where="key in ('a', 'b')")
    picture(out / "labels" / "a.png", 50)
    before = rows(cells)
    drop_line(out / "pairs.csv", "b,")
    add(cells, out)
    after = rows(cells)
    assert set(after) == set("acd")
    assert after["a"] != before["a"]
    assert after["c"] == before["c"]
    (out / ".useg-checkout" / "notes.json").write_text('{"dataset":"","commit":"","where":null,"files":{}}')
    with pytest.raises(DataError, match="was interrupted; repeat it first"):
        add(cells, out)


def drop_line(path, beginning):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(beginning)))


def test_pairs_csv_gives_groups_splits_and_typed_fields(tmp_path):
    data = folder(tmp_path / "data")
    lines = [
        "image,label,group,split,key,age,stain,site",
        "images/a.png,labels/a.png,p1,train,one,30,HE,007",
        "images/b.png,,p2,val,two,4,,008",
    ]
    (data / "pairs.csv").write_text("\n".join(lines) + "\n")
    cells = dataset()
    add(cells, data)
    one, two = rows(cells)["one"], rows(cells)["two"]
    assert (one.group, one.split) == ("p1", "train")
    assert {name: value for name, value in one.metadata.items() if value is not None} == {
        "age": 30,
        "stain": "HE",
        "site": "007",
    }
    assert not two.files.get("label")


def test_files_outside_the_folder_get_a_safe_path(tmp_path):
    data = folder(tmp_path / "here" / "data")
    picture(tmp_path / "here" / "masks" / "a.png", 7)
    picture(tmp_path / "masks" / "a.png", 8)
    lines = ["image,label", "images/a.png,../masks/a.png", f"images/b.png,{tmp_path}/masks/a.png"]
    (data / "pairs.csv").write_text("\n".join(lines))
    cells = dataset()
    add(cells, data)
    paths = [rows(cells)[f"images/{key}"].files["label"][0].path for key in "ab"]
    assert paths == ["outside/masks/a.png", "outside/up/up/masks/a.png"]


def test_parts_of_one_file_store_it_once(tmp_path):
    import h5py

    (tmp_path / "data").mkdir()
    for name in ("x", "y"):
        with h5py.File(tmp_path / "data" / f"{name}.h5", "w") as file:
            file["image"] = np.random.default_rng(0).random((8, 9, 10), np.float32)
            file["label"] = np.ones((8, 9, 10), np.uint8)
    cells = dataset()
    added = add(cells, tmp_path / "data")
    assert added.bytes_read == sum(path.stat().st_size for path in (tmp_path / "data").iterdir())
    files = rows(cells)["x"].files
    assert (files["image"][0].part, files["label"][0].part) == ("image", "label")
    assert files["image"][0].digest == files["label"][0].digest


def test_linked_files_are_not_copied_and_a_changed_one_is_named(tmp_path):
    from useg.data.checkout import checkout

    data = folder(tmp_path / "data")
    cells = dataset()
    added = add(cells, data, link=True)
    assert added.bytes_stored == 0
    assert added.version.summary()["linked"]
    digest = rows(cells)["a"].files["image"][0].digest
    assert cells.objects.has([digest]) == [False]
    copied = add(dataset(), data)
    assert copied.digest == added.digest
    checkout(cells, "", tmp_path / "out")
    assert (tmp_path / "out/images/a.png").read_bytes() == (data / "images/a.png").read_bytes()
    picture(data / "images" / "a.png", seed=99)
    with pytest.raises(DataError, match=r"images/a\.png was changed since it was linked"):
        checkout(cells, "", tmp_path / "other")
    with pytest.raises(InputError, match="give one of the two"):
        add(cells, data, link=True, strip=True)


def test_stripping_while_adding(tmp_path):
    from PIL import Image

    data = tmp_path / "data"
    tags = Image.Exif()
    tags[0x013B] = "Jane Doe"
    picture(data / "labels" / "a.png")
    (data / "images").mkdir()
    Image.new("RGB", (8, 8)).save(data / "images" / "a.jpg", exif=tags)
    cells = dataset()
    added = add(cells, data, strip=True)
    stored = cells.objects.get(rows(cells)["a"].files["image"][0].digest)
    assert b"Jane Doe" in (data / "images/a.jpg").read_bytes()
    assert b"Jane Doe" not in stored
    assert rows(cells)["a"].files["image"][0].bytes == len(stored)
    assert added.left == ()
    assert add(dataset(), data).digest != added.digest
    assert add(cells, data, strip=True).version == added.version


def test_all_problems_are_told_at_once_and_nothing_is_changed(tmp_path):
    data = folder(tmp_path / "data", "abcdef")
    cells = dataset()
    first = add(cells, data)
    secret = picture(tmp_path / "secret.png")
    (data / "images" / "a.png").unlink()
    (data / "images" / "a.png").symlink_to(secret)
    (data / "images" / "b.png").rename(data / "images" / "b;b.png")
    (data / "labels" / "b.png").rename(data / "labels" / "b;b.png")
    for part in ("images", "labels"):
        name = os.fsencode(data / part) + b"/c\xff.png"
        os.rename(data / part / "c.png", name)
    with pytest.raises(DataError, match="5 files cannot be added") as caught:
        add(cells, data)
    said = "\n".join(map(str, caught.value.problems))
    said.encode()
    assert f"a link out of the folder, to {secret}" in said
    assert "(copy the file here, or give --follow-links)" in said
    assert "has a ';' or a backslash" in said
    assert "c\\udcff.png: it is not UTF-8" in said
    assert cells.resolve() == first.version
    (data / "images" / "b;b.png").unlink()
    (data / "labels" / "b;b.png").unlink()
    for part in ("images", "labels"):
        os.unlink(os.fsencode(data / part) + b"/c\xff.png")
    assert add(cells, data, follow_links=True).samples == 4


def test_links_inside_the_folder_are_files_like_others(tmp_path):
    data = folder(tmp_path / "data")
    (data / "images" / "d.png").symlink_to("a.png")
    (data / "labels" / "d.png").symlink_to(data / "labels" / "a.png")
    (tmp_path / "link").symlink_to(data)
    cells = dataset()
    add(cells, tmp_path / "link")
    assert rows(cells)["d"].files["image"][0].digest == rows(cells)["a"].files["image"][0].digest
    (tmp_path / "elsewhere").mkdir()
    folder(tmp_path / "elsewhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "images").symlink_to(tmp_path / "elsewhere" / "images")
    (tmp_path / "other" / "labels").symlink_to(tmp_path / "elsewhere" / "labels")
    with pytest.raises(DataError, match="6 files cannot be added"):
        add(dataset(), tmp_path / "other")


def test_empty_files_and_names_alike_but_for_case_are_added_and_told(tmp_path):
    data = folder(tmp_path / "data", "ab")
    picture(data / "images" / "A.png", 5)
    picture(data / "labels" / "A.png", 5)
    (data / "images" / "b.png").write_bytes(b"")
    cells = dataset()
    added = add(cells, data)
    assert added.samples == 3
    said = [str(problem) for problem in added.problems]
    assert any("images/b.png: the file is empty (0 bytes)" in each for each in said)
    assert any("images/A.png: differs only in case from images/a.png" in each for each in said)
    assert rows(cells)["b"].files["image"][0].bytes == 0
    assert cells.objects.get(rows(cells)["b"].files["image"][0].digest) == b""


def test_paths_that_are_too_long(tmp_path):
    data = folder(tmp_path / "data")
    (data / "pairs.csv").write_text(f"image,label\n{'x/' * 2500}a.png,labels/a.png\n")
    with pytest.raises(DataError, match=r"cannot be read|no such file"):
        add(dataset(), data)


def test_unreadable_files_are_named_together(tmp_path, monkeypatch):
    data = folder(tmp_path / "data")
    gone = {str(data / "images" / "a.png"), str(data / "labels" / "c.png")}
    reading = read_layout(data)
    monkeypatch.setattr("useg.data.adding.read_layout", lambda data: reading)
    for path in gone:
        os.unlink(path)
    cells = dataset()
    with pytest.raises(DataError, match="2 files cannot be added") as caught:
        add(cells, data)
    assert {problem.where for problem in caught.value.problems} == gone
    assert cells.head() is None


@pytest.mark.parametrize("read_whole", [True, False])
def test_a_file_that_changes_while_it_is_read_makes_no_version(tmp_path, monkeypatch, read_whole):
    data = folder(tmp_path / "data")
    prepare = Intake._prepare

    def grown_meanwhile(self: Intake, file: LocatedFile) -> object:
        prepared = prepare(self, file)
        if file.place.endswith("b.png"):
            with open(file.place, "ab") as stream:
                stream.write(b"more")
        return prepared

    monkeypatch.setattr(Intake, "_prepare", grown_meanwhile)
    if not read_whole:
        monkeypatch.setattr("useg.data.intake._SMALL_BYTES", 10)
    cells = dataset()
    with pytest.raises(DataError, match="changed while it was read"):
        add(cells, data)
    assert cells.head() is None


def test_broken_class_files_and_unknown_branches(tmp_path):
    data = folder(tmp_path / "data")
    cells = dataset()
    with pytest.raises(InputError, match="no branch 'trial'"):
        add(cells, data, branch="trial")
    (data / "classes.toml").write_text("this is = = not TOML")
    with pytest.raises(DataError, match="not a TOML file"):
        add(cells, data)
    with pytest.raises(DataError, match="no such file"):
        add(cells, tmp_path / "nowhere")


def test_classes_of_a_described_folder_come_along(tmp_path):
    data = tmp_path / "data"
    picture(data / "imagesTr" / "x_0000.png")
    picture(data / "labelsTr" / "x.png")
    (data / "dataset.json").write_text(
        '{"channel_names": {"0": "T1"}, "labels": {"background": 0, "tumour": 1}, "file_ending": ".png"}'
    )
    cells = dataset()
    add(cells, data)
    assert 'name = "tumour"' in cells.contents(cells.resolve()).mapping


ADDER = """
import sys
from pathlib import Path
from useg.data.adding import add
from useg.data.versions import Dataset
from useg.home.objects import Objects
from useg.home.store import open_store
import useg.data.intake
useg.data.intake._COMMIT_EVERY_BYTES = 20_000
useg.data.intake._LOT_FILES = 2
store = open_store(sys.argv[1])
print("begins", flush=True)
add(Dataset.open(store, Objects(store), "cells"), Path(sys.argv[2]), "second")
"""


@pytest.mark.slow
def test_killed_at_any_moment_everything_earlier_is_there_and_adding_goes_on(tmp_path):
    data = folder(tmp_path / "data")
    home = tmp_path / "home"
    cells = dataset(open_store(home))
    first = add(cells, data)
    kept = {row.key: cells.objects.get(row.files["image"][0].digest) for row in rows(cells).values()}
    for number in range(40):
        picture(data / "images" / f"n{number}.png", number, side=64)
        picture(data / "labels" / f"n{number}.png", number, side=64)
    command = [sys.executable, "-c", ADDER, str(home), str(data)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = 0
    for attempt in range(12):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.02 * attempt)
            process.send_signal(signal.SIGKILL)
        now = dataset(open_store(home))
        assert now.resolve(first.version.commit) == first.version
        for row in rows(now, first.version.commit).values():
            assert now.objects.get(row.files["image"][0].digest) == kept[row.key]
        finished += now.resolve() != first.version
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    last = dataset(open_store(home))
    assert last.resolve().samples == 43
    for row in rows(last).values():
        for (file,) in row.files.values():
            assert last.objects.get(file.digest) == (data / file.path).read_bytes()
    assert finished < 12, "at least one process was killed before its end"
    assert Path(home).is_dir()
