"""Sweeps for tests, and a place for trials that trains nothing: time passes when it is waited for."""

import math
import tempfile
from pathlib import Path
from typing import Any

from useg.experiments.listening import Listener
from useg.experiments.sweep.asked import Sweep, read_sweep
from useg.experiments.sweep.log import SweepLog
from useg.experiments.sweep.steering import Course
from useg.experiments.sweep.trials import Ended, Trial

TICKS = 10
LR = '"train.lr" = { low = 1e-4, high = 1e-1, log = true }'


def sweep_of(text: str) -> Sweep:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lr.toml"
        file.write_text('data = "cells"\n' + text)
        return Sweep(read_sweep(file), "/data/cells", "lr")


def quality(trial: Trial) -> float:
    """What the network of a trial would score: best at a rate of 0.01, a little by seed and fold."""
    settings = trial.settings
    noise = 0.01 * math.sin(7 * settings["seed"]) + 0.02 * settings.get("fold", 0)
    return (
        0.9
        - 0.1 * math.log10(settings.get("train.lr", 0.01) / 0.01) ** 2
        - 0.05 * (settings.get("network.base") == 8)
        + noise
    )


class FakeTrials:
    """Trials that take ten ticks each, or `ticks`; some crash."""

    machines = 1

    def __init__(self, slots: int = 1, crashing: set[int] = frozenset(), ticks: int = TICKS) -> None:
        self.slots, self.crashing, self.ticks = slots, crashing, ticks
        self.begun: list[int] = []
        self.trials: dict[int, tuple[Trial, int]] = {}
        self.stopped: set[int] = set()
        self.time, self.most = 0.0, 0

    def has_room(self) -> bool:
        return len(self.trials) < self.slots

    def begin(self, trial: Trial, *, is_given_up: bool = False) -> None:
        assert trial.number not in self.trials
        self.begun.append(trial.number)
        self.trials[trial.number] = trial, 0
        self.most = max(self.most, len(self.trials))
        if is_given_up:
            self.stopped.add(trial.number)

    def curves(self) -> dict[int, list[tuple[float, dict[str, Any]]]]:
        return {
            number: [
                (tick / self.ticks, {"mean_dice": quality(trial) * tick / self.ticks}) for tick in range(1, done + 1)
            ]
            for number, (trial, done) in self.trials.items()
        }

    def ended(self) -> list[Ended]:
        found = []
        for number, (trial, done) in [*self.trials.items()]:
            if number in self.stopped:
                found.append(Ended(number, "stopped", f"run{number}", {}, 1.0))
            elif number in self.crashing and done >= 3:
                found.append(Ended(number, "failed", f"run{number}", {}, 1.0, ("no memory",)))
            elif done >= self.ticks:
                values = {"scores.mean_dice": quality(trial), "scores.pixel_error": 1 - quality(trial)}
                found.append(Ended(number, "finished", f"run{number}", values, 60.0))
        for end in found:
            del self.trials[end.number]
        return found

    def stop(self, number: int) -> None:
        self.stopped.add(number)

    def wait(self) -> None:
        self.time += 60.0 / self.ticks
        self.trials = {number: (trial, done + 1) for number, (trial, done) in self.trials.items()}


def steer(sweep: Sweep, folder: Path, trials: FakeTrials, listener: Listener | None = None) -> tuple[str, SweepLog]:
    """A session of a sweep; its log afterwards."""
    log = SweepLog(folder, clock=lambda: 1e9 + trials.time)
    with log.opened(sweep):
        status = Course(sweep, log, trials, listener or Listener(), clock=lambda: trials.time).run()
    return status, log
