"""Which run is meant: by id or a unique part of it, by name, by its folder, or by the weights of a model file."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from useg.errors import InputError
from useg.home.folder import find_home
from useg.home.store import Folder, Store, open_store
from useg.runs.index import Index, Run, asking
from useg.runs.weights import Model, read_model

_SHOWN = 5
_LONGEST_TEXT = 200
T = TypeVar("T")


def open_runs(address: str | None = None) -> Store:
    """The home whose runs are meant: as given, else `USEG_HOME`, else the nearest `useg-home/`.

    Raises:
        InputError: no address of a home, or no folder.
    """
    text = address if address is not None else os.environ.get("USEG_HOME") or ""
    if "://" in text or text.startswith("memory:"):
        return open_store(text)
    return Folder(find_home(Path(text) if text else None))


def with_run(address: str | None, text: str, action: Callable[[Store, Index, Run], T]) -> T:
    """What an action makes of the run that a text means, in the home that it lies in.

    Args:
        address: of the home; a path of a run's folder leads to the home around it instead.
        text: id, a part of it that no other run has, name, or path of the folder.

    Raises:
        InputError: there is no such run, or there are several.
    """
    folder = _folder_of_run(text)
    store = open_runs(address) if folder is None else Folder(folder.parent.parent)
    return asking(store, lambda index: action(store, index, find(index, text if folder is None else folder.name)))


def find_run(home: Path, text: str) -> Path:
    """The folder of the run that a text means (see `with_run`).

    Raises:
        InputError: there is no such run, or there are several.
    """
    return with_run(str(home), text, lambda store, index, run: Path(store.url, "runs", run.id))


def _folder_of_run(text: str) -> Path | None:
    """The folder of a run that a path leads to; None of what is no such path."""
    if os.sep not in text and text not in (".", "..") and not os.path.isdir(os.path.join(text, "record")):
        return None
    try:
        path = Path(os.path.abspath(text))
        is_run = (path / "record").is_dir() or (path / "record.json").is_file()
    except (OSError, ValueError):
        return None
    return path if is_run and path.parent.name == "runs" else None


def find(index: Index, text: str) -> Run:
    """The run whose id this is, or is a part of it (its beginning counts more), or whose name it is.

    Of a run and those that repeat or vary it, the first is meant.

    Raises:
        InputError: there is none, or several are.
    """
    runs = sorted(index.runs(), key=lambda run: run.id)
    for fits in (str.__eq__, str.startswith):
        found = [run for run in runs if text and fits(run.id, text)]
        if len(found) == 1:
            return found[0]
    named = index.column("name", runs)
    found = [run for run in runs if text and named.get(run.number) == text]
    found = found or [run for run in runs if text and text in run.id]
    standing = [run for run in found if not run.removed] or found
    parents, fitting = index.column("parent", standing), {run.id for run in standing}
    standing = [run for run in standing if parents.get(run.number) not in fitting]
    if len(standing) == 1:
        return standing[0]
    shown = repr(text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…")
    place = index.store.url
    if not standing:
        latest = [run.id for run in runs if not run.removed and not run.problem][-_SHOWN:]
        raise InputError(f"no run {shown} in {place} (the latest there: {', '.join(latest) or 'none'})")
    ids = [run.id for run in standing]
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    raise InputError(f"{shown} fits {len(ids)} runs: {', '.join(ids[-_SHOWN:])}{more}; give more of the id")


@dataclass(frozen=True)
class Origin:
    """Where a model file comes from.

    Attributes:
        model: what the file says of itself.
        runs: those whose weights it has, with all their fields.
        says: the run that the file itself names, where it is in the home and has other weights.
    """

    model: Model
    runs: list[dict[str, Any]]
    says: dict[str, Any] | None


def origin_of(store: Store, path: Path) -> Origin:
    """The runs that made a model file, by the digest of its weights, which is counted anew.

    Raises:
        DamagedFile: the file is no model, or its bytes are not what was written.
    """
    model = read_model(path)

    def look(index: Index) -> Origin:
        runs = [index.values(run) for run in index.with_value("weights", model.weights)]
        named = [run for run in index.runs() if run.id == model.about.get("run")]
        says = index.values(named[0]) if named and not runs else None
        return Origin(model, runs, says)

    return asking(store, look)


__all__ = ["Origin", "find", "find_run", "open_runs", "origin_of", "with_run"]
