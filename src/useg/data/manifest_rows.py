"""Samples as rows, and the columns that hold them: the same rows give the same table on every machine."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from useg.data.splits import group_hash
from useg.errors import DataError, Problem

Value = str | int | float | bool | None

ROLES = ("image", "label", "objects", "region", "weight")
"""What a file is to its sample; `objects` are masks of one object each."""

FILE_TYPE = pa.struct([("path", pa.string()), ("part", pa.string()), ("digest", pa.binary(32)), ("bytes", pa.int64())])
FIXED: Mapping[str, pa.DataType] = {
    "key": pa.string(),
    "group": pa.string(),
    "split": pa.string(),
    "hash": pa.uint64(),
    "key_hash": pa.uint64(),
    **{role: pa.list_(FILE_TYPE) for role in ROLES},
    "shape": pa.list_(pa.int32()),
    "dtype": pa.string(),
}
"""Columns of every manifest. `hash` is that of the group, or of the key where there is none; `key_hash` is that
of the key where there is a group."""

RESERVED = {*FIXED, "removed"}
TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}

_DIGEST = re.compile("[0-9a-f]{64}")
_MOST_EXACT = 1 << 53


@dataclass(frozen=True)
class FileRef:
    """One file of a sample.

    Attributes:
        path: as the user named it, relative, with forward slashes.
        part: what stands after `#` in `file.h5#dataset` or `clip.mp4#12`; "" for a whole file.
        digest: BLAKE3 of its bytes, as 64 hex characters.
        bytes: its size.
    """

    path: str
    part: str
    digest: str
    bytes: int


@dataclass(frozen=True)
class Row:
    """One sample.

    Attributes:
        key: its name, unique in its version.
        files: by role; a role without files may be left out.
        group: what must not be torn between splits.
        split: the one it was given.
        metadata: free fields; None is the same as not there.
        shape: size over space in px; derived, so not part of the version's digest.
        dtype: of the image; derived.
    """

    key: str
    files: Mapping[str, tuple[FileRef, ...]]
    group: str | None
    split: str | None
    metadata: Mapping[str, Value]
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


def table_of(rows: Iterable[Row]) -> pa.Table:
    """The rows as a table, sorted by key.

    Raises:
        DataError: keys are not unique, fields cannot be kept, or digests are none; all are listed.
    """
    ordered = sorted(rows, key=lambda row: row.key)
    problems = [problem for row in ordered for problem in _wrong(row)]
    problems += [
        Problem(after.key, "this key is there twice", "keys must be unique")
        for before, after in pairwise(ordered)
        if before.key == after.key
    ]
    names = sorted({name for row in ordered for name in row.metadata})
    problems += [
        Problem(name, "this name of a field is taken by a column of every manifest", "rename the field")
        for name in names
        if name in RESERVED or name.partition(".list.")[0] in FIXED
    ]
    if problems:
        raise DataError(f"{len(problems)} problems keep these samples from a manifest", problems)
    keys = [row.key for row in ordered]
    hashes = [group_hash(key) for key in keys]
    columns: dict[str, pa.Array] = {
        "key": pa.array(keys, pa.string()),
        "group": pa.array([row.group for row in ordered], pa.string()),
        "split": pa.array([row.split for row in ordered], pa.string()),
        **_hash_columns([row.group for row in ordered], hashes),
        **{role: _files_column([row.files.get(role, ()) for row in ordered]) for role in ROLES},
        "shape": pa.array([row.shape for row in ordered], FIXED["shape"]),
        "dtype": pa.array([row.dtype for row in ordered], pa.string()),
    }
    for name in names:
        column = typed([row.metadata.get(name) for row in ordered])
        if column is not None:
            columns[name] = column
    return pa.table(columns)


def _wrong(row: Row) -> Iterator[Problem]:
    """What keeps a row from being stored."""
    texts = [row.key, row.group, row.split, row.dtype, *row.metadata]
    texts += [value for value in row.metadata.values() if isinstance(value, str)]
    unknown = sorted(set(row.files) - set(ROLES))
    if unknown:
        yield Problem(_shown(row.key), f"unknown roles of files: {', '.join(unknown)}; wanted {', '.join(ROLES)}")
    for file in (file for files in row.files.values() for file in files):
        texts += [file.path, file.part]
        if not _DIGEST.fullmatch(file.digest):
            yield Problem(_shown(row.key), f"{_shown(file.path)}: {file.digest!r} is no digest")
    if not row.key or "" in row.metadata:
        yield Problem(_shown(row.key), "a key or the name of a field is empty")
    if any(isinstance(value, float) and not isfinite(value) for value in row.metadata.values()):
        yield Problem(_shown(row.key), "a field is infinite or not a number", "leave it out")
    for text in texts:
        if text and not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            yield Problem(_shown(row.key), f"{_shown(text)!r} is not UTF-8")


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:300]


def _hash_columns(groups: Sequence[str | None], key_hashes: Sequence[int]) -> dict[str, pa.Array]:
    of_group = {group: group_hash(group) for group in set(groups) - {None} if group is not None}
    pairs = list(zip(groups, key_hashes, strict=True))
    return {
        "hash": pa.array([own if group is None else of_group[group] for group, own in pairs], pa.uint64()),
        "key_hash": pa.array([None if group is None else own for group, own in pairs], pa.uint64()),
    }


def _files_column(lists: Sequence[Sequence[FileRef]]) -> pa.Array:
    flat = [file for files in lists for file in files]
    fields = [
        pa.array([file.path for file in flat], pa.string()),
        pa.array([file.part for file in flat], pa.string()),
        pa.array([bytes.fromhex(file.digest) for file in flat], pa.binary(32)),
        pa.array([file.bytes for file in flat], pa.int64()),
    ]
    values = pa.StructArray.from_arrays(fields, fields=list(FILE_TYPE))
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array(counts == 0), type=FIXED["image"])


def typed(values: Sequence[Value]) -> pa.Array | None:
    """A field's values as one column: int, float, bool or text; what is mixed is text. None if all are None.

    Whole numbers among decimals become decimals, unless one of them is too large to stay exact.
    """
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return None
    whole = [value for value in values if type(value) is int]
    if kinds == {int, float} and all(-_MOST_EXACT <= value <= _MOST_EXACT for value in whole):
        kinds = {float}
    if kinds == {int} and any(not -(1 << 63) <= value < 1 << 63 for value in whole):
        kinds = {str}
    kind = kinds.pop() if len(kinds) == 1 else str
    if kind is float:
        # 0.0 and -0.0 are equal, so they are one value.
        return pa.array([None if value is None else float(value) + 0.0 for value in values], pa.float64())
    if kind is str:
        return pa.array([None if value is None else text_of(value) for value in values], pa.string())
    return pa.array(values, TYPES.get(kind) or pa.string())


def text_of(value: Value) -> str:
    """A value in a column of texts."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def joined(columns: Sequence[pa.Array]) -> list[pa.Array] | None:
    """Columns of one field, brought to one type as `typed` would; None if there is no value in any."""
    types = {column.type for column in columns if column.null_count < len(column)}
    if not types:
        return None
    if len(types) == 1:
        kind = types.pop()
        return [column if column.type == kind else pa.nulls(len(column), kind) for column in columns]
    values = typed([value for column in columns for value in column.to_pylist()])
    if values is None:
        return None
    bounds = np.cumsum([0, *map(len, columns)]).tolist()
    return [values.slice(start, stop - start) for start, stop in pairwise(bounds)]


def metadata_names(names: Iterable[str]) -> list[str]:
    """The columns that are free fields."""
    return [name for name in names if name not in RESERVED]


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The table's rows, in its order."""
    fields = metadata_names(table.column_names)
    for batch in table.to_batches(max_chunksize=50_000):
        columns = {name: batch.column(name).to_pylist() for name in ("key", "group", "split", "shape", "dtype")}
        metadata = [(name, batch.column(name).to_pylist()) for name in fields]
        files = [(role, _files(batch.column(role))) for role in ROLES]
        files = [(role, lists) for role, lists in files if any(lists)]
        for index in range(len(batch)):
            shape = columns["shape"][index]
            yield Row(
                columns["key"][index],
                {role: lists[index] for role, lists in files if lists[index]},
                columns["group"][index],
                columns["split"][index],
                {name: values[index] for name, values in metadata if values[index] is not None},
                None if shape is None else tuple(shape),
                columns["dtype"][index],
            )


def _files(column: Any) -> list[tuple[FileRef, ...]]:
    if column.null_count == len(column):
        return [()] * len(column)
    flat = column.flatten()
    fields = [flat.field(name).to_pylist() for name in ("path", "part", "digest", "bytes")]
    refs = [FileRef(path, part, digest.hex(), count) for path, part, digest, count in zip(*fields, strict=True)]
    bounds = np.concatenate([[0], np.cumsum(list_lengths(column))]).tolist()
    return [tuple(refs[start:stop]) for start, stop in pairwise(bounds)]


def list_lengths(column: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How many elements each list has; 0 where there is none."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return np.asarray(lengths, np.int64)
