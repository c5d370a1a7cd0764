"""Measures the figures row by row; a row that was measured is not measured again.

Every other script here has a `main()` that prints one JSON object as its last line. A script may define
`ROWS`, a dict from the name of a row to the arguments of the script; without it, the script is one row with no
arguments. What a row measured lies in out/bench/<row>.json with the command, the machine and the commit.

    make bench                              all rows that are missing
    make bench BENCH="--list"               the rows, and which are there
    make bench BENCH="--only isbi --again"  measure the rows again whose names contain `isbi`
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent
NO_ROWS = {"run", "size"}


@dataclass(frozen=True)
class Row:
    name: str
    script: Path
    arguments: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(self.script), *self.arguments]


def rows(scripts: Path) -> list[Row]:
    """List the rows of all scripts; each script is asked in a process of its own, which then is gone."""
    found = []
    for script in sorted(scripts.glob("*.py")):
        if script.stem in NO_ROWS:
            continue
        ask = f"import json, runpy; print(json.dumps(runpy.run_path({str(script)!r}).get('ROWS')))"
        answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
        named = json.loads(answer.stdout.splitlines()[-1]) or {script.stem: []}
        found += [Row(name, script, tuple(map(str, arguments))) for name, arguments in named.items()]
    return found


def machine() -> dict[str, Any]:
    """Tell what the figures were measured on."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].strip() if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "useg": version("useg"),
        "commit": _commit(),
    }


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=SCRIPTS
    )
    return done.stdout.strip() or None


def measure(row: Row) -> dict[str, Any] | None:
    """Run a row; what it says on stderr is shown. None when it failed."""
    record = {
        "row": row.name,
        "command": ["python", str(row.script.name), *row.arguments],
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    begin = time.perf_counter()
    done = subprocess.run(row.command, stdout=subprocess.PIPE, text=True, check=False)
    record["seconds"] = round(time.perf_counter() - begin, 3)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        print(f"{row.name}: failed with exit status {done.returncode}", file=sys.stderr)
        return None
    try:
        record["result"] = json.loads(lines[-1])
    except json.JSONDecodeError:
        print(f"{row.name}: the last line is no JSON: {lines[-1][:200]}", file=sys.stderr)
        return None
    return record


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing and print all results; the exit status is the number of rows that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show the rows and measure nothing")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--only", default="", help="rows whose names contain this")
    parser.add_argument("--scripts", type=Path, default=SCRIPTS, help="folder of the scripts")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder of the results")
    wanted = parser.parse_args(arguments)
    chosen = [row for row in rows(wanted.scripts) if wanted.only in row.name]
    wanted.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for row in chosen:
        file = wanted.out / f"{row.name}.json"
        if wanted.list:
            print(f"{'measured' if file.exists() else 'missing':10}{row.name}")
            continue
        if wanted.again or not file.exists():
            print(f"measuring {row.name} ...", file=sys.stderr)
            record = measure(row)
            if record is None:
                failed += 1
                continue
            # a row is there or not: never half of it
            part = file.with_suffix(".part")
            part.write_text(json.dumps(record, indent=1) + "\n")
            part.replace(file)
        print(f"{row.name:32}{json.dumps(json.loads(file.read_text())['result'])}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
