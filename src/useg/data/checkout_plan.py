"""What a checkout will write, what lies there already, and everything that stands in its way."""

import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from useg.data.fields import shown
from useg.data.folder_notes import OWN_FOLDER
from useg.data.known_files import KnownFiles, digest_file
from useg.data.locating import folded_alike
from useg.data.manifest import Row
from useg.errors import DataError, Problem
from useg.home.objects import Objects

_LONGEST_NAME_BYTES = 255
_LONGEST_PATH_BYTES = 4095


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        fetch: files to write, by path: digest and length.
        texts: files of text to write, by path.
        kept: files that lie there as they are wanted.
        replaced: those of `fetch` where another content lies.
        remove: files of an earlier checkout that are not wanted any more.
    """

    fetch: dict[str, tuple[str, int]] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)


def wanted_files(rows: Iterable[Row]) -> dict[str, tuple[str, int]]:
    """Digest and length of every file of these samples, by path.

    Raises:
        DataError: one path stands for two contents.
    """
    wanted: dict[str, tuple[str, int]] = {}
    twice: dict[str, str] = {}
    for row in rows:
        for files in row.files.values():
            for file in files:
                if wanted.setdefault(file.path, (file.digest, file.bytes))[0] != file.digest:
                    twice[file.path] = row.key
    if twice:
        problems = [Problem(path, f"the sample {key} wants another content of it") for path, key in twice.items()]
        raise DataError("files of this version have two contents each", problems)
    return wanted


def make_plan(
    folder: Path,
    wanted: Mapping[str, tuple[str, int]],
    texts: Mapping[str, bytes],
    objects: Objects,
    known: KnownFiles,
    written: Mapping[str, Sequence[str]],
    *,
    force: bool = False,
) -> Plan:
    """Compare what is wanted with what lies there; nothing is written.

    Args:
        folder: where to; it exists.
        wanted: digest and length of the version's files, by path.
        texts: files that are made for this checkout.
        objects: of the home: a file whose content it has may be written over.
        known: digests of what lies in the folder.
        written: digests of what earlier checkouts wrote, by path.
        force: write also over files that no version has.

    Raises:
        DataError: paths lead out of the folder or cannot be there, or changes would be lost; all are listed.
    """
    problems = problems_of_paths(folder, [*wanted, *texts])
    if problems:
        raise DataError(f"{folder}: nothing was written, for {len(problems)} paths cannot be", problems)
    look = _Look(folder, known)
    plan = Plan()
    differs: dict[str, str] = {}
    for path, (digest, length) in {**wanted, **{path: _digest_of(text) for path, text in texts.items()}}.items():
        there = look.digest(path, length, also=path in written or path in texts)
        if there == digest:
            plan.kept.append(path)
            continue
        if path in texts:
            plan.texts[path] = texts[path]
        else:
            plan.fetch[path] = (digest, length)
            plan.replaced += [path] if there is not None else []
        if there is not None and there not in written.get(path, ()):
            differs[path] = there
    if not force:
        saved = objects.has(list(differs.values())) if differs else []
        lost = [path for path, is_saved in zip(differs, saved, strict=True) if not is_saved]
        look.problems += [_would_be_lost(folder, path, own=path in texts and path not in written) for path in lost]
    if look.problems:
        count = len(look.problems)
        files = "1 file is" if count == 1 else f"{count} files are"
        raise DataError(f"{folder}: nothing was written, for {files} in the way", look.problems)
    for path in sorted(written.keys() - wanted.keys() - texts.keys()):
        if look.digest(path, None) in written[path]:
            plan.remove.append(path)
    return plan


def _would_be_lost(folder: Path, path: str, *, own: bool) -> Problem:
    if own:
        what = "is your own, and a checkout writes one that fits the version"
        return Problem(str(folder / path), what, "check out into another folder, move it away, or give --force")
    what = "was changed here, and no version has it"
    return Problem(str(folder / path), what, "add the folder first, move the file away, or give --force to lose it")


def _digest_of(text: bytes) -> tuple[str, int]:
    return blake3(text).hexdigest(), len(text)


class _Look:
    """Looks at what lies in a folder, never through a link."""

    def __init__(self, folder: Path, known: KnownFiles) -> None:
        self._folder, self._known = folder, known
        self._parents: dict[str, bool] = {"": True}
        self.problems: list[Problem] = []

    def digest(self, path: str, length: int | None, *, also: bool = False) -> str | None:
        """The digest of the file that lies at a path; None if there is none.

        Args:
            path: relative to the folder.
            length: the length wanted.
            also: whether the digest matters when the length is another.
        """
        if not self._has_parent(path.rpartition("/")[0]):
            return None
        place = self._folder / path
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            what = "a link lies there" if stat.S_ISLNK(status.st_mode) else "a folder or a device lies there"
            self.problems.append(Problem(str(place), what, "move it away"))
            return None
        found = self._known.digest(path, status)
        if found is None:
            try:
                found = digest_file(place)
            except OSError as error:
                self.problems.append(Problem(str(place), f"cannot be read: {error.strerror}"))
                return None
            self._known.remember(path, status, *found)
        return found[0]

    def _has_parent(self, folder: str) -> bool:
        """Whether a folder is there, as a folder; a link or a file in its place is a problem."""
        if folder in self._parents:
            return self._parents[folder]
        there = self._has_parent(folder.rpartition("/")[0])
        if there:
            place = self._folder / folder
            try:
                mode = os.lstat(place).st_mode
            except FileNotFoundError:
                there = False
            else:
                there = stat.S_ISDIR(mode)
                if not there:
                    what = "a link lies there" if stat.S_ISLNK(mode) else "a file lies there"
                    self.problems.append(Problem(str(place), f"{what}, a folder was wanted", "move it away"))
        self._parents[folder] = there
        return there


def problems_of_paths(folder: Path, paths: Sequence[str]) -> list[Problem]:
    """Paths that cannot be, or must not be, written beneath a folder."""
    problems = [Problem(shown(path), why) for path in paths if (why := _why_unsafe(path, folder))]
    files = set(paths)
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in files:
                problems.append(Problem(shown(path), f"{shown(parent)} is a file of this version, not a folder"))
                break
            parent = parent.rpartition("/")[0]
    alike = folded_alike(paths)
    if alike and not _tells_case(folder):
        what = "lie in one place on this file system, which takes upper and lower case as the same"
        problems += [Problem(", ".join(group), what, "check them out one by one with a query") for group in alike]
    return problems


def _why_unsafe(path: str, folder: Path) -> str:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or ":" in parts[0] or "\0" in path:
        return "is no path relative to the folder"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of the folder, or nowhere"
    if parts[0] == OWN_FOLDER:
        return "is kept for what useg notes"
    if any(len(os.fsencode(part)) > _LONGEST_NAME_BYTES for part in parts):
        return f"has a name of more than {_LONGEST_NAME_BYTES} bytes"
    if len(os.fsencode(os.path.abspath(folder))) + 1 + len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        return f"is longer than the {_LONGEST_PATH_BYTES} bytes that a path may have"
    return ""


def _tells_case(folder: Path) -> bool:
    """Whether a file system keeps names apart that differ in case alone."""
    with tempfile.NamedTemporaryFile(prefix=".useg-Case-", dir=folder) as file:
        return not os.path.lexists(os.path.join(folder, os.path.basename(file.name).swapcase()))
