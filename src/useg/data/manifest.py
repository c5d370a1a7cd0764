"""One version of a data set: its samples as an immutable table, its digest, and how it is stored."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from useg.data.difference import Difference, apply_delta, difference, lower_bound, with_removed
from useg.data.manifest_digest import version_digest
from useg.data.manifest_files import EncodedManifest, Files, encode
from useg.data.manifest_rows import FileRef, Row, metadata_names, rows_of, table_of

__all__ = ["Difference", "EncodedManifest", "FileRef", "Manifest", "Row"]


class Manifest:
    """The samples of one version, sorted by the bytes of their keys; see `from_rows` and `decode`.

    Columns: those in `manifest_rows.FIXED`, and one for each free field, typed by its values.
    """

    def __init__(self, table: pa.Table | None, files: Files | None = None) -> None:
        self._table, self._files = table, files
        self._digest = files.version if files is not None else None
        self._encoded: EncodedManifest | None = None
        self.statistics: pa.Table | None = None

    @classmethod
    def from_rows(cls, rows: Iterable[Row]) -> "Manifest":
        """The manifest of these samples, in any order.

        Raises:
            DataError: keys are not unique, or something cannot be stored; all problems are listed.
        """
        return cls(table_of(rows))

    @classmethod
    def decode(cls, base: bytes, deltas: Sequence[bytes] = ()) -> "Manifest":
        """The manifest that `encode` stored as these objects. Columns are read when they are needed.

        Raises:
            DamagedFile: they are none.
            InputError: a later useg wrote them.
        """
        return cls(None, Files(base, deltas))

    def __len__(self) -> int:
        if self._table is not None or self._files is None:
            return len(self.table)
        return len(self._files)

    @property
    def table(self) -> pa.Table:
        """All columns."""
        if self._table is None:
            self._table = self.columns(self.column_names)
        return self._table

    @property
    def column_names(self) -> list[str]:
        """The columns, fixed ones first. A field that no sample has any more may still be there, empty."""
        if self._table is not None or self._files is None:
            return list(self.table.column_names)
        return self._files.columns

    @property
    def field_types(self) -> dict[str, pa.DataType]:
        """The columns that are free fields, and their types."""
        if self._table is None and self._files is not None:
            return dict(self._files.types)
        return {name: self.table.schema.field(name).type for name in metadata_names(self.column_names)}

    def columns(self, names: Iterable[str]) -> pa.Table:
        """Some of the columns; others are not read."""
        if self._table is not None or self._files is None:
            return self.table.select(list(names))
        return self._files.read(names)

    def rows(self, keys: Iterable[str] | None = None) -> Iterator[Row]:
        """The samples in order of key, or those of these keys in their order; keys that are not there are left out."""
        table = self.table
        if keys is not None:
            wanted = pa.array(keys, pa.string())
            place = lower_bound(table["key"], wanted)
            inside = np.flatnonzero(place < len(table))
            found = table["key"].take(pa.array(place[inside])).combine_chunks()
            same = pc.equal(found, wanted.take(pa.array(inside))).to_numpy(zero_copy_only=False).astype(bool)
            table = table.take(pa.array(place[inside][same]))
        return rows_of(table)

    def digest(self) -> str:
        """The version's digest; it depends on the samples alone, see `manifest_digest`."""
        if self._digest is None:
            self._digest = version_digest(self.table)
        return self._digest

    def changed(self, upsert: Iterable[Row], removed: Iterable[str] = ()) -> "Manifest":
        """The manifest without some samples, and with these in place of those of the same key.

        Raises:
            DataError: as `from_rows`.
        """
        rows = table_of(upsert)
        gone = pa.array(sorted(set(removed) - set(rows["key"].to_pylist())), pa.string())
        if not len(rows) and not len(gone):
            return self
        return Manifest(apply_delta(self.table, with_removed(rows, pa.chunked_array([gone]))))

    def diff(self, other: "Manifest") -> Difference:
        """What has changed from this version to the other, as keys of samples."""
        return difference(self, other)

    def encode(self, previous: "Manifest | None" = None) -> EncodedManifest:
        """The manifest as objects of a home; one that was decoded is in its home already.

        Args:
            previous: the version before. If it is stored (it was decoded or encoded), only a delta to it is made
                where that is small.
        """
        if self._encoded is None and self._files is not None:
            self._encoded = self._files.encoded
        if self._encoded is None:
            files = None if previous is None else previous._files
            before = None if previous is None or files is None else previous.table
            self._encoded = encode(self.table, self.digest(), files, before)
            new = Files(self._encoded.blobs[0], ()) if self._encoded.blobs and not self._encoded.deltas else None
            self._files = new if new or files is None else files.grown(self._encoded)
        return self._encoded

    def with_statistics(self, table: pa.Table) -> "Manifest":
        """The same manifest with further columns for queries.

        Args:
            table: columns `image` and `label`, see `content_digests`, and one for each statistic. They belong to
                contents, so they are no part of the version and its digest.
        """
        from useg.data.statistics_join import aligned

        other = Manifest(self._table, self._files)
        other._digest, other.statistics = self._digest, aligned(self, table)
        return other
