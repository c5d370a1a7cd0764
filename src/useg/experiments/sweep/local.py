"""Trials as processes of this machine: each an ordinary `useg train`, which outlives the sweep and is found again."""

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from useg.errors import UsegError
from useg.experiments.sweep.asked import Sweep, settings_tree
from useg.experiments.sweep.space import flat, grid
from useg.experiments.sweep.trials import Ended, Trial
from useg.experiments.warm import Forked, begin_training
from useg.home.folder import write_atomically, writing
from useg.home.locks import is_abandoned
from useg.home.store import Folder
from useg.runs.facts import decoded, facts_of
from useg.runs.following import Follower, last_values
from useg.runs.hardware import cores, gpus
from useg.runs.lease import stop_run
from useg.runs.record import read_record

_WAIT_S = 0.3
_TO_END_S = 10.0
_LINES = 3
_INTERRUPTED = 130
_SPARE = 1.25
"""A trial may take this many times the memory of those before it."""


@dataclass(frozen=True)
class Share:
    """What each trial has of this machine.

    Attributes:
        slots: trials at the same time, at most. threads: of each; None leaves it to the settings.
        gpus: names of devices, in turn. is_measured: whether memory decides as well, as the first trials show it.
    """

    slots: int
    threads: int | None = None
    gpus: tuple[str, ...] = ()
    is_measured: bool = False


def share_out(parallel: int | None, sweep: Sweep) -> Share:
    """Divide this machine between trials: so many at once; None decides by GPUs, else cores, and later by memory."""
    known, fixed = cores(), flat(sweep.asked.settings)
    count = max(1, int(min(known["affinity"] or 1, known["quota"] or math.inf)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(len(gpus()["models"]))) if visible is None else filter(None, visible.split(","))
    devices, workers = tuple(names), fixed.get("workers", 1)
    fitting = len(devices) or count // (workers * fixed.get("train.threads", 1))
    slots = parallel or max(1, min(fitting, most_trials(sweep)))
    threads = None if "train.threads" in fixed else max(1, count // (slots * workers))
    return Share(slots, threads, devices, parallel is None)


def most_trials(sweep: Sweep) -> int:
    """There are no more trials in a sweep."""
    most = sweep.asked.budget.trials or sys.maxsize
    return min(most, sweep.repeats * sum(1 for _ in grid(sweep.space))) if sweep.asked.method == "grid" else most


@dataclass
class _Running:
    """A trial whose process is a child, or one that an earlier process of the sweep began and that has its lock.

    Attributes:
        has_ended: it had when it was begun again, and this is to be told.
    """

    lock: int
    words: int
    slot: int
    process: "Forked | subprocess.Popen[bytes] | None" = None
    since: float = field(default_factory=time.monotonic)
    follower: Follower | None = None
    steps: int = 0
    has_ended: bool = False
    points: dict[int, tuple[float, dict[str, Any]]] = field(default_factory=dict)


class LocalTrials:
    """Runs trials on this machine.

    Args:
        sweep: what is asked. folder: of the sweep in the home. home: the folder that runs are written to.
        address: of the home as `--home` has it. share: how the machine is divided.
    """

    machines = 1

    def __init__(self, sweep: Sweep, folder: Path, home: Path, address: str, share: Share) -> None:
        self._sweep, self._home, self._address, self._share = sweep, home, address, share
        self._place, self._store, self._peak = folder / "trials", Folder(home), 0
        self._running: dict[int, _Running] = {}
        with writing(self._place):
            self._place.mkdir(parents=True, exist_ok=True)

    def has_room(self) -> bool:
        """Whether one more can run now: a place is free, and as much memory as the largest trial took so far.

        What has ended is told first, so that it counts for what is drawn next.
        """
        if not self._running or len(self._running) >= self._share.slots or not self._share.is_measured:
            ended = any(each.has_ended for each in self._running.values())
            return len(self._running) < self._share.slots and not ended
        import psutil

        with suppress(psutil.Error):  # one has ended just now
            for each in self._running.values():
                if each.process is not None and each.points:
                    process = psutil.Process(each.process.pid)
                    held = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
                    self._peak = max(self._peak, held)
        return 0 < _SPARE * self._peak < int(psutil.virtual_memory().available)

    def begin(self, trial: Trial, *, is_given_up: bool = False) -> None:
        """Start a trial, go on with it, wait for it where it runs, or tell how it ended; whichever is right."""
        words = self._file(trial.number, "txt")
        with writing(words), words.open("ab") as out:
            lock = os.open(self._file(trial.number, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
            slot = min({*range(len(self._running) + 1)} - {each.slot for each in self._running.values()})
            running = _Running(lock, out.tell(), slot)
            self._running[trial.number] = running
            if not is_abandoned(lock):
                return
            run = self.run_of(trial.number)
            if run and (is_given_up or self._record(run).get("status") in ("finished", "failed")):
                running.has_ended = True
                return
            devices = self._share.gpus
            device = {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} if devices else {}
            running.process = begin_training(
                [*self._words(trial, run), "--home", self._address, "--json"], out=out.fileno(),
                kept=[lock],  # for as long as the trial lives, whatever becomes of this process
                environment=os.environ | device,
            )  # fmt: skip
            os.close(lock)

    def _words(self, trial: Trial, run: str | None) -> list[str]:
        """What follows `useg train`."""
        if run is not None:
            return ["--resume", run]
        asked, file = self._sweep.asked, self._file(trial.number, "toml")
        threads = {} if self._share.threads is None else {"train.threads": self._share.threads}
        write_atomically(file, tomli_w.dumps(settings_tree(threads | trial.settings)).encode())
        words = [self._sweep.data, "--config", str(file), "--name", f"{self._sweep.id}-{trial.number:05d}"]
        words += ["--tag", f"sweep:{self._sweep.id}", "--tag", f"trial:{trial.number}"]
        words += ["--where", asked.where] if asked.where is not None else []
        return words + [word for transform in asked.transforms for word in ("--transform", transform)]

    def curves(self) -> dict[int, list[tuple[float, dict[str, Any]]]]:
        """Of the trials that run, the share of their steps done and the live scores there, in order."""
        for number, each in self._running.items():
            if each.follower is None and (run := self.run_of(number)):
                each.follower = Follower(self._store, run)
            for event in each.follower.more() if each.follower is not None else ():
                if isinstance(event, dict):
                    each.steps = event.get("plan") or event.get("stop") or each.steps
                    if event.get("event") == "validation" and each.steps:
                        each.points[event["step"]] = (event["step"] / each.steps, event["scores"])
        return {number: [each.points[step] for step in sorted(each.points)] for number, each in self._running.items()}

    def ended(self) -> Sequence[Ended]:
        """The trials that have ended since this was last asked."""
        done = []
        for number, each in [*self._running.items()]:
            if each.process is None and is_abandoned(each.lock):
                os.close(each.lock)
            elif each.process is None or each.process.poll() is None:
                continue
            del self._running[number]
            done.append(self._told(number, each, None if each.process is None else each.process.returncode))
        return done

    def stop(self, number: int) -> None:
        """Ask a trial to stop after its step."""
        process, run = self._running[number].process, self.run_of(number)
        if process is not None:
            process.send_signal(signal.SIGINT)
        elif run is not None:
            with suppress(UsegError):  # it has ended
                stop_run(self._store, run)

    def wait(self) -> None:
        """Wait a moment, if there is anything to wait for."""
        if self._running:
            forked = [each.process for each in self._running.values() if isinstance(each.process, Forked)]
            select.select(forked, [], [], _WAIT_S)

    def close(self) -> None:
        """End what still runs, at once; what it saved is intact."""
        children = [each.process for each in self._running.values() if each.process is not None]
        for again, patience_s in ((signal.SIGINT, _WAIT_S), (signal.SIGINT, _TO_END_S), (signal.SIGKILL, _TO_END_S)):
            until = time.monotonic() + patience_s
            for process in children:
                process.send_signal(again)
            while any(process.poll() is None for process in children) and time.monotonic() < until:
                time.sleep(_WAIT_S)

    def _told(self, number: int, each: _Running, code: int | None) -> Ended:
        run = self.run_of(number)
        record = self._record(run) if run else {}
        state = record.get("status") if record.get("status") in ("finished", "stopped") else "failed"
        if code is not None and (run is None or code not in (0, _INTERRUPTED)):
            state = "stopped" if code == _INTERRUPTED else "failed"
        values: dict[str, Any] = {}
        if run and state == "finished":
            last = last_values(self._store, run, [*self._store.list(f"runs/{run}/attempts/")])
            groups = {f"origin.{name}": value for name, value in (record.get("origin") or {}).items()}
            values = groups | {fact.name: decoded(fact.value, fact.kind) for fact in facts_of(record, last, run).own}
        lines = self._last_lines(number, each.words, code) if state == "failed" else ()
        seconds = values.get("seconds") if each.process is None else None  # of a run that was not watched
        seconds = round(time.monotonic() - each.since, 3) if seconds is None else seconds
        return Ended(number, str(state), run, values, seconds, lines)

    def _last_lines(self, number: int, start: int, code: int | None) -> tuple[str, ...]:
        said = self._file(number, "txt").read_bytes()[start:].decode(errors="replace").splitlines()
        why = []
        if code is not None and code < 0:
            memory = "; the system does so when memory runs out" if code == -signal.SIGKILL else ""
            why = [f"ended by {signal.Signals(-code).name}{memory}"]
        return (*[line for line in said if line.strip()][-_LINES:], *why)

    def _file(self, number: int, kind: str) -> Path:
        return self._place / f"{number:05d}.{kind}"

    def run_of(self, number: int) -> str | None:
        """The run of a trial, the newest of those with all that a run needs to go on."""
        pattern = f"*-{self._sweep.id}-{number:05d}-????/plan.toml"
        return max((file.parent.name for file in (self._home / "runs").glob(pattern)), default=None)

    def _record(self, run: str) -> dict[str, Any]:
        with suppress(UsegError):
            return read_record(self._store, run)
        return {}
