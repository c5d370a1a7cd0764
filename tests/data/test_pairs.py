"""pairs.csv: what is understood, and that every wrong line is named."""

from pathlib import Path

import pytest

from useg.data.layouts import read_layout
from useg.data.pairs import read_pairs
from useg.errors import DataError


def write(root: Path, text: str, files: str = "", name: str = "pairs.csv", encoding: str = "utf-8") -> Path:
    for path in files.split():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    (root / name).write_text(text, encoding=encoding)
    return root / name


def test_all_columns(tmp_path):
    text = """image,label,region,group,split,key,scanner
a/1.png,b/1.png,r.png,p1,train,first,Zeiss
a/10.png,b/10.png,,p2,validation,,
a/2.png,,,,TEST,,Leica
"""
    write(tmp_path, text, "a/1.png a/2.png a/10.png b/1.png b/10.png r.png stray.png")
    reading = read_layout(tmp_path)
    assert reading.root == str(tmp_path)
    assert [s.key for s in reading.samples] == ["a/2", "a/10", "first"]
    two, ten, first = reading.samples
    assert first.images == (f"{tmp_path}/a/1.png",)
    assert first.labels == (f"{tmp_path}/b/1.png",)
    assert (first.region, first.group, first.split) == (f"{tmp_path}/r.png", "p1", "train")
    assert first.metadata == {"scanner": "Zeiss"}
    assert (ten.split, ten.region, ten.metadata) == ("val", None, {})
    assert (two.labels, two.split, two.group) == ((), "test", None)
    assert "3 samples, 2 of them with labels" in reading.rule


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_byte_order_mark_spaces_and_blank_lines(tmp_path, separator):
    text = separator.join(["Image ", " Label"]) + "\r\n" + separator.join(["é 1.png", "m 1.png"]) + "\r\n\r\n"
    (tmp_path / "é 1.png").write_bytes(b"x")
    (tmp_path / "m 1.png").write_bytes(b"x")
    path = write(tmp_path, text, encoding="utf-8-sig", name="my list.csv")
    (sample,) = read_layout(path).samples
    assert (sample.key, sample.labels) == ("é 1", (f"{tmp_path}/m 1.png",))


def test_channels_and_objects(tmp_path):
    path = write(
        tmp_path,
        "image,objects\nr.tif; g.tif,o/1.png;o/2.png\nx.nii.gz,\n",
        "r.tif g.tif o/1.png o/2.png x.nii.gz",
    )
    several, none = read_pairs(path).samples
    assert several.images == (f"{tmp_path}/r.tif", f"{tmp_path}/g.tif")
    assert several.labels == (f"{tmp_path}/o/1.png", f"{tmp_path}/o/2.png")
    assert several.masks_are_objects
    assert (none.key, none.labels, none.masks_are_objects) == ("x", (), False)


def test_parts_of_files_are_samples_of_their_own(tmp_path):
    text = "image,label\nv.mp4#12,m.tif#0\nv.mp4#3,m.tif#1\nf.h5#a/image,f.h5#a/label\nodd#1.png,m.tif\n"
    path = write(tmp_path, text, "v.mp4 m.tif f.h5 odd#1.png")
    assert [s.key for s in read_pairs(path).samples] == ["f#a/image", "odd#1", "v#3", "v#12"]


def test_paths_are_relative_to_the_file_or_absolute(tmp_path):
    (tmp_path / "sub").mkdir()
    text = f"image,label\n../i.png,{tmp_path}/m.png\n"
    path = write(tmp_path / "sub", text)
    for name in ("i.png", "m.png"):
        (tmp_path / name).write_bytes(b"x")
    (sample,) = read_pairs(path).samples
    assert sample.labels == (f"{tmp_path}/m.png",)
    assert Path(sample.images[0]).resolve() == (tmp_path / "i.png").resolve()


def test_all_wrong_lines_are_named_together(tmp_path):
    text = """image,label,split,key
i.png,m.png,train,
i.png,gone.png,,other
,m.png,,
i.png,m.png;m2.png,later,third
i.png,m.png,,other
"""
    with pytest.raises(DataError, match="5 problems") as caught:
        read_pairs(write(tmp_path, text, "i.png m.png m2.png"))
    said = [(problem.where.rpartition(" ")[2], problem.what) for problem in caught.value.problems]
    assert said[0] == ("3", f"gone.png: there is no such file in {tmp_path}")
    assert said[1] == ("4", "the `image` cell is empty")
    assert said[2] == ("5", "2 files in `label`, which holds one label map")
    assert said[3] == ("5", "the split 'later' is unknown")
    assert said[4] == ("6", "the key 'other' stands already in line 3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns, `image` among them; it has: nothing"),
        ("picture,label\na,b\n", "it has: picture, label"),
        ("image,label,Label\na,b,c\n", "'label' stands twice"),
        ("image,label,objects\na,b,c\n", "not both"),
        ("image,label\n", "no line names an image"),
        ("image,label\ni.png\ni.png,m.png,x\n", "2 problems in this file"),
        ('image,label\n"i.png,m\0.png\n', "pairs.csv"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_pairs(write(tmp_path, text, "i.png m.png"))


def test_other_encodings_are_refused_with_the_place(tmp_path):
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 12\)"):
        read_pairs(write(tmp_path, "image,label\né.png,a.png\n", encoding="latin-1"))
