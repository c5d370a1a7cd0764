"""Tests of manifests as Parquet files: what is decoded is what was encoded, in any program."""

import io
from dataclasses import replace

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import manifest_samples as samples

from useg.data.manifest import Manifest
from useg.data.manifest_files import MOST_DELTAS
from useg.errors import DamagedFile, InputError


class Objects(dict):
    """Objects of a home, by digest."""

    def store(self, encoded):
        self.update({blake3(blob).hexdigest(): blob for blob in encoded.blobs})
        return self.read(encoded)

    def read(self, encoded):
        return Manifest.decode(self[encoded.base], [self[digest] for digest in encoded.deltas])

    def listed(self, encoded):
        """All digests that the lists of an encoded manifest name."""
        return {self[name][at : at + 32].hex() for name in encoded.lists for at in range(0, len(self[name]), 32)}


def same(a, b):
    """The same samples, also what is derived; a decoded one may have an empty field more."""
    return list(a.rows()) == list(b.rows())


def digests(manifest):
    return {ref.digest for row in manifest.rows() for refs in row.files.values() for ref in refs}


@settings(max_examples=40)
@given(samples.row_lists)
def test_base_comes_back(rows):
    manifest, objects = Manifest.from_rows(rows), Objects()
    encoded = manifest.encode()
    decoded = objects.store(encoded)
    assert decoded.table.equals(manifest.table)
    assert len(decoded) == len(manifest)
    assert decoded.digest() == manifest.digest() == Manifest(decoded.table).digest()
    assert objects.listed(encoded) == digests(manifest)
    assert decoded.encode() == replace(encoded, blobs=())


@given(st.lists(st.tuples(samples.row_lists, st.lists(st.sampled_from("ab日"), max_size=2)), min_size=1, max_size=12))
@settings(max_examples=10)
def test_any_series_of_commits_comes_back(changes):
    objects = Objects()
    base = [samples.sample(f"k{index:02}", n=index) for index in range(60)]
    manifest = Manifest.from_rows(base)
    stored = objects.store(manifest.encode())
    for upsert, removed in changes:
        after = stored.changed(upsert, removed)
        encoded = after.encode(stored)
        assert len(encoded.deltas) <= MOST_DELTAS
        assert {*encoded.names, *encoded.lists} <= set(objects) | {blake3(blob).hexdigest() for blob in encoded.blobs}
        stored = objects.store(encoded)
        assert same(stored, after)
        assert len(stored) == len(after)
        assert stored.digest() == after.digest() == Manifest(stored.table).digest()
        assert digests(after) <= objects.listed(encoded)


def test_small_changes_become_deltas_then_one_then_a_base():
    objects = Objects()
    rows = samples.patients(1000)
    stored = objects.store(Manifest.from_rows(rows).encode())
    bases, counts = [stored.encode().base], []
    for step in range(24):
        upsert = [samples.sample(f"s{index:04}", label=f"{step}") for index in range(step * 12, step * 12 + 12)]
        after = stored.changed(upsert, [f"s{999 - step:04}"])
        encoded = after.encode(stored)
        stored = objects.store(encoded)
        assert same(stored, after)
        bases.append(encoded.base)
        counts.append(len(encoded.deltas))
    assert counts[:10] == [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]
    assert bases.index(bases[-1]) > 15, "deltas of more than a quarter become a base"
    assert len(set(bases)) == 2


def test_nothing_changed_stores_nothing():
    objects = Objects()
    before = objects.store(Manifest.from_rows(samples.patients(50)).encode())
    encoded = Manifest.from_rows(samples.patients(50)).encode(before)
    assert encoded.blobs == ()
    assert encoded == replace(before.encode(), blobs=())


def test_a_manifest_just_encoded_can_be_the_one_before():
    objects = Objects()
    first = Manifest.from_rows(samples.patients(50))
    objects.store(first.encode())
    second = first.changed([samples.sample("s0001")])
    encoded = second.encode(first)
    assert len(encoded.deltas) == 1
    third = second.changed([], ["s0002"])
    objects.store(encoded)
    assert same(objects.store(third.encode(second)), third)


def test_a_field_of_another_type_becomes_a_base():
    objects = Objects()
    before = objects.store(Manifest.from_rows(samples.patients(50)).encode())
    after = before.changed([samples.sample("new", age="old")])
    encoded = after.encode(before)
    assert encoded.deltas == ()
    assert same(objects.store(encoded), after)


def test_few_changes_are_few_bytes():
    before = Manifest.from_rows(samples.patients(2000))
    whole = sum(map(len, before.encode().blobs))
    after = before.changed([replace(row, split="val") for row in before.rows(f"s{n:04}" for n in range(20))])
    assert sum(map(len, after.encode(before).blobs)) < whole / 10


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "base.parquet"
    path.write_bytes(Manifest.from_rows(samples.patients(30)).encode().blobs[0])
    return path


def test_duckdb_opens_it(parquet):
    connection = duckdb.connect()
    found = connection.execute(
        'SELECT key, "group", stain, label[1].path, hex(label[1].digest), image[1].bytes FROM read_parquet(?)'
        " WHERE age = 4",
        [str(parquet)],
    ).fetchall()
    connection.close()
    expected = samples.digest("masks/s0004.png").upper()
    assert found == [("s0004", "p1", "IHC", "masks/s0004.png", expected, 7)]


def test_pandas_opens_it(parquet):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(parquet)
    assert frame.shape[0] == 30
    assert frame["dose"].iloc[8] == 1.0
    assert frame["label"].iloc[3][0]["path"] == "masks/s0003.png"


def test_polars_opens_it(parquet):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(parquet)
    assert frame.height == 30
    assert frame["image"][3][0]["path"] == "images/s0003.png"


def forged(blob, **facts):
    """A manifest's file with other facts about itself."""
    table = pq.read_table(io.BytesIO(blob))
    known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**known, **facts}), sink)
    return sink.getvalue()


def test_a_manifest_from_the_future_is_refused():
    blob = Manifest.from_rows(samples.patients(3)).encode().blobs[0]
    with pytest.raises(InputError, match="format 2; this useg reads up to 1: update useg"):
        Manifest.decode(forged(blob, **{"useg.manifest": "2"}))


def test_other_files_are_refused():
    blob = Manifest.from_rows(samples.patients(3)).encode().blobs[0]
    with pytest.raises(DamagedFile, match="no Parquet"):
        Manifest.decode(blob[:-10])
    with pytest.raises(DamagedFile, match="no Parquet"):
        Manifest.decode(b"")
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), sink)
    with pytest.raises(DamagedFile, match="but is none"):
        Manifest.decode(sink.getvalue())
    facts = {"useg.manifest": "1", "useg.list": "0" * 64}
    with pytest.raises(DamagedFile, match="has the column group as None"):
        Manifest.decode(forged(sink.getvalue(), **facts))
    with pytest.raises(DamagedFile, match="has the column removed"):
        Manifest.decode(blob, [blob])


def test_a_damaged_page_is_an_error_of_ours():
    blob = bytearray(Manifest.from_rows(samples.patients(300)).encode().blobs[0])
    blob[40:400] = bytes(360)
    with pytest.raises(DamagedFile, match="cannot be read"):
        Manifest.decode(bytes(blob)).table  # noqa: B018
