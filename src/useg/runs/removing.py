"""Runs that were taken away long enough ago are deleted, with all their files."""

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from useg.errors import DamagedFile, ResourceError
from useg.home.store import Folder, Store
from useg.runs.index import Run, asking
from useg.runs.record import read_record

_GOING = ".removed-"


@dataclass(frozen=True)
class Deleted:
    """Which runs were deleted, and how many bytes of files that was."""

    runs: tuple[str, ...]
    bytes: int


def delete_removed(store: Store, *, grace_s: float) -> Deleted:
    """Delete the runs that were taken away (`useg runs rm`) before the time of grace, by the store's clock.

    What only they named in the home is garbage from then on.

    Args:
        store: the home.
        grace_s: how long a run can be brought back.

    Raises:
        ResourceError: the home does not answer, or a file may not be deleted; what was begun goes on the next time.
    """
    _sweep(store)
    removed: list[Run] = asking(store, lambda index: [run for run in index.runs() if run.removed])
    names, size = [], 0
    for run in removed:
        entries = [*store.list(f"runs/{run.id}/")]
        record = [entry for entry in entries if entry.key.startswith(f"runs/{run.id}/record/")]
        if not record or max(entry.modified for entry in record) > store.time() - grace_s:
            continue
        with suppress(DamagedFile):  # brought back a moment ago
            if read_record(store, run.id).get("removed") is not True:
                continue
        if isinstance(store, Folder):
            _delete_folder(Path(store.root, "runs"), run.id)
        else:
            of_record = {entry.key for entry in record}
            # the entry that says so goes last: what is killed in between is still a run that was taken away
            for entry in [entry for entry in entries if entry.key not in of_record] + record:
                store.delete(entry.key)
        names.append(run.id)
        size += sum(entry.size for entry in entries)
    return Deleted(tuple(names), size)


def _delete_folder(runs: Path, run: str) -> None:
    """Rename it first, so that there never is half a run."""
    going = runs / f"{_GOING}{run[:100]}-{secrets.token_hex(4)}"
    try:
        os.rename(runs / run, going)
        shutil.rmtree(going)
    except OSError as error:
        raise ResourceError(f"run {run} cannot be deleted: {error.strerror or error} ({error.filename})") from error


def _sweep(store: Store) -> None:
    """Delete what a killed process had begun to delete."""
    if isinstance(store, Folder):
        for folder in Path(store.root, "runs").glob(f"{_GOING}*"):
            shutil.rmtree(folder, ignore_errors=True)


__all__ = ["Deleted", "delete_removed"]
