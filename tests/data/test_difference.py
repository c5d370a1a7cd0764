"""Tests of what differs between two versions, against a twin that compares row by row."""

from dataclasses import replace

from hypothesis import given, settings
from tests.data import manifest_samples as samples

from useg.data.difference import Difference, apply_delta, delta, difference
from useg.data.manifest import Manifest


def twin(a, b):
    before, after = ({row.key: row for row in manifest.rows()} for manifest in (a, b))
    both = [key for key in after if key in before]

    def content(row, *roles):
        return [[(file.digest, file.part) for file in row.files.get(role, ())] for role in roles]

    def labels(row):
        return content(row, "label", "objects", "region", "weight")

    def images(row):
        return content(row, "image")

    def rest(row):
        """Everything but contents; names of files only where their number is the same."""
        return row.group, row.split, {name: (type(value), value) for name, value in row.metadata.items()}

    def renamed(x, y):
        return any(
            [(f.path, f.bytes) for f in x.files.get(role, ())] != [(f.path, f.bytes) for f in y.files.get(role, ())]
            and len(x.files.get(role, ())) == len(y.files.get(role, ()))
            for role in samples.ROLES
        )

    pairs = {key: (before[key], after[key]) for key in both}
    return Difference(
        tuple(key for key in after if key not in before),
        tuple(key for key in before if key not in after),
        tuple(key for key, (x, y) in pairs.items() if labels(x) != labels(y)),
        tuple(key for key, (x, y) in pairs.items() if rest(x) != rest(y) or renamed(x, y)),
        tuple(key for key, (x, y) in pairs.items() if images(x) != images(y)),
    )


@settings(max_examples=50)
@given(samples.row_lists, samples.row_lists)
def test_difference_is_that_of_the_twin(a, b):
    before, after = (
        Manifest.from_rows(a),
        Manifest.from_rows([*b, *(r for r in a[:4] if r.key not in {x.key for x in b})]),
    )
    found = difference(before, after)
    assert found == twin(before, after)
    assert bool(found) == (before.digest() != after.digest())
    assert found == before.diff(after)


@settings(max_examples=50)
@given(samples.row_lists)
def test_a_version_differs_not_from_itself(rows):
    manifest = Manifest.from_rows(rows)
    assert not manifest.diff(manifest)
    assert not manifest.diff(Manifest.from_rows(list(reversed(rows))))


@settings(max_examples=50)
@given(samples.row_lists, samples.row_lists)
def test_applying_a_difference_gives_the_other(a, b):
    before, after = Manifest.from_rows(a), Manifest.from_rows(b)
    assert apply_delta(before.table, delta(before.table, after.table)).equals(after.table)
    found = before.diff(after)
    touched = {*found.added, *found.relabelled, *found.metadata, *found.changed}
    assert before.changed(after.rows(sorted(touched)), found.removed).digest() == after.digest()


def test_each_kind_of_change():
    rows = [samples.sample(key, stain="HE") for key in "abcdefg"]
    before = Manifest.from_rows(rows)
    b, c, d, e, f = rows[1:6]
    after = Manifest.from_rows(
        [
            rows[0],
            replace(b, files={**b.files, "label": (samples.file("masks/b.png", "corrected"),)}),
            replace(c, files={**c.files, "image": (samples.file("images/c.png", "retouched"),)}),
            replace(d, metadata={"stain": "IHC"}),
            replace(e, files={**e.files, "image": (samples.file("renamed.png", "images/e.png"),)}),
            replace(f, files={"image": f.files["image"]}),
            samples.sample("new"),
        ]
    )
    found = before.diff(after)
    assert found.added == ("new",)
    assert found.removed == ("g",)
    assert found.relabelled == ("b", "f")
    assert found.changed == ("c",)
    assert found.metadata == ("d", "e")
    assert after.diff(before).removed == ("new",)
    assert after.diff(before).added == ("g",)


def test_a_derived_fact_alone_is_no_difference_but_is_stored():
    row = samples.sample("a")
    before, after = Manifest.from_rows([row]), Manifest.from_rows([replace(row, shape=(5, 6))])
    assert not before.diff(after)
    assert len(delta(before.table, after.table)) == 1
