"""Digests of files that were read before: who was not changed since needs not be read again.

A file counts as unchanged while size, times and inode are those it had when it was read. What was changed
within the last moments before it was read is read again, because a later change might not move its times.
"""

import os
import stat
import time
from pathlib import Path
from typing import Any

from blake3 import blake3

from useg.data.listing import list_files
from useg.errors import ResourceError

_SETTLED_NS = 2_000_000_000
"""File systems count time in steps of up to two seconds."""

_BLOCK = 2**20


class KnownFiles:
    """The digests of the files beneath one folder, kept in this machine's cache.

    Args:
        root: the folder; its absolute path tells whose digests these are.
        treatment: what was done to the bytes before they were digested; "" if nothing.
        store: the folder that keeps them; by default `digests` in this machine's cache.
    """

    def __init__(self, root: Path, *, treatment: str = "", store: Path | None = None) -> None:
        from useg.home.cache import cache_folder

        name = blake3(f"{treatment}\0{os.path.abspath(root)}".encode("utf-8", "surrogateescape")).hexdigest(length=16)
        self._file = (store or cache_folder() / "digests") / f"{name}.json"
        loaded = self._load()
        self._known: dict[str, list[Any]] = loaded.get("files", {})
        self._bases: dict[str, list[str]] = loaded.get("bases", {})
        self._now = time.time_ns()
        self._changed = False

    def _load(self) -> dict[str, Any]:
        import orjson

        try:
            loaded = orjson.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def digest(self, path: str, status: os.stat_result) -> tuple[str, int] | None:
        """Digest and length of what a file gave when it was read, if it is unchanged since.

        Args:
            path: the file, as it was remembered.
            status: what the file system says of it now.
        """
        known = self._known.get(path)
        if known is None or known[:4] != [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]:
            return None
        return str(known[4]), int(known[5])

    def remember(self, path: str, status: os.stat_result, digest: str, length: int) -> None:
        """Keep what a file gave; `status` was taken before it was read and is still true."""
        if max(status.st_mtime_ns, status.st_ctime_ns) + _SETTLED_NS > self._now:
            self._now = time.time_ns()
            if max(status.st_mtime_ns, status.st_ctime_ns) + _SETTLED_NS > self._now:
                return
        self._known[path] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, digest, length]
        self._changed = True

    def base(self, line: str) -> tuple[str | None, str]:
        """The commit that the folder was last added as to a branch, and the state it was in; "" if not known."""
        commit, state = self._bases.get(line, (None, ""))
        return commit, state or ""

    def note_base(self, line: str, commit: str, state: str) -> None:
        """Keep the commit that the folder was added as, and its state before it was read."""
        self._changed = self._changed or self._bases.get(line) != [commit, state]
        self._bases[line] = [commit, state]

    def save(self) -> None:
        """Write what was learned; a cache that cannot be written costs time only, so that is no error."""
        import orjson

        from useg.home.folder import write_atomically

        if not self._changed:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, orjson.dumps({"files": self._known, "bases": self._bases}))
        except (OSError, ResourceError, TypeError):  # TypeError: a name that is not text
            return
        self._changed = False


def state_of(root: Path) -> str:
    """A digest of the names, sizes and times of all files of a folder; "" where it would not tell every change.

    Raises:
        DataError: places in the folder cannot be read.
    """
    latest = time.time_ns() - _SETTLED_NS
    hasher, prefix = blake3(), os.path.join(root, "")
    for path in list_files(root).files:
        status = os.lstat(prefix + path)
        if stat.S_ISLNK(status.st_mode) or max(status.st_mtime_ns, status.st_ctime_ns) > latest:
            return ""
        numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        hasher.update(f"{path}\0{numbers}\0".encode("utf-8", "surrogateescape"))
    return str(hasher.hexdigest())


def digest_file(path: Path) -> tuple[str, int]:
    """BLAKE3 and length of a file.

    Raises:
        OSError: the file cannot be read.
    """
    hasher, length = blake3(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
            length += len(block)
    return hasher.hexdigest(), length
