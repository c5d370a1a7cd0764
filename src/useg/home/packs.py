"""Stored objects in one file, a pack, and the tables that say where each of them lies, as bytes.

    pack      stored objects one after another | rows | 16 random bytes | check | length of these three | USEGPACK1
    segment   USEGINDX1 | number of packs | their digests | rows, each with the number of its pack

A row is digest, kind, offset, stored length, length. Numbers are little-endian; a check is the beginning of a BLAKE3
digest. The random bytes give every pack a name of its own: what was deleted under a name never comes back under it. A
pack without the last nine bytes is one raw object, and its name is the digest of that.
"""

import secrets
import struct
import threading
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from useg.errors import DamagedFile, InputError

RAW, ZSTD, CHUNKS = 0, 1, 2
"""Kinds of stored objects: as they are; one zstd frame; digests and lengths of the chunks that make up the object."""
PACK_BYTES = 64 * 2**20

PACKED = np.dtype([("digest", "<u8", (4,)), ("kind", "u1"), ("offset", "<u8"), ("stored", "<u8"), ("length", "<u8")])
PLACED = np.dtype([*((name, PACKED[name]) for name in PACKED.names or ()), ("pack", "<u4")])
Rows = NDArray[Any]
Words = NDArray[np.uint64]
"""Digests as numbers, four to a digest."""

_PACK_MAGIC, _INDEX_MAGIC = b"USEGPACK1", b"USEGINDX1"
_SALT, _CHECK, _END = 16, 16, 8 + len(_PACK_MAGIC)
FOOTER_BYTES = _SALT + _CHECK + _END
"""What a pack has besides its objects and rows."""
_TAIL = 64 * 1024
_CHUNK = struct.calcsize("<32sI")
_SAMPLE = 16 * 1024
_LEAST_SAVING = 0.05
_LEVEL = 1
_mine = threading.local()


def words_of(digests: list[str] | tuple[str, ...]) -> Words:
    """Digests as rows of four numbers.

    Raises:
        InputError: one is no digest.
    """
    joined = "".join(digests)
    try:
        content = bytes.fromhex(joined)
    except ValueError:
        content = b""
    if len(content) != 32 * len(digests) or any(len(digest) != 64 for digest in digests):
        wrong = next((d for d in digests if len(d) != 64 or set(d) - set("0123456789abcdef")), joined[:80])
        raise InputError(f"{wrong!r} is no digest: 64 hexadecimal digits were wanted")
    return np.frombuffer(content, "<u8").reshape(-1, 4)


def texts_of(words: Words) -> list[str]:
    """Digests as text."""
    joined = np.ascontiguousarray(words, "<u8").tobytes().hex()
    return [joined[start : start + 64] for start in range(0, len(joined), 64)]


def shrink(content: bytes) -> tuple[int, bytes]:
    """Kind and bytes in which an object is stored: compressed where that saves something."""
    if len(content) > 4 * _SAMPLE:
        middle = len(content) // 2
        if not saves(content[middle : middle + _SAMPLE]):
            return RAW, content
    smaller: bytes = _compressor().compress(content)
    return (ZSTD, smaller) if len(smaller) <= (1 - _LEAST_SAVING) * len(content) else (RAW, content)


def saves(sample: bytes) -> bool:
    """Whether compressing saves enough of these bytes."""
    return len(_compressor().compress(sample)) <= (1 - _LEAST_SAVING) * len(sample)


def expand(kind: int, stored: bytes, length: int) -> bytes:
    """The object that was stored as these bytes.

    Raises:
        ValueError: they are no object of this length.
    """
    import zstandard

    if kind == RAW:
        return stored
    if not hasattr(_mine, "decompressor"):
        _mine.decompressor = zstandard.ZstdDecompressor()
    try:
        # asked first, since a damaged frame may claim any size and would be given the memory for it
        if zstandard.frame_content_size(stored) != length:
            raise ValueError("not of the length that was stored")
        content: bytes = _mine.decompressor.decompress(stored)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return content


def _compressor() -> Any:
    import zstandard

    if not hasattr(_mine, "compressor"):
        _mine.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    return _mine.compressor


def chunk_list(chunks: list[tuple[bytes, int]]) -> bytes:
    """Digests of all chunks, then their lengths, as it is stored for a large object."""
    return b"".join(digest for digest, _ in chunks) + struct.pack(f"<{len(chunks)}I", *(n for _, n in chunks))


def chunks_of(stored: bytes) -> tuple[Words, NDArray[np.uint32]]:
    """Digests and lengths of the chunks in a stored list.

    Raises:
        ValueError: it is none.
    """
    count, rest = divmod(len(stored), _CHUNK)
    if rest:
        raise ValueError("no list of chunks")
    return np.frombuffer(stored, "<u8", 4 * count).reshape(-1, 4), np.frombuffer(stored, "<u4", count, 32 * count)


class PackBuilder:
    """A pack that is being filled.

    Attributes:
        size: bytes of the stored objects.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._rows: list[tuple[bytes, int, int, int, int]] = []
        self.size = 0

    @property
    def is_filled(self) -> bool:
        """Whether anything is in it."""
        return bool(self._rows)

    def add(self, digest: bytes, kind: int, stored: bytes, length: int) -> None:
        """Append a stored object."""
        self._rows.append((digest, kind, self.size, len(stored), length))
        self._pieces.append(stored)
        self.size += len(stored)

    def seal(self) -> tuple[list[bytes], Rows]:
        """The pieces of the pack, and where each object lies in it. The builder is empty after that."""
        digests, kinds, offsets, stored, lengths = zip(*self._rows, strict=True)
        rows = np.empty(len(self._rows), PACKED)
        rows["digest"] = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 4)
        rows["kind"], rows["offset"], rows["stored"], rows["length"] = kinds, offsets, stored, lengths
        footer = rows.tobytes() + secrets.token_bytes(_SALT)
        footer += blake3(footer).digest(_CHECK)
        pieces, self._pieces, self._rows, self.size = self._pieces, [], [], 0
        return [*pieces, footer, struct.pack("<Q", len(footer)), _PACK_MAGIC], rows


def ends_as_pack(tail: bytes) -> bool:
    """Whether a file that ends so would be taken for a pack of many objects."""
    return tail[-len(_PACK_MAGIC) : -1] == _PACK_MAGIC[:-1]


def read_footer(pack: str, tail: bytes, size: int) -> Rows | int:
    """Where the objects of a pack lie, by its last bytes; or how many of these are needed, when they were too few.

    Raises:
        DamagedFile: it has a footer, but not the one that was written.
        InputError: a newer useg wrote it.
    """
    if not ends_as_pack(tail):
        return whole_pack(pack, size)
    if not tail.endswith(_PACK_MAGIC):
        raise InputError(f"packs/{pack}: written by a newer useg than this one; update useg")
    damaged = DamagedFile(f"packs/{pack}: its footer is not what was written")
    if len(tail) < _END:
        raise damaged
    (length,) = struct.unpack_from("<Q", tail, len(tail) - _END)
    if not _SALT + _CHECK <= length <= size - _END:
        raise damaged
    if len(tail) < length + _END:
        return int(length) + _END
    footer = tail[len(tail) - _END - length : len(tail) - _END]
    if blake3(footer[:-_CHECK]).digest(_CHECK) != footer[-_CHECK:]:
        raise damaged
    rows = np.frombuffer(footer[: -_CHECK - _SALT], PACKED)
    if (rows["offset"] + rows["stored"] > size - _END - length).any():
        raise damaged
    return rows


def whole_pack(pack: str, size: int) -> Rows:
    """What lies in a pack that is one raw object."""
    row = np.zeros(1, PACKED)
    row["digest"], row["stored"], row["length"] = words_of([pack]), size, size
    return row


def tail_start(size: int, needed: int = _TAIL) -> int:
    """Where to begin reading the last bytes of a pack."""
    return max(0, size - needed)


def encode_segment(packs: list[str], rows: Rows) -> bytes:
    """A segment of the index: rows that say where objects lie in these packs."""
    return _INDEX_MAGIC + struct.pack("<I", len(packs)) + bytes.fromhex("".join(packs)) + rows.tobytes()


def decode_segment(name: str, content: bytes) -> tuple[list[str], Rows]:
    """The packs that a segment of the index speaks of, and its rows.

    Raises:
        DamagedFile: its bytes are not what was written.
        InputError: a newer useg wrote it.
    """
    if blake3(content).hexdigest() != name:
        raise DamagedFile(f"index/{name}: its bytes are not what was written")
    start = len(_INDEX_MAGIC) + 4
    if content[: len(_INDEX_MAGIC)] != _INDEX_MAGIC:
        raise InputError(f"index/{name}: written by a newer useg than this one; update useg")
    (count,) = struct.unpack_from("<I", content, len(_INDEX_MAGIC))
    packs = texts_of(np.frombuffer(content, "<u8", 4 * count, start).reshape(-1, 4))
    return packs, np.frombuffer(content, PLACED, offset=start + 32 * count)


__all__ = [
    "CHUNKS",
    "FOOTER_BYTES",
    "PACKED",
    "PACK_BYTES",
    "PLACED",
    "RAW",
    "ZSTD",
    "PackBuilder",
    "Rows",
    "Words",
    "chunk_list",
    "chunks_of",
    "decode_segment",
    "encode_segment",
    "ends_as_pack",
    "expand",
    "read_footer",
    "saves",
    "shrink",
    "tail_start",
    "texts_of",
    "whole_pack",
    "words_of",
]
