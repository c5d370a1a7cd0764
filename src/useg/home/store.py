"""The five verbs that make a home, and the two kinds of home that need no network: a folder and memory."""

import os
import re
import secrets
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EACCES, ELOOP, EPERM, EROFS
from pathlib import Path
from threading import Lock
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from useg.errors import InputError, ResourceError, UsegError
from useg.home.files import link_new, read_range, sync_folder, write_new
from useg.home.folder import writing
from useg.home.keys import check_key, check_prefix, check_range, is_key, merged

ABANDONED_S = 24 * 3600.0
"""After this time what a put has left behind is taken for the remains of a crash."""


Content = bytes | list[bytes] | Path
"""What can be put: bytes, pieces that make them up, or a file that holds them."""


class Missing(UsegError):
    """A home has nothing under this key.

    Attributes:
        url: of the home.
        key: what was asked for.
    """

    def __init__(self, url: str, key: str) -> None:
        super().__init__(f"{url}: there is no {key}")
        self.url, self.key = url, key

    def __reduce__(self) -> tuple[type["Missing"], tuple[str, str]]:
        return type(self), (self.url, self.key)


@dataclass(frozen=True)
class Entry:
    """What a listing tells of one key; `modified` in seconds by the store's clock."""

    key: str
    size: int
    modified: float


class Store(ABC):
    """A home, as five verbs that may be used from several threads at once; nothing is ever overwritten.

    Attributes:
        url: by which `open_store` finds it again.

    Every verb raises `InputError` for a key that cannot be one (see `check_key`) and `ResourceError` when the place
    does not answer, is full, or may not be used.
    """

    url: str

    @abstractmethod
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from `start` up to `end`; fewer where the content ends before.

        Raises:
            Missing: there is no such key.
        """

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (start, end), as `get` gives them, in the order asked for; near ones by one request."""
        found = [b""] * len(ranges)
        for start, end, members in merged(ranges):
            content = self.get(key, start, end)
            for member in members:
                found[member] = content[ranges[member][0] - start : ranges[member][1] - start]
        return found

    @abstractmethod
    def put(self, key: str, content: Content) -> bool:
        """Write bytes, pieces of them, or a file's, under a new key; they survive a power cut once this returns.

        Returns:
            False, with nothing written, when the key was there already.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Everything whose key begins with these characters, sorted by key."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Take a key away; no error when it is not there."""

    @abstractmethod
    def time(self) -> float:
        """Seconds by the store's own clock, which is not this machine's; a bucket's tells whole seconds."""

    def path(self, key: str) -> Path | None:
        """The file that holds these bytes, only to be read; None when there is none, or no such key."""
        check_key(key)
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


def whole(content: bytes | list[bytes]) -> bytes:
    """Pieces as one."""
    return content if isinstance(content, bytes) else b"".join(content)


def open_store(url: str | Path) -> Store:
    """The home at a folder's path, `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`, `http://host:port` (what
    `useg serve` offers) or `memory:NAME`.

    Raises:
        InputError: it is none of these.
    """
    text = str(url)
    if isinstance(url, Path) or not re.match(r"[a-z][a-z0-9+.-]+:", text):
        return Folder(Path(text).expanduser())
    scheme, _, rest = text.partition(":")
    if scheme == "memory":
        return Memory.named(rest)
    if scheme == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InputError(f"{text}: wanted file:///an/absolute/path")
        return Folder(Path(unquote(parts.path)))
    if scheme in ("s3", "gs", "az"):
        from useg.home.bucket import Bucket

        return Bucket(text)
    if scheme in ("http", "https"):
        from useg.home.served import Served

        return Served(text)
    raise InputError(
        f"{text}: a home is a folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or http://host:port"
    )


class Folder(Store):
    """A home in a folder, which the first put makes; safe for several machines on one network file system.

    Args:
        root: its path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{root} is a file; a home is a folder")
        self.url = str(self.root)
        self._real = os.path.realpath(self.root)
        self._temporary = os.path.join(self._real, ".tmp")
        self._durable: set[str] = set()
        self._swept = False

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_range(start, end)
        with self._opened(key) as (file, size):
            return read_range(file, start, size if end is None else min(end, size))

    @override
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        for start, end in ranges:
            check_range(start, end)
        with self._opened(key) as (file, size):
            return [read_range(file, start, min(end, size)) for start, end in ranges]

    @override
    def put(self, key: str, content: Content) -> bool:
        file = self._file(key)
        folder = os.path.dirname(file)
        with writing(Path(file)):
            if os.path.isdir(file) or any(os.path.isfile(above) for above in self._above(folder)):
                raise InputError(f"{file}: a key cannot lie below another key of the home")
            self._make(folder)
            # what is there already was perhaps written by somebody who has not come to this yet
            if os.path.exists(file):
                sync_folder(folder)
                return False
            self._make(self._temporary)
            self._sweep()
            temporary = os.path.join(self._temporary, f"{os.getpid()}-{secrets.token_hex(8)}")
            try:
                write_new(temporary, content)
                is_new = link_new(temporary, file, self.url)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            sync_folder(folder)
            return is_new

    @override
    def list(self, prefix: str = "") -> Iterator[Entry]:
        check_prefix(prefix)
        above, slash, beginning = prefix.rpartition("/")
        if above:
            self._file(above)
        return self._walk(above + slash, beginning)

    @override
    def delete(self, key: str) -> None:
        file = self._file(key)
        with writing(Path(file)):
            if os.path.isdir(file):
                return
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(file)
                sync_folder(os.path.dirname(file))

    @override
    def time(self) -> float:
        # the time that the file system's server sets, which need not be this machine's
        try:
            if not os.path.isdir(self._real):
                return time.time()
            with suppress(FileExistsError):
                os.mkdir(self._temporary)
            os.utime(self._temporary)
            return os.stat(self._temporary).st_mtime
        except OSError as error:
            if error.errno in (EACCES, EPERM, EROFS):
                return time.time()
            raise _unreadable(self.url, error) from error

    @override
    def path(self, key: str) -> Path | None:
        file = self._file(key)
        return Path(file) if os.path.isfile(file) else None

    def _file(self, key: str) -> str:
        """The file of a key, which lies in the home even when links are followed."""
        check_key(key)
        file = os.path.join(self._real, key)
        real = os.path.realpath(file)
        if real != file and not real.startswith(self._real + os.sep):
            raise InputError(
                f"{file} leads out of the home, to {real}: a home keeps everything within; remove the link"
            )
        return file

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """A key's file, open, and its size."""
        name = self._file(key)
        try:
            # a pipe that somebody has put there must not make us wait
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(self.url, key) from None
        except OSError as error:
            if error.errno == ELOOP:
                raise Missing(self.url, key) from None
            raise _unreadable(name, error) from error
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise Missing(self.url, key)
            yield file, status.st_size
        except OSError as error:
            raise _unreadable(name, error) from error
        finally:
            os.close(file)

    def _walk(self, above: str, beginning: str) -> Iterator[Entry]:
        folder = os.path.join(self._real, above)
        try:
            with os.scandir(folder) as found:
                names = {(each.name + "/" if each.is_dir(follow_symlinks=False) else each.name): each for each in found}
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unreadable(folder, error) from error
        for name in sorted(names):
            entry = names[name]
            if not name.startswith(beginning) or not is_key(above + entry.name):
                continue
            if name.endswith("/"):
                yield from self._walk(above + name, "")
            elif entry.is_symlink():
                # what it leads to is listed under its own name, if it is in the home
                self._file(above + name)
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield Entry(above + name, status.st_size, status.st_mtime)

    def _above(self, folder: str) -> Iterator[str]:
        while len(folder) > len(self._real):
            yield folder
            folder = os.path.dirname(folder)

    def _make(self, folder: str) -> None:
        """Make a folder and those above it, so that they survive a power cut."""
        if folder in self._durable and os.path.isdir(folder):
            return
        if len(folder) > len(self._real) or not os.path.isdir(folder):
            above = os.path.dirname(folder)
            self._make(above)
            with suppress(FileExistsError):
                os.mkdir(folder)
            sync_folder(above)
        self._durable.add(folder)

    def _sweep(self) -> None:
        """Remove what crashed puts have left, once for each store that writes."""
        if self._swept:
            return
        self._swept = True
        now = self.time()
        with os.scandir(self._temporary) as found:
            for entry in found:
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < now - ABANDONED_S:
                        os.unlink(entry.path)


def _unreadable(place: str, error: OSError) -> ResourceError:
    return ResourceError(
        f"{place}: cannot read: {error.strerror or error}. Give the permission back or reconnect the disk, "
        "then run the same command again"
    )


class Memory(Store):
    """A home in this process's memory, for tests.

    Args:
        url: its name.
        clock: tells the store's time.
    """

    _named: ClassVar[dict[str, "Memory"]] = {}

    def __init__(self, url: str = "memory:", clock: Callable[[], float] = time.time) -> None:
        self.url, self._clock = url, clock
        self._held: dict[str, tuple[bytes, float]] = {}
        self._lock = Lock()

    @classmethod
    def named(cls, name: str) -> "Memory":
        """The one of this name in this process."""
        return cls._named.setdefault(name, cls(f"memory:{name}"))

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_key(key)
        check_range(start, end)
        try:
            return self._held[key][0][start:end]
        except KeyError:
            raise Missing(self.url, key) from None

    @override
    def put(self, key: str, content: Content) -> bool:
        check_key(key)
        held = content.read_bytes() if isinstance(content, Path) else whole(content)
        with self._lock:
            if key in self._held:
                return False
            self._held[key] = (held, self._clock())
            return True

    @override
    def list(self, prefix: str = "") -> Iterator[Entry]:
        check_prefix(prefix)
        with self._lock:
            found = sorted(key for key in self._held if key.startswith(prefix))
            return iter([Entry(key, len(self._held[key][0]), self._held[key][1]) for key in found])

    @override
    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._held.pop(key, None)

    @override
    def time(self) -> float:
        return self._clock()


__all__ = ["Content", "Entry", "Folder", "Memory", "Missing", "Store", "check_key", "is_key", "open_store", "whole"]
