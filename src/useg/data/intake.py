"""Takes files into a home: read ahead, digested once, and stored a transaction at a time."""

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from useg.data.fields import shown
from useg.data.known_files import KnownFiles, digest_file
from useg.data.locating import Located, LocatedFile
from useg.data.progress import Progress
from useg.data.stripping import Stripped, strip_file
from useg.errors import DataError, Problem
from useg.home.objects import Objects, Withdrawn

if TYPE_CHECKING:
    from useg.home.writer import Writer

_COMMIT_EVERY_BYTES = 2**30
_COMMIT_EVERY_S = 30.0
_SMALL_BYTES = 2**20
"""Files up to this size are read ahead as a whole."""
_READERS = 2
_AHEAD = 32

_Digest = tuple[str, int]
_Prepared = bytes | _Digest | Stripped | None
"""What a reader made of a file: its bytes, its digest and length, what stripping left of it; None for a large one."""


class Intake:
    """Brings the files of a folder into a home; what was sent is not sent again, however it ends.

    Args:
        objects: of the home.
        known: digests of files that were read before.
        link: digest files and store nothing.
        strip: store them without what could name a person.

    Attributes:
        bytes_read: bytes of files that had to be read.
        bytes_stored: bytes that the home grew by.
        left: what stripping could not take away.
    """

    def __init__(self, objects: Objects, known: KnownFiles, *, link: bool = False, strip: bool = False) -> None:
        self._objects, self._known, self._link, self._strip = objects, known, link, strip
        self.bytes_read = self.bytes_stored = 0
        self.left: list[Problem] = []

    def take(self, located: Located, progress: Progress | None = None) -> dict[str, _Digest]:
        """Digest and length of every file, by its path in the version.

        Raises:
            DataError: files could not be read; all of them are listed.
        """
        found = self._unchanged(located)
        waiting = {path: file for path, file in located.files.items() if path not in found}
        total = sum(file.status.st_size for file in waiting.values())
        problems: list[Problem] = []
        done = 0
        with ThreadPoolExecutor(_READERS, "read") as pool:
            ready = self._ahead(pool, waiting)
            while done < len(waiting):
                begun = time.monotonic()
                before = self.bytes_read
                with self._objects.writer() as writer:
                    for path, file, prepared in ready:
                        done += 1
                        self._finish(writer, path, file, prepared, found, problems)
                        if progress:
                            progress(self.bytes_read, total=total)
                        read = self.bytes_read - before
                        if read >= _COMMIT_EVERY_BYTES or time.monotonic() - begun > _COMMIT_EVERY_S:
                            break
                    self.bytes_stored += writer.commit().bytes_stored
                self._known.save()
        if problems:
            raise DataError(f"{len(problems)} files could not be added; no version was made", problems)
        return found

    def _unchanged(self, located: Located) -> dict[str, _Digest]:
        """Files that are as they were when they were read, and whose bytes the home has."""
        known = {path: self._known.digest(path, file.status) for path, file in located.files.items()}
        found = {path: digest for path, digest in known.items() if digest is not None}
        if self._link:
            return found
        here = self._objects.has([digest for digest, _ in found.values()])
        return {path: digest for (path, digest), there in zip(found.items(), here, strict=True) if there}

    def _ahead(
        self, pool: ThreadPoolExecutor, waiting: dict[str, LocatedFile]
    ) -> Iterator[tuple[str, LocatedFile, Future[_Prepared]]]:
        """The files in their order, while the next ones are being read."""
        running: deque[tuple[str, LocatedFile, Future[_Prepared]]] = deque()
        for path, file in waiting.items():
            running.append((path, file, pool.submit(self._prepare, file)))
            if len(running) > _AHEAD:
                yield running.popleft()
        yield from running

    def _prepare(self, file: LocatedFile) -> _Prepared:
        if self._link:
            return digest_file(Path(file.place))
        if self._strip:
            return strip_file(Path(file.place))
        if file.status.st_size > _SMALL_BYTES:
            return None
        with open(file.place, "rb", buffering=0) as stream:
            return stream.readall()

    def _finish(
        self,
        writer: "Writer",
        path: str,
        file: LocatedFile,
        prepared: "Future[_Prepared]",
        found: dict[str, _Digest],
        problems: list[Problem],
    ) -> None:
        """Store one file, or note why it cannot be."""
        try:
            found[path], left = self._store(writer, file, prepared.result())
        except OSError as error:
            problems.append(Problem(shown(file.place), f"cannot be read: {error.strerror or error}"))
            return
        except Withdrawn as error:
            problems.append(Problem(shown(file.place), str(error), "take it out of the folder"))
            return
        self.bytes_read += file.status.st_size
        self.left += [Problem(path, what) for what in left]
        if _changed(file.status, file.place):
            problems.append(Problem(shown(file.place), "changed while it was read", "add it again"))
        elif not left:  # what is left in a file is said again each time
            self._known.remember(path, file.status, *found[path])

    def _store(self, writer: "Writer", file: LocatedFile, prepared: _Prepared) -> tuple[_Digest, tuple[str, ...]]:
        if isinstance(prepared, tuple):
            return prepared, ()
        left = prepared.left if isinstance(prepared, Stripped) else ()
        content = prepared.content if isinstance(prepared, Stripped) else prepared
        if content is not None:
            return (writer.put(content), len(content)), left
        stored = writer.put_file(Path(file.place))
        return (stored.digest, stored.bytes), left


def _changed(before: os.stat_result, place: str) -> bool:
    try:
        now = os.stat(place)
    except OSError:
        return True
    return (now.st_size, now.st_mtime_ns, now.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino)


__all__ = ["Intake"]
