"""What a folder that was checked out into knows of it: from which version its files are, and which were written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from useg.home.folder import write_atomically

OWN_FOLDER = ".useg-checkout"
"""Hidden folder, inside the one checked out into, that holds the notes."""


@dataclass(frozen=True)
class Notes:
    """What is noted.

    Attributes:
        dataset: the data set that was checked out; "" while a checkout is under way, or was interrupted.
        commit: the version of it that the folder grew from.
        where: the query that chose its samples; None if all were.
        files: digests of what checkouts wrote, by path; while one is under way, before and after.
    """

    dataset: str = ""
    commit: str = ""
    where: str | None = None
    files: Mapping[str, list[str]] = field(default_factory=dict)


def read_notes(folder: Path) -> Notes | None:
    """The notes of a folder; None if nothing was checked out into it."""
    try:
        known = orjson.loads((folder / OWN_FOLDER / "notes.json").read_bytes())
        return Notes(str(known["dataset"]), str(known["commit"]), known["where"], dict(known["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_notes(folder: Path, notes: Notes) -> None:
    """Write the notes; a reader finds the old ones or the new."""
    write_atomically(folder / OWN_FOLDER / "notes.json", orjson.dumps(notes))
