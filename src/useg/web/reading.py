"""A content of a home, whole or in part, read piece by piece."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from useg.home.files import read_range
from useg.home.store import Missing, Store

PIECE = 2**20
_PIECE_FROM_AFAR = 16 * 2**20
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


@dataclass(frozen=True)
class Content:
    """What was found of a key.

    Attributes:
        start, end: of the bytes that there are, of those that were asked for.
        first: the first of these bytes.
        piece: gives those that follow from a place on.
        close: lets go of the file.
        total: how many the key has, where that is known.
        tag: differs when the key was taken away and put again; empty where nobody can tell.
    """

    start: int
    end: int
    first: bytes
    piece: Callable[[int], bytes]
    close: Callable[[], None]
    total: int | None = None
    tag: str = ""


def parse_range(header: str) -> tuple[int, int | None] | None:
    """Start and end of the one range that is asked for; None for all, and for what we may leave unheeded."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        return None
    return int(match[1]), int(match[2]) + 1 if match[2] else None


def read(store: Store, key: str, start: int, end: int | None) -> Content:
    """Open a content; what is small is read at once.

    Raises:
        Missing: there is no such key. InputError: it can be none. ResourceError: the home cannot be read.
    """
    path = store.path(key)
    if path is None:
        return _from_afar(store, key, start, end)
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        raise Missing(store.url, key) from None
    status = os.fstat(file.fileno())
    stop = max(start, status.st_size if end is None else min(end, status.st_size))

    def piece(at: int) -> bytes:
        found = read_range(file.fileno(), at, min(stop, at + PIECE))
        if not found:
            raise EOFError(f"{path} was cut short")
        return found

    try:
        first = read_range(file.fileno(), start, min(stop, start + PIECE))
    except BaseException:
        file.close()
        raise
    tag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
    return Content(start, stop, first, piece, file.close, status.st_size, tag)


def _from_afar(store: Store, key: str, start: int, end: int | None) -> Content:
    """Of a home that is no folder here: in one request where that is enough."""
    most = start + _PIECE_FROM_AFAR
    first = store.get(key, start, most if end is None else min(end, most))
    stop = start + len(first)
    if stop == most and (end is None or end > most):
        size = next((entry.size for entry in store.list(key) if entry.key == key), None)
        if size is None:
            raise Missing(store.url, key)
        stop = size if end is None else min(end, size)
    return Content(start, stop, first, partial(_piece_from_afar, store, key, stop), lambda: None)


def _piece_from_afar(store: Store, key: str, stop: int, at: int) -> bytes:
    found = store.get(key, at, min(stop, at + _PIECE_FROM_AFAR))
    if not found:
        raise EOFError(f"{key} was cut short")
    return found


__all__ = ["PIECE", "Content", "parse_range", "read"]
