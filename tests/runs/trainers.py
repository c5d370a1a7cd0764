"""Real trainers for tests of what watches them: small programs that log, print, and are then killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from useg.home.store import open_store

RUN = "run"
BEGIN = """
import os, signal, sys, time
from pathlib import Path
from useg.home.store import open_store
from useg.runs.journal import Journal
from useg.runs.keeper import start_keeper
from useg.runs.lease import claim_attempt
from useg.runs.record import RunFolder

local, home, interval_s, told = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
folder = RunFolder(local / "runs" / "run")
folder.path.mkdir(parents=True, exist_ok=True)
folder.update(status="running")
attempt = folder.path / "attempts" / str(claim_attempt(open_store(home), "run", interval_s=interval_s))
keeper = start_keeper(attempt, run="run", home=home, interval_s=interval_s)
journal = Journal(attempt / "journal.jsonl")

def log(step):
    journal.write({"event": "step", "step": step})
    os.write(told, b"%d\\n" % step)

def log_for_ever():
    step = 0
    while True:
        log(step := step + 1)
        time.sleep(0.001)

log(0)
os.write(told, b"keeper %d\\n" % keeper.pid)
"""


@dataclass
class Trainer:
    """A trainer that was started.

    Attributes:
        process: it. keeper: the process of its keeper. attempt: its folder on this machine.
        told: what it wrote after a value's `write` had returned.
    """

    process: subprocess.Popen
    keeper: int
    attempt: Path
    told: int

    def last_told(self) -> int:
        """The last step whose `write` returned; the trainer must have ended."""
        content = b""
        while piece := os.read(self.told, 65536):
            content += piece
        return max((int(line) for line in content.split(b"\n")[:-1] if line.isdigit()), default=0)

    def close(self) -> None:
        for pid in (self.process.pid, self.keeper):
            end(pid)
        self.process.communicate()
        os.close(self.told)


def start(
    program: str, local: Path, home: Path | str | None = None, *, interval_s: float = 5.0, attempt: int = 1, **options
) -> Trainer:
    """Start a trainer that logs step 0 and then does as the program says."""
    reading, writing = os.pipe()
    words = [str(local), str(local if home is None else home), str(interval_s), str(writing)]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    process = subprocess.Popen([sys.executable, "-c", BEGIN + program, *words], pass_fds=[writing], **options)
    os.close(writing)
    content = b""
    while b"keeper" not in content or not content.endswith(b"\n"):
        piece = os.read(reading, 1)
        assert piece, f"it ended early: {process.communicate()}"
        content += piece
    keeper = int(content.rpartition(b"keeper ")[2])
    return Trainer(process, keeper, local / "runs" / RUN / "attempts" / str(attempt), reading)


def until(is_so: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def end(pid: int) -> None:
    """End a process of ours at once, if it is there."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def keeper_of(attempt: Path) -> int | None:
    """The keeper's process of an attempt now, found by its command line."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"useg.runs.keeping" in command and f'"{attempt}"'.encode() in command and lives(int(process.name)):
            return int(process.name)
    return None


def entries(home: Path | str, prefix: str) -> list[str]:
    """The keys of a home below a prefix of the run."""
    return [entry.key for entry in open_store(home).list(f"runs/{RUN}/{prefix}")]
