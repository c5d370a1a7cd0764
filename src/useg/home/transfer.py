"""Objects copied from one home to another: only what is not there, in large requests, taken up again after a crash."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from useg.errors import DamagedFile, DataError, Problem, ResourceError
from useg.home.index import Index, Places
from useg.home.objects import Objects
from useg.home.packs import CHUNKS, PACK_BYTES, Words, words_of
from useg.home.reaching import unique
from useg.home.repacking import together
from useg.home.store import Missing
from useg.home.unpacking import Unpacker
from useg.home.writer import Writer

_COMMIT_BYTES = 256 * 2**20
_COMMIT_S = 30.0
"""After so much, what was sent is made visible, so that it need not be sent again if this ends early."""


class Progress(Protocol):
    """Told how many bytes are done."""

    def __call__(self, completed: float, *, total: float | None = None) -> None:
        """Say that so many of all are done."""


@dataclass(frozen=True)
class Copied:
    """How many objects, chunks counted each, and how many of their stored bytes were sent."""

    objects: int
    bytes: int


def copy_objects(
    source: Objects, target: Objects, digests: Sequence[str], *, progress: Progress | None = None
) -> Copied:
    """Send objects that a home lacks; of large ones, the chunks that it lacks.

    What is damaged, condemned or was cut off in the target counts as lacking, so it is healed. What was withdrawn from
    either home is passed over; where the target lacks it, too, it is told why.

    Args:
        source: where they come from.
        target: where they go.
        digests: which; see `reaching.closure` for all that a version needs.
        progress: told how many stored bytes were sent.

    Raises:
        DataError: some are missing or damaged in the source; the others were sent.
    """
    theirs = source.refresh()
    ours = target.refresh()
    gone = [digest for digest in dict.fromkeys(digests) if digest in theirs.withdrawn and digest not in ours.withdrawn]
    for digest, has in zip(gone, target.has(gone), strict=True):
        with suppress(ResourceError):  # a writer of a served home may not; there it is only lacking
            if not has:
                target.store.put(f"tombstones/{digest}", source.store.get(f"tombstones/{digest}"))
    wanted = [d for d in dict.fromkeys(digests) if d not in theirs.withdrawn and d not in ours.withdrawn]
    wanted = [digest for digest, has in zip(wanted, target.has(wanted), strict=True) if not has]
    return _Copy(source, target, progress).run(wanted)


class _Copy:
    """One copying from home to home."""

    def __init__(self, source: Objects, target: Objects, progress: Progress | None) -> None:
        self._source, self._target, self._progress = source, target, progress
        self._index = source.snapshot.index
        self._unpacker = Unpacker(source.store, self._index)
        self._writer: Writer | None = None
        self._since, self._begun = time.monotonic(), 0
        self._objects = self._bytes = self._total = 0
        self._problems: list[Problem] = []

    def run(self, wanted: list[str]) -> Copied:
        words = words_of(wanted)
        places = self._places(words)
        rows = self._index.rows[places]
        is_list, is_huge = rows["kind"] == CHUNKS, rows["stored"] > PACK_BYTES
        lists = {int(place): self._chunks(int(place)) for place in places[is_list]}
        lacking = self._lacking(unique(together(list(lists.values()))))
        pieces = unique(together([self._index.rows["digest"][places[~is_list & ~is_huge]], lacking]))
        small = self._places(pieces)
        self._total = int(self._index.rows["stored"][small].sum() + rows["stored"][is_list | is_huge].sum())
        try:
            self._send(small)
            for place in places[is_huge & ~is_list]:
                self._send_huge(int(place))
            for place, chunks in lists.items():
                self._send_list(place, chunks)
            self._commit()
        finally:
            if self._writer is not None:
                self._writer.__exit__(None, None, None)
        if self._problems:
            raise DataError(f"{len(self._problems)} objects could not be copied; the others were", self._problems)
        return Copied(self._objects, self._bytes)

    def _places(self, words: Words) -> Places:
        """The rows of objects in the source."""
        places = self._index.find(words, self._index.is_usable)
        rest = np.flatnonzero(places < 0)
        places[rest] = self._index.find(words[rest], self._index.is_there)
        for number in np.flatnonzero(places < 0):
            self._fail(Index.of(words[number : number + 1]).digest(0), "is not there")
        return places[places >= 0]

    def _lacking(self, chunks: Words) -> Words:
        index = self._target.snapshot.index
        return chunks[index.find(chunks, index.is_usable) < 0]

    def _chunks(self, place: int) -> Words:
        try:
            return self._unpacker.chunks(place)[0]
        except DamagedFile:
            return np.empty((0, 4), "<u8")

    def _send(self, places: Places) -> None:
        for place, stored, _ in self._unpacker.read(places):
            row, digest = self._index.rows[place], self._index.digest(place)
            if stored is not None:
                self._put(place, stored)
                continue
            try:
                content = self._unpacker.one(digest, row["digest"].reshape(1, 4))
            except (DamagedFile, Missing):
                self._fail(digest, f"is damaged in packs/{self._index.pack(place)}")
            else:
                self._open().put(content)
                self._sent(1, len(content))

    def _send_huge(self, place: int) -> None:
        digest = self._index.digest(place)
        try:
            stored = self._open().put_pieces(self._source.stream(digest), int(self._index.rows["length"][place]))
        except DamagedFile:
            self._fail(digest, f"is damaged in packs/{self._index.pack(place)}")
        else:
            self._sent(1, stored.stored)

    def _send_list(self, place: int, chunks: Words) -> None:
        digest = self._index.digest(place)
        writer = self._open()
        if not len(chunks) or not writer.can_build_upon(chunks):
            self._fail(digest, "is damaged, or chunks of it are")
            return
        ((_, stored, _),) = self._unpacker.read(np.array([place]))
        if stored is not None:
            self._put(place, stored)

    def _put(self, place: int, stored: bytes) -> None:
        row = self._index.rows[place]
        is_new = self._open().put_packed(row["digest"].tobytes(), int(row["kind"]), stored, int(row["length"]))
        self._sent(int(is_new), len(stored) if is_new else 0)

    def _open(self) -> Writer:
        if self._writer is None:
            self._writer = self._target.writer()
            self._since, self._begun = time.monotonic(), self._bytes
        return self._writer

    def _sent(self, objects: int, length: int) -> None:
        self._objects += objects
        self._bytes += length
        if self._progress is not None:
            self._progress(self._bytes, total=max(self._total, self._bytes))
        if self._bytes - self._begun >= _COMMIT_BYTES or time.monotonic() - self._since > _COMMIT_S:
            self._commit()

    def _commit(self) -> None:
        if self._writer is not None:
            self._writer.commit()
            self._writer = None

    def _fail(self, digest: str, what: str) -> None:
        self._problems.append(Problem(f"{self._source.store.url}: object {digest}", what))


__all__ = ["Copied", "Progress", "copy_objects"]
