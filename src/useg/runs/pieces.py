"""A file that only grows, kept in a home where nothing can be added to a file: as pieces, and whole in the end.

The journal of an attempt, its log and the samples of its system go as pieces, `journal/<12 digits>.jsonl`, of whole
lines. The number is the count of bytes of the file up to the end of the piece, so that a listing alone says what each
piece covers: a later piece may cover earlier ones, which are then deleted, and a keeper that starts anew knows how far
the last one came.
At the end the whole is put as `journal.jsonl`, then the pieces are deleted, the earliest first.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import orjson

from useg.errors import DamagedFile
from useg.home.store import Missing, Store
from useg.runs.journal import Event, decoded

LARGEST_PIECE = 8 * 2**20
_AT_A_LEVEL = 32
"""So many pieces of about one size are put together to one."""
_READ_AGAIN = 10


@dataclass(frozen=True)
class _Piece:
    start: int
    end: int
    level: int = 0


class Growing:
    """One file that only grows, on its way to a home.

    Args:
        file: the file; it may not be there yet.
        store: the home.
        key: what the whole file is called there.
    """

    def __init__(self, file: Path, store: Store, key: str) -> None:
        self._file, self._store, self._key = file, store, key
        self._pieces: list[_Piece] | None = None
        self._is_whole: bool | None = None

    def ship(self) -> None:
        """Put the whole lines that are new, as one piece.

        Raises:
            ResourceError: the home does not answer, or is full; call again.
        """
        if self._is_there_whole() or not self._file.exists():
            return
        pieces, self._pieces = self._known(), None
        while (piece := self._next(pieces)) is not None:
            self._store.put(_piece_key(self._key, piece.end), _read(self._file, piece.start, piece.end))
            covered = [each for each in pieces if each.start >= piece.start]
            pieces = [*(each for each in pieces if each.start < piece.start), piece]
            for each in covered:
                self._store.delete(_piece_key(self._key, each.end))
        # only what was answered is known; after an error the home is asked anew
        self._pieces = pieces

    def finish(self) -> None:
        """Put the whole file, then delete its pieces; for when nothing will be added.

        Raises:
            ResourceError: the home does not answer, or is full; call again.
        """
        if not self._is_there_whole():
            if not self._file.exists():
                return
            self._store.put(self._key, self._file)
            self._is_whole = True
        if self._pieces != []:
            for _, _, key in list(_pieces(self._store, self._key)):
                self._store.delete(key)
            self._pieces = []

    def _is_there_whole(self) -> bool:
        if self._is_whole is None:
            self._is_whole = any(entry.key == self._key for entry in self._store.list(self._key))
        return self._is_whole

    def _known(self) -> list[_Piece]:
        if self._pieces is not None:
            return self._pieces
        chain = _chain(list(_pieces(self._store, self._key))) or []
        return [_Piece(start, end) for start, end, _ in chain]

    def _next(self, pieces: list[_Piece]) -> _Piece | None:
        """What to put next: the new whole lines, with the pieces before them when those have become many."""
        start = pieces[-1].end if pieces else 0
        end = _whole_lines(self._file, start)
        if end == start:
            return None
        level = 0
        while len(pieces) >= _AT_A_LEVEL - 1 and all(each.level == level for each in pieces[1 - _AT_A_LEVEL :]):
            if end - pieces[1 - _AT_A_LEVEL].start > LARGEST_PIECE:
                break
            start = pieces[1 - _AT_A_LEVEL].start
            pieces = pieces[: 1 - _AT_A_LEVEL]
            level += 1
        return _Piece(start, end, level)


def read_content(store: Store, key: str, start: int = 0) -> bytes:
    """A file that grows, as far as it has come, from byte `start` on: whole lines, whether it lies in pieces or whole.

    Raises:
        DamagedFile: a piece is missing.
        ResourceError: the home does not answer.
    """
    was_empty = False
    for _ in range(_READ_AGAIN):
        with suppress(Missing):
            return _whole(store.get(key, start))
        if was_empty:
            return b""
        pieces = list(_pieces(store, key))
        chain, was_empty = _chain(pieces), not pieces
        with suppress(Missing):  # a piece was put together with others just now
            if chain:
                return b"".join(store.get(name, max(0, start - begin)) for begin, end, name in chain if end > start)
    raise DamagedFile(f"{store.url}/{key}: a piece of it is missing")


def read_events(store: Store, run: str, attempt: int, *, fold: int | None = None) -> list[Event]:
    """The events of one attempt, each once and whole, as far as they have come; none where there is no journal.

    Args:
        store: the home.
        run: the run's id.
        attempt: its number.
        fold: of the run's folds, the one whose attempt it is.

    Raises:
        DamagedFile: a piece of the journal is missing.
        ResourceError: the home does not answer.
    """
    place = f"runs/{run}/" + ("" if fold is None else f"folds/{fold}/")
    events = []
    for line in read_content(store, f"{place}attempts/{attempt}/journal.jsonl").split(b"\n")[:-1]:
        try:
            events.append(decoded(line))
        except orjson.JSONDecodeError:
            continue  # cut short by a full disk; the event after it began a new line
    return events


def _piece_key(key: str, end: int) -> str:
    name, dot, suffix = key.rpartition(".")
    return f"{name}/{end:012d}{dot}{suffix}"


def _pieces(store: Store, key: str) -> Iterator[tuple[int, int, str]]:
    """The pieces of a file that are in a home: (start, end, key), by their ends."""
    name, _, suffix = key.rpartition(".")
    for entry in store.list(f"{name}/"):
        match = re.fullmatch(rf"{re.escape(name)}/(\d{{12}})\.{re.escape(suffix)}", entry.key)
        if match:
            yield int(match[1]) - entry.size, int(match[1]), entry.key


def _chain(pieces: list[tuple[int, int, str]]) -> list[tuple[int, int, str]] | None:
    """Of pieces sorted by their ends, those that make the file, without what a later one covers; None for a gap."""
    chain: list[tuple[int, int, str]] = []
    for piece in reversed(pieces):
        if not chain or piece[1] <= chain[-1][0]:
            chain.append(piece)
    chain.reverse()
    is_sound = all(before[1] == after[0] for before, after in pairwise(chain)) and (not chain or chain[0][0] == 0)
    return chain if is_sound else None


def _whole_lines(file: Path, start: int) -> int:
    """Where the last whole line ends, of those that a piece from here on may hold."""
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        limit = min(size, start + LARGEST_PIECE)
        while limit > start:
            end = start + len(_whole(os.pread(opened.fileno(), limit - start, start)))
            if end > start or limit == size:
                return end
            limit = min(size, limit + LARGEST_PIECE)  # one line longer than a piece should be
    return start


def _whole(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _read(file: Path, start: int, end: int) -> bytes:
    with file.open("rb") as opened:
        return os.pread(opened.fileno(), end - start, start)


__all__ = ["Growing", "read_content", "read_events"]
