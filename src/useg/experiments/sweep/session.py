"""A sweep from its file to its outcome: begun, gone on with, or looked at again when it has ended."""

import re
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from useg.data.views import View
from useg.errors import InputError, MissingExtra
from useg.experiments.cluster import connected, credentials
from useg.experiments.listening import Listener
from useg.experiments.recording import named_data
from useg.experiments.sharing_out import sharing
from useg.experiments.sweep.asked import Sweep, read_sweep
from useg.experiments.sweep.local import LocalTrials, share_out
from useg.experiments.sweep.log import SweepLog
from useg.experiments.sweep.outcome import outcome
from useg.experiments.sweep.remote import ClusterTrials, share_out_nodes
from useg.experiments.sweep.steering import Course
from useg.home.opening import open_home
from useg.home.store import Folder


def sweep(
    what: Path | str,
    *,
    home: Path,
    address: str | None = None,
    trials: int | None = None,
    parallel: int | None = None,
    on: str | None = None,
    listener: Listener,
) -> dict[str, Any]:
    """Run a sweep, or go on with it; the same file goes on with the same sweep.

    Args:
        what: path of SWEEP.toml; or as text the id of a sweep, or a unique part of it, to go on with.
        home: folder for runs. address: of the home with the data, where it is another one.
        trials: runs in all, instead of the budget's. parallel: so many at once; None decides by the machine.
        on: address of a Ray cluster to run it on.
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
    with ExitStack() as held:
        if on is None:
            share = share_out(parallel, sweep)
            log = held.enter_context(SweepLog(home / "sweeps" / sweep.id).opened(sweep))
            place: LocalTrials | ClusterTrials = LocalTrials(sweep, log.folder, home, address or str(home), share)
        else:
            if Path(sweep.data).is_absolute():
                raise InputError(
                    f"data = {sweep.asked.data!r}: nodes of a cluster do not have this folder; make it a data set of a "
                    f'home that they reach: useg data add {sweep.asked.data} --name NAME, then data = "NAME"'
                )
            cluster = held.enter_context(connected(on, listener.note))
            share = share_out_nodes(on, cluster.nodes, parallel, sweep)
            log = held.enter_context(SweepLog(home / "sweeps" / sweep.id).opened(sweep))
            where = address or str(home)
            known = credentials(where)
            cluster.check(where, log.file.relative_to(home).as_posix(), known)
            known = held.enter_context(sharing(cluster, where, known, listener.note))
            place = ClusterTrials(sweep, log.folder, where, share, cluster, known, listener.note)
        held.callback(place.close)
        listener.note(f"{share.slots} trials at a time; go on after any end with: useg sweep --resume {sweep.id}")
        status = Course(sweep, log, place, listener).run()
        store = Folder(home) if on is None else open_home(address or home)[0]
        return outcome(sweep, log.known, store, status) | {"log": str(log.file)}


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
