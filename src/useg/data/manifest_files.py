"""A manifest as Parquet files: a base, at most eight deltas, and for each a list of the digests that it names.

The files open as they are in anything that reads Parquet. What useg must know of them stands in their key-value
metadata: `useg.manifest` is the number of the format, `useg.list` the digest of the list that goes with the file,
`useg.version` the digest of the version that the files up to this one make.
A delta holds rows that are new or changed, and for each that is gone a row with `removed`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from useg.data.difference import delta, lower_bound, overlay, with_removed
from useg.data.manifest_digest import digest_bytes
from useg.data.manifest_rows import FIXED, ROLES, TYPES, metadata_names
from useg.errors import DamagedFile, InputError

SCHEMA = 1
MOST_DELTAS = 8
"""One more change, and all deltas become one."""
LARGEST_SHARE = 0.25
"""Deltas with more rows than this share of the base's become a new base."""

_ROWS_A_GROUP = 250_000


@dataclass(frozen=True)
class EncodedManifest:
    """A manifest as objects of a home.

    Attributes:
        base: digest of the base.
        deltas: digests of the deltas, oldest first.
        lists: digests of the lists: objects that are digests of 32 bytes each, one after another.
        blobs: the objects among these that the manifest before did not have.
    """

    base: str
    deltas: tuple[str, ...]
    lists: tuple[str, ...]
    blobs: tuple[bytes, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The objects that a commit must keep alive beside what `lists` name."""
        return (self.base, *self.deltas)


class Files:
    """The Parquet files of one manifest; columns are read when they are asked for.

    Raises:
        DamagedFile: they are not the files of a manifest.
        InputError: a later useg wrote them.
    """

    def __init__(self, base: bytes, deltas: Sequence[bytes]) -> None:
        self._blobs = (base, *deltas)
        self._parts = [_opened(blob) for blob in self._blobs]
        self._metadata = [_facts(part) for part in self._parts]
        self.version = self._metadata[-1].get("useg.version")
        columns: dict[str, pa.DataType] = {}
        for part, is_delta in zip(self._parts, [False] + [True] * len(deltas), strict=True):
            _check_columns(part, columns, is_delta=is_delta)
        self.columns = [*FIXED, *sorted(metadata_names(columns))]
        self.types = columns
        self.base_rows = self._parts[0].metadata.num_rows

    @cached_property
    def encoded(self) -> EncodedManifest:
        """The digests of what was read."""
        base, *deltas = (blake3(blob).hexdigest() for blob in self._blobs)
        lists = dict.fromkeys(facts["useg.list"] for facts in self._metadata)
        return EncodedManifest(base, tuple(deltas), tuple(lists))

    @cached_property
    def touched(self) -> pa.ChunkedArray:
        """The keys that the deltas name, each once."""
        keys = [part.read(["key"])["key"] for part in self._parts[1:]]
        return pa.chunked_array([pc.unique(pa.chunked_array([c for key in keys for c in key.chunks], pa.string()))])

    @cached_property
    def _order(self) -> pa.Array | None:
        """Which rows of the files one after another make the manifest; None if all of the base do."""
        if len(self._parts) == 1:
            return None
        changes = pa.concat_tables([part.read(["key", "removed"]) for part in self._parts[1:]])
        changes = changes.append_column("row", pa.array(np.arange(len(changes))))
        # Of one key the latest row counts.
        changes = changes.sort_by([("key", "ascending"), ("row", "descending")]).combine_chunks()
        keys = changes["key"].combine_chunks()
        latest = np.concatenate([[True], pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)])
        changes = changes.filter(pa.array(latest[: len(keys)].astype(bool)))
        kept, taken, order = overlay(
            self._parts[0].read(["key"])["key"], changes["key"], changes["removed"].to_numpy().astype(bool)
        )
        rows = self.base_rows + changes["row"].to_numpy()[taken]
        return pa.array(np.concatenate([kept, rows])[order])

    def grown(self, encoded: EncodedManifest) -> "Files":
        """The files of the next manifest, of which all that is not in `encoded.blobs` is here."""
        if encoded.names == self.encoded.names:
            return self
        known = dict(zip(self.encoded.names, self._blobs, strict=True))
        known |= {_name(blob): blob for blob in encoded.blobs}
        return Files(known[encoded.base], [known[digest] for digest in encoded.deltas])

    def _type(self, name: str) -> pa.DataType:
        return FIXED.get(name) or self.types[name]

    def __len__(self) -> int:
        return self.base_rows if self._order is None else len(self._order)

    def read(self, names: Iterable[str]) -> pa.Table:
        """Some columns of the manifest, rows in order of key."""
        names = list(names)
        try:
            tables = [self._columns(part, names) for part in self._parts]
        except (pa.ArrowException, OSError) as error:
            raise DamagedFile(f"a file of a manifest cannot be read: {error}") from None
        table = pa.concat_tables(tables).combine_chunks()
        return table if self._order is None else table.take(self._order)

    def _columns(self, part: pq.ParquetFile, names: Sequence[str]) -> pa.Table:
        there = part.read([name for name in names if name in part.schema_arrow.names])
        columns = {
            name: there[name] if name in there.column_names else pa.nulls(part.metadata.num_rows, self._type(name))
            for name in names
        }
        return pa.table(columns).replace_schema_metadata(None)


def encode(table: pa.Table, version: str, previous: Files | None, before: pa.Table | None) -> EncodedManifest:
    """A manifest as files: a delta to the files of the one before where that is small, else a base.

    Args:
        table: all columns, sorted by key.
        version: the digest of the version.
        previous: the files of the manifest before.
        before: its table.
    """
    if previous is not None and before is not None:
        encoded = _as_delta(table, version, previous, before)
        if encoded is not None:
            return encoded
    part, listed = _file(table, version)
    return EncodedManifest(_name(part), (), (_name(listed),), (part, listed))


def _as_delta(table: pa.Table, version: str, previous: Files, before: pa.Table) -> EncodedManifest | None:
    types = {name: table.schema.field(name).type for name in metadata_names(table.column_names)}
    if any(previous.types.get(name, kind) != kind for name, kind in types.items()):
        return None
    change = delta(before, table)
    known = previous.encoded
    if not len(change):
        return EncodedManifest(known.base, known.deltas, known.lists)
    touched = pc.unique(pa.chunked_array([*change["key"].chunks, *previous.touched.chunks]))
    if len(touched) > previous.base_rows * LARGEST_SHARE:
        return None
    if len(known.deltas) < MOST_DELTAS:
        part, listed = _file(change, version)
        lists = tuple(dict.fromkeys((*known.lists, _name(listed))))
        return EncodedManifest(known.base, (*known.deltas, _name(part)), lists, (part, listed))
    wanted = touched.sort()
    places = lower_bound(table["key"], wanted)
    found = places < len(table)
    places[~found] = 0
    there = found & pc.equal(table["key"].take(pa.array(places)), wanted).to_numpy(zero_copy_only=False).astype(bool)
    gone = pa.chunked_array([wanted.filter(pa.array(~there))])
    part, listed = _file(with_removed(table.take(pa.array(places[there])), gone), version)
    return EncodedManifest(known.base, (_name(part),), (known.lists[0], _name(listed)), (part, listed))


def _name(blob: bytes) -> str:
    return str(blake3(blob).hexdigest())


def _file(table: pa.Table, version: str) -> tuple[bytes, bytes]:
    """A table as Parquet, and the list of the digests in it."""
    listed = digest_list(table)
    facts = {"useg.manifest": str(SCHEMA), "useg.list": _name(listed), "useg.version": version}
    sink = pa.BufferOutputStream()
    plain = {f"{role}.list.element.digest" for role in ROLES}
    names = {"key", *(f"{role}.list.element.path" for role in ROLES)}
    leaves = _leaves(table)
    options = {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [leaf for leaf in leaves if leaf not in plain | names],
        "column_encoding": {leaf: "DELTA_BYTE_ARRAY" for leaf in leaves if leaf in names},
        "write_statistics": [leaf for leaf in leaves if leaf not in plain | names],
        "store_schema": False,
    }
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=_ROWS_A_GROUP)
        writer.add_key_value_metadata(facts)
    return sink.getvalue().to_pybytes(), listed


def _leaves(table: pa.Table) -> list[str]:
    """The names of Parquet's columns."""
    leaves = []
    for column in table.schema:
        if column.name in ROLES:
            leaves += [f"{column.name}.list.element.{part.name}" for part in column.type.value_type]
        else:
            leaves.append(f"{column.name}.list.element" if column.name == "shape" else column.name)
    return leaves


def digest_list(table: pa.Table) -> bytes:
    """All digests that a table names, 32 bytes each, each once, in the order of the first sample with it."""
    columns = [chunk.flatten().field("digest") for role in ROLES for chunk in table[role].chunks]
    distinct = pc.unique(pa.chunked_array(columns, pa.binary(32)))
    return digest_bytes(distinct).tobytes()


def _opened(blob: bytes) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(blob))
    except (pa.ArrowException, OSError) as error:
        raise DamagedFile(f"a file of a manifest is no Parquet: {error}") from None


def _facts(part: pq.ParquetFile) -> dict[str, str]:
    found = {
        key.decode(): value.decode() for key, value in (part.metadata.metadata or {}).items() if key.startswith(b"useg")
    }
    number = found.get("useg.manifest", "")
    if not number.isdecimal() or "useg.list" not in found:
        raise DamagedFile("a Parquet file was named as a manifest, but is none")
    if int(number) > SCHEMA:
        raise InputError(f"this manifest has format {number}; this useg reads up to {SCHEMA}: update useg")
    return found


def _check_columns(part: pq.ParquetFile, columns: dict[str, pa.DataType], *, is_delta: bool) -> None:
    """Add a file's free columns to those known."""
    there = {column.name: column.type for column in part.schema_arrow}
    wanted = {**FIXED, "removed": pa.bool_()} if is_delta else FIXED
    for name, kind in wanted.items():
        if name not in there or not there[name].equals(kind):
            raise DamagedFile(f"a file of a manifest has the column {name} as {there.get(name)}, not as {kind}")
    for name in metadata_names(there):
        if there[name] not in TYPES.values() or columns.setdefault(name, there[name]) != there[name]:
            raise DamagedFile(f"a file of a manifest has the column {name} as {there[name]}, which no field can be")
