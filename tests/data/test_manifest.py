"""Tests of manifests: rows in, the same rows and the same digest out, whatever the order."""

import random
from dataclasses import replace

import orjson
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import manifest_samples as samples

from useg.data.manifest import FileRef, Manifest, Row
from useg.errors import DataError

GOLDEN = "880da7c5f8bc5f8cf8c3c3711e5828091f3dff9a476588343c8bc2028404c693"
GOLDEN_EMPTY = "81ffd3f25c584268ad8473868be12c04fe09251a7cd2ea95275c0e8d51bb0263"


def twin(rows):
    """The digest, written out as its definition says."""
    hasher = blake3(b"useg version 1\n")
    for row in sorted(rows, key=lambda row: row.key.encode()):
        files = {role: [[f.path, f.part, f.digest, f.bytes] for f in refs] for role, refs in row.files.items() if refs}
        metadata = {name: value for name, value in row.metadata.items() if value is not None}
        record = {"key": row.key, "group": row.group, "split": row.split, "files": files, "metadata": metadata}
        text = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
        hasher.update(len(text).to_bytes(8, "little") + text)
    return hasher.hexdigest()


def stored(rows):
    """Rows as a manifest gives them: without what is empty."""
    return {
        row.key: replace(
            row,
            files={role: files for role, files in row.files.items() if files},
            metadata={name: value for name, value in row.metadata.items() if value is not None},
        )
        for row in rows
    }


def test_version_digest_is_for_ever():
    rows = samples.patients(50)
    assert Manifest.from_rows(rows).digest() == GOLDEN == twin(rows)
    assert Manifest.from_rows([]).digest() == GOLDEN_EMPTY == twin([])


@settings(max_examples=50)
@given(samples.row_lists, st.randoms(use_true_random=False))
def test_digest_is_that_of_the_definition_in_any_order(rows, order):
    manifest = Manifest.from_rows(rows)
    order.shuffle(rows)
    assert Manifest.from_rows(rows).digest() == manifest.digest() == twin(manifest.rows())


@settings(max_examples=50)
@given(samples.row_lists)
def test_rows_come_back_sorted_and_whole(rows):
    manifest = Manifest.from_rows(rows)
    found = list(manifest.rows())
    assert len(manifest) == len(rows)
    assert [row.key.encode() for row in found] == sorted(row.key.encode() for row in rows)
    for row, given_row in zip(found, sorted(stored(rows).values(), key=lambda row: row.key), strict=True):
        assert replace(row, metadata={}) == replace(given_row, metadata={})
        assert set(row.metadata) == set(given_row.metadata)
    assert Manifest.from_rows(found).table.equals(manifest.table)


@settings(max_examples=50)
@given(samples.row_lists, samples.row_lists, st.lists(st.sampled_from('ab"é日𝄞'), max_size=3))
def test_changed_is_as_if_made_anew(rows, upsert, removed):
    manifest = Manifest.from_rows(rows)
    changed = manifest.changed(upsert, removed)
    left = {row.key: row for row in manifest.rows() if row.key not in removed}
    typed = {row.key: row for row in Manifest.from_rows(upsert).rows()}
    expected = Manifest.from_rows({**left, **typed}.values())
    assert changed.table.equals(expected.table)
    assert changed.digest() == expected.digest()


def test_fields_are_typed_by_their_values():
    def field(*values):
        rows = [Row(str(index), {}, None, None, {"x": value}) for index, value in enumerate(values)]
        return [row.metadata.get("x") for row in Manifest.from_rows(rows).rows()]

    assert field(1, None, 3) == [1, None, 3]
    assert list(map(type, field(1, 2.5))) == [float, float]
    assert field(True, None) == [True, None]
    assert field(True, 1) == ["true", "1"]
    assert field(1, 2.5, "a", False) == ["1", "2.5", "a", "false"]
    assert field(2**60, 0.5) == [str(2**60), "0.5"]
    assert field(2**64) == [str(2**64)]
    assert str(field(-0.0)[0]) == "0.0"
    assert field(None, None) == [None, None]


def test_derived_facts_are_no_part_of_the_digest():
    row = samples.sample("a")
    known = replace(row, shape=(3, 4), dtype="uint8")
    assert Manifest.from_rows([row]).digest() == Manifest.from_rows([known]).digest()
    assert next(Manifest.from_rows([known]).rows()) == known


def test_rows_of_keys_in_the_order_asked_for():
    manifest = Manifest.from_rows(samples.patients(20))
    assert [row.key for row in manifest.rows(["s0007", "no", "s0002", "zz"])] == ["s0007", "s0002"]
    assert list(manifest.rows([])) == []
    assert list(Manifest.from_rows([]).rows(["a"])) == []


def test_all_problems_of_rows_are_listed():
    bad = [
        samples.sample("twice"),
        samples.sample("twice"),
        samples.sample("a", split="x", **{"hash": 1}),
        samples.sample("b", nan=float("nan")),
        replace(samples.sample("c"), key="c\udcff"),
        Row("d", {"picture": ()}, None, None, {}),
        Row("e", {"image": (FileRef("p", "", "XYZ", 1),)}, None, None, {}),
        Row("", {}, None, None, {}),
        samples.sample("f", **{"image.list.element.path": 1}),
    ]
    with pytest.raises(DataError) as caught:
        Manifest.from_rows(bad)
    text = str(caught.value)
    for piece in (
        "twice: this key",
        "hash: this name",
        "b: a field is infinite",
        "not UTF-8",
        "unknown roles",
        "no digest",
    ):
        assert piece in text
    assert "is empty" in text
    assert "image.list.element.path: this name" in text


def test_a_field_differing_in_case_alone_is_another_field():
    manifest = Manifest.from_rows([samples.sample("a", Stain="x", stain="y")])
    assert next(manifest.rows()).metadata == {"Stain": "x", "stain": "y"}


def test_many_rows_are_framed_like_few(monkeypatch):
    rows = samples.patients(100)
    random.Random(1).shuffle(rows)
    whole = Manifest.from_rows(rows)
    monkeypatch.setattr("useg.data.manifest_digest._ROWS_AT_ONCE", 7)
    assert Manifest.from_rows(rows).digest() == whole.digest() == twin(rows)
