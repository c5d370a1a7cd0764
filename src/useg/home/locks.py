"""Locks, pins and claims that end with the process that holds them, however it ends."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from useg.home.folder import writing


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Be the only one, among all threads and processes of this machine, that holds the lock of this file.

    Raises:
        ResourceError: the file cannot be made.
    """
    with writing(file):
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with writing(file):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_abandoned(file: int) -> bool:
    """Whether nobody holds the lock of an open file; if so, it is held from here on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep_abandoned(folder: Path, age_s: float) -> None:
    """Remove the files and links of a folder that are older, and whose lock nobody holds: what the killed left."""
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        with suppress(OSError):
            if time.time() - os.lstat(path).st_mtime < age_s:
                continue
            if os.path.islink(path):
                os.unlink(path)
                continue
            with open(path, "rb") as file:
                if is_abandoned(file.fileno()):
                    os.unlink(path)


class Pin:
    """Objects that no process evicts while this one holds them; ends with the process, even with a killed one.

    Args:
        folder: where pins lie: a file each, its lock held, with the digests as bytes.
        lock: held while a pin changes; whoever asks `pinned` holds it, too.
        digests: what to hold.
    """

    def __init__(self, folder: Path, lock: Path, digests: Iterable[str] = ()) -> None:
        self._path = folder / f"{os.getpid()}.{secrets.token_hex(8)}"
        self._lock = lock
        with locked(lock), writing(folder):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self.hold(digests)
        except BaseException:
            self.close()
            raise

    def hold(self, digests: Iterable[str]) -> None:
        """Hold these from now on, and nothing else.

        Raises:
            ResourceError: the disk is full; then it holds some of both.
        """
        content = bytes.fromhex("".join(digests))
        with locked(self._lock), writing(self._path):
            with open(self._file, "r+b", closefd=False) as file:
                file.seek(0)
                file.write(content)
            os.ftruncate(self._file, len(content))

    def hold_also(self, digests: Iterable[str]) -> None:
        """Hold these, too; cheaper than to hold many anew.

        Raises:
            ResourceError: the disk is full; then it holds some of them.
        """
        content = bytes.fromhex("".join(digests))
        with locked(self._lock), writing(self._path), open(self._file, "r+b", closefd=False) as file:
            file.seek(0, os.SEEK_END)
            file.write(content)

    def close(self) -> None:
        """Let them go."""
        if self._file >= 0:
            with suppress(OSError):
                os.unlink(self._path)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def pinned(folder: Path) -> set[str]:
    """The digests that living processes hold; the pins of dead ones are removed. Ask it under the lock of the pins."""
    found: set[str] = set()
    for name in os.listdir(folder):
        with suppress(FileNotFoundError), open(folder / name, "rb") as file:
            if is_abandoned(file.fileno()):
                os.unlink(file.name)
            else:
                held = file.read().hex()
                found.update(held[start : start + 64] for start in range(0, len(held), 64))
    return found


class Claims:
    """Who brings in which object just now, among all threads and processes; each can have one claim on each.

    A claim is a lock on one byte of a file, which costs no file of its own. Such locks belong to a process and not to a
    thread, and one process must not open the file twice: take them from `claims_in`.
    """

    def __init__(self, file: Path) -> None:
        with writing(file):
            self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        self._held: set[int] = set()
        self._lock = Lock()

    @contextmanager
    def claim(self, digests: Iterable[str]) -> Iterator[list[str]]:
        """Claim those of these objects that nobody else claims, without waiting, and say which they are."""
        mine: list[str] = []
        try:
            mine.extend(digest for digest in digests if self._take(_byte(digest)))
            yield mine
        finally:
            with self._lock:
                for digest in mine:
                    self._held.discard(_byte(digest))
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(digest))

    def _take(self, byte: int) -> bool:
        with self._lock:
            if byte in self._held:
                return False
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except (BlockingIOError, PermissionError):
                return False
            self._held.add(byte)
            return True


_known: dict[tuple[Path, int], Claims] = {}
_known_lock = Lock()


def claims_in(folder: Path) -> Claims:
    """This process's claims on what comes into a folder."""
    key = (folder, os.getpid())  # a forked process has none of its parent's claims
    with _known_lock:  # two of them in one process would not see each other's claims
        if key not in _known:
            _known[key] = Claims(folder / ".claims")
        return _known[key]


def _byte(digest: str) -> int:
    return int(digest[:15], 16)


__all__ = ["Claims", "Pin", "claims_in", "is_abandoned", "locked", "pinned", "sweep_abandoned"]
