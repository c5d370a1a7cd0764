"""A transaction that brings objects into a home: packs first, and one segment of the index that makes them visible."""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from blake3 import blake3

from useg.errors import DamagedFile, ResourceError
from useg.home.chunking import WHOLE_BYTES, Reader, cut
from useg.home.index import Index, Snapshot, read_footers
from useg.home.packs import (
    CHUNKS,
    PACK_BYTES,
    PLACED,
    PackBuilder,
    Rows,
    Words,
    chunk_list,
    encode_segment,
    shrink,
    whole_pack,
)
from useg.home.sharing import is_better_shared, shared
from useg.home.store import Missing
from useg.home.unpacking import Unpacker

if TYPE_CHECKING:
    from useg.home.objects import Objects

_SEALING = 2
"""How many packs may be on their way at once; they lie in memory."""
_TRIES = 5


@dataclass(frozen=True)
class FileStored:
    """What became of a file: its digest, its length, and how many bytes were stored for it."""

    digest: str
    bytes: int
    stored: int


@dataclass(frozen=True)
class Stored:
    """What a transaction brought: objects and their bytes as they came, and the bytes that are new in the home."""

    objects: int
    bytes_in: int
    bytes_stored: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """An object with its digest, and the kind and the bytes in which it would be stored; None if it need not be."""

    digest: bytes
    content: bytes
    stored: tuple[int, bytes] | None


class Writer:
    """One transaction; without `commit` nothing of it is visible, and what it has sent is built upon by the next one.

    What the home has is not stored again, unless it is damaged or about to be deleted. What was put is kept from being
    deleted for as long as a collection's grace, counted from `commit`: name it in a ref or a record before that.
    To be used by one thread, as a context manager; only `prepare` may be called from others.

    Args:
        objects: of the home.

    Raises:
        DamagedFile: the log of deletions cannot be read, so that nobody knows what to build upon.
    """

    def __init__(self, objects: "Objects") -> None:
        self._objects, self.store = objects, objects.store
        snapshot = _sound(objects.refresh())
        waiting = [pack for pack in snapshot.orphans() if snapshot.condemned.is_sound(pack)]
        self._adopted = _without_lists(read_footers(self.store, snapshot, waiting))
        self._withdrawn = snapshot.withdrawn
        self._names, self._is_sound = snapshot.listing.keys(), snapshot.condemned.is_sound
        self._index = snapshot.with_segments(self._adopted)
        self._relied: set[bytes] = set()
        self._own: set[bytes] = set()
        self._builder = PackBuilder()
        self._sealed: list[tuple[list[str], Rows]] = []
        self._pending: deque[Future[tuple[list[str], Rows]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._count = self._bytes_in = self._bytes_stored = 0

    def put(self, content: bytes) -> str:
        """Store an object.

        Raises:
            Withdrawn: it was withdrawn from this home on purpose.
        """
        if len(content) > WHOLE_BYTES:
            return self.put_stream(BytesIO(content), len(content)).digest
        return self.put_prepared(self.prepare(content))

    def prepare(self, content: bytes) -> "Prepared":
        """What can be done beforehand for an object of at most `WHOLE_BYTES`, in any thread."""
        digest = blake3(content).digest()
        is_there = digest in self._own or self._index.find_one(digest) >= 0
        return Prepared(digest, content, None if is_there else shrink(content))

    def put_prepared(self, prepared: "Prepared") -> str:
        """Store an object that was prepared, perhaps by the transaction before.

        Raises:
            Withdrawn: see `put`.
        """
        digest, content = prepared.digest, prepared.content
        self._refuse_withdrawn(digest)
        self._came(len(content))
        if not self._is_there(digest):
            self._append(digest, *(prepared.stored or shrink(content)), len(content))
        return digest.hex()

    def put_file(self, path: Path) -> FileStored:
        """Store a file's bytes as an object.

        Raises:
            OSError: the file cannot be read. Withdrawn: see `put`.
        """
        with open(path, "rb", buffering=0) as file:
            length = file.seek(0, 2)
            file.seek(0)
            if length > WHOLE_BYTES:
                return self._put_shared(file.fileno(), length) or self.put_stream(file, length)
            content = file.read()
        before = self._bytes_stored
        return FileStored(self.put(content), len(content), self._bytes_stored - before)

    def _put_shared(self, file: int, length: int) -> FileStored | None:
        """Keep a file whole, sharing its bytes; None where that is not possible, or no gain."""
        if not is_better_shared(file, length):
            return None
        with shared(self.store, file) as clone:
            if clone is None:
                return None
            whole = blake3()
            whole.update_mmap(clone)
            pack, length = whole.hexdigest(), clone.stat().st_size
            self._refuse_withdrawn(whole.digest())
            if not self._is_there(whole.digest()):
                # what lies under its name, or did, is damaged or being deleted
                if pack in self._names or not self._is_sound(pack):
                    return None
                self.store.put(f"packs/{pack}", clone)
                self._sealed.append(([pack], whole_pack(pack, length)))
                self._own.add(whole.digest())
            self._came(length)
        return FileStored(pack, length, 0)

    def put_stream(self, reader: Reader, length: int) -> FileStored:
        """Store a large object, cut by its content.

        Args:
            reader: gives its bytes.
            length: how many these are, as far as is known.
        """
        before = self._bytes_stored
        whole, total = blake3(), 0
        chunks = []
        for chunk in cut(reader, length):
            content = bytes(chunk)
            whole.update(content)
            digest = blake3(content).digest()
            self._put_piece(digest, content)
            chunks.append((digest, len(content)))
            total += len(content)
        self._refuse_withdrawn(whole.digest())
        self._came(total)
        if not self._is_there(whole.digest()):
            self._append(whole.digest(), CHUNKS, chunk_list(chunks), total)
        return FileStored(whole.hexdigest(), total, self._bytes_stored - before)

    def put_packed(self, digest: bytes, kind: int, stored: bytes, length: int, *, again: bool = False) -> bool:
        """Store an object in the form in which another pack has it, verified by the caller.

        The chunks of a list have to be there already, or to be put before.

        Args:
            digest: of the object.
            kind: of the stored form.
            stored: its bytes.
            length: of the object.
            again: also when the home has it.
        """
        if digest in self._own or (not again and self._is_there(digest)):
            return False
        self._came(length)
        self._append(digest, kind, stored, length)
        return True

    def put_pieces(self, pieces: Iterable[bytes], length: int) -> FileStored:
        """Store a large object that comes in pieces; see `put_stream`."""
        return self.put_stream(_Joined(pieces), length)

    def can_build_upon(self, digests: Words) -> bool:
        """Whether all these are there or were put; if so, they are kept from being deleted like what is put."""
        content = np.ascontiguousarray(digests).tobytes()
        return all([self._is_there(content[start : start + 32]) for start in range(0, len(content), 32)])

    def commit(self) -> Stored:
        """Make everything visible that was put.

        Raises:
            ResourceError: something could not be written, or was deleted by a collection in the meantime.
        """
        for _ in range(_TRIES):
            self._seal()
            while self._pending:
                self._sealed.append(self._pending.popleft().result())
            snapshot = _sound(self._objects.refresh())
            for digest in self._own | self._relied if snapshot.withdrawn - self._withdrawn else ():
                self._refuse_withdrawn(digest, snapshot.withdrawn)
            used = [*self._sealed, *self._used(self._adopted)]
            index = snapshot.with_segments(used)
            lost = self._lost(index)
            if not lost:
                break
            self._store_again(lost, index)
        else:
            raise ResourceError(f"{self.store.url}: collections deleted what was being stored, again and again; wait")
        used = [(packs, rows) for packs, rows in used if packs[0] in snapshot.listing]
        if used:
            content = encode_segment(*_joined(used))
            self.store.put(f"index/{blake3(content).hexdigest()}", content)
            self._objects.refresh()
        self._close()
        return Stored(self._count, self._bytes_in, self._bytes_stored)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _came(self, length: int) -> None:
        self._count += 1
        self._bytes_in += length

    def _refuse_withdrawn(self, digest: bytes, withdrawn: frozenset[str] | None = None) -> None:
        withdrawn = self._withdrawn if withdrawn is None else withdrawn
        if withdrawn and digest.hex() in withdrawn:
            raise self._objects.withdrawal(digest.hex())

    def _is_there(self, digest: bytes) -> bool:
        if digest in self._own or digest in self._relied:
            return True
        is_there = self._index.find_one(digest) >= 0
        if is_there:
            self._relied.add(digest)
        return is_there

    def _put_piece(self, digest: bytes, content: bytes) -> None:
        if not self._is_there(digest):
            kind, stored = shrink(content)
            self._append(digest, kind, stored, len(content))

    def _append(self, digest: bytes, kind: int, stored: bytes, length: int) -> None:
        if self._builder.size and self._builder.size + len(stored) > PACK_BYTES:
            self._seal()
        self._builder.add(digest, kind, stored, length)
        self._own.add(digest)
        self._bytes_stored += len(stored)

    def _seal(self) -> None:
        """Send what was put so far, in the background."""
        if not self._builder.is_filled:
            return
        while len(self._pending) >= _SEALING:
            self._sealed.append(self._pending.popleft().result())
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_SEALING, "pack")
        pieces, rows = self._builder.seal()
        self._pending.append(self._pool.submit(self._send, pieces, rows))

    def _send(self, pieces: list[bytes], rows: Rows) -> tuple[list[str], Rows]:
        whole = blake3()
        for piece in pieces:
            whole.update(piece)
        pack = whole.hexdigest()
        self.store.put(f"packs/{pack}", pieces)
        return [pack], rows

    def _used(self, segments: Iterable[tuple[list[str], Rows]]) -> list[tuple[list[str], Rows]]:
        """Those that hold something this transaction builds upon."""
        relied = Index.of(_words(self._relied))
        return [(packs, rows) for packs, rows in segments if relied.holds(rows["digest"]).any()]

    def _lost(self, index: Index) -> list[bytes]:
        """What this transaction builds upon, and what cannot be built upon any more."""
        digests = [*self._own, *self._relied]
        places = index.find(_words(digests), index.is_usable)
        return [digests[number] for number in np.flatnonzero(places < 0)]

    def _store_again(self, lost: list[bytes], index: Index) -> None:
        """Store anew what was condemned, or lies in packs that were, while this transaction went on."""
        unpacker = Unpacker(self.store, index)
        self._own -= {*lost}
        self._relied -= {*lost}
        self._index = index
        for digest in lost:
            words = _words([digest])
            try:
                places = unpacker.candidates(words)
                if places and index.rows["length"][places[0]] > WHOLE_BYTES:
                    self.put_pieces(unpacker.stream(digest.hex(), words), int(index.rows["length"][places[0]]))
                else:
                    self._put_piece(digest, unpacker.one(digest.hex(), words))
            except (Missing, DamagedFile) as error:
                raise ResourceError(
                    f"{self.store.url}: object {digest.hex()} was deleted by a collection while this went on; "
                    "run the same command again"
                ) from error


class _Joined:
    """Pieces, read like a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._left = iter(pieces), memoryview(b"")

    def readinto(self, target: memoryview, /) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        length = min(len(target), len(self._left))
        target[:length] = self._left[:length]
        self._left = self._left[length:]
        return length


def _sound(snapshot: Snapshot) -> Snapshot:
    for problem in snapshot.problems:
        if problem.where == "condemned":
            raise DamagedFile(problem.what)
    return snapshot


def _without_lists(segments: list[tuple[list[str], Rows]]) -> list[tuple[list[str], Rows]]:
    # whoever wrote them has not made sure that their chunks are still there
    return [(packs, rows[rows["kind"] != CHUNKS]) for packs, rows in segments]


def _joined(segments: list[tuple[list[str], Rows]]) -> tuple[list[str], Rows]:
    names = [packs[0] for packs, _ in segments]
    placed = np.empty(sum(len(rows) for _, rows in segments), PLACED)
    start = 0
    for number, (_, rows) in enumerate(segments):
        part = placed[start : start + len(rows)]
        for name in rows.dtype.names or ():
            part[name] = rows[name]
        part["pack"] = number
        start += len(rows)
    return names, placed


def _words(digests: Iterable[bytes]) -> Words:
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 4)


__all__ = ["FileStored", "Prepared", "Stored", "Writer"]
