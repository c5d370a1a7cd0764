"""Which runs of a home are new or have changed, found without reading any of them.

Each run has a sign that changes whenever an entry is added to its record. In a home that is a folder it costs one
`stat` a run: the time at which the folder `record/` changed. Two changes within one tick of the file system's clock
have the same time, so what changed within two seconds of the latest change has a sign with a `~`, and its entries are
counted at the next look, too. In other homes it costs one listing of all runs.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress

from useg.home.store import Folder, Store

NO_RECORD = ""
"""Sign of a folder that has no record."""
_TICK_NS = 2_000_000_000
_ENTRY = re.compile(r"\d{8}")
_RUN = re.compile(r"runs/([^/]+)/(?:record/(\d{8})|record\.json)?")


def signs_of(store: Store, known: Mapping[str, str]) -> dict[str, str]:
    """The sign of each run that there is, given those of before.

    Raises:
        ResourceError: the home does not answer.
    """
    if isinstance(store, Folder):
        return _signs_in_folder(os.path.join(store.root, "runs"), known)
    counts: dict[str, list[str]] = {}
    for entry in store.list("runs/"):
        match = _RUN.match(entry.key)
        if match:
            found = counts.setdefault(match[1], [])
            if match[2] or match.end() == len(entry.key):
                found.append(entry.key.rpartition("/")[2])
    return {run: f"{len(names)}:{names[-1]}" if names else NO_RECORD for run, names in counts.items()}


def _signs_in_folder(place: str, known: Mapping[str, str]) -> dict[str, str]:
    try:
        with os.scandir(place) as found:
            runs = [entry.name for entry in found if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    times = {run: _changed(f"{place}/{run}/record") for run in runs}
    latest = max(times.values(), default=0)
    signs = {}
    for run, time in times.items():
        before, is_fresh = known.get(run), time >= latest - _TICK_NS
        if time and not is_fresh and before is not None and before.startswith(f"{time}:"):
            signs[run] = before
        else:
            sign = _counted(f"{place}/{run}", time)
            signs[run] = f"~{sign}" if is_fresh and sign else sign
    return signs


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _counted(run: str, time: int) -> str:
    names: list[str] = []
    with suppress(OSError):
        names = sorted(name for name in os.listdir(f"{run}/record") if _ENTRY.fullmatch(name))
    with suppress(OSError):
        whole = os.stat(f"{run}/record.json")
        names.insert(0, f"{whole.st_mtime_ns}.{whole.st_size}")
    return f"{time}:{len(names)}:{names[-1]}" if names else NO_RECORD


def pulse_of(store: Store, run: str) -> str:
    """What changes while a run goes on, and when it ends: its attempts, leases, and the sizes of its journals.

    Raises:
        ResourceError: the home does not answer.
    """
    if not isinstance(store, Folder):
        listed = "\n".join(f"{entry.key} {entry.size}" for entry in store.list(f"runs/{run}/attempts/"))
        return hashlib.sha256(listed.encode()).hexdigest()
    place = os.path.join(store.root, "runs", run)
    found = []
    for above in ("attempts", *(f"folds/{fold}/attempts" for fold in _numbers(f"{place}/folds"))):
        for attempt in _numbers(f"{place}/{above}")[-1:]:
            for name in ("", "/lease", "/journal.jsonl"):
                found.append(f"{above}/{attempt}{name} {_changed(f'{place}/{above}/{attempt}{name}')}")
    return " ".join(found)


def _numbers(folder: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
    except OSError:
        return []


__all__ = ["NO_RECORD", "pulse_of", "signs_of"]
