"""Trials on the nodes of a cluster: each an ordinary `useg train` there, whose run comes home while it goes on."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from useg.errors import ConfigError, UsegError
from useg.experiments.cluster import Cluster, Node, Work
from useg.experiments.on_node import folder_for_runs, is_free
from useg.experiments.sweep.asked import Sweep
from useg.experiments.sweep.local import LocalTrials, Share, most_trials
from useg.experiments.sweep.space import flat
from useg.experiments.sweep.trials import Ended, Trial
from useg.home.folder import write_atomically, writing
from useg.home.opening import is_folder, open_home
from useg.runs.bringing import bring
from useg.runs.lease import stop_run

Notes = Any
MOST_DEATHS = 3
"""A trial whose node or process died so often is not begun again."""
_WAIT_S = 0.5
_STOP_S = 2.0
_TO_END_S = 15.0


def share_out_nodes(address: str, nodes: Sequence[Node], parallel: int | None, sweep: Sweep) -> Share:
    """Divide a cluster between trials: so many at once; None decides by GPUs, else cores.

    Raises:
        ConfigError: so many it can never have.
    """
    fixed = flat(sweep.asked.settings)
    workers, threads, gpus = fixed.get("workers", 1), fixed.get("train.threads"), sum(node.gpus for node in nodes)

    def room(count: int) -> int:
        return sum(node.cpus // (count * workers) for node in nodes)

    slots = parallel or min(gpus or room(threads or 1), most_trials(sweep))
    if not 0 < slots <= room(threads or 1):
        raise ConfigError(
            f"{max(1, slots)} trials at a time, of {(threads or 1) * workers} cores each, are more than {address} can "
            f"ever have: its nodes give {', '.join(str(node.cpus) for node in nodes)} cores; lower --parallel, "
            "train.threads or workers"
        )
    fitting = [count for count in range(1, max(node.cpus for node in nodes) + 1) if room(count) >= slots]
    return Share(slots, threads or max(fitting), ("ray",) if gpus else ())


@dataclass(frozen=True)
class Task:
    """What a node is told of a trial.

    Attributes:
        sweep, trial: as here. address: of the home. run: of an earlier attempt, to go on with. threads: of the trial.
        is_given_up: whether only its end is wanted. environment: what the node needs to open the home.
    """

    sweep: Sweep
    trial: Trial
    address: str
    run: str | None
    threads: int | None
    is_given_up: bool
    environment: dict[str, str]


@dataclass
class _Running:
    task: Task
    work: Work
    since: float = field(default_factory=time.monotonic)
    deaths: int = 0
    is_stopping: bool = False
    stop_after: float = 0.0
    points: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    end: Ended | None = None


class ClusterTrials:
    """Runs trials on a cluster.

    Args:
        sweep: what is asked. folder: of the sweep, here. address: of the home. share: how the cluster is divided.
        cluster: connected. environment: what a node needs to open the home. note: told of deaths.
    """

    def __init__(
        self, sweep: Sweep, folder: Path, address: str, share: Share, cluster: Cluster, environment: dict[str, str],
        note: Notes,
    ) -> None:  # fmt: skip
        self._sweep, self._address, self._share, self._cluster = sweep, address, share, cluster
        self._environment, self._note, self._place = environment, note, folder / "trials"
        self._cpus = (share.threads or 1) * flat(sweep.asked.settings).get("workers", 1)
        self.machines = len(cluster.nodes)
        self._running: dict[int, _Running] = {}
        with writing(self._place):
            self._place.mkdir(parents=True, exist_ok=True)

    def has_room(self) -> bool:
        """Whether one more can run now."""
        return len(self._running) < self._share.slots and not any(each.end for each in self._running.values())

    def begin(self, trial: Trial, *, is_given_up: bool = False) -> None:
        """Have a trial run, or go on with its run where it has one."""
        file = self._file(trial.number)
        run = file.read_text() if file.exists() else None
        task = Task(self._sweep, trial, self._address, run, self._share.threads, is_given_up, self._environment)
        self._running[trial.number] = _Running(task, self._start(task))

    def _start(self, task: Task) -> Work:
        return self._cluster.start(run_trial, task, cpus=self._cpus, gpus=int(bool(self._share.gpus)))

    def curves(self) -> dict[int, list[tuple[float, dict[str, Any]]]]:
        """Of the trials that run, the share of their steps done and the live scores there, in order."""
        for number, each in self._running.items():
            for kind, value in each.work.heard() if each.end is None else ():
                if kind == "run":
                    each.task = replace(each.task, run=value)
                    write_atomically(self._file(number), value.encode())
                elif kind == "points":
                    each.points = value
                else:
                    each.end = value
            if each.work.is_over and each.end is None:
                self._fell(number, each)
        return {number: each.points for number, each in self._running.items()}

    def _fell(self, number: int, each: _Running) -> None:
        """A trial that did not tell its end: its node died, and it is begun again, or this was asked for."""
        why, seconds = each.work.problem or "it ended without a word", round(time.monotonic() - each.since, 3)
        each.deaths += each.work.is_lost
        if each.is_stopping:
            each.end = Ended(number, "stopped", each.task.run, {}, seconds)
        elif not each.work.is_lost or each.deaths > MOST_DEATHS:
            each.end = Ended(number, "failed", each.task.run, {}, seconds, (why,))
        else:
            self._note(f"warning: trial {number}: {why}; it is begun again on what is left")
            each.work = self._start(each.task)

    def ended(self) -> Sequence[Ended]:
        """The trials that have ended since this was last asked."""
        self.curves()
        done = [each.end for each in self._running.values() if each.end is not None]
        for end in done:
            del self._running[end.number]
        return done

    def stop(self, number: int) -> None:
        """Ask a trial to stop after its step; through the home, since nothing else surely reaches it."""
        each = self._running[number]
        each.is_stopping = True
        self._ask_to_stop(each)

    def _ask_to_stop(self, each: _Running) -> None:
        if each.task.run is None:
            each.work.cancel()
        elif time.monotonic() >= each.stop_after:
            each.stop_after = time.monotonic() + _STOP_S
            with suppress(UsegError):  # its first words are not in the home yet, or it has ended
                stop_run(open_home(self._address)[0], each.task.run)

    def wait(self) -> None:
        """Wait a moment, if there is anything to wait for."""
        if self._running:
            self._cluster.wait([each.work for each in self._running.values()], _WAIT_S)
        for each in self._running.values():
            if each.is_stopping and each.end is None:
                self._ask_to_stop(each)

    def close(self) -> None:
        """End what still runs, at once; what it saved is intact."""
        for each in self._running.values():
            each.work.cancel()
        until = time.monotonic() + _TO_END_S
        while time.monotonic() < until and not all(each.work.is_over for each in self._running.values()):
            self._cluster.wait([each.work for each in self._running.values()], _WAIT_S)
            for each in self._running.values():
                each.work.heard()

    def _file(self, number: int) -> Path:
        return self._place / f"{number:05d}.run"


def run_trial(task: Task) -> Iterator[tuple[str, Any]]:
    """Run a trial on this node.

    Yields:
        ("run", its id), ("points", its live scores so far), and in the end ("end", how it ended).
    """
    os.environ.update(task.environment)
    store, number = open_home(task.address)[0], task.trial.number
    run = task.run if task.run and is_free(store, task.run) else None
    with folder_for_runs(task.address, store, f"{task.sweep.id}-{number}") as home:
        if run is not None and not is_folder(task.address):
            bring(store, run, home)
        folder = home / "sweeps" / task.sweep.id
        place = LocalTrials(task.sweep, folder, home, task.address, Share(1, task.threads))
        place.begin(task.trial, is_given_up=task.is_given_up)
        told: dict[str, Any] = {}
        try:
            while True:
                place.wait()
                for kind, value in (("run", place.run_of(number)), ("points", place.curves()[number])):
                    if value and value != told.get(kind):
                        told[kind] = value
                        yield kind, list(value) if kind == "points" else value
                for end in place.ended():
                    yield "end", end
                    return
        finally:
            place.close()


__all__ = ["ClusterTrials", "Task", "run_trial", "share_out_nodes"]
