import pytest

from useg.data.annotating import annotate, set_fields
from useg.data.manifest import FileRef, Manifest, Row
from useg.data.versions import Contents, Dataset
from useg.errors import DataError, InputError
from useg.home.objects import Objects
from useg.home.store import Memory


@pytest.fixture
def cells():
    store = Memory()
    found = Dataset.open(store, Objects(store), "cells")
    image = (FileRef("a.png", "", "0" * 64, 1),)
    rows = [
        Row(key, {"image": image}, None, None, {"age": age}, None, None)
        for key, age in zip("abc", (1, 2, 3), strict=True)
    ]
    found.commit(Contents(Manifest.from_rows(rows), "mapping"), "first", base=None)
    return found


def fields(cells, name):
    rows = cells.contents(cells.resolve()).manifest.rows()
    return [getattr(row, name) if name in ("group", "split") else row.metadata.get(name) for row in rows]


def test_fields_are_set_where_a_query_says(cells):
    done = set_fields(cells, {"stain": "HE", "split": "val", "score": "0.5"}, where="age >= 2")
    assert done.changed == 2
    assert fields(cells, "stain") == [None, "HE", "HE"]
    assert fields(cells, "split") == [None, "val", "val"]
    assert fields(cells, "score") == [None, 0.5, 0.5]
    assert done.version.message == "set stain=HE, split=val, score=0.5 where age >= 2"
    assert done.version.mapping == "mapping"
    before = cells.contents(cells.resolve("~1")).manifest
    assert sorted(before.diff(cells.contents(done.version).manifest).metadata) == ["b", "c"]


def test_setting_the_same_is_no_version_and_empty_takes_away(cells):
    first = cells.resolve()
    assert set_fields(cells, {"age": "1"}, where="key = 'a'").changed == 0
    assert cells.resolve() == first
    assert set_fields(cells, {"age": ""}).changed == 3
    assert fields(cells, "age") == [None, None, None]
    assert set_fields(cells, {"age": "old"}, where="key = 'a'").changed == 1
    assert fields(cells, "age") == ["old", None, None]


def test_a_field_keeps_its_type(cells):
    with pytest.raises(DataError, match="age=old: the samples that keep their value have whole numbers"):
        set_fields(cells, {"age": "old"}, where="key = 'a'")
    set_fields(cells, {"weight_kg": "1.5"}, where="key = 'a'")
    set_fields(cells, {"weight_kg": "2"}, where="key = 'b'")
    assert fields(cells, "weight_kg") == [1.5, 2.0, None]
    set_fields(cells, {"site": "north"}, where="key = 'a'")
    set_fields(cells, {"site": "7"}, where="key = 'b'")
    assert fields(cells, "site") == ["north", "7", None]


@pytest.mark.parametrize(
    ("assignments", "what"),
    [
        ({"key": "x"}, "what a sample is made of"),
        ({"image": "x"}, "what a sample is made of"),
        ({"a,b": "x"}, "cannot be the name of a field"),
        ({"split": "somewhere"}, "a split is train, val, test"),
        ({"note": "two\nlines"}, "control characters"),
    ],
)
def test_fields_that_cannot_be_given(cells, assignments, what):
    with pytest.raises(DataError, match=what):
        set_fields(cells, assignments)


def test_annotating_by_a_csv(cells, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("key;stain;count;group\na;HE;007;p1\nc;;12;p2\n")
    done = annotate(cells, table)
    assert done.changed == 2
    assert fields(cells, "stain") == ["HE", None, None]
    assert fields(cells, "count") == ["007", None, "12"]
    assert fields(cells, "group") == ["p1", None, "p2"]
    assert done.version.message == "annotate by table.csv"
    assert annotate(cells, table).changed == 0


def test_csvs_that_cannot_be_used(cells, tmp_path):
    table = tmp_path / "table.csv"
    for text, what in (
        ("name,stain\na,HE\n", "`key` among them"),
        ("", "it has: nothing"),
        ("key,stain\na,HE\nx,HE\ny,HE\n", "2 lines name no sample"),
        ("key,stain\na,HE,1\na\na,PAS\na,PAS\n", "3 problems in this file"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=what):
            annotate(cells, table)
    table.write_bytes(b"key\n\xff\n")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 4\); save it as CSV in UTF-8"):
        annotate(cells, table)
    assert len(cells.log()) == 1
    with pytest.raises(InputError, match="no branch, tag or digest"):
        set_fields(cells, {"a": "b"}, branch="nowhere")
