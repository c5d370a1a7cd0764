"""A real Ray of two nodes and a served home: sweeps and trainings on it, workers killed, and what cannot be reached."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import useg
from useg.errors import MissingExtra
from useg.experiments.cluster import Cluster, Node, connected
from useg.home.objects import Objects
from useg.home.store import Folder
from useg.runs.journal import Event
from useg.runs.record import RunFolder

needs_ray = pytest.mark.skipif(
    not (find_spec("ray") and find_spec("starlette")), reason="no Ray: pip install 'useg[cluster]'"
)
HOLD = """
import sys
from ray.cluster_utils import Cluster
part = {"num_cpus": 2, "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**part, "include_dashboard": False})
nodes = [cluster.add_node(**part)]
print("at", cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "add":
        nodes.append(cluster.add_node(**part))
    else:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""
SHARE = """
import sys, httpx
from useg.experiments.cluster import connected, credentials
from useg.experiments.sharing_out import sharing
cluster, home, digest = sys.argv[1:]
with connected(cluster, print) as cluster, sharing(cluster, home, credentials(home), print) as known:
    for word in known["USEG_PEERS"].split():
        asked = {"headers": {"Authorization": "Bearer " + known["USEG_PEERS_TOKEN"]}, "content": digest}
        answer = httpx.post(word.partition("=")[2] + "/v1/objects", **asked)
        print(word.partition("=")[0], answer.status_code, answer.content[:32].hex() == digest, file=sys.__stdout__)
"""
SMALL = ("train.micro_batch=2", "train.count=4", "train.dtype=float32", "train.threads=1", "network.base=4",
         "network.depth=2", "network.patch=[32,32]")  # fmt: skip
SWEEP = """
data = "discs"
method = "grid"
[settings]
train.micro_batch = 2
train.dtype = "float32"
network.base = 4
network.depth = 2
"""
TOKEN = 40 * "c"


@dataclass
class Place:
    """A cluster, a home that is served, and a folder to work in."""

    ray: str
    home: str
    store: Path
    folder: Path
    env: dict[str, str]
    hold: "subprocess.Popen[str] | None" = None

    def change(self, what: str) -> None:
        """`add` a node, or `kill` the one that came last."""
        assert self.hold is not None
        assert self.hold.stdin is not None
        assert self.hold.stdout is not None
        self.hold.stdin.write(f"{what}\n")
        self.hold.stdin.flush()
        assert self.hold.stdout.readline() == "done\n"

    def begin(self, *words: str | Path, **changes: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "useg", *map(str, words)], cwd=self.folder, env=self.env | changes,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def call(self, *words: str | Path, **changes: str) -> tuple[int, str, str]:
        process = self.begin(*words, **changes)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def train(self, *words: str) -> "subprocess.Popen[str]":
        sets = [word for each in SMALL for word in ("--set", each)]
        return self.begin("train", "discs@main", *sets, *words, "--home", self.home, "--on", self.ray, "--json")

    def run(self, name: str) -> RunFolder:
        (folder,) = self.store.glob(f"runs/*{name}*")
        return RunFolder(folder)


def ended(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1])) | {"said": err}


def until(told: Callable[[], Any], timeout_s: float = 300) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := told()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def steps_of(run: RunFolder) -> list[Event]:
    return [event for event in run.journal() if event["event"] == "step"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("cluster")
    for number in range(6):
        random = np.random.default_rng(number)
        mask = np.zeros((48, 48), np.uint8)
        mask[10:30, 5 + number : 25 + number] = 255
        image = (mask // 2 + random.integers(0, 100, mask.shape)).astype(np.uint8)
        for kind, picture in (("images", image), ("masks", mask)):
            (folder / "discs" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / "discs" / kind / f"{number}.png")
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(Path(useg.__file__).parents[1]),
           "USEG_STATE": str(folder / "state"), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
           "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_enable_metrics_collection": "0",
           "RAY_worker_niceness": "0"}  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith("USEG_HOME")} | own
    hold = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    made = Place("", "", folder / "home", folder / "work", env)
    made.folder.mkdir()
    status, _, said = made.call("data", "add", folder / "discs", "--name", "discs", "--home", made.store)
    assert status == 0, said
    status, out, said = made.call("users", "token", "sweeper", "--role", "writer", "--home", made.store, "--json")
    assert status == 0, said
    env["USEG_TOKEN"] = json.loads(out)["token"]
    server = made.begin("serve", "--home", made.store, "--port", "0", "--json")
    try:
        assert server.stdout is not None
        assert hold.stdout is not None
        made.home = json.loads(server.stdout.readline())["address"]
        made.ray = next(line.split()[1] for line in hold.stdout if line.startswith("at "))
        made.hold = hold
        yield made
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
        hold.communicate("", timeout=60)


def write_sweep(place: Place, name: str, text: str, top: str = "") -> Path:
    file = place.folder / f"{name}.toml"
    file.write_text(top + SWEEP + text)
    return file


@needs_ray
@pytest.mark.walk
def test_a_sweep_on_two_nodes(place: Place) -> None:
    file = write_sweep(place, "walk", "steps = 3\n[search]\ntrain.lr = [0.01, 0.001, 1e38]\n")
    result = ended(place.begin("sweep", file, "--home", place.home, "--on", place.ray, "--parallel", "4", "--json"))
    assert result["trials"] == {"finished": 2, "given up": 0, "failed": 1, "stopped": 0}
    (failed,) = result["failed"]
    assert "became" in " ".join(failed["lines"])
    whole = [run for row in result["configurations"] if row["finished"] for run in row["runs"]]
    assert len(whole) == 2
    for run in map(place.run, whole):  # ordinary runs of the home
        assert run.record()["status"] == "finished"
        assert len(steps_of(run)) == 3
        assert (run.path / "model.useg").exists()
        assert not list(run.path.glob("attempts/*/checkpoints/*"))
    assert place.run(failed["run"]).record()["status"] == "failed"
    program = (
        "import json, sys; from useg.experiments.cluster import overview; print(json.dumps(overview(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, place.ray], env=place.env, capture_output=True, text=True, check=True
    )
    nodes = json.loads(done.stdout.splitlines()[-1])
    assert [(node["cpus"] > 0, node["cpus_used"]) for node in nodes] == [(True, 0)] * 2


@needs_ray
@pytest.mark.slow
def test_every_node_offers_what_it_has(place: Place) -> None:
    digest = Objects(Folder(place.store)).snapshot.index.digest(0)
    command = [sys.executable, "-c", SHARE, place.ray, place.home, digest]
    out = subprocess.run(command, env=place.env, cwd=place.folder, capture_output=True, text=True, timeout=120)
    lines = [line.split() for line in out.stdout.splitlines()]
    assert [line[1:] for line in lines] == [["200", "True"]] * 2, out.stderr
    assert lines[0][0] != lines[1][0]


@needs_ray
@pytest.mark.slow
def test_a_shared_folder_needs_no_server(place: Place) -> None:
    file = write_sweep(place, "shared", "steps = 3\n[search]\ntrain.lr = [0.01, 0.001]\n", "seeds = 2\n")
    result = ended(place.begin("sweep", file, "--home", place.store, "--on", place.ray, "--json"))
    assert result["trials"]["finished"] == 4
    assert all(
        place.run(run).record()["status"] == "finished" for row in result["configurations"] for run in row["runs"]
    )


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_of_a_sweep_goes_on_as_the_same_run(place: Place) -> None:
    text = "steps = 600\ntrain.checkpoint_seconds = 1\n[search]\ntrain.lr = [0.01]\n"
    process = place.begin("sweep", write_sweep(place, "kill", text), "--home", place.home, "--on", place.ray, "--json")
    until(lambda: list(place.store.glob("runs/*-kill-*/attempts/1/checkpoints/*")))
    kill_one("train")
    result = ended(process)
    assert result["trials"]["finished"] == 1
    run = place.run("-kill-")
    check_that_it_went_on(run, 600)
    assert "it is begun again on what is left" in result["said"]


@needs_ray
@pytest.mark.slow
def test_two_workers_train_what_one_would_have(place: Place) -> None:
    one, two = (ended(place.train("--steps", "20", "--workers", str(n), "--name", f"w{n}")) for n in (1, 2))
    alone, pair = ([event["loss"] for event in steps_of(place.run(result["run"]))] for result in (one, two))
    assert len(alone) == 20
    np.testing.assert_allclose(pair, alone, rtol=1e-3)
    assert two["bundle"] == f"{place.home}/runs/{two['run']}/model.useg"


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("is_first", [False, True])
def test_a_training_goes_on_when_a_worker_is_killed(place: Place, is_first: bool) -> None:
    name = f"killed-{is_first}"
    process = place.train("--steps", "600", "--workers", "2", "--set", "train.checkpoint_seconds=1", "--name", name)
    until(lambda: list(place.store.glob(f"runs/*{name}*/attempts/1/checkpoints/*")))
    kill_one("train" if is_first else None)
    result = ended(process)
    assert result["status"] == "finished"
    assert "a worker died" in result["said"]
    check_that_it_went_on(place.run(name), 600)


@needs_ray
@pytest.mark.slow
def test_a_training_grows_and_shrinks_with_its_cluster(place: Place) -> None:
    sets = ("train.checkpoint_seconds=1", "train.threads=2")
    process = place.train(
        "--steps", "1500", "--workers", "2:4", "--name", "elastic", *(w for s in sets for w in ("--set", s))
    )
    until(lambda: list(place.store.glob("runs/*-elastic-*/attempts/1/checkpoints/*")))
    for _ in range(2):
        place.change("add")
    until(lambda: list(place.store.glob("runs/*-elastic-*/attempts/2/checkpoints/*")))
    place.change("kill")
    result = ended(process)
    place.change("kill")
    assert result["status"] == "finished"
    for words in ("2 workers of 2 to 4", "there is room for 4 workers", "4 workers of 2 to 4", "a worker died"):
        assert words in result["said"]
    run = place.run("-elastic-")
    assert [event["step"] for event in run.journal() if event["event"] == "step"] == list(range(1, 1501))
    assert sorted(path.name for path in run.path.glob("attempts/*")) == ["1", "2", "3"]


@needs_ray
@pytest.mark.slow
def test_a_training_that_cannot_begin(place: Place) -> None:
    def refused(process: "subprocess.Popen[str]") -> str:
        _, err = process.communicate(timeout=600)
        assert (process.returncode, "Traceback" in err, err.count("error:")) == (2, False, 1)
        return str(err)

    assert "5 workers of 1 cores each are more than" in refused(place.train("--steps", "3", "--workers", "5"))
    assert "8 workers of 1 cores each are more than" in refused(place.train("--steps", "3", "--workers", "8:16"))
    # what goes wrong on the node is told as it is here
    assert "network.patch" in refused(place.train("--steps", "3", "--set", "network.patch=[33,33]"))
    assert "folds" in refused(place.train("--steps", "3", "--folds", "2"))
    words = ["train", "discs@main", "--home", place.home, "--on", place.ray]
    other = f"import useg; useg.__version__ = '0.0.1'; from useg.cli import main; main({words})"
    command = [sys.executable, "-c", other]
    process = subprocess.Popen(
        command, cwd=place.folder, env=place.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert f"has useg {useg.__version__}, here it is 0.0.1" in refused(process)


@needs_ray
@pytest.mark.slow
def test_jobs_of_a_queue(place: Place) -> None:
    sets = [word for each in SMALL for word in ("--set", each)]
    for steps, *more in (("600", "--name", "queued", "--set", "train.checkpoint_seconds=1"), ("3",), ("3",)):
        status, _, said = place.call(
            "submit", "--home", place.home, "train", "discs@main", "--steps", steps, *more, *sets
        )
        assert status == 0, said
    dispatch = ("jobs", "dispatch", "--home", place.home, "--on", place.ray, "--until-empty")
    process = place.begin(*dispatch)
    until(lambda: list(place.store.glob("runs/*-queued-*/attempts/1/checkpoints/*")))
    kill_one("train")
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    _, out, _ = place.call("jobs", "--home", place.home, "--json")
    jobs = json.loads(out)["jobs"]
    assert [job["state"] for job in jobs] == ["finished"] * 3
    assert [job["attempt"] for job in jobs] == [2, 1, 1]
    check_that_it_went_on(place.run("-queued-"), 600)
    assert place.env.get("USEG_TOKEN") not in "".join(
        file.read_text() for file in place.store.glob("jobs/**/*") if file.is_file()
    )


def workers_of_ray() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [""])[0] == "ray::telling"]


def kill_one(child: str | None) -> None:
    """Kill a process of Ray at work: one that has a training as its child, or one that trains itself."""
    for each in workers_of_ray():
        words = [word for one in each.children(recursive=True) for word in one.cmdline()]
        is_training = any("libtorch" in file.path for file in each.memory_maps())  # others share what they have
        if (child in words) if child else "train" not in words and is_training:
            os.kill(each.pid, signal.SIGKILL)
            return
    raise LookupError("no worker is at work")


def check_that_it_went_on(run: RunFolder, steps: int) -> None:
    assert run.record()["status"] == "finished"
    assert sorted(path.name for path in run.path.glob("attempts/*")) == ["1", "2"]
    events = run.journal()
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, steps + 1))
    assert next(event["step"] for event in events if event["event"] == "resumed") > 1


@needs_ray
def test_where_no_cluster_lets_us_in(place: Place) -> None:
    file = write_sweep(place, "never", "steps = 3\n[search]\ntrain.lr = [0.01]\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    for on, changes, said in (
        (nobody, {}, "nothing answers there"),
        ("no-port", {}, "wanted HOST:PORT of a Ray head"),
        (place.ray, {"RAY_AUTH_TOKEN": 40 * "d"}, "the cluster wants its token"),
    ):
        status, _, err = place.call("sweep", file, "--home", place.home, "--on", on, **changes)
        assert (status, "Traceback" in err, err.count("error:")) == (2, False, 1)
        assert said in err


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"--on 10.0.0.1:1 needs the extra `cluster`: pip install 'useg\[cluster\]'"):
        connected("10.0.0.1:1", print).__enter__()


def test_room() -> None:
    cluster = Cluster.__new__(Cluster)
    cluster.nodes = (Node("a", "a", 4, 1), Node("b", "b", 3, 0))
    assert [cluster.room(cpus) for cpus in (1, 2, 3, 4, 5)] == [7, 3, 2, 1, 0]
    assert [cluster.room(1, 1), cluster.room(4, 1), cluster.room(5, 1)] == [1, 1, 0]
