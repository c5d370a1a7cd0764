"""A Ray cluster of simulated nodes on this machine: what a trial costs, many empty trials, two workers, nodes killed.

python bench/cluster.py overhead    a sweep of trials of one step, one after the other, on a cluster that is warm
python bench/cluster.py empty       1,000 trials that train nothing, on 8 nodes: the driver's memory, and every record
python bench/cluster.py speed       a sweep on one core, and on two
python bench/cluster.py killed      10 trainings, a node of each killed at a random moment
"""

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROWS = {f"cluster {name}": [name] for name in ("overhead", "empty", "speed", "killed")}
TINY = {"train.micro_batch": 2, "train.count": 4, "train.dtype": "float32", "train.threads": 1, "network.base": 4,
        "network.depth": 2, "network.patch": [32, 32]}  # fmt: skip
HOLD = """
import random, sys
import psutil
from ray.cluster_utils import Cluster
part = {"object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**part, "num_cpus": 0, "include_dashboard": False})
part["num_cpus"], draw = int(sys.argv[2]), random.Random(0)
nodes = [cluster.add_node(**part) for _ in range(int(sys.argv[1]))]
print("at", cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "add":
        nodes.append(cluster.add_node(**part))
        print("done", flush=True)
        continue
    node = nodes.pop(draw.randrange(len(nodes)))
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    ended = [*raylet.children(recursive=True), raylet]
    said = "first" if any("--json" in each.cmdline() and "train" in each.cmdline() for each in ended) else "second"
    for each in ended:  # at once, as when the power goes: none of them can save
        each.suspend()
    for each in ended:
        each.kill()
    cluster.remove_node(node, allow_graceful=False)
    print(said, flush=True)
cluster.shutdown()
"""
EMPTY = """
import json, resource, sys, time
from pathlib import Path
from useg.experiments.listening import Listener
from useg.experiments.sweep import remote
from useg.experiments.sweep.session import sweep
from useg.experiments.sweep.trials import Ended
from useg.home.folder import new_run
from useg.runs.record import append_record
from useg.home.store import Folder

def empty(task):
    home = Path(task.address)
    run = new_run(home, f"{task.sweep.id}-{task.trial.number:05d}").name
    append_record(Folder(home), run, {"status": "finished", "tags": [f"trial:{task.trial.number}"]})
    yield "run", run
    yield "end", Ended(task.trial.number, "finished", run, {"scores.mean_dice": 0.5}, 0.0)

remote.run_trial = empty
begun = time.perf_counter()
found = sweep(Path(sys.argv[1]), home=Path(sys.argv[2]), on=sys.argv[3], listener=Listener())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"seconds": time.perf_counter() - begun, "peak_gb": peak, "trials": found["trials"]}))
"""


class Place:
    """A folder to work in, a home with small pictures, and a cluster."""

    def __init__(self, folder: Path, nodes: int, cpus: int) -> None:
        self.folder, self.home = folder, folder / "home"
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": 40 * "c", "USEG_STATE": str(folder / "state"),
               "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
               "RAY_enable_metrics_collection": "0", "RAY_worker_niceness": "0"}  # fmt: skip
        self.env = os.environ | own
        for number in range(6):
            mask = np.zeros((48, 48), np.uint8)
            mask[10:30, 5 + number : 25 + number] = 255
            noise = np.random.default_rng(number).integers(0, 100, mask.shape)
            for kind, picture in (("images", mask // 2 + noise), ("masks", mask)):
                (folder / "pictures" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.astype(np.uint8)).save(folder / "pictures" / kind / f"{number}.png")
        self.useg("data", "add", folder / "pictures", "--name", "discs")
        self.hold = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(nodes), str(cpus)], env=self.env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
        )  # fmt: skip
        assert_line = next(line for line in self.hold.stdout or () if line.startswith("at "))
        self.ray = assert_line.split()[1]

    def change(self, what: str) -> str:
        """`add` a node, or `kill` one with all that runs on it; which worker of a training that was."""
        print(what, file=self.hold.stdin, flush=True)
        said = self.hold.stdout.readline().strip() if self.hold.stdout else ""
        if not said:
            raise RuntimeError(f"the cluster did not {what}")
        return said

    def begin(self, *words: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "useg", *map(str, words), "--home", str(self.home)], cwd=self.folder, env=self.env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def useg(self, *words: Any) -> dict[str, Any]:
        process = self.begin(*words, "--json")
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{words} ended with {process.returncode}: {err}")
        return dict(json.loads(out.splitlines()[-1]))

    def sweep(self, name: str, steps: int, trials: int, parallel: int) -> list[dict[str, Any]]:
        """The log of a sweep whose trials differ in their rate."""
        lines = ['data = "discs"', 'method = "grid"', "[settings]", f"steps = {steps}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in TINY.items()]
        file = self.folder / f"{name}.toml"
        file.write_text("\n".join([*lines, "[search]", f"train.lr = {rates(trials)}"]))
        found = self.useg("sweep", file, "--on", self.ray, "--parallel", parallel)
        return [json.loads(line) for line in Path(found["log"]).read_text().splitlines()]


def rates(count: int) -> list[float]:
    """As many as there are to be trials."""
    return [round(0.001 + 0.000001 * number, 6) for number in range(count)]


@contextmanager
def placed(nodes: int, cpus: int) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder), nodes, cpus)
        try:
            yield place
        finally:
            place.hold.communicate("", timeout=60)


def overhead(trials: int = 12) -> dict[str, Any]:
    """Seconds from the end of a trial of one step to the end of the next, by the sweep's log."""
    with placed(1, 1) as place:
        log = place.sweep("warm", 1, trials, 1)
        ends = [event["time"] for event in log if event["event"] == "ended"]
        runs = place.useg("runs", "list", "--columns", "seconds")["runs"]
    between = sorted(b - a for a, b in itertools.pairwise(ends))
    return {"median_s": statistics.median(between), "least_s": between[0], "most_s": between[-1],
            "of_that_training_s": statistics.median(run["seconds"] for run in runs)}  # fmt: skip


def empty(trials: int = 1000) -> dict[str, Any]:
    """Records of many trials that train nothing."""
    with placed(8, 1) as place:
        file = place.folder / "empty.toml"
        asked = f"[settings]\nsteps = 1\n[search]\ntrain.lr = {rates(trials)}\n"
        file.write_text(f'data = "discs"\nmethod = "grid"\n{asked}')
        done = subprocess.run(
            [sys.executable, "-c", EMPTY, str(file), str(place.home), place.ray], cwd=place.folder, env=place.env,
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        found = dict(json.loads(done.stdout.splitlines()[-1]))
        rows = place.useg("runs", "list", "--columns", "run,status,tags")["runs"]
        tags = Counter(tag for row in rows for tag in row["tags"])
        (log,) = place.home.glob("sweeps/*/log.jsonl")
        ended = Counter(json.loads(line).get("trial") for line in log.read_text().splitlines() if '"ended"' in line)
    return found | {
        "lost": trials - len(tags) + sum(row["status"] != "finished" for row in rows) + trials - len(ended),
        "doubled": sum(count > 1 for count in (*tags.values(), *ended.values())),
    }


def speed(steps: int = 1500, trials: int = 4) -> dict[str, Any]:
    """The same trials one at a time, two at a time; and without Ray, as the machine's own measure."""
    found: dict[str, Any] = {}
    with placed(2, 1) as place:
        place.sweep("warm", 1, 4, 2)
        for parallel in (1, 2):
            begun = time.perf_counter()
            place.sweep(f"by{parallel}", steps, trials, parallel)
            found[f"by_{parallel}_s"] = time.perf_counter() - begun
        sets = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        words = ["train", "discs@main", "--steps", steps, *sets]
        for count in (1, 2):
            begun = time.perf_counter()
            for process in [place.begin(*words, "--seed", seed) for seed in range(count)]:
                process.communicate()
            found[f"plain_{count}_s"] = time.perf_counter() - begun
    return found | {
        "speed": found["by_1_s"] / found["by_2_s"],
        "plain_speed": 2 * found["plain_1_s"] / found["plain_2_s"],
    }


def killed(times: int = 10, steps: int = 1200) -> dict[str, Any]:
    """Trainings of two workers, each on a node of its own, whose node is killed after a random time."""
    draw, again, finished, right, firsts = random.Random(0), [], 0, 0, Counter[str]()
    sets = [word for key, value in {**TINY, "train.checkpoint_seconds": 2}.items()
            for word in ("--set", f"{key}={json.dumps(value)}")]  # fmt: skip
    with placed(2, 1) as place:
        for number in range(times):
            process = place.begin("train", "discs@main", "--steps", steps, "--workers", 2, "--name", f"k{number}",
                                  *sets, "--on", place.ray)  # fmt: skip
            while not [*place.home.glob(f"runs/*-k{number}-*/attempts/1/journal.jsonl")]:
                if process.poll() is not None:
                    raise RuntimeError(str(process.communicate()))
                time.sleep(0.2)
            time.sleep(draw.uniform(1, 12))
            hit = place.change("kill")
            place.change("add")
            process.communicate()
            (run,) = place.home.glob(f"runs/*-k{number}-*")
            finished += process.returncode == 0
            journals = [[json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
                        for file in sorted(run.glob("attempts/*/journal.jsonl"))]  # fmt: skip
            taken = [[event for event in journal if event.get("event") == "step"] for journal in journals]
            right += {event["step"] for events in taken for event in events} == {*range(1, steps + 1)}
            firsts[hit] += 1
            for before, after in itertools.pairwise(taken):
                right -= bool(before and after and after[0]["step"] > before[-1]["step"] + 1)
                lost = [event for event in before if after and event["step"] >= after[0]["step"]]
                again.append((len(lost), sum(event["seconds"] for event in lost)))
            told = f"{len(journals)} attempts, the {hit} worker was killed, steps and seconds done again {again[-1:]}"
            print(f"{number}: {told}", file=sys.stderr, flush=True)
    return {"finished": finished, "right_steps": right, "attempts_more": len(again), "checkpoint_s": 2, **firsts,
            "most_done_again": max((steps for steps, _ in again), default=0),
            "most_done_again_s": max((seconds for _, seconds in again), default=0.0)}  # fmt: skip


if __name__ == "__main__":
    result = {"overhead": overhead, "empty": empty, "speed": speed, "killed": killed}[sys.argv[1]]()
    print(json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in result.items()}))
