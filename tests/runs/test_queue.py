"""The queue's log by a model: submitters, dispatchers that die, and whoever stops jobs, in every order."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from useg.home.objects import Objects
from useg.home.reaching import reachable
from useg.home.store import Memory, Store
from useg.runs.queue import MOST_DEATHS, OVER, Event, Job, Queue
from useg.runs.queue_log import SILENCE_S, Beat, Observer, QueueLog

ASKED: dict[str, Any] = {"words": ["cells@1"], "files": {}, "threads": None, "workers": 1, "records": []}
USERS = ("ann", "bob", "cy")
BY = st.sampled_from(("east", "west"))


def submit(log: QueueLog, user: str = "ann", **fields: Any) -> int:
    return log.submit(ASKED, {"what": "train cells", "user": user, **fields})


def anything(job: Job) -> bool:
    return True


def start(log: QueueLog, by: str = "east") -> int | None:
    def choose(queue: Queue) -> list[Event]:
        job = queue.next(anything)
        return [] if job is None else [{"event": "started", "job": job.number, "by": by}]

    added = log.add(choose)
    return added[0]["job"] if added else None


class Many(RuleBasedStateMachine):
    """Two dispatchers with a log each, and a third log that only reads; what they were told is kept beside."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = Memory()
        self.logs = {"east": QueueLog(self.store), "west": QueueLog(self.store)}
        self.asked = 0
        self.begun: Counter[tuple[int, int]] = Counter()
        self.has: dict[int, str] = {}
        self.over: dict[int, str] = {}

    @rule(by=BY, user=st.sampled_from(USERS), priority=st.integers(-1, 1))
    def submit(self, by: str, user: str, priority: int) -> None:
        self.asked += 1
        assert submit(self.logs[by], user, priority=priority) == self.asked

    @rule(by=BY)
    def start(self, by: str) -> None:
        if (number := start(self.logs[by], by)) is not None:
            assert number not in self.has
            assert number not in self.over
            self.begun[number, self.logs[by].queue.jobs[number].attempt] += 1
            self.has[number] = by

    @rule(by=BY, state=st.sampled_from(OVER), data=st.data())
    def end(self, by: str, state: str, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, max(1, self.asked)))
        self.logs[by].add(lambda queue: [{"event": "ended", "job": number, "by": by, "state": state}])
        if self.has.get(number) == by:
            del self.has[number]
            self.over[number] = state

    @rule(by=BY, number=st.integers(1, 6))
    def stop(self, by: str, number: int) -> None:
        self.logs[by].add(lambda queue: [{"event": "stop", "job": number}])
        if number <= self.asked and number not in self.has:
            self.over.setdefault(number, "stopped")

    @rule(by=BY)
    def die(self, by: str) -> None:
        """The other one says so; the dead one comes back later and still believes that it has its jobs."""
        other = "west" if by == "east" else "east"
        self.logs[other].add(lambda queue: [{"event": "gone", "by": by}])
        jobs = self.logs[other].queue.jobs
        for number in [number for number, holder in self.has.items() if holder == by]:
            del self.has[number]
            if jobs[number].state in OVER:
                assert jobs[number].is_stopping or jobs[number].deaths > MOST_DEATHS
                self.over[number] = jobs[number].state

    @invariant()
    def nothing_is_lost_and_nothing_is_doubled(self) -> None:
        for log in (*self.logs.values(), QueueLog(self.store)):
            log.catch_up()
            jobs = log.queue.jobs
            assert [*jobs] == [*range(1, self.asked + 1)]
            assert {number: job.by for number, job in jobs.items() if job.state == "running"} == self.has
            assert {number: job.state for number, job in jobs.items() if job.state in OVER} == self.over
            assert set(log.queue.dispatchers()) == set(self.has.values())
            again = Queue.restored(orjson.loads(orjson.dumps(log.queue.state())))
            assert again.jobs == jobs
            assert (again.next(anything) is None) == (log.queue.next(anything) is None)
        assert all(count == 1 for count in self.begun.values())


Many.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMany = Many.TestCase


def test_the_highest_priority_goes_first_and_users_take_turns() -> None:
    log = QueueLog(Memory())
    for user, priority in (("ann", 0), ("ann", 0), ("ann", 0), ("bob", 0), ("bob", 0), ("cy", -1), ("bob", 5)):
        submit(log, user, priority=priority)
    assert [start(log) for _ in range(8)] == [7, 1, 4, 2, 5, 3, 6, None]


def test_a_job_that_the_place_can_never_run_keeps_nobody_waiting() -> None:
    log = QueueLog(Memory())
    submit(log, gpus=8, priority=1)
    submit(log)
    found = log.queue.next(lambda job: not job.gpus)
    assert found is not None
    assert found.number == 2


def test_a_job_whose_work_dies_again_and_again_fails() -> None:
    log = QueueLog(Memory())
    submit(log)
    for _ in range(MOST_DEATHS + 1):
        assert start(log) == 1
        log.add(lambda queue: [{"event": "released", "job": 1, "by": "east", "died": "out of memory"}])
    assert log.queue.jobs[1].state == "failed"
    assert log.queue.jobs[1].lines == ["out of memory, 4 times"]
    assert start(log) is None


def test_what_a_stranger_wrote_changes_nothing() -> None:
    store = Memory()
    log = QueueLog(store)
    submit(log)
    before = asdict(log.queue.jobs[1])
    for number, content in enumerate(
        (b"", b"{", b"[]", b'{"time": 1, "events": 3}', b'{"time": 1, "events": [3, {"event": "started"}]}',
         b'{"time": 1, "events": [{"event": "submitted", "job": {"user": 3}}, {"event": "ended", "job": 9}]}',
         b'{"time": 1, "events": [{"event": "started", "job": 1, "by": null}]}'), 2
    ):  # fmt: skip
        store.put(f"jobs/log/{number:08}", content)
    for each in (log, QueueLog(store)):
        each.catch_up()
        assert [*map(asdict, each.queue.jobs.values())] == [before]
    assert submit(log) == 2


class Deaf(Memory):
    """A home whose answer to a put is lost: the entry is there, and the one who asked is told that it was before."""

    def put(self, key: str, content: Any) -> bool:
        super().put(key, content)
        return False


def test_a_put_whose_answer_was_lost_is_not_repeated() -> None:
    log = QueueLog(Deaf())
    assert [submit(log) for _ in range(3)] == [1, 2, 3]
    assert start(log) == 1
    assert len([*log.store.list("jobs/log/")]) == 4


class Counting(Memory):
    """Counts what is got."""

    gets = 0

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self.gets += 1
        return super().get(key, start, end)


def test_a_long_log_is_not_read_from_its_beginning() -> None:
    store = Counting()
    log = QueueLog(store)
    for _ in range(1500):
        log.add(lambda queue: [{"event": "submitted", "job": {"asked": "", "what": "", "useg": "", "user": "ann"}}])
    store.gets = 0
    late = QueueLog(store)
    late.catch_up()
    assert late.queue.jobs == log.queue.jobs
    assert len(late.queue.jobs) == 1500
    assert store.gets < 600
    found = late.queue.next(anything)
    assert found is not None
    assert found.number == 1


def test_a_counter_that_stands_still_is_that_of_a_dead_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = Memory(), [100.0]
    beat, observer = Beat(store, "east"), Observer(store, lambda: now[0])
    beat.rise()
    assert not observer.has_died("east")
    now[0] += SILENCE_S - 1
    assert not observer.has_died("east")
    beat.rise()
    assert len([*store.list("jobs/beats/")]) == 1
    for passed, has_died in ((0, False), (SILENCE_S, False), (2, True)):
        now[0] += passed
        assert observer.has_died("east") is has_died
    beat.rise()
    assert not observer.has_died("east")
    monkeypatch.setattr("useg.runs.queue_log.lives", lambda pid: False)
    assert not observer.has_died("east")
    beat.rise()
    assert observer.has_died("east")
    assert observer.has_died("east")


def test_one_that_never_beat_is_dead_after_the_same_time() -> None:
    now = [0.0]
    observer = Observer(Memory(), lambda: now[0])
    assert not observer.has_died("east")
    now[0] += SILENCE_S + 1
    assert observer.has_died("east")


def test_the_home_keeps_what_a_job_names() -> None:
    store = Memory()
    objects = Objects(store)
    with objects.writer() as writer:
        digest = writer.put(orjson.dumps({"names": []}))
        writer.commit()
    QueueLog(store).submit({**ASKED, "records": [digest]}, {"what": "", "user": "ann"})
    assert len(reachable(store, Objects(store))) == 1
