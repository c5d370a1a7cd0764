"""A sweep from its file to its outcome: begun, gone on with, or looked at again when it has ended."""

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from useg.data.views import View
from useg.errors import InputError, MissingExtra
from useg.experiments.listening import Listener
from useg.experiments.recording import named_data
from useg.experiments.sweep.asked import Sweep, read_sweep
from useg.experiments.sweep.local import LocalTrials, share_out
from useg.experiments.sweep.log import SweepLog
from useg.experiments.sweep.outcome import outcome
from useg.experiments.sweep.steering import Course


def sweep(
    what: Path | str,
    *,
    home: Path,
    address: str | None = None,
    trials: int | None = None,
    parallel: int | None = None,
    listener: Listener,
) -> dict[str, Any]:
    """Run a sweep on this machine, or go on with it; the same file goes on with the same sweep.

    Args:
        what: path of SWEEP.toml; or as text the id of a sweep, or a unique part of it, to go on with.
        home: folder for runs. address: of the home with the data, where it is another one.
        trials: runs in all, instead of the budget's. parallel: so many at once; None decides by the machine.
        listener: where words go.

    Returns:
        What `outcome` tells, and "log": its file.

    Raises:
        ConfigError, DataError: before anything is written. MissingExtra: Optuna is wanted and not there.
    """
    sweep = _recalled(home, what) if isinstance(what, str) else _asked(what, home, address)
    if trials is not None:
        budget = sweep.asked.budget.model_copy(update={"trials": trials})
        sweep = replace(sweep, asked=sweep.asked.model_copy(update={"budget": budget}))
    if sweep.asked.method == "tpe" and find_spec("optuna") is None:
        raise MissingExtra("sweep", 'method = "tpe"')
    share = share_out(parallel, sweep)
    with SweepLog(home / "sweeps" / sweep.id).opened(sweep) as log:
        place = LocalTrials(sweep, log.folder, home, address or str(home), share)
        listener.note(f"{share.slots} trials at a time; go on after any end with: useg sweep --resume {sweep.id}")
        try:
            status = Course(sweep, log, place, listener).run()
        finally:
            place.close()
        return outcome(sweep, log.known, home, status) | {"log": str(log.file)}


def _asked(file: Path, home: Path, address: str | None) -> Sweep:
    asked = read_sweep(file)
    data = named_data(Path(asked.data), asked.where, address or home, asked.transforms)
    # of a branch, all trials learn from the same commit, even if it moves on
    found = f"{data.origin.dataset}@{data.origin.commit}" if isinstance(data, View) else str(data.absolute())
    return Sweep(asked, found, re.sub(r"[^A-Za-z0-9.-]+", "-", file.stem).strip("-.")[:40] or "sweep")


def _recalled(home: Path, text: str) -> Sweep:
    there = sorted(path.parent.name for path in (home / "sweeps").glob("*/log.jsonl"))
    found = [each for each in there if each == text] or [each for each in there if text in each]
    if len(found) != 1:
        what = f"{text!r} fits {len(found)} sweeps" if found else f"no sweep {text!r} in {home}"
        raise InputError(f"{what} (there: {', '.join(found or there[-5:]) or 'none'})")
    return SweepLog(home / "sweeps" / found[0]).sweep()
