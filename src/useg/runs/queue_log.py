"""The queue as it lies in a home: a log that everybody adds to and nobody changes.

`jobs/log/<n>` is written only where nothing is, by one who has read all entries before it. So what an entry says was
true when it was written: of two dispatchers that would start the same job, one finds the place taken, and reads first.

    jobs/asked/<id>       what a job is, with what the home keeps for it; written before its entry
    jobs/log/<8 digits>   entries: {"time", "id", "events": [...]}
    jobs/state/<8 digits> what the entries up to here say together, so that not all have to be read
    jobs/beats/<dispatcher>/<8 digits>   a counter that rises while a dispatcher lives
"""

import math
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import orjson

from useg import __version__
from useg.errors import ResourceError, UsegError
from useg.home.store import Missing, Store
from useg.runs.lease import lives, machine
from useg.runs.queue import Event, Queue

BEAT_S = 5.0
SILENCE_S = 30.0
"""A dispatcher whose counter stands still for so long, before an observer's eyes, is taken for dead."""
_LOG, _STATE = "jobs/log/", "jobs/state/"
_AT_ONCE = 32


class QueueLog:
    """The log of a home's queue, and what it says.

    Args:
        store: the home.

    Attributes:
        queue: what the entries say that were read so far.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.queue, self._read = store, Queue(), 0
        states = [entry.key for entry in store.list(_STATE)]
        with suppress(Missing, orjson.JSONDecodeError):
            if states:
                self.queue = Queue.restored(orjson.loads(store.get(states[-1])))
                self._read = int(states[-1].rpartition("/")[2])

    def catch_up(self) -> None:
        """Read the entries that are new.

        Raises:
            ResourceError: the home does not answer.
        """
        count = 1
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while True:
                keys = [_entry(self._read + 1 + ahead) for ahead in range(count)]
                contents = [self._get(keys[0])] if count == 1 else [*pool.map(self._get, keys)]
                for content in contents:
                    if content is None:
                        return
                    self._take(content)
                count = min(2 * count, _AT_ONCE)

    def add(self, choose: Callable[[Queue], list[Event]]) -> list[Event]:
        """Add events that are right for what the queue is at that moment; those that were added.

        Args:
            choose: says which; asked again when somebody else was quicker. None are no entry.

        Raises:
            ResourceError: the home does not answer, or is full.
        """
        while True:
            self.catch_up()
            events = choose(self.queue)
            if not events:
                return []
            key = _entry(self._read + 1)
            content = orjson.dumps({"time": time.time(), "id": secrets.token_hex(8), "events": events})
            # what is there may be one's own entry, put by a request whose answer was lost
            if self.store.put(key, content) or self._get(key) == content:
                self._take(content)
                self._keep_state()
                return events

    def submit(self, asked: dict[str, Any], job: dict[str, Any]) -> int:
        """Put a job into the queue; its number.

        Args:
            asked: what it is. job: fields of `Job` that say what it needs.

        Raises:
            ResourceError: the home does not answer, or is full.
        """
        key = secrets.token_hex(8)
        self.store.put(f"jobs/asked/{key}", orjson.dumps(asked))
        self.add(lambda queue: [{"event": "submitted", "job": {**job, "asked": key, "useg": __version__}}])
        return max(number for number, each in self.queue.jobs.items() if each.asked == key)

    def asked(self, key: str) -> dict[str, Any]:
        """What a job is.

        Raises:
            Missing: it was taken away.
        """
        return dict(orjson.loads(self.store.get(f"jobs/asked/{key}")))

    def _get(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except Missing:
            return None

    def _take(self, content: bytes) -> None:
        self._read += 1
        with suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):  # what a stranger wrote
            entry = orjson.loads(content)
            for event in entry["events"]:
                self.queue.take(event, float(entry["time"]))

    def _keep_state(self) -> None:
        """Now and then: at most a quarter of the entries has to be read besides."""
        if self._read % max(512, 1 << self._read.bit_length() >> 3) == 0:
            with suppress(UsegError):
                self.store.put(f"{_STATE}{self._read:08}", orjson.dumps(self.queue.state()))


class Beat:
    """The counter of one dispatcher.

    Args:
        store: the home. name: of the dispatcher.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name, self._number = store, name, 0

    def rise(self) -> None:
        """By one, and take away what was before.

        Raises:
            ResourceError: the home does not answer, or is full.
        """
        self._number += 1
        who = {"host": os.uname().nodename, "pid": os.getpid(), "machine": machine()}
        self._store.put(_beat(self._name, self._number), orjson.dumps(who))
        if self._number > 1:
            self._store.delete(_beat(self._name, self._number - 1))


class Observer:
    """Tells which other dispatchers died, by no clock but the own monotonic one."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._seen: dict[str, tuple[str, float]] = {}

    def has_died(self, name: str) -> bool:
        """Whether it is known by now.

        Raises:
            ResourceError: the home does not answer.
        """
        key = max((entry.key for entry in self._store.list(f"jobs/beats/{name}/")), default="")
        known, since = self._seen.get(name, ("", 0.0))
        if key != known or name not in self._seen:
            known, since = self._seen[name] = (key, self._clock())
            with suppress(Missing, orjson.JSONDecodeError, ResourceError):
                who = orjson.loads(self._store.get(key)) if key else {}
                if who.get("machine") == machine() and not lives(int(who["pid"])):
                    self._seen[name] = (key, -math.inf)
                    return True
        return self._clock() - since > SILENCE_S


def _entry(number: int) -> str:
    return f"{_LOG}{number:08}"


def _beat(name: str, number: int) -> str:
    return f"jobs/beats/{name}/{number:08}"


__all__ = ["BEAT_S", "SILENCE_S", "Beat", "Observer", "QueueLog"]
