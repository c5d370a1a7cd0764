"""Trials on a cluster, as the machine that steers them sees them: nodes that die, ends that are told once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.experiments.sweep.asking import sweep_of

from useg.errors import ConfigError
from useg.experiments.cluster import Node, credentials
from useg.experiments.sweep.remote import MOST_DEATHS, ClusterTrials, Task, share_out_nodes
from useg.experiments.sweep.trials import Ended, Trial

GRID = "method = 'grid'\nseeds = 3\n{}[search]\ntrain.lr = [0.1, 0.2]"


def nodes(*cpus: int, gpus: int = 0) -> list[Node]:
    return [Node(str(place), f"host{place}", count, gpus) for place, count in enumerate(cpus)]


def shared(*cpus: int, settings: str = "", parallel: int | None = None, gpus: int = 0) -> tuple[int, int | None]:
    share = share_out_nodes("head:1", nodes(*cpus, gpus=gpus), parallel, sweep_of(GRID.format(settings)))
    return share.slots, share.threads


def test_a_cluster_is_shared_out() -> None:
    assert shared(1, 1) == (2, 1)
    assert shared(16, 16) == (6, 5)  # three trials on each node
    assert shared(16, 16, parallel=2) == (2, 16)
    assert shared(4, 6, settings="[settings]\ntrain.threads = 3\n") == (3, 3)
    assert shared(8, settings="[settings]\nworkers = 2\n", parallel=2) == (2, 2)
    assert shared(16, 16, gpus=1) == (2, 16)


@pytest.mark.parametrize(
    ("cpus", "settings", "parallel"),
    [((1, 1), "", 3), ((4, 4), "[settings]\ntrain.threads = 5\n", None), ((4,), "[settings]\nworkers = 4\n", 2)],
)
def test_more_than_a_cluster_can_ever_have_is_said_at_once(
    cpus: tuple[int, ...], settings: str, parallel: int | None
) -> None:
    with pytest.raises(ConfigError, match="cores each, are more than head:1 can ever have: its nodes give"):
        shared(*cpus, settings=settings, parallel=parallel)


@dataclass
class FakeWork:
    told: list[Any]
    problem: str | None = None
    is_lost: bool = False
    is_cancelled: bool = False
    is_over: bool = field(init=False, default=False)

    def heard(self) -> list[Any]:
        told, self.told = self.told, []
        self.is_over = self.is_cancelled or self.problem is not None or any(kind == "end" for kind, _ in told)
        return told

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeCluster:
    """Each work that is begun does what comes next in a list."""

    def __init__(self, *works: FakeWork) -> None:
        self.nodes, self.works, self.begun = nodes(1, 1), [*works], list[Task]()

    def start(self, work: Any, task: Task, *, cpus: int, gpus: int) -> FakeWork:
        assert (cpus, gpus) == (1, 0)
        self.begun.append(task)
        return self.works.pop(0)

    def wait(self, works: Any, timeout_s: float) -> None:
        pass


def trials_on(cluster: FakeCluster, folder: Path, notes: list[str]) -> ClusterTrials:
    sweep = sweep_of(GRID.format(""))
    share = share_out_nodes("head:1", cluster.nodes, None, sweep)
    return ClusterTrials(sweep, folder, "memory:cluster", share, cluster, {}, notes.append)


def test_a_trial_whose_node_died_goes_on_as_the_same_run(tmp_path: Path) -> None:
    end, notes = Ended(0, "finished", "run", {}, 1.0), list[str]()
    points = [(0.5, {"mean_dice": 0.4})]
    cluster = FakeCluster(
        FakeWork([("run", "run"), ("points", points)], "its node died", is_lost=True), FakeWork([("end", end)])
    )
    trials = trials_on(cluster, tmp_path, notes)
    trials.begin(Trial(0, 0, {}))
    assert trials.curves() == {0: points}
    assert notes == ["warning: trial 0: its node died; it is begun again on what is left"]
    assert [task.run for task in cluster.begun] == [None, "run"]
    assert trials.ended() == [end]
    assert trials.ended() == []
    assert trials.has_room()
    # another session of the sweep knows the run, too
    later = trials_on(FakeCluster(FakeWork([])), tmp_path, notes)
    later.begin(Trial(0, 0, {}))
    assert later._cluster.begun[0].run == "run"


def test_deaths_come_to_an_end(tmp_path: Path) -> None:
    notes = list[str]()
    cluster = FakeCluster(*(FakeWork([], "the process died", is_lost=True) for _ in range(MOST_DEATHS + 1)))
    trials = trials_on(cluster, tmp_path, notes)
    trials.begin(Trial(4, 1, {}))
    (end,) = [end for _ in range(MOST_DEATHS + 1) for end in trials.ended()]
    assert (end.number, end.state, end.lines) == (4, "failed", ("the process died",))
    assert len(notes) == MOST_DEATHS


def test_what_goes_wrong_on_a_node_fails_the_trial_alone(tmp_path: Path) -> None:
    trials = trials_on(FakeCluster(FakeWork([], "no space"), FakeWork([])), tmp_path, [])
    trials.begin(Trial(0, 0, {}))
    trials.begin(Trial(1, 0, {}))
    assert not trials.has_room()
    (end,) = trials.ended()
    assert (end.number, end.state, end.lines) == (0, "failed", ("no space",))
    trials.stop(1)  # it has no run yet
    (end,) = trials.ended()
    assert (end.number, end.state, end.run) == (1, "stopped", None)


def test_a_node_gets_what_opens_the_home_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("USEG_TOKEN", "useg_1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("OTHER_KEY", "key")
    assert credentials("http://host:1/") == {"USEG_TOKEN": "useg_1"}
    assert credentials("s3://bucket")["AWS_SECRET_ACCESS_KEY"] == "key"
    assert not {"OTHER_KEY", "USEG_TOKEN"} & credentials("s3://bucket").keys()
    assert credentials("/a/folder") == {}
