"""What a home that is no folder lacks after `kill -9` of a trainer, its keeper, or both, at random moments.

A trainer logs a value every 5 ms and tells each call that returned. What is killed is stopped first, all of it at once,
as when the power goes. Lost is what had returned and never comes to the home, in calls and in seconds.

python bench/losing.py [--home bucket|served] [--kills 10]    so many of each kind
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROWS = {f"losing {home}": ["--home", home] for home in ("bucket", "served")}
KINDS = (("trainer",), ("keeper",), ("trainer", "keeper"))
TRAINER = """
import os, time
from useg import runs

with runs.start(name="losing") as run:
    os.write(1, f"{run.id}\\n".encode())
    for step in range(10**9):
        run.log(step, loss=0.5)
        os.write(1, f"{step} {time.monotonic()}\\n".encode())
        time.sleep(0.005)
"""


@contextmanager
def bucket(folder: Path) -> Iterator[str]:
    sys.path.insert(0, "tests/home")
    from s3_server import shared_server

    with shared_server(folder / "s3") as server:
        os.environ.update(server.environment)
        yield f"s3://{server.bucket}/losing"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "useg", "serve", "--home", str(folder / "home"), "--port", "0", "--json"]
    (folder / "home").mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield json.loads(server.stdout.readline())["address"]  # type: ignore[union-attr]
        finally:
            server.terminate()


def killed(home: str, folder: Path, kind: tuple[str, ...], after_s: float) -> dict[str, float]:
    """What is lost of one run."""
    from useg.home.opening import open_home
    from useg.runs.following import history

    told = folder / "told"
    with told.open("wb") as out:
        trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER], stdout=out, cwd=folder, env={**os.environ, "USEG_HOME": home}
        )
    while b"\n0 " not in told.read_bytes():
        if trainer.poll() is not None:
            raise RuntimeError(f"the trainer ended with {trainer.returncode}")
        time.sleep(0.05)
    time.sleep(after_s)
    found = {"trainer": psutil.Process(trainer.pid)}
    found["keeper"] = next(
        each for each in found["trainer"].children() if "useg.runs.keeping" in " ".join(each.cmdline())
    )
    for name in kind:
        found[name].suspend()
    for name in kind:
        found[name].kill()
    if kind == ("keeper",):
        time.sleep(5)
        trainer.terminate()
    trainer.wait()
    run, *lines = told.read_text().rpartition("\n")[0].splitlines()
    calls = [line.split() for line in lines]
    store, until = open_home(home)[0], time.monotonic() + (3 if "keeper" in kind and "trainer" in kind else 15)
    there: set[int] = set()
    while len(there) < len(calls) and time.monotonic() < until:
        there = {event["step"] for event in history(store, run) if event["event"] == "step"}
    lost = [float(at) for step, at in calls if int(step) not in there]
    return {
        "calls": len(calls),
        "lost": len(lost),
        "lost_s": round(float(calls[-1][1]) - min(lost), 2) if lost else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", choices=["bucket", "served"], default="bucket")
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    draw, result = random.Random(0), dict[str, Any]()
    with (
        tempfile.TemporaryDirectory() as scratch,
        {"bucket": bucket, "served": served}[given.home](Path(scratch)) as home,
    ):
        for kind in KINDS:
            each = []
            for number in range(given.kills):
                folder = Path(scratch, f"{'-'.join(kind)}-{number}")
                folder.mkdir()
                each.append(killed(home, folder, kind, draw.uniform(0.5, 6)))
                print(kind, each[-1], file=sys.stderr)
            most = {name: max(one[name] for one in each) for name in ("lost", "lost_s")}
            result[" and ".join(kind)] = {"kills": given.kills, "calls": sum(one["calls"] for one in each)} | most
    print(json.dumps({"home": given.home} | result))


if __name__ == "__main__":
    main()
