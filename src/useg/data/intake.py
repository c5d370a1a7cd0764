"""Takes files into a home: read ahead, digested once, and stored a transaction at a time."""

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from useg.data.fields import shown
from useg.data.known_files import KnownFiles, digest_file
from useg.data.locating import Located, LocatedFile
from useg.data.progress import Progress
from useg.data.stripping import Stripped, strip_file
from useg.errors import DataError, Problem
from useg.home.objects import Objects, Withdrawn
from useg.home.writer import Prepared, Writer

_COMMIT_EVERY_BYTES = 2**30
_COMMIT_EVERY_S = 30.0
_SMALL_BYTES = 2**20
"""Files up to this size are read ahead as a whole."""
_READERS = 2
_LOT_FILES, _LOT_BYTES = 32, 4 * 2**20
"""Readers take files in lots: a task for each would cost more than reading it."""
_LOTS_AHEAD = 4

_Digest = tuple[str, int]
_Lot = list[tuple[str, LocatedFile]]
_Prepared = Prepared | _Digest | Stripped | OSError | None
"""What a reader made of a file: ready to store, digest and length alone, stripped, not to be read; None: large."""


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
        self._writer: Writer

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
                with self._objects.writer() as self._writer:
                    for lot, prepared in ready:
                        done += len(lot)
                        for (path, file), (each, changed) in zip(lot, prepared.result(), strict=True):
                            self._finish(path, file, each, found, problems, changed=changed)
                        if progress:
                            progress(self.bytes_read, total=total)
                        read = self.bytes_read - before
                        if read >= _COMMIT_EVERY_BYTES or time.monotonic() - begun > _COMMIT_EVERY_S:
                            break
                    self.bytes_stored += self._writer.commit().bytes_stored
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
    ) -> Iterator[tuple[_Lot, Future[list[tuple[_Prepared, bool]]]]]:
        """The files in their order, while the next ones are being read; whether they changed meanwhile."""
        running: deque[tuple[_Lot, Future[list[tuple[_Prepared, bool]]]]] = deque()
        for lot in _in_lots(waiting):
            running.append((lot, pool.submit(self._prepare_all, lot)))
            if len(running) > _LOTS_AHEAD:
                yield running.popleft()
        yield from running

    def _prepare_all(self, lot: _Lot) -> list[tuple[_Prepared, bool]]:
        prepared: list[tuple[_Prepared, bool]] = []
        for _, file in lot:
            try:
                made = self._prepare(file)
                prepared.append((made, made is not None and _changed(file)))
            except OSError as error:
                prepared.append((error, False))
        return prepared

    def _prepare(self, file: LocatedFile) -> _Prepared:
        if self._link:
            return digest_file(Path(file.place))
        if self._strip:
            return strip_file(Path(file.place))
        if file.status.st_size > _SMALL_BYTES:
            return None
        with open(file.place, "rb", buffering=0) as stream:
            return self._writer.prepare(stream.readall())

    def _finish(
        self,
        path: str,
        file: LocatedFile,
        prepared: _Prepared,
        found: dict[str, _Digest],
        problems: list[Problem],
        *,
        changed: bool,
    ) -> None:
        """Store one file, or note why it cannot be."""
        try:
            found[path], left = self._store(file, prepared)
        except OSError as error:
            problems.append(Problem(shown(file.place), f"cannot be read: {error.strerror or error}"))
            return
        except Withdrawn as error:
            problems.append(Problem(shown(file.place), str(error), "take it out of the folder"))
            return
        self.bytes_read += file.status.st_size
        self.left += [Problem(path, what) for what in left]
        if changed or (prepared is None and _changed(file)):
            problems.append(Problem(shown(file.place), "changed while it was read", "add it again"))
        elif not left:  # what is left in a file is said again each time
            self._known.remember(path, file.status, *found[path])

    def _store(self, file: LocatedFile, prepared: _Prepared) -> tuple[_Digest, tuple[str, ...]]:
        if isinstance(prepared, OSError):
            raise prepared
        if isinstance(prepared, tuple):
            return prepared, ()
        if isinstance(prepared, Prepared):
            return (self._writer.put_prepared(prepared), len(prepared.content)), ()
        left = prepared.left if prepared else ()
        if prepared and prepared.content is not None:
            return (self._writer.put(prepared.content), len(prepared.content)), left
        stored = self._writer.put_file(Path(file.place))
        return (stored.digest, stored.bytes), left


def _in_lots(files: dict[str, LocatedFile]) -> Iterator[_Lot]:
    lot: _Lot = []
    size = 0
    for path, file in files.items():
        lot.append((path, file))
        size += file.status.st_size
        if len(lot) == _LOT_FILES or size >= _LOT_BYTES:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def _changed(file: LocatedFile) -> bool:
    before = file.status
    try:
        now = os.stat(file.place)
    except OSError:
        return True
    return (now.st_size, now.st_mtime_ns, now.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino)


__all__ = ["Intake"]
