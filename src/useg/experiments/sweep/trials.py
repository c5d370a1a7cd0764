"""Trials as a sweep sees them: begun, followed by their live scores, stopped, ended; wherever they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from useg.experiments.sweep.space import Settings


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        number: unique in the sweep. configuration: number of the settings that were drawn.
        settings: all that the run is given, by dotted name, with its seed and, where there are folds, its fold.
    """

    number: int
    configuration: int
    settings: Settings


@dataclass(frozen=True)
class Ended:
    """How a trial ended.

    Attributes:
        number: of the trial. state: "finished", "stopped", or "failed".
        run: its id; None where it did not come to one.
        values: of a finished run its fields by dotted name, as `useg runs list` knows them.
        seconds: that it took in this session. lines: the last ones it said, where it failed.
    """

    number: int
    state: str
    run: str | None
    values: dict[str, Any]
    seconds: float
    lines: tuple[str, ...] = ()


class Trials(Protocol):
    """Runs trials, tells their scores, and stops one when it is asked to.

    Trials outlive the process that began them: `begin` of one that an earlier process began goes on with it, waits
    for it where it still runs, and tells its end where it has ended.
    """

    machines: int

    def has_room(self) -> bool:
        """Whether one more can run now; not while there are ends to tell."""

    def begin(self, trial: Trial, *, is_given_up: bool = False) -> None:
        """Have a trial run; of one that was given up before, only its end is wanted."""

    def curves(self) -> dict[int, list[tuple[float, dict[str, Any]]]]:
        """Of the trials that run, the share of their steps done and the live scores there, in order."""

    def ended(self) -> Sequence[Ended]:
        """The trials that have ended since this was last asked."""

    def stop(self, number: int) -> None:
        """Ask a trial to stop after its step."""

    def wait(self) -> None:
        """Wait until something may have changed, a moment at most."""
