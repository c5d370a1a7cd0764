"""Puts objects of a home into a folder as files, each whole or not at all."""

import fcntl
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from useg.data.commits import Links
from useg.data.progress import Progress
from useg.errors import DamagedFile, DataError, Problem, UsegError
from useg.home.objects import Objects, in_lots

_BLOCK = 2**20
_FICLONE = 0x40049409


@contextmanager
def laying(folder: Path, parts: Path) -> Iterator["Laying"]:
    """Lay files into a folder; unfinished ones are in `parts`, on the same file system, and go at the end."""
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    try:
        yield Laying(folder, parts)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


class Laying:
    """Files come to their places whole or not at all."""

    def __init__(self, folder: Path, parts: Path) -> None:
        self._folder, self._part = folder, parts / "part"
        self._made: set[str] = {""}

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write one file; a link that lies there is replaced, not followed."""
        with self._part.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        self._put(path)

    def _put(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent not in self._made:
            (self._folder / parent).mkdir(parents=True, exist_ok=True)
            self._made.add(parent)
        os.replace(self._part, self._folder / path)

    def fetch(
        self,
        wanted: Mapping[str, tuple[str, int]],
        links: Sequence[Links],
        objects: Objects,
        progress: Progress | None = None,
    ) -> None:
        """Write files of these digests and lengths.

        Raises:
            DataError: some cannot be had; all others were written.
        """
        paths: defaultdict[str, list[str]] = defaultdict(list)
        lengths = dict(wanted.values())
        for path, (digest, _) in wanted.items():
            paths[digest].append(path)
        here = dict(zip(paths, objects.has(list(paths)), strict=True)) if paths else {}
        done, total = 0, sum(length for _, length in wanted.values())
        problems: list[Problem] = []
        for lot in in_lots((digest, lengths[digest]) for digest, is_here in here.items() if is_here):
            problems += self._objects(lot, paths, objects)
            done += sum(lengths[digest] * len(paths[digest]) for digest in lot)
            if progress:
                progress(done, total=total)
        for digest, is_here in here.items():
            if not is_here:
                problems += self._missing(digest, paths[digest], links, objects)
        if problems:
            summary = f"{self._folder}: {len(problems)} files could not be had; what could lies there now"
            raise DataError(summary, problems)

    def _objects(self, lot: Sequence[str], paths: Mapping[str, list[str]], objects: Objects) -> list[Problem]:
        """Write some objects that are asked for together; those that fail are asked for again, one by one."""
        left = set(lot)
        if len(lot) > 1:
            try:
                for digest, content in objects.get_many(lot):
                    for path in paths[digest]:
                        self.write(path, [content])
                    left.discard(digest)
            except UsegError:
                pass
        problems = []
        for digest in sorted(left):
            try:
                for path in paths[digest]:
                    self._large(digest, path, objects)
            except UsegError as error:
                problems += [Problem(path, str(error)) for path in paths[digest]]
        return problems

    def _large(self, digest: str, path: str, objects: Objects) -> None:
        """Write one object: shared with the home's own file where the file system can, else piece by piece."""
        whole = objects.store.path(f"packs/{digest}")
        if whole is not None and whole.is_file() and _share(whole, self._part):
            self._put(path)
        else:
            self.write(path, objects.stream(digest))

    def _missing(self, digest: str, paths: list[str], links: Sequence[Links], objects: Objects) -> list[Problem]:
        """Write files that the home does not keep for certain: from where they were linked, else what is left."""
        problems = []
        for path in paths:
            reasons = []
            for link in links:
                place = link.place(path)
                try:
                    self.write(path, _verified(place, digest))
                    break
                except OSError as error:
                    reasons.append(f"{place}: {error.strerror or error}")
                except DamagedFile as error:
                    reasons.append(str(error))
            else:
                try:
                    self.write(path, objects.stream(digest))
                except UsegError as error:
                    problems.append(Problem(path, "; ".join(reasons) or str(error)))
        return problems


def _verified(place: str, digest: str) -> Iterator[bytes]:
    """The bytes of a file, and an error at their end if they are not those of the digest."""
    hasher = blake3()
    with open(place, "rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
            yield block
    if hasher.hexdigest() != digest:
        raise DamagedFile(f"{place} was changed since it was linked; its version can be had only with it as it was")


def _share(source: Path, target: Path) -> bool:
    """Make a file of the same blocks as another; False where the file system cannot."""
    with source.open("rb") as read, target.open("wb") as write:
        try:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
        except OSError:
            return False
    return True
