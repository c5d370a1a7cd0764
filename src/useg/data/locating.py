"""The files that samples are made of: where each lies, and the path that it has in a version."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from useg.data.fields import shown, why_unsayable
from useg.data.headers import split_ref
from useg.data.reading import Sample
from useg.errors import DataError, Problem

OUTSIDE = "outside"
"""Folder of a version in which files appear that a pairs.csv names outside of its own folder."""

_RESERVED = frozenset({"pairs.csv", "classes.toml"})


@dataclass(frozen=True)
class LocatedFile:
    """One file: where it lies, and what the file system says of it (of what a link leads to)."""

    place: str
    status: os.stat_result


@dataclass(frozen=True)
class Located:
    """All files of some samples.

    Attributes:
        files: by the path in the version, with forward slashes.
        refs: for each ref as the reading gave it, path and part.
        outside: places of the files that lie outside of the root, by path in the version.
        notes: what may be trouble later.
    """

    files: dict[str, LocatedFile]
    refs: dict[str, tuple[str, str]]
    outside: dict[str, str]
    notes: tuple[Problem, ...]


def locate(samples: Iterable[Sample], root: Path, *, follow_links: bool = False) -> Located:
    """Find all files of the samples, each once.

    Raises:
        DataError: files are gone, links lead out of the root, or names cannot be kept; all of them are listed.
    """
    top = os.path.abspath(root)
    refs: dict[str, tuple[str, str]] = {}
    places: dict[str, str] = {}
    for ref in dict.fromkeys(ref for sample in samples for ref in refs_of(sample)):
        file, part = split_ref(ref) if "#" in ref else (ref, "")
        place = _place(str(file))
        refs[ref] = (place, part)
        places[place] = ""
    _name(places, top)
    problems = _problems_of_names(refs, places)
    guard = _Guard(top, follow_links=follow_links)
    files: dict[str, LocatedFile] = {}
    for place, path in places.items():
        status = guard.look(place, path, inside=not _lies_outside(place, top))
        if status is not None:
            files[path] = LocatedFile(place, status)
    problems += guard.problems
    if problems:
        raise DataError(f"{shown(str(root))}: {len(problems)} files cannot be added", problems)
    outside = {path: place for place, path in places.items() if _lies_outside(place, top)}
    named = {ref: (places[place], part) for ref, (place, part) in refs.items()}
    return Located(files, named, outside, (*_empty(files), *same_but_for_case(files)))


def refs_of(sample: Sample) -> tuple[str, ...]:
    """All refs of a sample."""
    return (*sample.images, *sample.labels, *([sample.region] if sample.region else []))


def _place(file: str) -> str:
    """The absolute path; a `..` after a link means the folder above what the link leads to."""
    place = os.path.abspath(file)
    if os.pardir in file.split(os.sep):
        folder, name = os.path.split(file)
        real = os.path.realpath(folder)
        if real != os.path.realpath(os.path.dirname(place)):
            return os.path.join(real, name)
    return place


def _lies_outside(place: str, top: str) -> bool:
    return not place.startswith(top.rstrip(os.sep) + os.sep)


def _name(places: dict[str, str], top: str) -> None:
    """Give every place its path in the version: relative to the root, else one beneath `outside/`."""
    elsewhere: dict[str, list[tuple[int, str]]] = defaultdict(list)
    beneath = len(top.rstrip(os.sep)) + 1
    for place in places:
        if not _lies_outside(place, top):
            places[place] = place[beneath:].replace(os.sep, "/")
            continue
        parts = os.path.relpath(place, top).split(os.sep)
        ups = sum(part == os.pardir for part in parts)
        elsewhere["/".join([OUTSIDE, *parts[ups:]])].append((ups, place))
    taken = set(places.values())
    for path, found in elsewhere.items():
        for number, (ups, place) in enumerate(sorted(found)):
            plain = number == 0 and path not in taken
            places[place] = path if plain else f"{OUTSIDE}/{'up/' * ups}{path.removeprefix(OUTSIDE + '/')}"


def _problems_of_names(refs: dict[str, tuple[str, str]], places: dict[str, str]) -> list[Problem]:
    problems = []
    for place, part in dict.fromkeys(refs.values()):
        path = places[place]
        why = why_unsayable(path) or why_unsayable(part)
        if not why and (";" in path + part or "\\" in path + part):
            why = "its name has a ';' or a backslash, which a pairs.csv cannot say"
        if not why and path in _RESERVED:
            why = "this name is kept for useg's own file"
        if why:
            problems.append(Problem(shown(place), why, "rename the file"))
    return problems


class _Guard:
    """Looks at files, and notes those that are gone or that a link leads out to."""

    def __init__(self, top: str, *, follow_links: bool) -> None:
        self._top, self._follow = top, follow_links
        self._real_top = os.path.realpath(top)
        self._folders: dict[str, bool] = {}
        self.problems: list[Problem] = []

    def look(self, place: str, path: str, *, inside: bool) -> os.stat_result | None:
        """What the file system says of a file; None with a problem noted if it cannot be taken."""
        try:
            status = os.lstat(place)
            is_link = stat.S_ISLNK(status.st_mode)
            if is_link:
                status = os.stat(place)
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or str(error)
            self.problems.append(Problem(shown(place), f"cannot be read: {what}"))
            return None
        if not stat.S_ISREG(status.st_mode):
            self.problems.append(Problem(shown(place), "is no plain file"))
            return None
        if inside and not self._follow and self._leads_out(place, is_link=is_link):
            what = f"a link out of the folder, to {shown(os.path.realpath(place))}"
            self.problems.append(Problem(shown(place), what, "copy the file here"))
            return None
        return status

    def _leads_out(self, place: str, *, is_link: bool) -> bool:
        if is_link:
            return _lies_outside(os.path.realpath(place), self._real_top)
        folder = os.path.dirname(place)
        if folder not in self._folders:
            real = os.path.realpath(folder)
            self._folders[folder] = real != self._real_top and _lies_outside(real, self._real_top)
        return self._folders[folder]


def _empty(files: dict[str, LocatedFile]) -> list[Problem]:
    remedy = "copy or export it again, or leave it out"
    return [
        Problem(path, "the file is empty (0 bytes)", remedy) for path, file in files.items() if not file.status.st_size
    ]


def same_but_for_case(paths: Iterable[str]) -> list[Problem]:
    """Paths that are one where upper and lower case are the same."""
    return [
        Problem(
            together[0], f"differs only in case from {', '.join(together[1:])}", "rename one: some systems keep one"
        )
        for together in folded_alike(paths)
    ]


def folded_alike(paths: Iterable[str]) -> list[Sequence[str]]:
    """Groups of paths that differ only in case, or in how accents are written."""
    import unicodedata

    by_folded: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        by_folded[unicodedata.normalize("NFC", path.casefold())].add(path)
    return [sorted(group) for group in by_folded.values() if len(group) > 1]
