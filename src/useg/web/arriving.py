"""A content while it comes: digested as it streams, in memory while it is small, then in a file without a name."""

from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from types import TracebackType
from typing import IO, Self

from blake3 import blake3

from useg.home.folder import writing
from useg.home.store import Folder, Store

_PIECE = 2**20


class Arriving:
    """One content on its way into a home; nothing of it is left behind, whatever happens to the server.

    Args:
        store: the home; a folder's own disk holds what is large.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hasher = blake3()
        self._pieces: list[bytes] = []
        self._held, self._small = 0, b""
        self._file: IO[bytes] | None = None
        self.size = 0

    def add(self, piece: bytes) -> bool:
        """Take what came; True when `write` should be called."""
        self._pieces.append(piece)
        self._held += len(piece)
        self.size += len(piece)
        return self._held >= _PIECE

    def write(self) -> None:
        """Digest what came since, and bring it to the disk if it is more than a piece.

        Raises:
            ResourceError: the disk is full.
        """
        content = b"".join(self._pieces)
        self._hasher.update(content)
        self._pieces, self._held = [], 0
        if self._file is None and self.size < _PIECE:
            self._small = content
            return
        place = _place(self._store)
        with writing(place):
            if self._file is None:
                self._file = TemporaryFile(dir=place, buffering=0)  # noqa: SIM115
            left = memoryview(content)
            while left:
                left = left[self._file.write(left) :]

    def digest(self) -> str:
        """BLAKE3 of what came."""
        return str(self._hasher.hexdigest())

    def content(self) -> bytes | Path:
        """What came, as a home takes it, for as long as this is open."""
        if self._file is None:
            return self._small
        self._file.seek(0)
        return Path(f"/dev/fd/{self._file.fileno()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def _place(store: Store) -> Path:
    """A folder of the home's own disk, which may share the bytes with the file that is put."""
    if not isinstance(store, Folder):
        return Path(gettempdir())
    place = store.root / ".tmp"
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    return place


__all__ = ["Arriving"]
