"""Tests of queries over manifests: what is chosen, for ever, and what is refused."""

import threading
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import manifest_samples as samples

from useg.data import splits
from useg.data.manifest import Manifest
from useg.data.query import query
from useg.data.statistics_join import content_digests
from useg.data.transforms import parse_transforms
from useg.errors import InputError, ResourceError

PATIENTS = Manifest.from_rows(samples.patients(300))
ROWS = {row.key: row for row in PATIENTS.rows()}


def chosen(where, manifest=PATIENTS):
    return list(query(manifest, where).keys)


def by_hand(condition):
    return [key for key, row in ROWS.items() if condition(row)]


@pytest.mark.parametrize(
    ("where", "condition"),
    [
        ("stain = 'HE'", lambda r: r.metadata.get("stain") == "HE"),
        ("STAIN <> 'HE'", lambda r: r.metadata.get("stain") == "IHC"),
        ("not stain = 'HE'", lambda r: r.metadata.get("stain") == "IHC"),
        ("stain is null", lambda r: "stain" not in r.metadata),
        ("stain is not null and age >= 80", lambda r: "stain" in r.metadata and r.metadata["age"] >= 80),
        ("age between 3 and 5 or age in (7, 9)", lambda r: r.metadata["age"] in (3, 4, 5, 7, 9)),
        ("age not in (1, 2) and age < 4", lambda r: r.metadata["age"] in (0, 3)),
        ("good", lambda r: r.metadata["good"]),
        ("good = false", lambda r: not r.metadata["good"]),
        ("good is not true", lambda r: not r.metadata["good"]),
        ("-age * 2 + 1 < -170.5", lambda r: -r.metadata["age"] * 2 + 1 < -170.5),
        ("dose / 0 is null", lambda r: True),
        ("age % 0 = 1", lambda r: False),
        ("10 / age > 5", lambda r: r.metadata["age"] == 1),
        ("age % 10 = 3", lambda r: r.metadata["age"] % 10 == 3),
        ("dose = 0.125", lambda r: r.metadata["dose"] == 0.125),
        ("key like 's00_7'", lambda r: r.key.startswith("s00") and r.key.endswith("7")),
        ("key not like 's0%'", lambda r: False),
        ("split = 'train'", lambda r: r.split == "train"),
        ("group = 'p5' or \"group\" = 'p6'", lambda r: r.group in ("p5", "p6")),
        ("coalesce(group, key) = 's0007'", lambda r: r.key == "s0007"),
        ("lower(stain) = 'ihc'", lambda r: r.metadata.get("stain") == "IHC"),
        ("length(stain) = 2", lambda r: r.metadata.get("stain") == "HE"),
        ("round(dose) = 3", lambda r: 2.5 <= r.metadata["dose"] < 3.5),
        ("regexp_matches(key, '^s00[12]0$')", lambda r: r.key in ("s0010", "s0020")),
        ("split_part(path, '/', 2) = 's0004.png'", lambda r: r.key == "s0004"),
        ("substr(key, 2, 3) = '000'", lambda r: r.key[1:4] == "000"),
        ("cast(substr(key, 2) as int) > 297", lambda r: int(r.key[1:]) > 297),
        ("age::text = '7'", lambda r: r.metadata["age"] == 7),
        ("try_cast(stain as double) is null", lambda r: True),
        ("least(age, 2) = 2", lambda r: r.metadata["age"] >= 2),
        ("files(label) = 1 and files(objects) = 0 and bytes = 7", lambda r: True),
        ("limit 3", lambda r: r.key < "s0003"),
        ("age > 3 limit 2", lambda r: r.key in ("s0004", "s0005")),
        ("age > 3 limit 0", lambda r: False),
        ("null", lambda r: False),
        ("stain = null", lambda r: False),
        ("key in ('s0001', 'it''s')", lambda r: r.key == "s0001"),
    ],
)
def test_what_is_chosen(where, condition):
    assert chosen(where) == by_hand(condition)


def test_the_canonical_text_says_the_same_again():
    for where in (
        "stain='HE'   AND age>3 or NOT good",
        "split('train:0.80,val:.1,test:0.1', seed=7, by=Stain) in ('val', 'test') limit 10",
        "sample(.10, by=group, seed=3)",
        "-age < -3 and age between -5 and 1e3 and age::text not like '%2'",
        "files(label) > 0 and key in ('a''b', 'c')",
    ):
        view = query(PATIENTS, where)
        assert query(PATIENTS, view.where) == view
    assert query(PATIENTS, "AGE>3 and(good)").digest == query(PATIENTS, '"age" > 3 AND good').digest


def test_names_with_quotes_and_cases():
    rows = [samples.sample("a'b\"c", **{'it\'s "odd"': 1, "Stain": "x", "stain": "y", "pixels.cell": 3, "é": "日"})]
    manifest = Manifest.from_rows(rows)
    for where in (
        '"it\'s ""odd""" = 1',
        "stain = 'y'",
        "Stain = 'x'",
        "pixels.cell = 3",
        '"pixels.cell" = 3',
        "é = '日'",
    ):
        assert chosen(where, manifest) == ["a'b\"c"]
    assert chosen("key = 'a''b\"c'", manifest) == ["a'b\"c"]
    with pytest.raises(InputError, match='there are the columns "Stain", "stain"; write one of them in quotes'):
        chosen("STAIN = 'x'", manifest)


def test_split_is_the_frozen_function():
    found = {
        key: part
        for part in ("train", "val", "test")
        for key in chosen(f"split('train:0.8,val:0.1,test:0.1', seed=7) = '{part}'")
    }
    assert sorted(found) == sorted(ROWS)
    for key, row in ROWS.items():
        place = splits.place(row.group or key, 7)
        assert found[key] == ("test" if place < 0.1 else "val" if place < 0.2 else "train")
    fractions = {"train": 0.8, "val": 0.1, "test": 0.1}
    drawn = splits.assign_splits(
        list(ROWS), [r.group for r in ROWS.values()], [None] * 300, fractions=fractions, seed=7
    )
    assert found == dict(zip(ROWS, drawn, strict=True))


def test_choices_are_for_ever():
    """Golden: these keys and digests must never change."""
    assert chosen("split('train:0.8,val:0.1,test:0.1', seed=7) = 'val'") == [
        "s0021",
        "s0022",
        "s0023",
        "s0028",
        "s0081",
        "s0082",
        "s0083",
        "s0085",
        "s0086",
        "s0117",
        "s0118",
        "s0159",
        "s0160",
        "s0175",
        "s0216",
        "s0218",
        "s0252",
        "s0264",
        "s0265",
        "s0280",
    ]
    assert chosen("split('b:0.5,a:0.5', by=stain) = 'a' limit 5") == ["s0011", "s0020", "s0023", "s0032", "s0038"]
    assert chosen("sample(0.02, seed=3)") == ["s0061", "s0078", "s0097", "s0101", "s0194", "s0241"]
    assert chosen("sample(0.1, by=group, seed=3)") == [
        "s0035",
        "s0043",
        "s0044",
        "s0048",
        "s0050",
        "s0057",
        "s0058",
        "s0059",
        "s0072",
        "s0073",
        "s0074",
        "s0096",
        "s0097",
        "s0098",
        "s0099",
        "s0100",
        "s0101",
        "s0102",
        "s0103",
        "s0104",
        "s0111",
        "s0112",
        "s0113",
        "s0169",
        "s0170",
        "s0207",
        "s0208",
        "s0209",
        "s0222",
        "s0223",
        "s0225",
        "s0226",
        "s0227",
        "s0246",
        "s0247",
        "s0248",
        "s0273",
        "s0276",
        "s0277",
        "s0278",
    ]
    view = query(PATIENTS, "stain = 'HE' and sample(0.1, seed=3)", parse_transforms(["resize=256", "merge=3+2:1"]))
    assert view.where == "((\"stain\" = 'HE') and sample(0.1, seed=3))"
    assert view.digest == "0de51869b5125349995b6ecab345a4948f1b7f2e9c263bc39fb20ba6afc9cabc"
    assert query(PATIENTS).digest == "79ce2d111e014df6efaecf0392eea4f7f76f72d06cb6bc0fae229c8e2d135e98"
    assert query(PATIENTS) == query(PATIENTS, "TRUE")
    assert query(PATIENTS).where == "true"
    assert list(query(PATIENTS).keys) == list(ROWS)


SPLIT = "split('train:0.6,val:0.2,test:0.2'{by}, seed={seed}) = '{part}'"


@settings(max_examples=15)
@given(
    st.integers(0, 5),
    st.sampled_from(["", ", by=group", ", by=stain", ", by=age", ", by=dose", ", by=key"]),
    st.integers(1, 299),
)
def test_adding_moves_none_and_no_group_straddles(seed, by, fewer):
    few = Manifest.from_rows(list(ROWS.values())[fewer:])
    seen = {}
    for part in ("train", "val", "test"):
        where = SPLIT.format(by=by, seed=seed, part=part)
        whole = chosen(where)
        assert chosen(where, few) == [key for key in whole if key in list(ROWS)[fewer:]]
        for key in whole:
            row = ROWS[key]
            name = by.removeprefix(", by=") or "group"
            value = {"key": key, "group": row.group}.get(name, row.metadata.get(name))
            assert seen.setdefault(key if value is None else (value,), part) == part
    assert len(seen) > 1


def test_shares_come_out_near_what_was_asked_for_and_sample_is_independent_of_split():
    many = Manifest.from_rows([samples.sample(f"{index:05}") for index in range(4000)])
    test = set(chosen("split('train:0.9,test:0.1') = 'test'", many))
    tenth = set(chosen("sample(0.1)", many))
    assert 320 < len(test) < 480
    assert 320 < len(tenth) < 480
    assert len(test & tenth) < 80
    assert tenth <= set(chosen("sample(0.2)", many)), "a larger sample has the smaller one in it"
    assert len(chosen("sample(1)", many)) == 4000
    assert chosen("sample(0)", many) == []


def test_sample_takes_single_samples_out_of_groups_unless_told_otherwise():
    one = Manifest.from_rows([samples.sample(f"{index:03}", group="only") for index in range(200)])
    assert 5 < len(chosen("sample(0.1)", one)) < 40
    assert len(chosen("sample(0.5, by=group)", one)) in (0, 200)


def test_a_stored_manifest_answers_alike():
    encoded = PATIENTS.encode()
    stored = Manifest.decode(encoded.blobs[0])
    after = stored.changed([samples.sample("s0005", age=7), samples.sample("zz", age=7)], ["s0007"])
    again = Manifest.decode(encoded.blobs[0], [after.encode(stored).blobs[0]])
    for where in ("age = 7", "sample(0.3)", "split('a:0.5,b:0.5', by=age) = 'a'", "path = 'images/zz.png'"):
        assert query(stored, where) == query(PATIENTS, where)
        assert query(again, where) == query(Manifest.from_rows(after.rows()), where)
    assert chosen("age = 7 limit 2", again) == ["s0005", "s0097"]


def test_what_is_derived_from_files():
    rows = [
        samples.Row(
            "a",
            {"image": (samples.file("x/1", size=3), samples.file("y/2", size=4))},
            None,
            None,
            {},
            (5, 6, 7),
            "uint8",
        ),
        samples.Row("b", {}, None, None, {"width": 1.5}, (8, 9), None),
        samples.Row("c", {"objects": (samples.file("o"),) * 3}, None, None, {}),
    ]
    manifest = Manifest.from_rows(rows)
    assert chosen("bytes = 7 and path = 'x/1' and depth = 5 and height = 6 and dtype = 'uint8'", manifest) == ["a"]
    assert chosen("depth is null", manifest) == ["b", "c"]
    assert chosen("height = 8 and width = 1.5", manifest) == ["b"], "a field comes before what is derived"
    assert chosen("path is null and bytes = 0 and files(objects) = 3", manifest) == ["c"]


def test_statistics_join_by_content_and_change_no_version():
    contents = content_digests(PATIENTS)
    counts = pa.table(
        {
            "image": contents["image"].slice(0, 200),
            "label": contents["label"].slice(0, 200),
            "pixels.cell": np.arange(200),
            "objects": np.arange(200) % 5,
        }
    )
    manifest = PATIENTS.with_statistics(counts)
    assert manifest.digest() == PATIENTS.digest()
    assert chosen("objects = 4 and pixels.cell > 190", manifest) == ["s0194", "s0199"]
    assert len(chosen("objects is null", manifest)) == 100
    other = PATIENTS.with_statistics(counts.set_column(3, "objects", pa.array(np.arange(200) % 7)))
    assert query(other, "objects = 4").digest != query(manifest, "objects = 4").digest
    assert query(other, "age = 4").digest == query(manifest, "age = 4").digest == query(PATIENTS, "age = 4").digest
    with pytest.raises(InputError, match="did you mean"):
        chosen("pixels.cel = 1", manifest)
    with pytest.raises(InputError, match="statistics are columns image, label"):
        PATIENTS.with_statistics(counts.drop_columns(["image"]))


def test_contents_of_several_files_and_of_parts_have_a_digest_of_their_own():
    whole, part = samples.file("v.h5"), samples.file("v.h5", part="a")
    rows = [
        samples.Row("a", {"image": (whole,)}, None, None, {}),
        samples.Row("b", {"image": (part,)}, None, None, {}),
        samples.Row("c", {"image": (samples.file("v.h5", part="b"),)}, None, None, {}),
        samples.Row("d", {"image": (whole, whole)}, None, None, {}),
        samples.Row("e", {"image": (samples.file("other name", "v.h5", part="a"),)}, None, None, {}),
    ]
    images = [digest.hex() for digest in content_digests(Manifest.from_rows(rows))["image"].to_pylist()]
    assert images[0] == whole.digest
    assert images[1] == images[4]
    assert len(set(images)) == 4


def test_an_empty_manifest_can_be_asked():
    empty = Manifest.from_rows([])
    for where in ("true", "sample(0.5)", "split('a:0.5,b:0.5') = 'a'", "key = 'x' and bytes > 3 and width = 1", None):
        assert chosen(where, empty) == []
    assert len(content_digests(empty)) == 0


def test_bounds_on_time_and_memory():
    many = Manifest.from_rows([samples.sample(f"{index:06}" + "a" * 500) for index in range(3000)])
    where = " or ".join(f"regexp_matches(key, '(a|b)*{index}(a|ab)*c')" for index in range(400))
    with pytest.raises(ResourceError, match=r"took longer than 0\.2 s"):
        query(many, where, timeout_s=0.2)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and thread.is_alive()]


def test_shares_are_compared_as_whole_numbers():
    from useg.data.query_functions import PLACES, below

    assert below(Fraction(1, 10)) == 900719925474100
    assert below(Fraction(1)) == PLACES
    assert below(Fraction(0)) == 0
