"""What a node of a cluster needs to work with a home: a folder for runs of its own, and runs that nobody else holds."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from useg.errors import InputError, ResourceError, UsegError
from useg.home.folder import NAME
from useg.home.opening import is_folder
from useg.home.store import Store
from useg.runs.lease import status_of, stop_run
from useg.runs.shipping import CHECKPOINTS

_TO_FALL_S = 120.0
"""A run whose attempt is alive somewhere has so long to stop; the lease of a dead one stands still after 20 s."""


def is_free(store: Store, run: str) -> bool:
    """Wait until nobody trains a run, after having asked for that; False if the home has no such run.

    Raises:
        ResourceError: it goes on elsewhere.
    """
    until = time.monotonic() + _TO_FALL_S
    with suppress(UsegError):  # it does not run
        stop_run(store, run)
    while time.monotonic() < until:
        try:
            if status_of(store, run) != "running":
                return True
        except InputError:
            return False
        time.sleep(1.0)
    raise ResourceError(f"{run} was asked to stop and goes on elsewhere, so that it cannot go on here")


@contextmanager
def folder_for_runs(address: str, store: Store, name: str) -> Iterator[Path]:
    """The home, if it is a folder; else a new one here, which is removed when all its runs have come home."""
    if is_folder(address):
        yield Path(address)
        return
    before = os.getcwd()
    place = Path(tempfile.mkdtemp(prefix=f"useg-{name}-"))
    os.environ[CHECKPOINTS] = "home"
    os.chdir(place)  # runs go to the nearest useg-home/
    try:
        (place / NAME).mkdir()
        yield place / NAME
    finally:
        os.chdir(before)
        runs = [path.name for path in place.glob(f"{NAME}/runs/*")]
        with suppress(UsegError):
            if all(status_of(store, run) in ("finished", "stopped", "failed") for run in runs):
                shutil.rmtree(place, ignore_errors=True)


__all__ = ["folder_for_runs", "is_free"]
