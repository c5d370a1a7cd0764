"""Objects read out of packs in few large requests, each checked against its digest."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from useg.errors import DamagedFile
from useg.home.index import Index, Places
from useg.home.packs import CHUNKS, PACK_BYTES, Words, chunks_of, expand, texts_of
from useg.home.store import Missing, Store

_REQUEST_BYTES = 16 * 2**20
_REQUEST_ROWS = 4096
_AT_ONCE = 6
_WINDOW_BYTES = 32 * 2**20


class Unpacked(NamedTuple):
    """What was read of a row: its place, its stored bytes, and the object; the object of a list of chunks is the list.

    Both are None when the bytes are not what was written.
    """

    place: int
    stored: bytes | None
    content: bytes | None


class Unpacker:
    """Reads objects where an index says they lie.

    Args:
        store: the home.
        index: where they lie.
    """

    def __init__(self, store: Store, index: Index) -> None:
        self.store, self.index = store, index

    def read(self, places: Places) -> Iterator[Unpacked]:
        """The bytes of rows, in the order in which they lie.

        Lists of chunks have no digest of their own: whether they are what was written, only their object tells.
        """
        batches = list(self._batches(places))
        if len(batches) < 2:
            for batch in batches:
                yield from self._load(batch)
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running: deque[Future[list[Unpacked]]] = deque()
            try:
                for batch in batches:
                    if len(running) >= _AT_ONCE:
                        yield from running.popleft().result()
                    running.append(pool.submit(self._load, batch))
                while running:
                    yield from running.popleft().result()
            finally:
                for future in running:
                    future.cancel()

    def one(self, digest: str, words: Words) -> bytes:
        """A whole object, from any row that is sound.

        Raises:
            DamagedFile: none is. Missing: there is none.
        """
        damaged = None
        for place in self.candidates(words):
            try:
                return b"".join(self.pieces(place))
            except DamagedFile as error:
                damaged = damaged or error
        raise damaged or Missing(self.store.url, f"object {digest}")

    def candidates(self, words: Words) -> list[int]:
        """The rows of one digest whose packs are there, the best one first."""
        places = [place for place in self.index.all_places(words) if self.index.is_there[place]]
        return sorted(places, key=lambda place: not self.index.is_usable[place])

    def stream(self, digest: str, words: Words) -> Iterator[bytes]:
        """An object piece by piece.

        Raises:
            DamagedFile: it is not what was written. That may turn out only after the last piece.
            Missing: there is none.
        """
        places = self.candidates(words)
        if not places:
            raise Missing(self.store.url, f"object {digest}")
        if self.index.rows["length"][places[0]] <= PACK_BYTES:
            yield self.one(digest, words)
        else:
            yield from self.pieces(places[0])

    def pieces(self, place: int) -> Iterator[bytes]:
        """The object of a row piece by piece; see `stream`."""
        row = self.index.rows[place]
        if row["kind"] != CHUNKS and row["stored"] <= PACK_BYTES:
            ((_, _, content),) = self.read(np.array([place]))
            if content is None:
                raise self._damage(place)
            yield content
            return
        hasher = blake3()
        for piece in self._chunks(place) if row["kind"] == CHUNKS else self._ranges(place):
            hasher.update(piece)
            yield piece
        if hasher.digest() != row["digest"].tobytes():
            raise self._damage(place)

    def chunks(self, place: int) -> tuple[Words, "np.ndarray[tuple[int], np.dtype[np.uint32]]"]:
        """Digests and lengths of a row that is a list of chunks.

        Raises:
            DamagedFile: it is none, or its chunks do not make up the length.
        """
        try:
            ((_, stored, _),) = self.read(np.array([place]))
            digests, lengths = chunks_of(stored or b"")
        except ValueError as error:
            raise self._damage(place) from error
        if int(lengths.sum(dtype=np.int64)) != self.index.rows["length"][place]:
            raise self._damage(place)
        return digests, lengths

    def _chunks(self, place: int) -> Iterator[bytes]:
        digests, lengths = self.chunks(place)
        ends = np.cumsum(lengths, dtype=np.int64)
        start = 0
        while start < len(digests):
            done = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + _WINDOW_BYTES)))
            found = self.many(digests[start:stop])
            for digest in texts_of(digests[start:stop]):
                yield found[digest]
            start = stop

    def many(self, words: Words) -> dict[str, bytes]:
        """Objects of one of the first two kinds.

        Raises:
            DamagedFile: one is not what was written. Missing: there is none.
        """
        places = self.index.find(words, self.index.is_usable)
        found: dict[str, bytes] = {}
        for place, _, content in self.read(np.unique(places[places >= 0])):
            if content is not None:
                found[self.index.digest(place)] = content
        for number, digest in enumerate(texts_of(words)):
            if digest not in found:
                found[digest] = self.one(digest, words[number : number + 1])
        return found

    def _ranges(self, place: int) -> Iterator[bytes]:
        row = self.index.rows[place]
        start, end = int(row["offset"]), int(row["offset"] + row["stored"])
        for at in range(start, end, _REQUEST_BYTES):
            yield self.store.get(f"packs/{self.index.pack(place)}", at, min(end, at + _REQUEST_BYTES))

    def _damage(self, place: int) -> DamagedFile:
        return DamagedFile(
            f"{self.store.url}/packs/{self.index.pack(place)}: object {self.index.digest(place)} is not what was "
            "written; `useg data verify` lists all such objects, and a pull from another home brings them back"
        )

    def _batches(self, places: Places) -> Iterator[list[int]]:
        rows = self.index.rows[places]
        order = np.lexsort((rows["offset"], rows["pack"]))
        packs, sizes = rows["pack"][order].tolist(), rows["stored"][order].tolist()
        batch: list[int] = []
        size = last = 0
        for place, pack, length in zip(places[order].tolist(), packs, sizes, strict=True):
            if batch and (pack != last or size + length > _REQUEST_BYTES or len(batch) == _REQUEST_ROWS):
                yield batch
                batch, size = [], 0
            batch.append(place)
            size, last = size + length, pack
        if batch:
            yield batch

    def _load(self, batch: Sequence[int]) -> list[Unpacked]:
        rows = self.index.rows[np.asarray(batch)]
        starts, ends = rows["offset"].tolist(), (rows["offset"] + rows["stored"]).tolist()
        try:
            found = self.store.get_ranges(f"packs/{self.index.pack(batch[0])}", list(zip(starts, ends, strict=True)))
        except Missing:
            return [Unpacked(place, None, None) for place in batch]
        return [self._checked(place, stored) for place, stored in zip(batch, found, strict=True)]

    def _checked(self, place: int, stored: bytes) -> Unpacked:
        row = self.index.rows[place]
        if row["kind"] == CHUNKS and len(stored) == row["stored"]:
            return Unpacked(place, stored, stored)
        try:
            content = expand(int(row["kind"]), stored, int(row["length"]))
        except ValueError:
            content = None
        if content is None or blake3(content).digest() != row["digest"].tobytes():
            return Unpacked(place, None, None)
        return Unpacked(place, stored, content)


__all__ = ["Unpacked", "Unpacker"]
