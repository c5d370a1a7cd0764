"""Who holds a run, and whether it is alive: attempts claimed once, a counter that rises, a request to stop."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import orjson

from useg.errors import InputError
from useg.home.store import Missing, Store

INTERVAL_S = 5.0
"""Seconds between two renewals of a lease."""
MISSED = 4
"""A lease that was not renewed for this many intervals is that of a dead attempt: 20 s."""

Status = Literal["running", "finished", "stopped", "failed", "dead"]
_ENDING_S = 3.0
_CLAIM = 0


@dataclass(frozen=True)
class Holder:
    """The process that claimed an attempt.

    Attributes:
        attempt: its number.
        host: the name of its machine.
        pid: its number there.
        machine: tells one start of one machine, and what counts processes on it, from every other.
        interval_s: how often its keeper renews the lease.
    """

    attempt: int
    host: str
    pid: int
    machine: str
    interval_s: float


@dataclass(frozen=True)
class _Sight:
    """What one look at a run's newest attempt showed."""

    attempt: int
    number: int
    modified: float
    has_end: bool


def claim_attempt(store: Store, run: str, *, interval_s: float = INTERVAL_S) -> int:
    """Take the next attempt of a run for this process; no two processes ever get the same one.

    The claim is the lease's entry 00000000, which nobody deletes.

    Raises:
        ResourceError: the home does not answer, or is full.
    """
    claim = orjson.dumps(
        {"interval_s": interval_s, "host": os.uname().nodename, "pid": os.getpid(), "machine": machine()}
    )
    number = 1 + max(_attempts(store, run), default=0)
    # to look first is cheap where many come at once
    while _read(store, _lease(run, number, _CLAIM)) is not None or not store.put(_lease(run, number, _CLAIM), claim):
        number += 1
    return number


class Lease:
    """The counter of one attempt, raised by its keeper for as long as the trainer lives.

    Args:
        store: the home.
        run: the run's id.
        attempt: the attempt's number, which must have been claimed.
    """

    def __init__(self, store: Store, run: str, attempt: int, *, interval_s: float = INTERVAL_S) -> None:
        self._store, self._run, self._attempt = store, run, attempt
        self._content = orjson.dumps({"interval_s": interval_s})
        self._standing: list[int] | None = None

    def renew(self) -> None:
        """Raise the counter by one, and take away what was before.

        Raises:
            ResourceError: the home does not answer, or is full; call again.
        """
        if self._standing is None:
            entries = self._store.list(_lease(self._run, self._attempt, _CLAIM).removesuffix("00000000"))
            self._standing = [int(entry.key.rpartition("/")[2]) for entry in entries]
        number = max(self._standing, default=_CLAIM) + 1
        # an entry that is there already was put by a request whose answer was lost: the next one rises above it
        self._standing.append(number)
        self._store.put(_lease(self._run, self._attempt, number), self._content)
        while self._standing[0] < number:
            if self._standing[0] != _CLAIM:
                self._store.delete(_lease(self._run, self._attempt, self._standing[0]))
            del self._standing[0]

    def is_asked_to_stop(self) -> bool:
        """Whether somebody asked this attempt to stop, or began the next one because it seemed dead.

        Raises:
            ResourceError: the home does not answer.
        """
        return any(
            _read(self._store, key) is not None
            for key in (_stop(self._run, self._attempt), _lease(self._run, self._attempt + 1, _CLAIM))
        )


def status_of(store: Store, run: str) -> Status:
    """What became of a run, at once: as its record says; a running one is dead when its process ended without a word,
    or when its lease was not renewed for 20 s by the store's own clock.

    A process that is suspended is alive: its keeper goes on, and so the run is `running`. When the keeper is suspended,
    too (a laptop that sleeps), the run is taken for dead, and is `running` again when the lease rises again.

    Raises:
        InputError: there is no such run. ResourceError: the home does not answer.
    """
    status = _recorded(store, run)
    if status != "running":
        return status
    sight = _look(store, run)
    if sight.has_end:
        return "dead"
    return "dead" if store.time() - sight.modified > _limit_s(store, run, sight.attempt) else "running"


class Watcher:
    """An observer of one run who needs no clock but the own monotonic one: a lease must rise before his eyes.

    Args:
        store: the home.
        run: the run's id.
        clock: seconds that never go back.
    """

    def __init__(self, store: Store, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._run, self._clock = store, run, clock
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def look(self) -> Status:
        """What is known now; a run is dead when its lease has stood still for 20 s since it was first seen so.

        Raises:
            InputError: there is no such run. ResourceError: the home does not answer.
        """
        status = _recorded(self._store, self._run)
        if status != "running":
            return status
        sight = _look(self._store, self._run)
        if sight.has_end:
            return "dead"
        if self._seen != (sight.attempt, sight.number):
            self._seen, self._since = (sight.attempt, sight.number), self._clock()
        is_still = self._clock() - self._since > _limit_s(self._store, self._run, sight.attempt)
        return "dead" if is_still else "running"


def holder_of(store: Store, run: str) -> Holder | None:
    """Who claimed the newest attempt of a run; None when nobody did, or when an older version of useg did.

    Raises:
        ResourceError: the home does not answer.
    """
    attempt = max(_attempts(store, run), default=0)
    return _holder(store, run, attempt) if attempt else None


def check_free(store: Store, run: str) -> None:
    """Refuse to go on with a run that a living process holds.

    Raises:
        InputError: there is no such run, or somebody holds it; says who, and how to stop it.
        ResourceError: the home does not answer.
    """
    until = time.monotonic() + _ENDING_S
    while status_of(store, run) == "running":
        holder = holder_of(store, run)
        is_gone = holder is not None and holder.machine == machine() and not lives(holder.pid)
        if holder is None or (is_gone and time.monotonic() > until):
            return
        if not is_gone:
            raise InputError(
                f"{run} is being trained: attempt {holder.attempt}, by process {holder.pid} on {holder.host}. "
                f"Stop it with `useg runs stop {run}`; if that machine is gone, "
                f"try again in {MISSED * holder.interval_s:.0f} s"
            )
        time.sleep(0.1)  # its keeper is about to write down how it ended


def stop_run(store: Store, run: str) -> None:
    """Ask the trainer of a run to stop after its step, wherever it is; its keeper hands the request on.

    Raises:
        InputError: there is no such run, or it does not run.
        ResourceError: the home does not answer, or is full.
    """
    status = status_of(store, run)
    holder = holder_of(store, run)
    if status != "running" or holder is None:
        raise InputError(f"{run} does not run: it is {'of an older version' if status == 'running' else status}")
    asked = {"host": os.uname().nodename, "pid": os.getpid(), "time": time.time()}
    store.put(_stop(run, holder.attempt), orjson.dumps(asked))


def _lease(run: str, attempt: int, number: int) -> str:
    return f"runs/{run}/attempts/{attempt}/lease/{number:08d}"


def _stop(run: str, attempt: int) -> str:
    return f"runs/{run}/stop/{attempt}"


def _attempts(store: Store, run: str) -> set[int]:
    """The numbers of the attempts of a run that anything is known of."""
    prefix = f"runs/{run}/attempts/"
    found = (re.match(r"(\d+)/", entry.key.removeprefix(prefix)) for entry in store.list(prefix))
    return {int(match[1]) for match in found if match}


def _look(store: Store, run: str) -> _Sight:
    """The newest attempt and the newest entry of its lease; where there is none, what was written last."""
    prefix = f"runs/{run}/attempts/"
    found = [(re.match(r"(\d+)/(?:lease/(\d+)$)?", e.key.removeprefix(prefix)), e) for e in store.list(prefix)]
    attempt = max((int(match[1]) for match, _ in found if match), default=0)
    if not attempt:
        return _Sight(0, 0, max(e.modified for e in store.list(f"runs/{run}/record")), has_end=False)
    mine = [(match, entry) for match, entry in found if match and int(match[1]) == attempt]
    leases = [(int(match[2]), entry.modified) for match, entry in mine if match[2]]
    number, modified = max(leases, default=(0, max(entry.modified for _, entry in mine)))
    return _Sight(attempt, number, modified, any(entry.key == f"{prefix}{attempt}/end.json" for _, entry in mine))


def _limit_s(store: Store, run: str, attempt: int) -> float:
    holder = _holder(store, run, attempt)
    return MISSED * (holder.interval_s if holder else INTERVAL_S)


def _holder(store: Store, run: str, attempt: int) -> Holder | None:
    claim = _read(store, _lease(run, attempt, _CLAIM))
    try:
        return None if claim is None else Holder(attempt=attempt, **claim)
    except TypeError:
        return None


def _recorded(store: Store, run: str) -> Status:
    """The status that the record's newest word on it gives."""
    prefix = f"runs/{run}/record"
    keys = [e.key for e in store.list(prefix) if re.fullmatch(r"\.json|/\d{8}", e.key.removeprefix(prefix))]
    if not keys:
        raise InputError(f"no run {run!r} in {store.url}")
    for key in reversed(keys):
        status = (_read(store, key) or {}).get("status")
        if status in get_args(Status):
            return cast(Status, status)
    return "running"


def _read(store: Store, key: str) -> dict[str, Any] | None:
    """A small JSON object; None when there is none, or one of which a crash has left a part."""
    try:
        content = orjson.loads(store.get(key))
    except (Missing, orjson.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def machine() -> str:
    """What two processes have in common that see each other's numbers."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def lives(pid: int) -> bool:
    """Whether there is such a process on this machine, as far as can be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return not os.path.isdir("/proc/self")


__all__ = ["INTERVAL_S", "Holder", "Lease", "Status", "Watcher", "check_free", "claim_attempt", "holder_of",
           "lives", "machine", "status_of", "stop_run"]  # fmt: skip
