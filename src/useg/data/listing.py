"""Which files lie beneath a folder, in natural order, without hidden ones."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from useg.data.reading import natural_order
from useg.errors import DataError, Problem

_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "icon\r", "$recycle.bin"})
_OF_THE_SYSTEM = ("/proc", "/sys", "/dev")
_FOR_DATA = "/dev/shm"
_MOST_PROBLEMS = 100
_MOST_OFTEN = 100
"""Links may bring one folder in so many times; links to folders of links would have no end."""
_DEEPEST = 200


@dataclass(frozen=True)
class Listing:
    """Files beneath `root`, as posix-like paths relative to it, in natural order."""

    root: Path
    files: tuple[str, ...]


def list_files(root: Path) -> Listing:
    """All files beneath `root`; hidden ones and the clutter of operating systems are passed over.

    Links to folders are followed, and homes are passed over. Raises DataError, with every place at once (100 at
    most), when a folder cannot be read or lies too deep, a link leads back to a folder that contains it or to what the
    system makes (/proc, /sys, /dev), and when `root` is not there.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such file or folder", [])
    walk = _Walk(root)
    real = os.path.realpath(root)
    walk.folder("", (*map(str, reversed(Path(real).parents)), real))
    if walk.problems:
        many = "the first " if len(walk.problems) >= _MOST_PROBLEMS else ""
        raise DataError(f"{root}: {many}{len(walk.problems)} places in this folder cannot be read", walk.problems)
    return Listing(root, tuple(sorted(walk.files, key=natural_order)))


def is_of_the_system(place: str) -> bool:
    """Whether a real path lies where the system shows itself as files, which have no end and no bytes of their own."""
    return any(_within(place, top) for top in _OF_THE_SYSTEM) and not _within(place, _FOR_DATA)


def _within(place: str, folder: str) -> bool:
    return place == folder or place.startswith(f"{folder}/")


class _Walk:
    """Collects the files beneath a folder, and what cannot be walked."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: Counter[str] = Counter()
        self.files: list[str] = []
        self.problems: list[Problem] = []

    def folder(self, below: str, above: tuple[str, ...]) -> None:
        """Take the files of one folder; `above` are the real paths of it and of all that contain it."""
        place = self._root / below
        why = self._why_not(above)
        if why:
            self.problems.append(Problem(str(place), *why))
            return
        try:
            with os.scandir(place) as scan:
                entries = list(scan)
        except OSError as error:
            what = f"the folder cannot be read: {error.strerror}"
            self.problems.append(Problem(str(place), what, "give read permission"))
            return
        if below and {"refs", "packs", "index"} <= {entry.name for entry in entries}:
            return  # a home: its runs have pictures, which are no data
        for entry in entries:
            if len(self.problems) >= _MOST_PROBLEMS:
                return
            self._entry(entry, f"{below}/{entry.name}" if below else entry.name, above)

    def _why_not(self, above: tuple[str, ...]) -> tuple[str, str] | None:
        real = above[-1]
        self._seen[real] += 1
        if is_of_the_system(real):
            return f"{real} shows the system as files, which are no data", "name a folder of files, or remove the link"
        if self._seen[real] > _MOST_OFTEN:
            return f"links lead to {real} more than {_MOST_OFTEN} times", "remove links"
        if len(above) > _DEEPEST:
            return f"more than {_DEEPEST} folders lie in each other", "move what lies in them up"
        return None

    def _entry(self, entry: os.DirEntry[str], path: str, above: tuple[str, ...]) -> None:
        if entry.name.startswith(".") or entry.name.casefold() in _CLUTTER:
            return
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            is_folder = is_file = False
            reason = error.strerror
        else:
            reason = "the link leads to nothing that is there"
        if is_folder:
            target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
            if target in above:
                what = f"this link leads back to {target}, which contains it"
                self.problems.append(Problem(str(self._root / path), what, "remove the link"))
            else:
                self.folder(path, (*above, target))
        elif is_file:
            self.files.append(path)
        elif entry.is_symlink():
            what = f"broken link: {reason}"
            self.problems.append(Problem(str(self._root / path), what, "remove or repair the link"))
