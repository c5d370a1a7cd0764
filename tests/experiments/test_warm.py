import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from useg.experiments import warm
from useg.experiments.warm import Forked, begin_training

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trainings are forked on Linux alone")


def begin(*words: str, out: Path, **variables: str) -> Forked:
    with out.open("ab") as file:
        process = begin_training(list(words), out=file.fileno(), kept=[], environment=os.environ | variables)
    assert isinstance(process, Forked)
    return process


def ended(process: Forked, timeout_s: float = 60.0) -> int | None:
    until = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < until:
        select.select([process], [], [], 1.0)
    return process.poll()


def waiting(process: Forked) -> psutil.Process:
    """As soon as it is what it is shown as."""
    found = psutil.Process(process.pid)
    until = time.monotonic() + 30
    while "train" not in found.cmdline() and time.monotonic() < until:
        time.sleep(0.01)
    return found


@pytest.fixture
def long(tmp_path: Path) -> str:
    """Data that a training waits for: a file that nobody writes to."""
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "pairs.csv")
    return str(tmp_path / "pairs.csv")


def test_what_ends_tells_its_status_and_its_words(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = begin(str(tmp_path / "nothing here"), out=out)
    assert ended(process) == 2
    assert "nothing here" in out.read_text()
    assert ended(begin("--help", out=out)) == 0


def test_it_is_shown_as_the_command_it_is_and_a_signal_ends_it(tmp_path: Path, long: str) -> None:
    process = begin(long, "--name", "a name with spaces", out=tmp_path / "out")
    shown = waiting(process).cmdline()
    assert [*filter(None, shown)] == [sys.executable, "-m", "useg", "train", long, "--name", "a name with spaces"]
    assert os.getsid(process.pid) == process.pid
    process.send_signal(signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    process.send_signal(signal.SIGKILL)  # of one that has ended does nothing


def test_variables_and_folder_are_those_of_the_moment(
    tmp_path: Path, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = begin(long, out=tmp_path / "out")
    assert Path(waiting(process).cwd()) == tmp_path
    process.send_signal(signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    widths = []
    for width in ("50", "90"):
        out = tmp_path / width
        assert ended(begin("--help", out=out, COLUMNS=width)) == 0
        widths.append(max(len(line) for line in out.read_text().splitlines()))
    assert widths[0] <= 50 < widths[1] <= 90


def test_libraries_are_loaded_again_under_other_variables_for_them(tmp_path: Path) -> None:
    assert ended(begin("--help", out=tmp_path / "out")) == 0
    before = warm._warm
    assert ended(begin("--help", out=tmp_path / "out", OTHER="1")) == 0
    assert warm._warm is before
    assert ended(begin("--help", out=tmp_path / "out", OMP_NUM_THREADS="3")) == 0
    assert warm._warm is not before


def test_one_that_outlives_what_it_was_forked_from_is_waited_for(tmp_path: Path, long: str) -> None:
    process = begin(long, out=tmp_path / "out")
    alive = waiting(process)
    assert warm._warm is not None
    parent = alive.parent()
    assert parent is not None
    parent.kill()
    warm._warm._process.wait()
    assert process.poll() is None
    assert alive.is_running()
    assert ended(begin("--help", out=tmp_path / "out")) == 0  # from a new one
    process.send_signal(signal.SIGKILL)
    assert ended(process) == 0


def test_what_forks_ends_with_whoever_asked_and_leaves_trainings(tmp_path: Path, long: str) -> None:
    program = (
        "import os, sys, time; from useg.experiments.warm import begin_training; "
        "process = begin_training([sys.argv[1]], out=2, kept=[], environment=os.environ); "
        "print(process.pid, flush=True); time.sleep(100)"
    )
    asking = subprocess.Popen([sys.executable, "-c", program, long], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    alive = psutil.Process(int(asking.stdout.readline()))
    parent = alive.parent()
    assert parent is not None
    asking.kill()
    asking.communicate(timeout=10)
    parent.wait(10)
    assert alive.is_running()
    alive.kill()
