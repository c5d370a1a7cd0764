"""Which files lie beneath a folder, in natural order, without hidden ones."""

import os
from dataclasses import dataclass
from pathlib import Path

from useg.data.reading import natural_order
from useg.errors import DataError, Problem

_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "icon\r", "$recycle.bin"})


@dataclass(frozen=True)
class Listing:
    """Files beneath `root`, as posix-like paths relative to it, in natural order."""

    root: Path
    files: tuple[str, ...]


def list_files(root: Path) -> Listing:
    """All files beneath `root`; hidden ones and the clutter of operating systems are passed over.

    Links to folders are followed. Raises DataError, with every place at once, when a folder cannot be read or
    a link leads back to a folder that contains it, and when `root` is not there.
    """
    if not root.exists():
        raise DataError(f"{root}: there is no such file or folder", [])
    files: list[str] = []
    problems: list[Problem] = []
    _walk(root, "", (os.path.realpath(root),), files, problems)
    if problems:
        raise DataError(f"{root}: {len(problems)} places in this folder cannot be read", problems)
    return Listing(root, tuple(sorted(files, key=natural_order)))


def _walk(root: Path, below: str, above: tuple[str, ...], files: list[str], problems: list[Problem]) -> None:
    try:
        with os.scandir(root / below) as scan:
            entries = list(scan)
    except OSError as error:
        place = str(root / below)
        problems.append(Problem(place, f"the folder cannot be read: {error.strerror}", "give read permission"))
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.casefold() in _CLUTTER:
            continue
        path = f"{below}/{entry.name}" if below else entry.name
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
                problems.append(Problem(str(root / path), what, "remove the link"))
            else:
                _walk(root, path, (*above, target), files, problems)
        elif is_file:
            files.append(path)
        elif entry.is_symlink():
            problems.append(Problem(str(root / path), f"broken link: {reason}", "remove or repair the link"))
