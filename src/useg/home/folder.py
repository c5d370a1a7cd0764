"""Where a home lies on this machine, and files in it that are there whole or not at all."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from useg.errors import InputError, ResourceError

NAME = "useg-home"


def find_home(given: Path | None = None, start: Path | None = None) -> Path:
    """The home folder: as given, else `USEG_HOME`, else the nearest `useg-home/` upward from `start`,
    else a new one there (not yet made).

    Raises:
        InputError: the path given is a file, or leads through one.
    """
    if given is not None:
        return _folder(given, "--home")
    if os.environ.get("USEG_HOME"):
        return _folder(Path(os.environ["USEG_HOME"]), "USEG_HOME")
    return nearest_home(start)


def nearest_home(start: Path | None = None) -> Path:
    """The nearest `useg-home/` upward from `start`, else a new one there (not yet made)."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / NAME).is_dir():
            return folder / NAME
    return here / NAME


def _folder(path: Path, source: str) -> Path:
    path = path.absolute()
    there = next((place for place in (path, *path.parents) if place.exists()), path)
    if not there.is_dir():
        raise InputError(f"{source} {path}: {there} is a file; a folder was wanted")
    return path


def new_run(home: Path, name: str | None = None) -> Path:
    """Make `home/runs/<id>/` with an id that no other process has."""
    if name is not None and not re.fullmatch(r"[\w][\w.\- ]{0,99}", name):
        raise InputError(f"--name {name!r}: wanted up to 100 letters, digits, '.', '-', '_' or spaces")
    label = "-" + name.replace(" ", "-") if name else ""
    with writing(home):
        (home / "runs").mkdir(parents=True, exist_ok=True)
        while True:
            folder = home / "runs" / (time.strftime("%Y%m%d-%H%M%S") + label + "-" + secrets.token_hex(2))
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn a full disk or a lost permission into a `ResourceError` that names the place."""
    try:
        yield
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        remedy = "Make its folder, or name another place" if absent else "Free space or give the permission back"
        raise ResourceError(
            f"{place}: cannot write: {error.strerror or error}. {remedy}, "
            "then run the same command again; what was finished before is intact"
        ) from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a reader, even after a crash, sees the old content or the new, whole.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        finally:
            temporary.unlink(missing_ok=True)
