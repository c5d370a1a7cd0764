"""A run from a home to a folder of this machine, with its checkpoints, so that it goes on here."""

import re
from pathlib import Path

from useg.errors import InputError
from useg.home.folder import write_atomically, writing
from useg.home.store import Store
from useg.runs.pieces import read_content

_LEFT = re.compile(r"(folds/\d+/)?attempts/\d+/lease/|stop/")
_MADE = re.compile(r"(?!record/)\w+/")
_PIECE = re.compile(r"/\d{12}(?=\.\w+$)")


def bring(store: Store, run: str, home: Path, *, only_inputs: bool = False) -> Path:
    """Copy a run to `home/runs/`; files that grow are put together.

    Args:
        store: the home that has it. run: its id. home: a folder that does not have it.
        only_inputs: leave out what its attempts made.

    Returns:
        The folder of the run.

    Raises:
        InputError: there is no such run. DamagedFile: a piece of it is missing. ResourceError: no answer, or no space.
    """
    prefix = f"runs/{run}/"
    names = {_PIECE.sub("", entry.key).removeprefix(prefix): _PIECE.search(entry.key) for entry in store.list(prefix)}
    if not names:
        raise InputError(f"no run {run!r} in {store.url}")
    for name, in_pieces in names.items():
        if not _LEFT.match(name) and not (only_inputs and _MADE.match(name)):
            content = read_content(store, prefix + name) if in_pieces else store.get(prefix + name)
            file = home / prefix / name
            with writing(file):
                file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, content)
    return home / "runs" / run


__all__ = ["bring"]
