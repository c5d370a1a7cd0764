"""Lists of many runs: `useg runs list`, the whole process, from the index; the index made anew from the files.

The runs are made up: settings, a plan, 150 packages, scores of four classes, a journal of 200 steps; every tenth was
tagged later. Times of lists are medians of 20 processes, of which the first, which makes the index, does not count; to
tell apart what Python takes, `useg --help` is timed in between.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = {"runs_index_10k": ["10000"]}

LISTS = {
    "list_s": ["--sort", "-score.dice"],
    "list_where_s": ["--where", "score.dice > 0.8 and config.train.lr < 1e-3", "--sort", "score.dice"],
    "list_all_json_s": ["--sort", "-score.dice", "--json"],
}
PROCESSES = 20
CLASSES = ("background", "membrane", "nucleus", "cell wall")


def record(number: int, choose: random.Random) -> dict[str, Any]:
    """What one run's record says."""
    dice = choose.random()
    lr = 10 ** choose.uniform(-5, -1)
    return {
        "format": 2,
        "run": f"20261101-{number:06d}-sweep-{number:04x}",
        "name": "sweep",
        "status": "finished",
        "started": f"2026-11-{1 + number % 28:02d}T{number % 24:02d}:00:00+0000",
        "ended": f"2026-11-{1 + number % 28:02d}T{number % 24:02d}:10:00+0000",
        "user": "ada",
        "host": f"node{number % 8}",
        "command": ["useg", "train", "cells", "--seed", str(number)],
        "data": "cells@main",
        "config": {
            "seed": number,
            "train": {"lr": lr, "optimizer": "adamw"} | {f"setting{index}": index * 0.5 for index in range(30)},
            "augmentation": {f"strength{index}": index / 7 for index in range(20)},
        },
        "plan": {"lr": lr, "patch": [256, 256]} | {f"entry{index}": index for index in range(70)},
        "environment": {
            "python": "3.11.9",
            "packages": {
                f"package{index}": {"version": f"1.{index}", "wheel": f"{index:064x}"} for index in range(150)
            },
        },
        "machine": {"processor": "x86_64", "cores": 2, "memory_gb": 25},
        "weights": f"{number:064x}",
        "scores": {
            "part": "test",
            "mean_dice": dice,
            "pixel_error": 1 - dice,
            "classes": {name: {"dice": dice * choose.random(), "iou": choose.random()} for name in CLASSES},
        },
    }


def make(home: Path, count: int) -> None:
    """Write the runs' files."""
    choose = random.Random(0)
    for number in range(count):
        content = record(number, choose)
        folder = home / "runs" / content["run"]
        (folder / "record").mkdir(parents=True)
        (folder / "attempts" / "1").mkdir(parents=True)
        (folder / "record" / "00000001").write_text(json.dumps(content, indent=2))
        (folder / "record" / "00000002").write_text(json.dumps({"status": "finished", "steps": 200}))
        if number % 10 == 0:
            (folder / "record" / "00000003").write_text(json.dumps({"tags": ["paper"]}))
        events = [{"event": "step", "step": step, "loss": choose.random(), "lr": 1e-3} for step in range(200)]
        lines = "".join(json.dumps(event) + "\n" for event in events)
        (folder / "attempts" / "1" / "journal.jsonl").write_text(lines)


def timed(useg: Path, *words: str) -> tuple[float, str]:
    """Seconds of a process, and what it said."""
    begin = time.perf_counter()
    done = subprocess.run([str(useg), *words], check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - begin, done.stdout


def main() -> None:
    """Print the seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int)
    count = parser.parse_args().runs
    useg = Path(sys.executable).with_name("useg")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        os.environ["USEG_CACHE"] = str(Path(folder) / "cache")
        # Python keeps compiled modules, as it does where nobody forbids it
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "compiled")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        make(home, count)
        begin = time.perf_counter()
        first, _ = timed(useg, "runs", "list", "--limit", "1", "--home", str(home))
        result: dict[str, Any] = {"runs": count, "first_list_s": round(first, 3)}
        seconds: dict[str, list[float]] = {name: [] for name in (*LISTS, "help_s")}
        for _ in range(PROCESSES):
            for name, words in LISTS.items():
                took, said = timed(useg, "runs", "list", *words, "--home", str(home))
                seconds[name].append(took)
                if name == "list_all_json_s" and json.loads(said)["total"] != count:
                    raise RuntimeError("some runs are missing")
            seconds["help_s"].append(timed(useg, "--help")[0])
        result |= {name: round(statistics.median(each), 3) for name, each in seconds.items()}
        rebuild = [timed(useg, "runs", "index", "--rebuild", "--home", str(home))[0] for _ in range(2)]
        result["rebuild_s"] = round(statistics.median(rebuild), 3)
        files = Path(folder, "cache", "index").glob("runs-*.sqlite")
        result["index_bytes"] = sum(file.stat().st_size for file in files)
        result["seconds_in_all"] = round(time.perf_counter() - begin, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
