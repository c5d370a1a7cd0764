"""The journals of a run as points of curves, with their place in the journal, so that sending them can go on anywhere.

Of steps that were done again after a resume only the later ones are points. Where the earlier ones had been sent
already, they stay where they are, and what is the same again is left out.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from useg.home.store import Entry, Store
from useg.runs.facts import flattened
from useg.runs.following import Growing, events_in, growing_files
from useg.runs.journal import Event
from useg.runs.pieces import read_content

LARGEST_STEP = 2**63 - 1
_LATEST_MS = 2**53
_NO_VALUES = {"event", "step", "time"}


class Point(NamedTuple):
    """A value of a curve.

    Attributes:
        name: of the curve, as useg calls it.
        value: maybe NaN or infinite.
        step: of the training.
        time_ms: since the epoch: as the journal says, else reckoned from the beginning and the seconds of each step.
    """

    name: str
    value: float
    step: int
    time_ms: int


class Told(NamedTuple):
    """The points of one event.

    Attributes:
        place: its journal: the attempt's number, after `fold<n>/` where there are folds.
        events: how many events this journal has up to this one.
        points: maybe none.
    """

    place: str
    events: int
    points: list[Point]


@dataclass
class _Reading:
    """How far a journal was read."""

    read: int = 0
    count: int = 0
    clock_ms: float = 0.0
    step: int = 0


@dataclass
class _Fold:
    clock_ms: float
    past: list[tuple[float, Told]] = field(default_factory=list)


class Curves:
    """The curves of one run, read on from where they were read before.

    Args:
        store: the home.
        run: the run's id.
        started_ms: when it began, since the epoch.

    Attributes:
        replaced: the steps, first and last, of which an earlier attempt's values had been sent; None for none.
    """

    def __init__(self, store: Store, run: str, started_ms: int) -> None:
        self._store, self._run, self._started_ms = store, run, started_ms
        self._files: dict[str, _Reading] = {}
        self._sent_before: dict[tuple[str, int], float] = {}
        self.replaced: tuple[int, int] | None = None

    def more(self, sent: Mapping[str, int]) -> Iterator[Told]:
        """What is not sent yet, event by event in their order.

        Args:
            sent: by place, of how many events the points were sent.

        Raises:
            DamagedFile: a piece of a journal is missing. ResourceError: the home does not answer.
        """
        prefix = f"runs/{self._run}/"
        listing = [*self._store.list(f"{prefix}attempts/"), *self._store.list(f"{prefix}folds/")]
        files = [file for file in growing_files(self._run, listing) if file.name == "journal.jsonl"]
        if {file.key for file in files} == self._files.keys():
            for file in files:
                if file.size > self._files[file.key].read:
                    for _, told in self._events(file):
                        yield from self._new(told, sent)
        else:
            yield from self._all(files, listing, sent)

    def _all(self, files: list[Growing], listing: list[Entry], sent: Mapping[str, int]) -> Iterator[Told]:
        """Everything from the beginning: another attempt may replace what was there."""
        self._files, self._sent_before, self.replaced = {}, {}, None
        claims = {entry.key: entry.modified * 1000 for entry in listing if entry.key.endswith("/lease/00000000")}
        folds: dict[int, _Fold] = {}
        for file in files:
            fold = folds.setdefault(file.fold, _Fold(clock_ms=self._started_ms))
            claimed = claims.get(f"{file.key.rpartition('/')[0]}/lease/00000000", 0.0)
            reading = _Reading(clock_ms=max(fold.clock_ms, claimed) if fold.past else fold.clock_ms)
            self._files[file.key] = reading
            for event, told in self._events(file):
                if event.get("event") == "resumed":
                    self._replace(fold, told, reading.step, sent)
                fold.past.append((reading.step if told.points else -math.inf, told))
            fold.clock_ms = reading.clock_ms
        for fold in folds.values():
            for _, told in fold.past:
                yield from self._new(told, sent)

    def _replace(self, fold: _Fold, resumed: Told, step: int, sent: Mapping[str, int]) -> None:
        """Take away what comes after the step at which an attempt went on; of what was sent of it, keep the values."""
        gone = [told for at, told in fold.past if at > step]
        fold.past = [(at, told) for at, told in fold.past if at <= step]
        for told in gone:
            if told.events <= sent.get(told.place, 0):
                self._sent_before |= {(point.name, point.step): point.value for point in told.points}
                steps = [point.step for point in told.points]
                first, last = self.replaced or (steps[0], steps[0])
                self.replaced = min(first, *steps), max(last, *steps)

    def _new(self, told: Told, sent: Mapping[str, int]) -> Iterator[Told]:
        if told.events <= sent.get(told.place, 0):
            return
        if self._sent_before:
            points = [
                each for each in told.points if not _same(self._sent_before.get((each.name, each.step)), each.value)
            ]
            told = told._replace(points=points)
        yield told

    def _events(self, file: Growing) -> Iterator[tuple[Event, Told]]:
        """The events of a journal that come after those that were read."""
        reading = self._files[file.key]
        content = read_content(self._store, file.key, reading.read)
        reading.read += len(content)
        prefix = "" if file.fold < 0 else f"fold{file.fold}/"
        for event in events_in(content):
            reading.count += 1
            _advance(reading, event)
            time_ms = int(min(max(reading.clock_ms, 0.0), _LATEST_MS))
            points = [Point(prefix + name, value, reading.step, time_ms) for name, value in _values(event)]
            yield event, Told(f"{prefix}{file.attempt}", reading.count, points)


def _advance(reading: _Reading, event: Event) -> None:
    """Step and time of an event; those of the one before, where it does not say."""
    step, time, seconds = event.get("step"), event.get("time"), event.get("seconds")
    if _is_number(step) and abs(step) <= LARGEST_STEP:
        reading.step = int(step)
    if _is_number(time):
        reading.clock_ms = time * 1000
    elif _is_number(seconds) and seconds >= 0:
        reading.clock_ms += seconds * 1000


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _values(event: Event) -> Iterator[tuple[str, float]]:
    """The numbers of an event that belong to curves; scores of a validation by their own names."""
    kind = event.get("event")
    if kind not in ("step", "validation"):
        return
    for name, value in event.items():
        if name in _NO_VALUES:
            continue
        field_name = name if kind == "step" else f"{kind}.{name}"
        for dotted, number in flattened(value, field_name):
            if isinstance(number, int | float):
                yield dotted.removeprefix("validation.scores."), float(number)


def _same(one: float | None, other: float) -> bool:
    return one is not None and (one == other or (math.isnan(one) and math.isnan(other)))


__all__ = ["LARGEST_STEP", "Curves", "Point", "Told"]
