"""A run from a home to a folder of this machine, with its checkpoints, so that it goes on here."""

import re
import tempfile
from pathlib import Path

from useg.errors import InputError
from useg.home.folder import write_atomically, writing
from useg.home.store import Store, is_key
from useg.runs.find import with_run
from useg.runs.index import ENDED
from useg.runs.pieces import read_content
from useg.runs.record import RunFolder

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


def here(text: str, home: Path, elsewhere: str, *, also_dead: bool = False) -> str:
    """The id of an ended run that a text means in a home elsewhere; brought to a folder of this machine if need be.

    What is not found there is left as it is said: it may mean a run that is only here.

    Raises:
        InputError: it goes on. DamagedFile: a piece of it is missing. ResourceError: no answer, or no space.
    """
    try:
        store, run = with_run(elsewhere, text, lambda store, index, run: (store, run))
    except InputError:
        return text
    if (home / "runs" / run.id).exists() or not is_key(f"runs/{run.id}"):
        return run.id
    if run.status not in ENDED and not (also_dead and run.status == "dead"):
        raise InputError(f"{run.id} in {store.url} is {run.status}: a run that ended can be had again")
    with writing(home):
        (home / "runs").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bringing-", dir=home) as place:
        folder = RunFolder(bring(store, run.id, Path(place)))
        origin = folder.record().get("origin") or {}
        if not origin.get("home"):  # its data is where it lies itself
            folder.update(origin=origin | {"home": elsewhere})
        with writing(home):
            folder.path.rename(home / "runs" / run.id)
    return run.id


__all__ = ["bring", "here"]
