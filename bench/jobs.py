"""The queue of a folder home: jobs in thousands, dispatchers killed at random moments, and how soon a job starts.

Jobs do nothing, for 50 ms; all else is real: the log in the home, two dispatchers in processes of their own, counters,
take-overs. Every job must end exactly once, and no attempt of any be begun twice.

python bench/jobs.py --jobs 10000 --seed 0
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from useg.home.store import Folder
from useg.runs.queue_log import QueueLog

ROWS = {"queue": ["--jobs", 10_000]}
BETWEEN_S = 2.0
ALONE = 200
ASKED: dict[str, Any] = {"words": ["none"], "files": {}, "threads": 1, "workers": 1, "records": []}

DISPATCHER = """
import os, sys, time
from pathlib import Path
from useg.experiments.cluster import Node
from useg.experiments.dispatch import Dispatcher
from useg.experiments.listening import Listener
from useg.home.store import Folder
from useg.runs.queue_log import QueueLog

home, begun = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

class Nothing:
    node, problem, is_over, is_lost = "here", None, False, False
    def __init__(self, order):
        self.until = time.monotonic() + 0.05
        number = order.words[order.words.index("--tag") + 1].removeprefix("job:")
        os.write(begun, f"{number} {os.getpid()} {time.time()}\\n".encode())
    def heard(self):
        if self.is_over or time.monotonic() < self.until:
            return []
        self.is_over = True
        return [("end", (0, '{"status": "finished"}', ""))]
    def cancel(self, *, at_once=False):
        self.is_over = True

class Here:
    def nodes(self):
        return (Node("here", "here", 4, 0),)
    def start(self, order, cpus, gpus):
        return Nothing(order)
    def wait(self, works, timeout_s):
        soonest = min((work.until for work in works if not work.is_over), default=time.monotonic() + timeout_s)
        time.sleep(min(timeout_s, max(0.0, soonest - time.monotonic())))

Dispatcher(home, QueueLog(Folder(Path(home))), Here(), {}, Listener()).run()
"""


def dispatcher(home: Path, begun: Path) -> "subprocess.Popen[bytes]":
    """One that runs until it is killed."""
    return subprocess.Popen([sys.executable, "-c", DISPATCHER, str(home), str(begun)])


def submit(log: QueueLog, number: int) -> None:
    """One job, of one of five users."""
    job = {"what": "none", "user": f"user{number % 5}", "priority": number % 3, "cpus": 1, "gpus": 0}
    log.submit(ASKED, job)


def killed(home: Path, begun: Path, jobs: int, seed: int) -> dict[str, Any]:
    """All jobs, while one of two dispatchers is killed every few seconds."""
    draw, kills, log = random.Random(seed), 0, QueueLog(Folder(home))
    start = time.perf_counter()
    for number in range(jobs):
        submit(log, number)
    submitted_s = time.perf_counter() - start
    working = [dispatcher(home, begun) for _ in range(2)]
    while any(job.state in ("waiting", "running") for job in log.queue.jobs.values()):
        time.sleep(draw.uniform(0, 2 * BETWEEN_S))
        victim = draw.randrange(2)
        if working[victim].poll() is not None:
            raise RuntimeError("a dispatcher ended by itself")
        working[victim].send_signal(signal.SIGKILL)
        working[victim].wait()
        working[victim] = dispatcher(home, begun)
        kills += 1
        log.catch_up()
    for process in working:
        process.kill()
        process.wait()
    seconds = time.perf_counter() - start - submitted_s
    return {"submitted_per_s": jobs / submitted_s, "jobs_per_s": jobs / seconds, "kills": kills} | counted(home, begun)


def counted(home: Path, begun: Path) -> dict[str, Any]:
    """What became of the jobs, by the log and by what was really begun."""
    log = QueueLog(Folder(home))
    log.catch_up()
    starts, ends, holder = Counter[int](), Counter[int](), dict[int, str]()
    for file in sorted(home.glob("jobs/log/*")):
        for event in json.loads(file.read_bytes())["events"]:
            if event["event"] == "started":
                starts[event["job"]] += 1
                holder[event["job"]] = event["by"]
            elif event["event"] == "ended" and holder[event["job"]] == event["by"]:
                ends[event["job"]] += 1
    lines = [line.split() for line in begun.read_text().splitlines()]
    real = Counter(int(number) for number, _, _ in lines)
    twice = Counter((number, pid) for number, pid, _ in lines)
    jobs = log.queue.jobs.values()
    return {
        "finished": sum(job.state == "finished" for job in jobs),
        "lost": sum(job.state != "finished" or not real[job.number] for job in jobs),
        "doubled": sum(count > 1 for count in ends.values()) + sum(count > 1 for count in twice.values())
        + sum(real[job.number] > job.attempt for job in jobs),
        "begun_again": sum(count > 1 for count in starts.values()),
    }  # fmt: skip


def delays(home: Path, begun: Path) -> dict[str, float]:
    """From the submission of a job to its start, where a dispatcher has nothing else to do."""
    log, process, draw = QueueLog(Folder(home)), dispatcher(home, begun), random.Random(0)
    time.sleep(2)
    before, submitted = len(begun.read_text().splitlines()), []
    for number in range(ALONE):
        submitted.append(time.time())
        submit(log, number)
        time.sleep(draw.uniform(0.05, 0.4))
    time.sleep(3)
    process.kill()
    process.wait()
    started = [float(line.split()[2]) for line in begun.read_text().splitlines()[before:]]
    waited = sorted(b - a for a, b in zip(submitted, started, strict=True))
    return {"delay_median_s": statistics.median(waited), "delay_p99_s": waited[int(0.99 * len(waited))]}


def between(begun: Path) -> dict[str, float]:
    """From the end of a job to the start of the next at the same dispatcher, while many wait."""
    times: dict[str, list[float]] = {}
    for line in begun.read_text().splitlines():
        _, pid, at = line.split()
        times.setdefault(pid, []).append(float(at))
    # four at a time: the fifth start follows the end of the first
    gaps = sorted(max(0.0, b - a - 0.05) for each in times.values() for a, b in zip(each, each[4:], strict=False))
    return {"free_slot_median_s": statistics.median(gaps), "free_slot_p99_s": gaps[int(0.99 * len(gaps))]}


def main() -> None:
    """Measure, and print a JSON object."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        home, begun = Path(place, "home"), Path(place, "begun")
        home.mkdir()
        found = killed(home, begun, given.jobs, given.seed) | between(begun) | delays(home, begun)
        opened = time.perf_counter()
        log = QueueLog(Folder(home))
        log.catch_up()
        found |= {"entries": len(os.listdir(home / "jobs/log")), "opened_s": time.perf_counter() - opened}
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
