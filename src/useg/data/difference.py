"""What differs between two versions, as keys for people and as rows for storage; and one made from the other.

Everything here works on whole columns of tables that are sorted by key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from useg.data.manifest_rows import FIXED, ROLES, joined, list_lengths, metadata_names

if TYPE_CHECKING:
    from useg.data.manifest import Manifest

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Difference:
    """Keys of samples, each list in order; a sample may be in several of the last three.

    Attributes:
        added: only in the second version.
        removed: only in the first.
        relabelled: labels, masks of objects, regions or weights have other contents.
        metadata: group, split, fields, or the names of files differ.
        changed: images have other contents.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.relabelled, self.metadata, self.changed))


def difference(before: "Manifest", after: "Manifest") -> Difference:
    """What differs between two versions; empty exactly when their digests are equal."""
    compared = _compare(before.table, after.table)
    keys = after.table["key"]

    def named(kind: str) -> tuple[str, ...]:
        return tuple(keys.filter(pa.array(compared.differs(kind))).to_pylist())

    return Difference(
        added=tuple(keys.take(pa.array(compared.added)).to_pylist()),
        removed=tuple(before.table["key"].take(pa.array(compared.removed)).to_pylist()),
        relabelled=named("labels"),
        metadata=named("metadata"),
        changed=named("images"),
    )


def delta(before: pa.Table, after: pa.Table) -> pa.Table:
    """The rows of `after` that are not the same in `before`, and a row with `removed` for each that is gone."""
    compared = _compare(before, after)
    touched = compared.differs(*compared.masks)
    touched[compared.added] = True
    return with_removed(after.filter(pa.array(touched)), before["key"].take(pa.array(compared.removed)))


def with_removed(rows: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    """A delta of rows that are new or changed, and the keys of those that are gone; sorted by key."""
    gone = pa.table({"key": keys.cast(pa.string()), "removed": pa.repeat(True, len(keys))})
    there = rows.append_column("removed", pa.repeat(False, len(rows)))
    return pa.concat_tables([there, gone], promote_options="default").sort_by("key").combine_chunks()


def apply_delta(before: pa.Table, change: pa.Table) -> pa.Table:
    """The table that `delta` was made for; columns of fields get the type that suits all values."""
    kept, taken, order = overlay(before["key"], change["key"], change["removed"].to_numpy())
    old, new = before.take(pa.array(kept)), change.take(pa.array(taken))
    columns: dict[str, pa.Array] = {}
    for name in [*FIXED, *_fields(before, change)]:
        parts = [_column(old, name), _column(new, name)]
        typed = parts if name in FIXED else joined(parts)
        if typed is not None:
            columns[name] = pa.concat_arrays(typed).take(pa.array(order))
    return pa.table(columns)


def overlay(keys: pa.ChunkedArray, changed: pa.ChunkedArray, removed: Mask) -> tuple[Numbers, Numbers, Numbers]:
    """How sorted rows change by a delta.

    Returns:
        Which rows stay, which of the delta are taken, and the order by key of the one after the other.
    """
    places = lower_bound(keys, changed)
    inside = np.flatnonzero(places < len(keys))
    found = keys.take(pa.array(places[inside]))
    same = pc.equal(found, changed.take(pa.array(inside))).to_numpy().astype(bool)
    stays = np.ones(len(keys), bool)
    stays[places[inside[same]]] = False
    kept, taken = np.flatnonzero(stays), np.flatnonzero(~removed)
    before = np.concatenate([[0], np.cumsum(stays)])[places[taken]]
    order = np.insert(np.arange(len(kept)), before, len(kept) + np.arange(len(taken)))
    return kept, taken, order.astype(np.int64)


def lower_bound(keys: pa.ChunkedArray, wanted: pa.ChunkedArray) -> Numbers:
    """Where in the sorted keys each wanted one stands, or would stand."""
    whole = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    low = np.zeros(len(wanted), np.int64)
    high = np.full(len(wanted), len(whole), np.int64)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        probe = whole.take(pa.array(np.minimum(middle, len(whole) - 1)))
        smaller = pc.less(probe, wanted).to_numpy(zero_copy_only=False).astype(bool)
        low = np.where(open_ & smaller, middle + 1, low)
        high = np.where(open_ & ~smaller, middle, high)
    return low


def _fields(*tables: pa.Table) -> list[str]:
    return sorted({name for table in tables for name in metadata_names(table.column_names)})


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        return pa.nulls(len(table), FIXED.get(name, pa.null()))
    return table[name].combine_chunks()


@dataclass
class _Compared:
    """Rows in the order of the second table; `at` are its rows that the first has too."""

    size: int
    added: Numbers
    removed: Numbers
    at: Numbers
    masks: dict[str, Mask] = field(default_factory=dict)

    def note(self, kind: str, unequal: Mask) -> None:
        known = self.masks.get(kind)
        self.masks[kind] = unequal if known is None else known | unequal

    def differs(self, *kinds: str) -> Mask:
        """Which rows of the second table differ from the first in this."""
        mask = np.zeros(self.size, bool)
        for kind in kinds:
            if kind in self.masks:
                mask[self.at] |= self.masks[kind]
        return mask


def _compare(before: pa.Table, after: pa.Table) -> _Compared:
    if before["key"].equals(after["key"]):
        compared = _Compared(len(after), *(np.zeros(0, np.int64),) * 2, np.arange(len(after)))
    else:
        found = pc.index_in(after["key"], before["key"].combine_chunks())
        place = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        at = np.flatnonzero(place >= 0)
        gone = np.ones(len(before), bool)
        gone[place[at]] = False
        compared = _Compared(len(after), np.flatnonzero(place < 0), np.flatnonzero(gone), at)
        before, after = before.take(pa.array(place[at])), after.take(pa.array(at))
    for role in ROLES:
        content, names = _unequal_files(_column(before, role), _column(after, role))
        compared.note("images" if role == "image" else "labels", content)
        compared.note("metadata", names)
    for name in ["group", "split", *_fields(before, after)]:
        compared.note("metadata", _unequal(_column(before, name), _column(after, name)))
    compared.note("derived", _unequal(_column(before, "dtype"), _column(after, "dtype")))
    compared.note("derived", _unequal_lists(_column(before, "shape"), _column(after, "shape"), [None])[0])
    return compared


def _unequal(a: pa.Array, b: pa.Array) -> Mask:
    """Where two columns differ; nothing equals nothing, and values of two types differ."""
    if a.equals(b):
        return np.zeros(len(a), bool)
    a_null, b_null = _flags(pc.is_null(a)), _flags(pc.is_null(b))
    if a.type != b.type:
        return ~(a_null & b_null)
    return np.where(a_null | b_null, a_null != b_null, _flags(pc.fill_null(pc.not_equal(a, b), False)))


def _unequal_files(a: pa.Array, b: pa.Array) -> tuple[Mask, Mask]:
    """Where contents differ, and where only names do."""
    content, names = _unequal_lists(a, b, ["digest", "part"]), _unequal_lists(a, b, ["path"])
    return content[0] | content[1], names[0] & ~names[1]


def _unequal_lists(a: pa.Array, b: pa.Array, fields: Sequence[str | None]) -> tuple[Mask, Mask]:
    """Where a field of any element differs, and where the numbers of elements do (then the first, too)."""
    a_lengths, b_lengths = list_lengths(a), list_lengths(b)
    uneven: Mask = a_lengths != b_lengths
    unequal = uneven.copy()
    if uneven.any():
        even = pa.array(~uneven)
        a, b = a.filter(even), b.filter(even)
    rows = np.repeat(np.flatnonzero(~uneven), a_lengths[~uneven])
    a_flat, b_flat = a.flatten(), b.flatten()
    for name in fields:
        pair = (a_flat, b_flat) if name is None else (a_flat.field(name), b_flat.field(name))
        unequal[rows[_unequal(*pair)]] = True
    return unequal, uneven


def _flags(values: pa.Array) -> Mask:
    return np.asarray(values.to_numpy(zero_copy_only=False)).astype(bool)
