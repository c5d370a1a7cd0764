"""Bytes by their digest: small ones packed together, large ones cut by their content."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
import orjson

from useg.errors import DamagedFile, InputError
from useg.home.index import Index, Places, Snapshot, read_snapshot
from useg.home.packs import CHUNKS, PACK_BYTES, Words, words_of
from useg.home.store import Missing, Store
from useg.home.unpacking import Unpacker

if TYPE_CHECKING:
    from useg.home.writer import Writer


LOT_BYTES = 64 * 2**20
LOT_OBJECTS = 1000
_REGION_BYTES = 2 * 2**20


class Withdrawn(InputError):
    """An object was withdrawn on purpose; its bytes are gone.

    Attributes:
        digest: of the object.
    """

    def __init__(self, digest: str, when: str, reason: str) -> None:
        super().__init__(f"object {digest} was withdrawn on {when}: {reason}")
        self.digest, self.when, self.reason = digest, when, reason

    def __reduce__(self) -> tuple[type["Withdrawn"], tuple[str, str, str]]:
        return type(self), (self.digest, self.when, self.reason)


class Objects:
    """The objects of one home; may be used from several threads.

    What others write is seen after `refresh`, or when something is asked for that is not known yet.

    Args:
        store: the home.
        index_cache: a folder of this machine that keeps what was read of the index.
    """

    def __init__(self, store: Store, *, index_cache: Path | None = None) -> None:
        self.store = store
        self._cache = index_cache
        self._snapshot: Snapshot | None = None
        self._lock = RLock()

    @property
    def snapshot(self) -> Snapshot:
        """What was there when it was last looked at."""
        return self._snapshot or self.refresh()

    def refresh(self) -> Snapshot:
        """Look for what others have written or deleted."""
        with self._lock:
            self._snapshot = read_snapshot(self.store, self._snapshot or Snapshot(), self._cache)
            return self._snapshot

    def has(self, digests: Sequence[str]) -> list[bool]:
        """Which objects need not be stored again: those there that are not damaged, condemned or withdrawn."""
        snapshot = self.snapshot
        is_there = self.find(digests, snapshot.index) >= 0
        if not snapshot.withdrawn:
            return is_there.tolist()  # type: ignore[no-any-return]
        return [there and digest not in snapshot.withdrawn for there, digest in zip(is_there, digests, strict=True)]

    def find(self, digests: Sequence[str], index: Index | None = None) -> Places:
        """The row of each object that may be built upon; -1 where there is none."""
        index = index or self.snapshot.index
        return index.find(words_of(list(digests)), index.is_usable)

    def length(self, digest: str) -> int:
        """How many bytes an object has.

        Raises:
            Missing: there is none. Withdrawn: it was withdrawn.
        """
        index = self.snapshot.index
        place = index.find_one(words_of([digest]).tobytes())
        if place < 0 or digest in self.snapshot.withdrawn:
            index, (place,) = self._places([digest])
        return int(index.rows["length"][place])

    def regions(self, digests: Sequence[str]) -> list[str]:
        """Where each object lies: a name of its stretch of its pack; one request fetches what lies in one.

        Raises:
            Missing: there is none. Withdrawn: it was withdrawn.
        """
        index, places = self._places(digests)
        rows = index.rows[places]
        stretches = (rows["offset"] // _REGION_BYTES).tolist()
        return [f"{index.packs[pack]}/{part}" for pack, part in zip(rows["pack"].tolist(), stretches, strict=True)]

    def get(self, digest: str) -> bytes:
        """An object, verified.

        Raises:
            Missing: there is none. Withdrawn: it was withdrawn.
            DamagedFile: it is not what was written; names pack and object.
        """
        ((_, content),) = self.get_many([digest])
        return content

    def get_many(self, digests: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Objects, verified, each once, in the order in which they lie, by few large requests.

        Raises:
            Missing, Withdrawn, DamagedFile: see `get`.
        """
        wanted = list(dict.fromkeys(digests))
        index, places = self._places(wanted)
        rows = index.rows[places]
        is_packed = (rows["kind"] != CHUNKS) & (rows["stored"] <= PACK_BYTES)
        failed = []
        for place, _, content in Unpacker(self.store, index).read(places[is_packed]):
            if content is None:
                failed.append(index.digest(place))
            else:
                yield index.digest(place), content
        if failed:  # perhaps what lay in that pack lies in another one now
            self.refresh()
            index, _ = self._places(failed)
            for digest in failed:
                yield digest, Unpacker(self.store, index).one(digest, words_of([digest]))
        for number in np.flatnonzero(~is_packed):
            yield wanted[number], b"".join(self.stream(wanted[number]))

    def stream(self, digest: str) -> Iterator[bytes]:
        """An object piece by piece, for what is too large for memory.

        Raises:
            Missing, Withdrawn, DamagedFile: see `get`; that it is damaged may turn out only after the last piece.
        """
        done = 0
        try:
            for piece in self._stream(digest):
                yield piece
                done += len(piece)
            return
        except (DamagedFile, Missing):
            self.refresh()  # perhaps what lay in that pack lies in another one now
        for piece in self._stream(digest):
            if len(piece) > done:
                yield piece[done:]
            done = max(0, done - len(piece))

    def _stream(self, digest: str) -> Iterator[bytes]:
        index, _ = self._places([digest])
        return Unpacker(self.store, index).stream(digest, words_of([digest]))

    def writer(self) -> "Writer":
        """Begin a transaction; see `Writer`."""
        from useg.home.writer import Writer

        return Writer(self)

    def _places(self, digests: Sequence[str]) -> tuple[Index, Places]:
        """The rows of objects, any that are there; looks for new ones when one is not known.

        Raises:
            Missing: there is none. Withdrawn: it was withdrawn.
        """
        words = words_of(list(digests))
        snapshot = self.snapshot
        places = _best(snapshot.index, words)
        if (places < 0).any():
            snapshot = self.refresh()
            places = _best(snapshot.index, words)
        for digest, place in zip(digests, places, strict=True):
            if digest in snapshot.withdrawn:
                raise self.withdrawal(digest)
            if place < 0:
                raise Missing(self.store.url, f"object {digest}")
        return snapshot.index, places

    def withdrawal(self, digest: str) -> Withdrawn:
        """What is to be raised for an object that was withdrawn."""
        try:
            tombstone = orjson.loads(self.store.get(f"tombstones/{digest}"))
            return Withdrawn(digest, str(tombstone["time"]), str(tombstone["reason"]))
        except (ValueError, KeyError, TypeError):
            return Withdrawn(digest, "an unknown day", "its tombstone cannot be read")


def in_lots(lengths: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Digests, in this order, in lots to ask for at once: bounded, since a lot passes through memory.

    Args:
        lengths: digests and how many bytes the objects have; one that is larger than the bound is a lot alone.
    """
    lot: list[str] = []
    size = 0
    for digest, length in lengths:
        if lot and (size + length > LOT_BYTES or len(lot) == LOT_OBJECTS):
            yield lot
            lot, size = [], 0
        lot.append(digest)
        size += length
    if lot:
        yield lot


def _best(index: Index, words: Words) -> Places:
    places = index.find(words, index.is_usable)
    rest = np.flatnonzero(places < 0)
    if len(rest):
        places[rest] = index.find(words[rest], index.is_there)
    return places


__all__ = ["LOT_BYTES", "Objects", "Withdrawn", "in_lots"]
