"""Canonical rows and the digest of a version: the same for equal samples, whatever their order or storage.

A canonical row is the JSON of {"files": {role: [[path, part, digest, bytes], ...]}, "group", "key", "metadata",
"split"} with sorted keys, without blanks, in UTF-8, as orjson writes it; roles without files and fields without
a value are left out. The digest is BLAKE3 over `useg version 1`, a line feed, and the canonical rows sorted by
the bytes of their keys, each after its length as 8 bytes, little-endian. This is for ever: golden tests pin it.
"""

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from useg.data.manifest_rows import ROLES, list_lengths, metadata_names

VERSION_DOMAIN = b"useg version 1\n"

_ROWS_AT_ONCE = 500_000
_ESCAPED = '["\\\\\\x00-\\x1f]'
_HEX = np.frombuffer(b"".join(b"%02x" % value for value in range(256)), np.uint16)


def version_digest(table: pa.Table) -> str:
    """The digest of a version whose rows, sorted by key, are those of `table`."""
    hasher = blake3(VERSION_DOMAIN)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        rows = canonical_rows(table.slice(start, _ROWS_AT_ONCE))
        lengths = pc.binary_length(rows).to_numpy().astype("<u8")
        lengths_as_bytes = _fixed(lengths.view(np.uint8), 8)
        framed = pc.binary_join_element_wise(lengths_as_bytes, rows, pa.scalar(b"", pa.large_binary()))
        offsets = np.frombuffer(framed.buffers()[1], np.int64, len(framed) + 1, framed.offset * 8)
        hasher.update(memoryview(framed.buffers()[2])[offsets[0] : offsets[-1]])
    return str(hasher.hexdigest())


def canonical_rows(table: pa.Table) -> pa.Array:
    """The canonical row of every row of the table."""
    batch = table.combine_chunks()
    size = len(batch)
    files = [_role(name, _whole(batch[name])) for name in ROLES]
    fields = [_field(name, _whole(batch[name])) for name in sorted(metadata_names(batch.column_names))]
    parts = [
        _large('{"files":{'),
        *_members(files, size),
        _large('},"group":'),
        json_texts(_whole(batch["group"])),
        _large(',"key":'),
        json_texts(_whole(batch["key"])),
        _large(',"metadata":{'),
        *_members(fields, size),
        _large('},"split":'),
        json_texts(_whole(batch["split"])),
        _large("}"),
    ]
    return pc.cast(_concatenated(parts), pa.large_binary())


def json_texts(column: pa.Array) -> pa.Array:
    """Every value as JSON, as orjson writes it."""
    if pa.types.is_string(column.type):
        quoted = _concatenated([_large('"'), pc.cast(column, pa.large_string()), _large('"')])
        special = pc.fill_null(pc.match_substring_regex(column, _ESCAPED), False)
        if pc.any(special).as_py():
            texts = [orjson.dumps(value).decode() for value in column.filter(special).to_pylist()]
            quoted = pc.replace_with_mask(quoted, special, pa.array(texts, pa.large_string()))
    elif pa.types.is_floating(column.type):
        distinct = column.dictionary_encode()
        texts = [orjson.dumps(value).decode() for value in distinct.dictionary.to_pylist()]
        quoted = pa.array(texts, pa.large_string()).take(distinct.indices)
    else:
        quoted = pc.cast(column, pa.large_string())
    return pc.fill_null(quoted, _large("null"))


def _members(members: list[pa.Array], size: int) -> list[pa.Array]:
    """Members of a JSON object, each "" where it is left out, with a comma between any two that are there."""
    before = np.zeros(size, bool)
    spaced = []
    for member in members:
        there = pc.not_equal(member, _large("")).to_numpy(zero_copy_only=False)
        spaced += [pc.if_else(pa.array(there & before), _large(","), _large("")), member]
        before |= there
    return spaced


def _field(name: str, column: pa.Array) -> pa.Array:
    value = _concatenated([_large(orjson.dumps(name).decode() + ":"), json_texts(column)])
    return pc.if_else(pc.is_null(column), _large(""), value)


def _role(name: str, column: pa.Array) -> pa.Array:
    size = len(column)
    if column.null_count == size:
        return pa.repeat(_large(""), size)
    files = column.flatten()
    digests = files.field("digest")
    elements = _concatenated(
        [
            _large("["),
            json_texts(files.field("path")),
            _large(","),
            json_texts(files.field("part")),
            _large(',"'),
            _fixed(_HEX[digest_bytes(digests)].view(np.uint8), 64, pa.large_string()),
            _large('",'),
            json_texts(files.field("bytes")),
            _large("]"),
        ]
    )
    lengths = list_lengths(column)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    lists = pc.binary_join(pa.LargeListArray.from_arrays(offsets, elements), _large(","))
    value = _concatenated([_large(f'"{name}":['), lists, _large("]")])
    return pc.if_else(pa.array(lengths == 0), _large(""), value)


def digest_bytes(digests: pa.Array) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The bytes of a column of digests, 32 each."""
    width = 32
    start = digests.offset * width
    return np.frombuffer(digests.buffers()[1], np.uint8, len(digests) * width, start)


def _fixed(content: "np.ndarray[Any, np.dtype[np.uint8]]", width: int, kind: pa.DataType | None = None) -> pa.Array:
    """Texts of one width, from their bytes one after another."""
    count = content.size // width
    offsets = np.arange(count + 1, dtype=np.int64) * width
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(content))]
    return pa.Array.from_buffers(kind or pa.large_binary(), count, buffers)


def _large(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def _concatenated(parts: list[pa.Array | pa.Scalar]) -> pa.Array:
    return pc.binary_join_element_wise(*parts, _large(""))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
