"""What a sweep did, in order: an append-only file in the home, from which it goes on wherever it was cut off."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from useg.errors import DamagedFile, InputError
from useg.experiments.sweep.asked import Asked, Sweep
from useg.experiments.sweep.space import Settings
from useg.home.folder import writing
from useg.home.locks import is_abandoned
from useg.runs.journal import Event, Journal, read_attempt


@dataclass
class Known:
    """What the log says.

    Attributes:
        drawn: the settings of each configuration, by its number.
        begun: numbers of the trials that were begun.
        given_up: those that were told to stop early.
        ended: how each trial ended: "state", "run", "score", "seconds", "live", "lines".
        spent_s: seconds of all sessions until their last word.
    """

    drawn: dict[int, Settings] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    ended: dict[int, Event] = field(default_factory=dict)
    spent_s: float = 0.0

    def take(self, event: Event) -> None:
        """One event more."""
        kind = event["event"]
        if kind == "drawn":
            self.drawn[event["configuration"]] = event["settings"]
        elif kind == "begun":
            self.begun.add(event["trial"])
        elif kind == "given up":
            self.given_up.add(event["trial"])
        elif kind == "ended":
            self.ended[event["trial"]] = event
            if event["state"] == "finished":  # before it heard that it was given up
                self.given_up.discard(event["trial"])


def recalled(events: Sequence[Event]) -> Known:
    """What some events say together."""
    known, last = Known(), 0.0
    for event in events:
        known.take(event)
        if event["event"] != "session":
            known.spent_s += max(0.0, event["time"] - last)
        last = event["time"]
    return known


class SweepLog:
    """The folder of a sweep, `HOME/sweeps/<id>/`, and its log.

    Args:
        folder: of the sweep. clock: the time of day.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.file, self._clock = folder, folder / "log.jsonl", clock
        self.known = Known()

    def sweep(self) -> Sweep:
        """What was asked, with the latest budget.

        Raises:
            DamagedFile: the log does not begin with it.
        """
        for event in reversed(read_attempt(self.file)):
            if event["event"] == "session":
                return Sweep(Asked.model_validate(event["asked"]), event["data"], event["name"])
        raise DamagedFile(f"{self.file}: does not say what was asked of the sweep")

    @contextmanager
    def opened(self, sweep: Sweep) -> Iterator["SweepLog"]:
        """Begin a session: from here on events are written, and no other process writes any.

        Raises:
            InputError: another process goes on with this sweep.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not is_abandoned(lock):
                raise InputError(f"the sweep {self.folder.name} is running already, in another process")
            self.known, self._journal = recalled(read_attempt(self.file)), Journal(self.file)
            asked = {
                "format": 1,
                "name": sweep.name,
                "data": sweep.data,
                "asked": sweep.asked.model_dump(mode="json"),
            }
            self.write(event="session", pid=os.getpid(), host=os.uname().nodename, **asked)
            yield self
            self._journal.close()
        finally:
            os.close(lock)

    def write(self, **event: Any) -> None:
        """One event, on the disk when this returns.

        Raises:
            ResourceError: it could not be written.
        """
        self._journal.write(event | {"time": self._clock()}, sync=True)
        self.known.take(event)
