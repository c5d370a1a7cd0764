"""One `log` call with five metrics, and what is left of the values after `kill -9`: useg beside MLflow and trackio.

MLflow writes to SQLite, trackio to its own; both lie in an environment of their own under out/bench, made on first use.
"""

import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = {"trackers": []}
OUT = Path("out/bench").absolute()
CALLS = {"useg": 50_000, "mlflow": 300, "trackio": 20_000}
KILLS = 5
VALUES = "loss=0.5, dice=0.9, lr=1e-3, norm=2.5, seconds=0.01"
SETUP = {
    "useg": f"""
from useg import runs
run = runs.start(home={{home!r}})
log = lambda step: run.log(step, {VALUES})
""",
    "mlflow": f"""
import mlflow
mlflow.set_tracking_uri("sqlite:///" + {{home!r}} + "/mlflow.db")
mlflow.set_experiment("e")
mlflow.start_run()
log = lambda step: mlflow.log_metrics(dict({VALUES}), step=step)
""",
    "trackio": f"""
import trackio
trackio.init(project="p", name="r")
log = lambda step: trackio.log(dict({VALUES}), step=step)
""",
}
END = {"useg": "run.finish()", "mlflow": "mlflow.end_run()", "trackio": "trackio.finish()"}
TIMED = """
import json, sys, time
clock, found = time.perf_counter, []
for step in range(100):
    log(step)
begun = clock()
for step in range(100, 100 + {calls}):
    before = clock(); log(step); found.append(clock() - before)
{end}
whole, ordered = clock() - begun, sorted(found)
print(json.dumps(dict(
    p50_us=round(1e6 * ordered[len(ordered) // 2], 1), p99_us=round(1e6 * ordered[int(0.99 * len(ordered))], 1),
    values_per_s=round(5 * len(ordered) / whole))))
"""
KILLED = """
import os, time
for step in range(10**9):
    log(step)
    os.pwrite({pipe}, b"%020d" % (step + 1), 0)
    time.sleep(0.002)
"""


def environment() -> Path | None:
    """Python of an environment with the trackers."""
    python = OUT / "trackers-env" / "bin" / "python"
    if not python.exists():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(OUT / "trackers-env")], check=True)
            subprocess.run([*pip, "mlflow-skinny", "sqlalchemy", "alembic", "trackio"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"the trackers cannot be installed, so they are left out: {error}", file=sys.stderr)
            return None
    return python


def surroundings(home: Path) -> dict[str, str]:
    return {**os.environ, "TRACKIO_DIR": str(home), "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}


def timed(python: str, tracker: str, home: Path) -> dict[str, float]:
    """Microseconds of a call; values a second until all are stored."""
    code = SETUP[tracker].format(home=str(home)) + TIMED.format(calls=CALLS[tracker], end=END[tracker])
    command = [python, "-c", code]
    done = subprocess.run(command, env=surroundings(home), cwd=home, capture_output=True, text=True, check=True)
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


def lost(python: str, tracker: str, home: Path, seconds: float) -> tuple[int, int]:
    """Calls that returned before the process was killed, and those of them whose values are not there any more."""
    with tempfile.TemporaryFile(dir=home) as returned:
        code = SETUP[tracker].format(home=str(home)) + KILLED.format(pipe=returned.fileno())
        process = subprocess.Popen(
            [python, "-c", code],
            env=surroundings(home),
            cwd=home,
            pass_fds=[returned.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not os.pread(returned.fileno(), 20, 0):
            time.sleep(0.01)
            if process.poll() is not None:
                raise RuntimeError(f"{tracker} ended by itself")
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        calls = int(os.pread(returned.fileno(), 20, 0))
    time.sleep(1)
    return calls, max(calls - stored(tracker, home), 0)


def stored(tracker: str, home: Path) -> int:
    """How many calls' values are there."""
    if tracker == "useg":
        (journal,) = home.glob("runs/*/attempts/1/journal.jsonl")
        return sum(b'"loss":' in line and line.endswith(b"\n") for line in journal.open("rb"))
    if tracker == "mlflow":
        with sqlite3.connect(home / "mlflow.db") as table:
            return int(table.execute("SELECT count(*) FROM metrics WHERE key = 'loss'").fetchone()[0])
    (file,) = home.glob("*.db")
    with sqlite3.connect(file) as table:
        return int(table.execute("SELECT count(*) FROM metrics").fetchone()[0])


def main() -> None:
    """Print the figures as JSON."""
    other = environment()
    pythons = {"useg": sys.executable} | ({"mlflow": str(other), "trackio": str(other)} if other else {})
    result = {}
    choose = random.Random(0)
    moments = [choose.uniform(1, 5) for _ in range(KILLS)]
    for tracker, python in pythons.items():
        rounds, kills = [], []
        for number in range(3):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(timed(python, tracker, Path(folder)))
            print(tracker, number, rounds[-1], file=sys.stderr)
        for moment in moments:
            with tempfile.TemporaryDirectory() as folder:
                kills.append(lost(python, tracker, Path(folder), moment))
            print(tracker, "killed:", kills[-1], file=sys.stderr)
        middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        result[tracker] = {
            **middle,
            "calls_before_kill": sum(calls for calls, _ in kills),
            "lost_after_kill": sum(gone for _, gone in kills),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
