"""The journals and logs of a run as they lie in any home: as one history, its last values, and while they grow."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from useg.errors import DamagedFile
from useg.home.store import Entry, Missing, Store
from useg.runs.journal import Event, decoded
from useg.runs.pieces import read_content, read_events

_GROWING = re.compile(r"(?:folds/(\d+)/)?attempts/(\d+)/(journal\.jsonl|log\.txt)")
_PIECE = re.compile(r"/\d{12}(?=\.\w+$)")
_LAST_BYTES = 16 * 1024
_MOST_BYTES = 16 * 2**20
_OF_AN_EVENT = {"event", "time"}


@dataclass(frozen=True, order=True)
class Growing:
    """A file of an attempt that grows: journal or log.

    Attributes:
        fold: of which fold the attempt is; -1 where there are none.
        attempt: its number.
        name: `journal.jsonl` or `log.txt`.
        key: in the home, whether it lies there whole or in pieces.
        size: bytes so far.
    """

    fold: int
    attempt: int
    name: str
    key: str
    size: int = 0


def growing_files(run: str, listing: Sequence[Entry]) -> list[Growing]:
    """The journals and logs among a run's files, in the order of folds and attempts."""
    sizes: dict[str, int] = {}
    for entry in listing:
        key = _PIECE.sub("", entry.key)
        # the name of a piece says how many bytes there are up to its end
        size = entry.size if key == entry.key else int(entry.key.rpartition("/")[2].partition(".")[0])
        sizes[key] = max(size, sizes.get(key, 0))
    found = []
    for key, size in sizes.items():
        match = _GROWING.fullmatch(key.removeprefix(f"runs/{run}/"))
        if match:
            found.append(Growing(int(match[1] or -1), int(match[2]), match[3], key, size))
    return sorted(found)


def history(store: Store, run: str) -> list[Event]:
    """What happened, over all attempts: of steps done again after a resume, the later ones count.

    Of a run with folds, each event has its `fold`.

    Raises:
        DamagedFile: a piece of a journal is missing. ResourceError: the home does not answer.
    """
    found: list[Event] = []
    past: list[Event] = []
    fold = None
    for file in growing_files(run, [*store.list(f"runs/{run}/attempts/"), *store.list(f"runs/{run}/folds/")]):
        if file.name != "journal.jsonl":
            continue
        if file.fold != fold:
            found, past, fold = found + past, [], file.fold
        for event in read_events(store, run, file.attempt, fold=None if file.fold < 0 else file.fold):
            if event.get("event") == "resumed":
                kept = event.get("step", 0)
                past = [e for e in past if e.get("step", 0) <= kept or e.get("event") == "decision"]
            past.append(event if file.fold < 0 else event | {"fold": file.fold})
    return found + past


def events_of_runs(store: Store, runs: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The history of some runs, an event at a time, with the run and with dotted names.

    Raises:
        DamagedFile: a piece of a journal is missing. ResourceError: the home does not answer.
    """
    from useg.runs.facts import flattened

    for run in runs:
        for event in history(store, run):
            row = {"run": run}
            for field, value in event.items():
                row |= flattened(value, field)
            yield row


def last_values(store: Store, run: str, listing: Sequence[Entry]) -> dict[str, Any]:
    """The latest value of each name that the run's events have, as far as the ends of its journals tell.

    Args:
        store: the home.
        run: the run's id.
        listing: its files; of the journals at least.

    Raises:
        ResourceError: the home does not answer.
    """
    found: dict[str, Any] = {}
    until = None
    for file in reversed([each for each in growing_files(run, listing) if each.name == "journal.jsonl"]):
        for event in reversed(_last_events(store, file)):
            step = event.get("step")
            if until is not None and isinstance(step, int | float) and step > until:
                continue  # done again after a resume
            if event.get("event") == "resumed" and isinstance(step, int | float):
                until = step if until is None else min(until, step)
            values = {name: value for name, value in event.items() if name not in _OF_AN_EVENT}
            values |= values.pop("scores", None) or {}
            found = values | found
        if "loss" in found:
            break
    return found


def _last_events(store: Store, file: Growing) -> list[Event]:
    """The events at the end of a journal; at least one, if there is one in its last megabytes."""
    count = _LAST_BYTES
    while True:
        start = max(0, file.size - count)
        with suppress(Missing):
            events = list(events_in(_content(store, file, start), is_begun=start > 0))
            if events or start == 0 or count >= _MOST_BYTES:
                return events
        count *= 8


def _content(store: Store, file: Growing, start: int) -> bytes:
    try:
        return read_content(store, file.key, start)
    except DamagedFile:
        return b""


def events_in(content: bytes, *, is_begun: bool = False) -> Iterator[Event]:
    """The events in some whole lines of a journal; `is_begun`: the first line is only the end of one."""
    for line in content.split(b"\n")[int(is_begun) :]:
        with suppress(orjson.JSONDecodeError):
            event = decoded(line) if line else None
            if isinstance(event, dict):
                yield event


class Follower:
    """Journals and logs of a run, read on from where they were read before.

    Args:
        store: the home.
        run: the run's id.
    """

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._read: dict[str, int] = {}

    def skip(self) -> None:
        """Go to the end: only what comes from now on is told."""
        for file in self._files():
            self._read[file.key] = self._read.get(file.key, 0) + len(read_content(self._store, file.key))

    def more(self) -> list[Event | str]:
        """What has come since: events, and lines of the log.

        Raises:
            DamagedFile: a piece is missing. ResourceError: the home does not answer.
        """
        found: list[Event | str] = []
        for file in self._files():
            start = self._read.get(file.key, 0)
            if file.size <= start:
                continue
            content = read_content(self._store, file.key, start)
            self._read[file.key] = start + len(content)
            if file.name == "log.txt":
                found += content.decode(errors="replace").splitlines()
            else:
                found += events_in(content)
        return found

    def _files(self) -> list[Growing]:
        prefix = f"runs/{self._run}/"
        return growing_files(self._run, [*self._store.list(f"{prefix}attempts/"), *self._store.list(f"{prefix}folds/")])


__all__ = ["Follower", "Growing", "events_in", "events_of_runs", "growing_files", "history", "last_values"]
