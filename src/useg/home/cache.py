"""This machine's bounded copy of objects: a file each, shared by all its processes, least recently used out first.

    <folder>/<aa>/<digest><suffix>   an object; read-only; its access time is its last use, to the minute
    <folder>/.parts/                 files being written; renamed when whole and of the right digest
    <folder>/.pins/                  what running processes hold
    <folder>/.used                   how much room all objects take; never less than they do
    <folder>/.moved                  bytes that came to this machine: from homes, and from other machines' caches
    <folder>/.lock                   held while an object comes in, while objects go, and while a pin changes

Readers hold no lock. Objects are only ever copies of what a home has: what is lost here is fetched again.
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedWriter
from itertools import accumulate, takewhile
from pathlib import Path

from blake3 import blake3

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home.folder import writing
from useg.home.locks import Pin, locked, pinned, sweep_abandoned

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"(\.[^/\0]{1,40})?")
_SOURCE_DIGITS = 24
_SOURCE = re.compile(r"\.of-([0-9a-f]{24})\.\w+$")
_FAN = [f"{number:02x}" for number in range(256)]
_BLOCK = 4096
_LOT_FILES = 64
_LOT_S = 0.1
"""A lot waits no longer, so that little is lost with a process that is killed while little comes."""
_LOW_WATER = 0.9
"""Share of the bound that eviction goes down to, so that the folder is scanned once per tenth of the bound."""
_TOUCH_S = 60
_STALE_PART_S = 3600
_UNSYNCED_S = 120
"""What was written this long before the machine stopped may not have reached its disk."""
_Part = tuple[str, str, int]
"""A whole file, its place, and the room that it takes."""


def made_of(digest: str, suffix: str) -> str:
    """The suffix of a file that was made of an object, so that it goes when that is withdrawn."""
    return f".of-{digest[:_SOURCE_DIGITS]}{suffix}"


def cache_folder() -> Path:
    """Where this machine keeps its copies: `USEG_CACHE`, else `useg` in the user's folder of caches."""
    given = os.environ.get("USEG_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "useg").absolute()


@dataclass(frozen=True, order=True)
class _Kept:
    """A file of the cache; sorted, the least recently used comes first."""

    used: int
    path: str
    room: int

    @property
    def digest(self) -> str:
        return os.path.basename(self.path)[:64]

    @property
    def source(self) -> str:
        """The first digits of the object that it was made of; "" of an object itself."""
        found = _SOURCE.search(self.path)
        return found[1] if found else ""


class Cache:
    """Files of objects within a bound; safe for many threads and processes at once, each with its own `Cache`.

    Args:
        folder: made when it is needed.
        max_bytes: the bound, in whole blocks of the disk; default: half of what is free there or taken by the cache.

    Raises:
        InputError: a file lies where the folder is wanted.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None) -> None:
        self.folder = folder.absolute()
        self._root = str(self.folder)
        there = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        if not there.is_dir():
            raise InputError(f"the cache {self.folder}: {there} is a file; a folder was wanted")
        if max_bytes is None:
            max_bytes = (shutil.disk_usage(there).free + (self._counted() or 0)) // 2
        self.max_bytes = max_bytes
        if (self.folder / ".parts").is_dir():
            self._after_a_restart()

    def path(self, digest: str, suffix: str = "") -> Path | None:
        """The object's file, which counts as used now; None when it is not here.

        While nobody pins it, it may go as the least recently used; what was opened stays readable.
        """
        found = self.look(digest, suffix)
        return found and found[0]

    def look(self, digest: str, suffix: str = "") -> tuple[Path, int] | None:
        """The object's file, as `path` gives it, and how many bytes it has."""
        place = self._place(digest, suffix)
        try:
            status = os.stat(place)
        except OSError:
            return None
        if abs(time.time() - status.st_atime) > _TOUCH_S:
            with suppress(OSError):  # a folder that can only be read still serves
                os.utime(place, ns=(time.time_ns(), status.st_mtime_ns))
        return Path(place), status.st_size

    def add(self, digest: str, content: bytes | Iterable[bytes], suffix: str = "") -> Path:
        """Keep an object; readers see it whole or not at all.

        Raises:
            DamagedFile: the content does not have this digest.
            ResourceError: the disk is full, or what is pinned leaves no room within the bound.
        """
        found = self.path(digest, suffix)
        if found is not None:
            return found
        with self._part(digest) as file:
            room = self._write(file, digest, (content,) if isinstance(content, bytes) else content)
            self._take_in([(file.name, self._place(digest, suffix), room)])
        return Path(self._place(digest, suffix))

    def add_many(self, objects: Iterable[tuple[str, str, bytes]]) -> None:
        """Keep objects as `add` does, in lots that come in together, which is faster.

        Args:
            objects: digest, suffix and content of each. Those that came before an error are kept.

        Raises:
            DamagedFile, ResourceError: see `add`. Whatever `objects` raises.
        """
        source, is_over = iter(objects), False
        while not is_over:
            until = time.monotonic() + _LOT_S
            with ExitStack() as parts:
                lot: list[Future[_Part]] = []
                try:
                    is_over = True
                    with ThreadPoolExecutor(1, "cache") as pool:  # a file takes as long as waiting for its content
                        for digest, suffix, content in source:
                            lot.append(pool.submit(self._whole_part, parts, digest, suffix, content))
                            if len(lot) == _LOT_FILES or time.monotonic() >= until:
                                is_over = False
                                break
                finally:  # the pool has ended: nothing enters `parts` any more
                    self._take_in([each.result() for each in takewhile(_is_well, lot)])
                for each in lot:
                    each.result()

    def _whole_part(self, parts: ExitStack, digest: str, suffix: str, content: bytes) -> _Part:
        file = parts.enter_context(self._part(digest))
        return file.name, self._place(digest, suffix), self._write(file, digest, [content])

    def lend(self, digest: str, file: Path, suffix: str = "") -> Path:
        """Let a file that holds just this object, and never changes, stand in the cache without a copy of it.

        Raises:
            DamagedFile: the file does not have this digest.
        """
        found = self.path(digest, suffix)
        if found is not None:
            return found
        if _digest(file) != digest:
            raise DamagedFile(f"{file}: its bytes are not object {digest}; fetch it again")
        self._make_folders()
        link = f"{self.folder}/.parts/{digest}.{secrets.token_hex(8)}"
        with writing(self.folder):
            os.symlink(file.absolute(), link)
        self._take_in([(link, self._place(digest, suffix), 0)])
        return Path(self._place(digest, suffix))

    def pin(self, digests: Iterable[str] = ()) -> Pin:
        """Keep these objects, here already or not, from eviction until the pin is closed or this process ends."""
        self._make_folders()
        return Pin(self.folder / ".pins", self.folder / ".lock", digests)

    def evict(self, max_bytes: int | None = None) -> int:
        """Remove the least recently used, never what is pinned, down to 90 % of the bound or to `max_bytes`.

        Returns the bytes that it freed.
        """
        with self._locked():
            return self._evict(int(self.max_bytes * _LOW_WATER) if max_bytes is None else max_bytes)[1]

    def remove(self, digests: Collection[str]) -> int:
        """Remove these objects and what was made of them, pinned or not, for what was withdrawn; returns how many
        files went.
        """
        gone = frozenset(digests) | {digest[:_SOURCE_DIGITS] for digest in digests}
        with self._locked():
            kept = self._scan()
            going = [file for file in kept if file.digest in gone or file.source in gone]
            for file in going:
                self._unlink(file.path)
            self._count(sum(file.room for file in kept) - sum(file.room for file in going))
        return len(going)

    def used(self) -> int:
        """The room all objects take, in whole blocks of the disk."""
        return sum(file.room for file in self._scan())

    def _place(self, digest: str, suffix: str) -> str:
        if not _DIGEST.fullmatch(digest) or not _SUFFIX.fullmatch(suffix):
            raise InputError(f"{digest + suffix!r}: 64 hexadecimal digits and the suffix of a file were wanted")
        return f"{self._root}/{digest[:2]}/{digest}{suffix}"

    def _make_folders(self) -> None:
        if os.path.isdir(f"{self.folder}/.pins"):
            return
        with writing(self.folder):
            (self.folder / ".parts").mkdir(parents=True, exist_ok=True)
            # so that backups leave it out
            (self.folder / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
            (self.folder / ".boot").write_text(_boot())
            (self.folder / ".pins").mkdir(exist_ok=True)

    def _locked(self) -> AbstractContextManager[None]:
        self._make_folders()
        return locked(self.folder / ".lock")

    @contextmanager
    def _part(self, digest: str) -> Iterator[BufferedWriter]:
        """A new file to write into, its lock held, so that its writer is known to live."""
        self._make_folders()
        with writing(self.folder):
            name = f"{self.folder}/.parts/{digest}.{secrets.token_hex(8)}"
            # nobody else can write it, nor we again
            file = open(name, "xb", opener=lambda name, flags: os.open(name, flags, 0o444))  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            with suppress(FileNotFoundError):
                os.unlink(file.name)
            with suppress(OSError):  # what it could not write was told before
                file.close()

    def _write(self, file: BufferedWriter, digest: str, pieces: Iterable[bytes]) -> int:
        """Fill a part, and see that it is what was wanted; returns the room that it takes."""
        hasher, length = blake3(), 0
        for piece in pieces:
            length += len(piece)
            if room_of(length) > self.max_bytes:
                raise ResourceError(
                    f"the cache {self.folder} may hold {self.max_bytes:,} bytes, and object {digest} alone is "
                    "larger; give it more with --cache-size or USEG_CACHE_SIZE"
                )
            hasher.update(piece)
            with writing(self.folder):
                file.write(piece)
        if hasher.hexdigest() != digest:
            raise DamagedFile(f"object {digest}: what came has digest {hasher.hexdigest()}; fetch it again")
        with writing(self.folder):
            file.flush()
            os.utime(file.fileno())
        return room_of(length)

    def _take_in(self, parts: Sequence[_Part]) -> None:
        """Rename whole files to their places, after making room for them."""
        with self._locked():
            parts = [part for part in parts if not os.path.exists(part[1])]
            room = sum(room for _, _, room in parts)
            used = self._counted()
            if used is None:
                used = self._evict(self.max_bytes)[0]
            if used + room > self.max_bytes:
                used = self._evict(min(int(self.max_bytes * _LOW_WATER), self.max_bytes - room))[0]
            fitting = [
                part
                for part, filled in zip(parts, accumulate(room for _, _, room in parts), strict=True)
                if part[2] == 0 or used + filled <= self.max_bytes
            ]
            used += sum(room for _, _, room in fitting)
            self._count(used)  # first: if killed between the two, the count is too high and never too low
            with writing(self.folder):
                for part, place, _ in fitting:
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                    os.rename(part, place)
            if len(fitting) < len(parts):
                wanted = parts[len(fitting)][2]
                raise ResourceError(
                    f"the cache {self.folder} is full: {used:,} of its {self.max_bytes:,} bytes are objects that "
                    f"running jobs hold, and {wanted:,} more were wanted; give it more with --cache-size or "
                    "USEG_CACHE_SIZE"
                )

    def _counted(self) -> int | None:
        with suppress(OSError, ValueError):
            return int((self.folder / ".used").read_bytes())
        return None

    def _count(self, used: int) -> None:
        with writing(self.folder):
            file = os.open(f"{self.folder}/.used", os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(file, b"%020d" % used, 0)  # over the old one, of the same length: never half a number
            finally:
                os.close(file)

    def _scan(self) -> list[_Kept]:
        kept = []
        for name in _FAN:
            with suppress(FileNotFoundError), os.scandir(f"{self.folder}/{name}") as entries:
                for entry in entries:
                    if _DIGEST.fullmatch(entry.name[:64]):
                        with suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            room = 0 if entry.is_symlink() else room_of(status.st_size)
                            kept.append(_Kept(status.st_atime_ns, entry.path, room))
        return kept

    def _evict(self, target: int) -> tuple[int, int]:
        """Under the lock: bring what is here down to a target; returns the room taken now, and what was freed."""
        sweep_abandoned(self.folder / ".parts", _STALE_PART_S)
        kept = self._scan()
        before = used = sum(file.room for file in kept)
        if used > target:
            held = pinned(self.folder / ".pins")
            for file in sorted(kept):
                if used <= target:
                    break
                # what is lent takes no room; it goes when the file that it stands for is gone
                if file.digest not in held and (file.room or not os.path.exists(file.path)):
                    self._unlink(file.path)
                    used -= file.room
        self._count(used)
        return used, before - used

    def _unlink(self, path: str) -> None:
        with writing(self.folder), suppress(FileNotFoundError):
            os.unlink(path)

    def _after_a_restart(self) -> None:
        """Once a start of the machine: check what may not have reached the disk before it stopped."""
        mark = self.folder / ".boot"
        with suppress(OSError):
            if mark.read_text() == _boot():
                return
        if not os.access(self.folder, os.W_OK):
            return
        with self._locked():
            written = {file.path: os.lstat(file.path).st_mtime for file in self._scan() if file.room}
            latest = max(written.values(), default=0.0)
            for path, when in written.items():
                if when > latest - _UNSYNCED_S and _digest(Path(path)) != os.path.basename(path)[:64]:
                    self._unlink(path)
            with writing(self.folder):
                (self.folder / ".used").unlink(missing_ok=True)
                mark.write_text(_boot())


def _is_well(part: Future[_Part]) -> bool:
    return part.exception() is None


def room_of(length: int) -> int:
    """The bytes of the disk's blocks that a file takes."""
    return -(-length // _BLOCK) * _BLOCK


def _digest(file: Path) -> str:
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(file)
    return hasher.hexdigest()


def _boot() -> str:
    """What differs from one start of the machine to the next; always the same where the system does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    return ""


__all__ = ["Cache", "Pin", "cache_folder", "room_of"]
