"""The dispatcher with works that are played: what starts when, what becomes of what died, and who may go on."""

import time
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from useg.errors import ResourceError
from useg.experiments.cluster import Node
from useg.experiments.dispatch import Dispatcher
from useg.experiments.listening import Listener, Stop
from useg.experiments.ordered import Order
from useg.home.store import Memory, Store
from useg.runs.queue import Job
from useg.runs.queue_log import QueueLog

FINISHED = ("end", (0, '{"status": "finished"}', ""))


class Played:
    """A work that tells what the test puts into `more`."""

    def __init__(self, order: Order, cpus: int, gpus: int) -> None:
        self.order, self.cpus, self.gpus = order, cpus, gpus
        self.node: str | None = "a"
        self.problem: str | None = None
        self.is_over = self.is_lost = False
        self.more: list[Any] = []
        self.cancelled = 0

    def heard(self) -> list[Any]:
        told, self.more = self.more, []
        self.is_over = self.is_over or any(kind == "end" for kind, _ in told)
        return told

    def cancel(self, *, at_once: bool = False) -> None:
        self.cancelled += 1
        self.is_over = True


class Stage:
    """Two nodes of 4 cores, one of them with 2 GPUs."""

    def __init__(self) -> None:
        self.there = [Node("a", "a", 4, 0), Node("b", "b", 4, 2)]
        self.works: list[Played] = []

    def nodes(self) -> Sequence[Node]:
        return self.there

    def start(self, order: Order, cpus: int, gpus: int) -> Played:
        self.works.append(Played(order, cpus, gpus))
        return self.works[-1]

    def wait(self, works: Sequence[Any], timeout_s: float) -> None:
        pass


class Scene:
    """A home, a stage, a dispatcher, and what it said."""

    def __init__(self, store: Store | None = None, slots: int | None = None) -> None:
        self.store, self.stage, self.said = store or Memory(), Stage(), list[str]()
        self.listener = Listener(note=self.said.append, stop=Stop())
        self.log = QueueLog(self.store)
        own = QueueLog(self.store)
        self.dispatcher = Dispatcher("memory:x", own, self.stage, {"USEG_TOKEN": "secret"}, self.listener, slots)

    def submit(self, user: str = "ann", *, threads: int | None = None, workers: int = 1, **fields: Any) -> int:
        asked = {"words": ["cells@1", "--tag", "mine"], "files": {"--config": "steps = 3\n"}, "threads": threads,
                 "workers": workers, "records": []}  # fmt: skip
        return self.log.submit(asked, {"what": "train cells", "user": user, **fields})

    def turns(self, count: int = 2) -> "Scene":
        for _ in range(count):
            self.dispatcher.turn()
        return self

    def jobs(self) -> dict[int, Job]:
        self.log.catch_up()
        return self.log.queue.jobs

    def states(self) -> list[str]:
        return [job.state for job in self.jobs().values()]


def test_a_job_becomes_an_order_and_its_end_is_written_down() -> None:
    scene = Scene()
    scene.submit(cpus=4, workers=2, gpus=0)
    scene.turns()
    (work,) = scene.stage.works
    assert work.order.words == ("cells@1", "--tag", "mine", "--tag", "job:1", "--set", "train.threads=2")
    assert work.order.files == {"--config": b"steps = 3\n"}
    assert (work.cpus, work.gpus, work.order.run) == (4, 0, None)
    work.more = [("said", "reading"), ("run", "r1")]
    scene.turns(1)
    assert (scene.jobs()[1].state, scene.jobs()[1].run) == ("running", "r1")
    work.more = [FINISHED]
    scene.turns(1)
    assert scene.states() == ["finished"]
    assert scene.said == ["job 1 of ann: train cells", "job 1: finished"]
    assert all(b"secret" not in scene.store.get(entry.key) for entry in scene.store.list("jobs/"))


def test_only_what_has_room_is_handed_over() -> None:
    scene = Scene()
    for gpus, cpus in ((None, None), (1, None), (1, 1), (0, 3), (0, 1), (3, 1)):
        scene.submit(gpus=gpus, cpus=cpus)
    scene.turns()
    # a GPU and its share of the cores, twice; then the third waits, and nobody passes it by
    assert [(work.cpus, work.gpus) for work in scene.stage.works] == [(2, 1), (2, 1)]
    scene.stage.works[0].more = [FINISHED]
    scene.turns()
    assert scene.states() == ["finished", "running", "running", "running", "running", "waiting"]
    assert scene.said[-1] != "warning"
    for work in scene.stage.works:
        work.more = [FINISHED]
    scene.turns()
    assert [line for line in scene.said if line.startswith("warning")] == [
        "warning: job 6 waits for another place: 1 cores and 3 GPUs are more than any node has"
    ]


def test_slots_bound_what_runs() -> None:
    scene = Scene(slots=2)
    for _ in range(5):
        scene.submit(cpus=1, gpus=0)
    assert scene.turns().states().count("running") == 2


def test_what_was_handed_over_and_finds_no_room_holds_back_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, now = Scene(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    scene.submit(cpus=1, gpus=0)
    scene.turns(1)
    scene.stage.works[0].node = None
    now[0] += 3
    scene.submit(cpus=1, gpus=0)
    assert scene.turns().states() == ["running", "waiting"]
    scene.stage.works[0].node = "a"
    assert scene.turns().states() == ["running", "running"]


@pytest.mark.parametrize(
    ("end", "state", "lines"),
    [
        ((2, "", "the loss became nan"), "failed", ["the loss became nan"]),
        ((1, "", ""), "failed", ["it ended with status 1"]),
        ((130, '{"status": "stopped"}', ""), "stopped", []),
    ],
)
def test_how_it_ended(end: tuple[int, str, str], state: str, lines: list[str]) -> None:
    scene = Scene()
    scene.submit()
    scene.turns()
    scene.stage.works[0].more = [("end", end)]
    scene.turns()
    assert (scene.jobs()[1].state, scene.jobs()[1].lines) == (state, lines)


def test_a_job_whose_process_was_killed_goes_on_with_its_run() -> None:
    scene = Scene()
    scene.submit()
    scene.turns()
    scene.stage.works[0].more = [("run", "r1"), ("end", (-9, "", ""))]
    scene.turns(3)
    assert [work.order.run for work in scene.stage.works] == [None, "r1"]
    scene.stage.works[1].is_over = scene.stage.works[1].is_lost = True
    scene.turns(3)
    assert [work.order.run for work in scene.stage.works] == [None, "r1", "r1"]
    assert (scene.jobs()[1].deaths, scene.jobs()[1].attempt) == (2, 3)


def test_a_job_that_cannot_be_read_fails() -> None:
    scene = Scene()
    scene.submit()
    (asked,) = scene.store.list("jobs/asked/")
    scene.store.delete(asked.key)
    scene.turns(3)
    assert scene.states() == ["failed"]
    assert "what was asked cannot be read" in scene.jobs()[1].lines[0]


def test_a_job_of_another_version_waits_for_its_own() -> None:
    scene = Scene()
    scene.log.add(lambda q: [{"event": "submitted", "job": {"asked": "x", "what": "", "useg": "0.0.9", "user": "ann"}}])
    scene.submit()
    assert scene.turns().states() == ["waiting", "running"]
    assert "warning: job 1 waits for another place: it is of useg 0.0.9" in scene.said


def test_stopping() -> None:
    scene = Scene()
    first, second = scene.submit(), scene.submit(user="bob")
    scene.submit(user="cy")
    scene.turns()
    scene.log.add(lambda queue: [{"event": "stop", "job": number} for number in (first, second, 3)])
    assert scene.states() == ["running", "running", "stopped"]
    scene.stage.works[1].more = [FINISHED]  # before it heard
    scene.turns(3)
    assert [work.cancelled for work in scene.stage.works] == [1, 0]
    assert scene.states() == ["stopped", "finished", "stopped"]


def test_the_end_of_a_dispatcher_gives_its_jobs_back() -> None:
    scene = Scene()
    scene.submit(cpus=1)
    scene.submit(cpus=1)
    scene.turns()
    scene.stage.works[0].more = [("run", "r1")]
    scene.stage.works[1].more = [FINISHED]
    scene.listener.stop.asked = True
    scene.dispatcher.run()
    assert scene.states() == ["waiting", "finished"]
    assert (scene.jobs()[1].run, scene.jobs()[1].deaths) == ("r1", 0)
    assert scene.stage.works[0].cancelled == 1


def test_another_dispatcher_takes_over_and_the_first_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Scene()
    first.submit()
    first.turns()
    first.stage.works[0].more = [("run", "r1")]
    first.turns(1)
    second = Scene(first.store)
    monkeypatch.setattr("useg.runs.queue_log.SILENCE_S", 0.0)
    monkeypatch.setattr("useg.experiments.dispatch.BEAT_S", 0.0)
    second.turns(3)  # nobody hears the first one
    monkeypatch.undo()
    assert second.jobs()[1].by == second.dispatcher.name
    assert second.stage.works[0].order.run == "r1"
    assert f"warning: dispatcher {first.dispatcher.name} died; its jobs wait again" in second.said
    first.stage.works[0].more = [FINISHED]  # it was only suspended, and has no say any more
    first.turns(3)
    assert first.jobs()[1].state == "running"
    second.stage.works[0].more = [("end", (2, "", "no"))]
    second.turns()
    assert second.states() == ["failed"]


class Away(Memory):
    """A home that does not answer for a while."""

    is_away = False

    def put(self, key: str, content: Any) -> bool:
        if self.is_away:
            raise ResourceError("the home does not answer")
        return super().put(key, content)

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if self.is_away:
            raise ResourceError("the home does not answer")
        return super().get(key, start, end)


def test_a_home_that_is_away_for_a_while_fails_no_job() -> None:
    store = Away()
    scene = Scene(store)
    scene.submit()
    store.is_away = True
    scene.turns()
    assert not scene.stage.works
    store.is_away = False
    assert scene.turns().states() == ["running"]


def test_what_ended_while_the_home_was_away_is_written_down_later() -> None:
    store = Away()
    scene = Scene(store)
    scene.submit()
    scene.turns()
    store.is_away = True
    scene.stage.works[0].more = [FINISHED]
    scene.turns(3)
    assert scene.said[-1] == "warning: the home does not answer; what runs goes on"
    assert len(scene.said) == 2
    store.is_away = False
    assert scene.turns().states() == ["finished"]


def test_until_nothing_is_left() -> None:
    scene = Scene()
    scene.submit(gpus=8)
    scene.dispatcher.run(until_empty=True)
    assert scene.states() == ["waiting"]
    events = [orjson.loads(scene.store.get(entry.key)) for entry in scene.store.list("jobs/log/")]
    assert len(events) == 1
