"""Alerts: what happens to the runs of a home, seen from outside, and told to whoever wants to know, at least once.

What was seen and what was told is remembered in a file of this machine, so that a watcher that is started again goes
on where it was. Each event has an id that is the same whenever it is found: what is told twice can be known by it.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home.folder import write_atomically, writing
from useg.home.locks import is_abandoned
from useg.home.store import Missing, Store
from useg.runs.index import ENDED, Index, Run, asking
from useg.runs.record import now
from useg.runs.telling import Happening, NotTold, Recipient, pause_s

KINDS = ("starts", "ends", "fails", "dies")
TRIES = 12
"""So often one event is told to one recipient, over about half an hour, before it is given up."""
EVERY_S = 2.0
"""Seconds between two looks at the home."""
_KIND_OF = {"running": "starts", "finished": "ends", "stopped": "ends", "failed": "fails", "dead": "dies"}
_SAYS = {"running": "began", "dead": "died"}
_FORMAT = 1
_FIELDS = ("name", "user", "host", "error", "scores.mean_dice", "last.step", "last.loss", "last.mean_dice")
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Wanted:
    """What is to be told.

    Attributes:
        on: of `KINDS`.
        when: filters; a run is told of when one begins to hold of it, once.
        runs: ids; None for all runs, also those to come.
        past: whether what happened before the first look is told, too.
    """

    on: Collection[str] = KINDS
    when: Sequence[str] = ()
    runs: Collection[str] | None = None
    past: bool = False


class Memory:
    """What was seen and told, in a file that only one process uses at a time; written whole or not at all.

    Attributes:
        seen: by run: its `sign`, the number of the newest `entry` of its record that was read, in which entry it began
            (`begun`), and in which one it had begun when it was found dead (`died`).
        passed: by filter: the runs that were told of.
        waiting: what is still to be told: `event`, `to` whom, and the `tries` so far.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seen: dict[str, dict[str, Any]] = {}
        self.passed: dict[str, list[str]] = {}
        self.waiting: list[dict[str, Any]] = []
        self.is_new = True
        try:
            content = orjson.loads(file.read_bytes())
            self.seen, self.passed, self.waiting = content["seen"], content["passed"], content["waiting"]
            self.is_new = False
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedFile(
                f"{file}: not what `useg runs watch` remembers; take it away, and what happened till then is not told"
            ) from error

    def keep(self) -> None:
        """Write it down.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        content = {"format": _FORMAT, "seen": self.seen, "passed": self.passed, "waiting": self.waiting}
        write_atomically(self.file, orjson.dumps(content))
        self.is_new = False


@contextmanager
def remembering(file: Path) -> Iterator[Memory]:
    """What is remembered in a file, for this process alone.

    Raises:
        InputError: another watcher uses it. DamagedFile: it is no such file. ResourceError: it cannot be written.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not is_abandoned(lock):
            raise InputError(f"another watcher tells the same already (it holds {file}.lock); end that one first")
        yield Memory(file)
    finally:
        os.close(lock)


def memory_file(store: Store, recipients: Sequence[Recipient], runs: Collection[str] | None) -> Path:
    """Where a watcher of this home for these recipients and runs remembers what it told."""
    from useg.home.cache import cache_folder

    who = [store.url, sorted(each.key for each in recipients), None if runs is None else sorted(runs)]
    return cache_folder() / "watch" / f"{sha256(orjson.dumps(who)).hexdigest()[:16]}.json"


@dataclass
class _Found:
    """What one look at a home showed, and what is to be remembered of it."""

    marks: list[str]
    running: set[str]
    seen: dict[str, dict[str, Any]]
    passed: dict[str, list[str]]
    events: list[Happening] = field(default_factory=list)


class Watch:
    """An observer of a home.

    Args:
        store: the home.
        wanted: what is to be told.
        recipients: to whom.
        memory: what was told before.
        note: told of recipients that do not answer.
        clock: seconds that never go back.
        tries: how often an event is told to a recipient who does not hear.
    """

    def __init__(
        self, store: Store, wanted: Wanted, recipients: Sequence[Recipient], memory: Memory,
        note: Callable[[str], None] = lambda text: None, *, clock: Callable[[], float] = time.monotonic,
        tries: int = TRIES,
    ) -> None:  # fmt: skip
        self._store, self._wanted, self._memory, self._note = store, wanted, memory, note
        self._recipients = {each.key: each for each in recipients}
        self._clock, self._tries = clock, tries
        self._due: dict[tuple[str, str], float] = {}
        self._last: list[str] | None = None
        self._unknown: set[str] = set()
        self.running: set[str] = set()
        self.given_up = 0

    @property
    def waiting(self) -> int:
        """How many words are still to be told."""
        return len(self._memory.waiting)

    def look(self) -> list[Happening]:
        """What has happened since the last look; it is remembered, with whom it is to be told to, when this returns.

        Raises:
            InputError: a filter cannot be read, or names what no run has. ResourceError: the home does not answer.
        """
        found = asking(self._store, self._look)
        if found is None:
            return []
        self._last, self.running = found.marks, found.running
        memory = self._memory
        memory.seen, memory.passed = found.seen, found.passed
        memory.waiting += [
            {"event": event, "to": key, "tries": 0} for event in found.events for key in self._recipients
        ]
        memory.keep()
        return found.events

    def once(self) -> Iterator[Happening]:
        """One look, and one try to tell all that is waiting."""
        yield from self.look()
        self.tell()

    def go_on(self, *, until_ended: bool, sleep: Callable[[float], None] = time.sleep) -> Iterator[Happening]:
        """Look and tell by turns; a home that does not answer is asked again, and told of once.

        Args:
            until_ended: end when no run that is meant is running, and all is told.
            sleep: waits for so many seconds.
        """
        failures = 0
        while True:
            pause = EVERY_S
            try:
                yield from self.look()
                if failures:
                    self._note("the home answers again")
                failures = 0
            except ResourceError as error:
                failures += 1
                pause = min(_LONGEST_PAUSE_S, EVERY_S * 2.0 ** min(failures, 10))
                if failures == 1:
                    self._note(f"{error}; asking again")
            due = self.tell()
            if until_ended and due is None and not failures and not self.running:
                return
            sleep(pause if due is None else min(pause, max(due, 0.05)))

    def tell(self) -> float | None:
        """Tell what is due; returns in how many seconds the next is, or None when nothing is waiting."""
        for word in list(self._memory.waiting):
            recipient = self._recipients.get(word["to"])
            mark = word["event"]["id"], word["to"]
            if recipient is not None and self._due.get(mark, 0.0) > self._clock():
                continue
            if recipient is None or self._is_done(recipient, word):
                self._memory.waiting.remove(word)
                self._due.pop(mark, None)
            else:
                self._due[mark] = self._clock() + pause_s(word["tries"])
            self._memory.keep()
        if not self._memory.waiting:
            return None
        dues = [self._due.get((word["event"]["id"], word["to"]), 0.0) for word in self._memory.waiting]
        return max(0.0, min(dues) - self._clock())

    def _is_done(self, recipient: Recipient, word: dict[str, Any]) -> bool:
        """Whether somebody heard it now, or will never."""
        try:
            recipient.tell(word["event"])
            return True
        except NotTold as error:
            word["tries"] += 1
            is_last: bool = word["tries"] >= self._tries
            what = f"{word['event']['run']} {word['event']['event']}"
            then = "given up" if is_last else f"again in {pause_s(word['tries']):g} s"
            self._note(f"{what}: not told, try {word['tries']} of {self._tries}: {error}; {then}")
            self.given_up += is_last
            return is_last

    def _look(self, index: Index) -> _Found | None:
        """What is new; None when nothing changed at all. Remembers nothing: it may be called again."""
        runs = [run for run in index.runs() if not run.problem and not run.removed and self._is_meant(run.id)]
        runs.sort(key=lambda run: run.id)
        marks = [f"{run.id} {run.sign} {run.pulse} {run.status}" for run in runs]
        if marks == self._last:
            return None
        there = {run.id for run in index.runs()}
        found = _Found(
            marks,
            {run.id for run in runs if run.status not in (*ENDED, "dead")},
            {name: state for name, state in self._memory.seen.items() if name in there},
            {where: [name for name in names if name in there] for where, names in self._memory.passed.items()},
        )
        for run in runs:
            for status, mark in self._changed(run, found):
                if _KIND_OF[status] in self._wanted.on:
                    found.events.append(self._event(index, run, _KIND_OF[status], mark, _SAYS.get(status, status)))
        for where in self._wanted.when:
            found.events += self._passes(index, where, found)
        return found

    def _is_meant(self, run: str) -> bool:
        return self._wanted.runs is None or run in self._wanted.runs

    def _changed(self, run: Run, found: _Found) -> Iterator[tuple[str, str]]:
        """What happened to a run, word by word of its record: (status, what tells it from others of its kind)."""
        before = found.seen.get(run.id)
        sign = run.sign.removeprefix("~")  # which only says that it is fresh
        state = before or {"sign": "", "entry": 0, "begun": 0, "died": -1}
        if before is None and self._memory.is_new and not self._wanted.past:
            newest = sign.rpartition(":")[2]
            state |= {"sign": sign, "entry": int(newest) if newest.isdigit() else 0}
            state["died"] = 0 if run.status == "dead" else -1
        elif state["sign"] != sign:
            state = {**state, "sign": sign}
            for number, status in self._statuses(run.id, state["entry"]):
                state["entry"] = number
                if status == "running":
                    state["begun"] = number
                if status in _KIND_OF:
                    yield status, str(number)
        if run.status == "dead" and state["died"] != state["begun"]:
            state = {**state, "died": state["begun"]}
            yield "dead", str(state["begun"])
        found.seen[run.id] = state

    def _statuses(self, run: str, after: int) -> Iterator[tuple[int, str]]:
        """The entries of a run's record after one: their numbers, and what they say of its status."""
        place = f"runs/{run}/record/"
        for entry in self._store.list(place):
            number = entry.key.removeprefix(place)
            if not number.isdigit() or int(number) <= after:
                continue
            try:
                content = orjson.loads(self._store.get(entry.key))
            except (Missing, orjson.JSONDecodeError):
                content = None
            yield int(number), str(content.get("status", "")) if isinstance(content, dict) else ""

    def _passes(self, index: Index, where: str, found: _Found) -> list[Happening]:
        """The runs that a filter holds of, and never did before."""
        from useg.runs.selecting import select

        try:
            holding = [run for run in select(index, where, "run") if self._is_meant(run.id)]
        except InputError as error:
            if self._last is None and found.marks:
                raise
            if str(error) not in self._unknown:
                self._unknown.add(str(error))
                self._note(f"--when {where!r} holds of no run as yet: {error}")
            return []
        known = found.passed.get(where)
        new = [run for run in holding if run.id not in set(known or ())]
        found.passed[where] = [*(known or ()), *(run.id for run in new)]
        if known is None and self._last is None and not self._wanted.past:
            return []
        return [self._event(index, run, "passes", where, f"passed {where}", _values(index, run, where)) for run in new]

    def _event(
        self, index: Index, run: Run, kind: str, mark: str, said: str, more: Mapping[str, Any] | None = None
    ) -> Happening:
        values = index.values(run)
        known = {name: values[name] for name in _FIELDS if values.get(name) is not None}
        text = f"run {run.id} {said}"
        if kind == "fails" and known.get("error"):
            text += f": {str(known['error'])[:300]}"
        content = {
            "id": sha256(orjson.dumps([run.id, kind, mark])).hexdigest()[:20],
            "event": kind,
            "run": run.id,
            "status": run.status,
            "home": self._store.url,
            "time": now(),
            "text": text,
            **known,
            **(more or {}),
        }
        event: Happening = orjson.loads(orjson.dumps(content, default=str))  # NaN becomes null
        return event


def _values(index: Index, run: Run, where: str) -> dict[str, Any]:
    from useg.runs.filter import parse
    from useg.runs.naming import Names

    names = parse(where, Names(index.has, index.names).resolve).names
    return {"when": where, "values": {name: index.column(name, [run]).get(run.number) for name in names}}


__all__ = ["KINDS", "TRIES", "Memory", "Wanted", "Watch", "memory_file", "remembering"]
