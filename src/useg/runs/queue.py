"""Jobs in the order in which they are to run: what the entries of a queue's log say together, and which job is next.

A job is `waiting`, then `running`, then `finished`, `failed` or `stopped`; one whose dispatcher or machine died waits
again, and goes on with its run as that run's next attempt.
"""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

Event = dict[str, Any]

MOST_DEATHS = 3
"""A job whose work died so often is not begun again."""
OVER = ("finished", "failed", "stopped")


@dataclass
class Job:
    """A command that was put into the queue.

    Attributes:
        number: counted from 1, as the user names it.
        asked: key of what was asked, in `jobs/asked/`.
        what: the command, for people. useg: the version that it was asked of.
        user: who asked. priority: what is higher goes first. cpus, gpus: what it needs; None leaves it to the place.
        state: see above. by: the dispatcher that runs it, or ran it last. attempt: how often it was started.
        deaths: how often its work died. run: its run, once there is something to go on with.
        is_stopping: somebody asked to stop it while it ran. lines: last words of one that failed.
        submitted, started, ended: seconds by the clock of whoever wrote it, for people.
    """

    number: int
    asked: str
    what: str
    useg: str
    user: str
    priority: int = 0
    cpus: int | None = None
    gpus: int | None = None
    state: str = "waiting"
    by: str | None = None
    attempt: int = 0
    deaths: int = 0
    run: str | None = None
    is_stopping: bool = False
    lines: list[str] = field(default_factory=list)
    submitted: float = 0.0
    started: float | None = None
    ended: float | None = None


class Queue:
    """What a log says: take its events in order, and ask which job is next.

    An event that does not fit what is known (of a dispatcher that no longer has the job) changes nothing.

    Attributes:
        jobs: all there ever were, by number.
    """

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self._waiting: dict[int, dict[str, list[int]]] = {}
        self._running: dict[str, set[int]] = {}
        self._starts, self._last_start = 0, Counter[str]()

    def take(self, event: Event, time: float) -> None:
        """One event more."""
        match event:
            case {"event": "submitted", "job": dict(fields)}:
                self._submit(fields, time)
            case {"event": "gone", "by": str(by)}:
                for number in [*self._running.get(by, ())]:
                    self._release(self.jobs[number], time, "its dispatcher died")
            case {"event": "started", "job": int(number), "by": str(by)} if self._is(number, "waiting"):
                self._start(self.jobs[number], by, time)
            case {"event": "stop", "job": int(number)} if self._is(number, "waiting"):
                self._leave(self.jobs[number])
                self.jobs[number].state, self.jobs[number].ended = "stopped", time
            case {"event": "stop", "job": int(number)} if self._is(number, "running"):
                self.jobs[number].is_stopping = True
            case {"job": int(number), "by": str(by)} if self._is(number, "running") and self.jobs[number].by == by:
                self._tell(self.jobs[number], event, time)

    def running(self) -> Iterator[Job]:
        """The jobs that run, of all dispatchers."""
        return (self.jobs[number] for numbers in self._running.values() for number in numbers)

    def dispatchers(self) -> list[str]:
        """Those that run something."""
        return [by for by, numbers in self._running.items() if numbers]

    def next(self, can: Callable[[Job], bool]) -> Job | None:
        """The job to start: of the highest priority, of the user who has the fewest that run and was served longest
        ago, the oldest.

        Args:
            can: whether the place could ever run it; others are passed over. One that could, but not now, is waited
                for, so that small jobs do not keep a large one waiting for ever.
        """
        busy = Counter(job.user for job in self.running())
        for _, users in sorted(self._waiting.items(), reverse=True):
            served = sorted(users, key=lambda user: (busy[user], self._last_start[user], users[user][:1]))
            for job in (self.jobs[number] for user in served for number in users[user]):
                if can(job):
                    return job
        return None

    def state(self) -> list[dict[str, Any]]:
        """All that is known, to be taken by `restored`."""
        return [asdict(job) for job in self.jobs.values()]

    @classmethod
    def restored(cls, state: list[dict[str, Any]]) -> "Queue":
        """A queue that knows what another one did."""
        queue = cls()
        for job in (Job(**fields) for fields in state):
            queue.jobs[job.number] = job
            if job.state == "waiting":
                queue._wait(job)
            elif job.state == "running" and job.by is not None:
                queue._running.setdefault(job.by, set()).add(job.number)
        began = sorted((job.started, job.user) for job in queue.jobs.values() if job.started is not None)
        queue._starts, queue._last_start = len(began), Counter({user: at for at, (_, user) in enumerate(began, 1)})
        return queue

    def _is(self, number: int, state: str) -> bool:
        return number in self.jobs and self.jobs[number].state == state

    def _submit(self, fields: dict[str, Any], time: float) -> None:
        with suppress(TypeError):  # of a version to come
            job = Job(number=len(self.jobs) + 1, submitted=time, **fields)
            if isinstance(job.user, str) and isinstance(job.priority, int):
                self.jobs[job.number] = job
                self._wait(job)

    def _start(self, job: Job, by: str, time: float) -> None:
        job.state, job.by, job.started = "running", by, time
        job.attempt += 1
        self._starts += 1
        self._last_start[job.user] = self._starts
        self._leave(job)
        self._running.setdefault(by, set()).add(job.number)

    def _tell(self, job: Job, event: Event, time: float) -> None:
        """What the dispatcher says that has the job."""
        match event:
            case {"event": "run", "run": str(run)}:
                job.run = run
            case {"event": "released"}:
                self._release(job, time, event.get("died"))
            case {"event": "ended", "state": "finished" | "failed" | "stopped" as state}:
                self._end(job, time, state, event.get("lines") or [])

    def _release(self, job: Job, time: float, died: str | None) -> None:
        job.deaths += died is not None
        if job.is_stopping or job.deaths > MOST_DEATHS:
            self._end(job, time, "stopped" if job.is_stopping else "failed", [f"{died}, {job.deaths} times"])
            return
        self._running[str(job.by)].discard(job.number)
        job.state = "waiting"
        self._wait(job)

    def _end(self, job: Job, time: float, state: str, lines: list[str]) -> None:
        self._running[str(job.by)].discard(job.number)
        job.state, job.ended, job.lines = state, time, lines if state == "failed" else []

    def _wait(self, job: Job) -> None:
        insort(self._waiting.setdefault(job.priority, {}).setdefault(job.user, []), job.number)

    def _leave(self, job: Job) -> None:
        users = self._waiting[job.priority]
        users[job.user].remove(job.number)
        if not users[job.user]:
            del users[job.user]


__all__ = ["MOST_DEATHS", "OVER", "Event", "Job", "Queue"]
