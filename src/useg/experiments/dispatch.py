"""The dispatcher of a home's queue: hands jobs to a place that runs them, and writes down what becomes of them.

There may be several, each with a name of its own; the log decides who has a job (`runs/queue_log.py`). One that dies is
found out by the others, or by the next one: its jobs wait again, and go on with their runs.
"""

import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Thread
from typing import Any, Protocol

import orjson

from useg import __version__
from useg.errors import ResourceError, UsegError
from useg.experiments.cluster import Node
from useg.experiments.listening import Listener
from useg.experiments.ordered import Order
from useg.home.store import Missing
from useg.runs.lease import stop_run
from useg.runs.queue import Event, Job, Queue
from useg.runs.queue_log import BEAT_S, Beat, Observer, QueueLog

_WAIT_S = 0.5
_STOP_S = 15.0
_LATE_S = 2.0
_TO_CLOSE_S = 120.0


class Work(Protocol):
    """A job that a place runs; `cluster.Work` is one."""

    node: str | None
    problem: str | None
    is_over: bool
    is_lost: bool

    def heard(self) -> list[Any]:
        """What it has told since this was last asked."""

    def cancel(self, *, at_once: bool = False) -> None:
        """Interrupt it."""


class Place(Protocol):
    """Where jobs run."""

    def nodes(self) -> Sequence[Node]:
        """The machines there are now."""

    def start(self, order: Order, cpus: int, gpus: int) -> Work:
        """Have an order carried out (`ordered.carry_out`) where so much is free."""

    def wait(self, works: Sequence[Any], timeout_s: float) -> None:
        """Until one of them has something to tell, or for so long."""


@dataclass
class _Running:
    attempt: int
    work: Work
    cpus: int
    gpus: int
    since: float
    stop_after: float = 0.0
    news: list[Event] = field(default_factory=list)
    has_ended: bool = False


class Dispatcher:
    """Runs the jobs of a queue at one place.

    Args:
        address: of the home. log: its queue. place: where jobs run. environment: what a node needs to open the home.
        listener: told what begins and ends, and who asks to stop. slots: jobs at the same time, at most.
    """

    def __init__(
        self, address: str, log: QueueLog, place: Place, environment: Mapping[str, str], listener: Listener,
        slots: int | None = None,
    ) -> None:  # fmt: skip
        self.name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(3)}"
        self._address, self._log, self._place, self._environment = address, log, place, environment
        self._listener, self._slots = listener, slots
        self._works: dict[int, _Running] = {}
        self._beat, self._observer, self._looked = Beat(log.store, self.name), Observer(log.store), 0.0
        self._passed_over: set[int] = set()
        self._is_away, self._is_quiet = False, Flag()

    def run(self, *, until_empty: bool = False) -> None:
        """Go on until asked to stop, or until nothing is left to do here; what runs then saves, and waits again.

        Raises:
            ResourceError: the home does not answer when this begins.
        """
        self._beat.rise()
        Thread(target=self._keep_beating, daemon=True).start()
        try:
            while not self._listener.stop.asked and not (until_empty and self._has_nothing_to_do()):
                self.turn()
                self._place.wait([each.work for each in self._works.values()], _WAIT_S)
        finally:
            self._close()
            self._is_quiet.set()

    def turn(self) -> None:
        """Hear what runs, write it down, and start what has room."""
        self._hear()
        try:
            self._write_down()
            self._let_go()
            while len(self._works) < (self._slots or math.inf) and self._start_one():
                pass
            self._is_away = False
        except ResourceError as error:
            if not self._is_away:
                self._listener.note(f"warning: {error}; what runs goes on")
            self._is_away = True

    def _keep_beating(self) -> None:
        while not self._is_quiet.wait(BEAT_S):
            with suppress(ResourceError):
                self._beat.rise()

    def _has_nothing_to_do(self) -> bool:
        with suppress(ResourceError):
            self._log.catch_up()
        return not self._works and self._log.queue.next(self._can) is None and not self._log.queue.dispatchers()

    def _hear(self) -> None:
        for number, each in self._works.items():
            for kind, value in () if each.has_ended else each.work.heard():
                if kind == "run":
                    each.news.append({"event": "run", "run": value})
                elif kind == "end":
                    each.news.append(_end_of(*value))
                    each.has_ended = True
            if each.work.is_over and not each.has_ended:
                each.has_ended = True
                why = each.work.problem or "ended without a word"
                is_asked = self._log.queue.jobs[number].is_stopping
                each.news.append(_died(why) if each.work.is_lost and not is_asked else _failed(why))

    def _write_down(self) -> None:
        """What was heard of the jobs that this dispatcher has, and which other dispatchers died."""
        dead = []
        if time.monotonic() >= self._looked + BEAT_S:
            self._looked = time.monotonic()
            self._log.catch_up()
            others = [by for by in self._log.queue.dispatchers() if by != self.name]
            dead = [{"event": "gone", "by": by} for by in others if self._observer.has_died(by)]

        def choose(queue: Queue) -> list[Event]:
            mine = [(number, each) for number, each in self._works.items() if self._has(queue, number)]
            told = [{**_as_asked(queue.jobs[number], event), "job": number, "by": self.name}
                    for number, each in mine for event in each.news]  # fmt: skip
            return [*dead, *told]

        for event in self._log.add(choose):
            if event["event"] == "gone":
                self._listener.note(f"warning: dispatcher {event['by']} died; its jobs wait again")
            elif event["event"] != "run":
                job = self._log.queue.jobs[event["job"]]
                state = "waits again" if job.state == "waiting" else job.state
                why = event.get("died") or next(iter(job.lines), None)
                self._listener.note(f"job {job.number}: {state}" + (f": {why}" if why else ""))
        for each in self._works.values():
            each.news.clear()

    def _has(self, queue: Queue, number: int) -> bool:
        job = queue.jobs[number]
        return job.state == "running" and job.by == self.name and job.attempt == self._works[number].attempt

    def _let_go(self) -> None:
        """Forget what has ended; end what others have taken, and ask what somebody stopped to stop."""
        for number, each in [*self._works.items()]:
            job, is_taken = self._log.queue.jobs[number], not self._has(self._log.queue, number)
            if is_taken and each.has_ended:
                del self._works[number]
            elif (is_taken or job.is_stopping) and time.monotonic() >= each.stop_after:
                each.stop_after = time.monotonic() + _STOP_S
                if is_taken or job.run is None:
                    each.work.cancel()
                else:
                    with suppress(UsegError):  # it has ended, or has not begun to go on
                        stop_run(self._log.store, job.run)

    def _start_one(self) -> bool:
        """Start the next job, if there is room for it now; whether to ask again."""
        late = time.monotonic() - _LATE_S
        if any(each.work.node is None and not each.has_ended and each.since < late for each in self._works.values()):
            return False  # what was handed over waits for room, since what is free is in pieces
        job = self._log.queue.next(self._can)
        if job is None or job.number in self._works or not self._has_room(job):
            return False
        cpus, gpus = self._need(job)
        order = self._order(job, cpus)

        def choose(queue: Queue) -> list[Event]:
            is_next = queue.next(self._can) is queue.jobs[job.number]
            return [{"event": "started", "job": job.number, "by": self.name}] if is_next else []

        if self._log.add(choose):
            work = _Nothing(order) if isinstance(order, str) else self._place.start(order, cpus, gpus)
            self._works[job.number] = _Running(job.attempt, work, cpus, gpus, time.monotonic())
            self._listener.note(f"job {job.number} of {job.user}: {job.what}")
        return True

    def _order(self, job: Job, cpus: int) -> Order | str:
        """What is handed over, or why there is nothing to hand over.

        Raises:
            ResourceError: the home does not answer.
        """
        try:
            asked = self._log.asked(job.asked)
            threads = asked["threads"] or max(1, cpus // asked["workers"])
            words = (*asked["words"], "--tag", f"job:{job.number}", "--set", f"train.threads={threads}")
            files = {option: text.encode() for option, text in asked["files"].items()}
        except (Missing, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            return f"what was asked cannot be read: {error}"
        return Order(self._address, words, files, job.run, self._environment)

    def _need(self, job: Job) -> tuple[int, int]:
        """Cores and GPUs; where the job does not say, a GPU where there are any, and its share of a node's cores."""
        nodes = self._place.nodes()
        gpus = int(any(node.gpus for node in nodes)) if job.gpus is None else job.gpus
        fitting = [node for node in nodes if node.gpus >= gpus]
        shares = [node.cpus * gpus // node.gpus if gpus else node.cpus for node in fitting]
        return job.cpus or max(1, min(shares, default=1)), gpus

    def _can(self, job: Job) -> bool:
        """Whether the job could ever run here."""
        cpus, gpus = self._need(job)
        fits = any(node.cpus >= cpus and node.gpus >= gpus for node in self._place.nodes())
        if not (fits and job.useg == __version__) and job.number not in self._passed_over:
            self._passed_over.add(job.number)
            why = (
                f"{cpus} cores and {gpus} GPUs are more than any node has" if not fits else f"it is of useg {job.useg}"
            )
            self._listener.note(f"warning: job {job.number} waits for another place: {why}")
        return fits and job.useg == __version__

    def _has_room(self, job: Job) -> bool:
        cpus, gpus = self._need(job)
        nodes, works = self._place.nodes(), self._works.values()
        free_cpus = sum(node.cpus for node in nodes) - sum(each.cpus for each in works)
        free_gpus = sum(node.gpus for node in nodes) - sum(each.gpus for each in works)
        return free_cpus >= cpus and free_gpus >= gpus

    def _close(self) -> None:
        """End what still runs: it saves, and waits again."""
        self._hear()
        for each in self._works.values():
            each.work.cancel()
        until = time.monotonic() + _TO_CLOSE_S
        while time.monotonic() < until and not all(each.work.is_over for each in self._works.values()):
            self._place.wait([each.work for each in self._works.values()], _WAIT_S)
            self._hear()
        for each in self._works.values():
            if not any(news.get("state") in ("finished", "stopped") for news in each.news):
                each.news = [news for news in each.news if news["event"] == "run"] + [{"event": "released"}]
        try:
            self._write_down()
        except ResourceError as error:
            self._listener.note(f"warning: {error}; the next dispatcher finds out that this one ended")


@dataclass
class _Nothing:
    """A job of which nothing can be made."""

    problem: str | None
    node: str | None = "nowhere"
    is_over: bool = True
    is_lost: bool = False

    def heard(self) -> list[Any]:
        return []

    def cancel(self, *, at_once: bool = False) -> None:
        pass


def _end_of(code: int, result: str, said: str) -> Event:
    """What the end of a training means for its job."""
    if result:
        return {"event": "ended", "state": orjson.loads(result)["status"]}
    if code < 0:
        return _died(f"its process was ended by signal {-code}")
    return _failed(said or f"it ended with status {code}")


def _failed(why: str) -> Event:
    return {"event": "ended", "state": "failed", "lines": why.splitlines()[:20]}


def _died(why: str) -> Event:
    return {"event": "released", "died": why}


def _as_asked(job: Job, event: Event) -> Event:
    """A job that was to stop is stopped, however it ended; but for one that had finished before it heard."""
    is_stopped = job.is_stopping and event["event"] == "ended" and event["state"] == "failed"
    return {"event": "ended", "state": "stopped"} if is_stopped else event


__all__ = ["Dispatcher", "Place", "Work"]
