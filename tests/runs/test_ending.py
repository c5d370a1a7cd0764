"""How processes that are not ours ended: told by the kernel before and after the parent has asked, or not told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runs.trainers import until

from useg.runs import ending
from useg.runs.ending import Ending, Watched


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def python(program: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-c", f"input(); {program}"], stdin=subprocess.PIPE)


def knows_after_parent() -> bool:
    version = tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2])
    return version >= (6, 15)


@pytest.mark.parametrize("is_asked", [False, True], ids=["before the parent asks", "after"])
@pytest.mark.parametrize(
    ("program", "exit_code", "name"),
    [
        ("pass", 0, None),
        ("raise SystemExit(3)", 3, None),
        ("import os; os._exit(255)", 255, None),
        ("import os; os.kill(os.getpid(), 9)", None, "SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", None, "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 40)", None, "SIG40"),
    ],
)
def test_how_it_ended_is_told(program: str, exit_code: int | None, name: str | None, is_asked: bool) -> None:
    if is_asked and not knows_after_parent():
        pytest.skip("this kernel is older than 6.15 and forgets")
    with python(program) as process:
        pidfd = os.pidfd_open(process.pid)
        watched = Watched(process.pid, pidfd)
        assert not watched.has_ended()
        process.stdin.write(b"\n")
        process.stdin.flush()
        if is_asked:
            process.wait()
        until(watched.has_ended)
        found = watched.ending()
        assert (found.exit_code, found.signal) == (exit_code, name)
        assert not found.out_of_memory
        os.close(pidfd)


def test_older_kernels_tell_until_the_parent_has_asked(
    sleeper: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_GET_INFO", 0)
    pidfd = os.pidfd_open(sleeper.pid)
    watched = Watched(sleeper.pid, pidfd)
    sleeper.terminate()
    until(watched.has_ended)
    assert watched.ending() == Ending(None, "SIGTERM", False)
    sleeper.wait()
    assert (watched.ending().exit_code, watched.ending().signal) == (None, None)
    os.close(pidfd)


def test_what_cannot_be_known_is_none(sleeper: subprocess.Popen) -> None:
    watched = Watched(sleeper.pid, None)
    assert not watched.has_ended()
    sleeper.kill()
    until(watched.has_ended)
    sleeper.wait()
    found = watched.ending()
    assert (found.exit_code, found.signal) == (None, None)
    assert found.out_of_memory is not True


def test_a_process_that_is_suspended_has_not_ended(sleeper: subprocess.Popen) -> None:
    pidfd = os.pidfd_open(sleeper.pid)
    for watched in (Watched(sleeper.pid, pidfd), Watched(sleeper.pid, None)):
        watched.send(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{sleeper.pid}/stat").read_text().split()[2] == "T")
        assert not watched.has_ended()
        watched.send(signal.SIGCONT)
    watched.send(signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    assert watched.has_ended()
    watched.send(signal.SIGTERM)
    os.close(pidfd)


@pytest.mark.parametrize(
    ("before", "after", "killed_by", "expected"),
    [
        (0, 1, signal.SIGKILL, True),
        (3, 3, signal.SIGKILL, False),
        (None, None, signal.SIGKILL, None),
        (0, 1, signal.SIGTERM, False),
    ],
)
def test_out_of_memory_is_what_the_kernel_counted(
    sleeper: subprocess.Popen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before, after, killed_by, expected
) -> None:
    counter = tmp_path / "memory.events"
    monkeypatch.setattr(ending, "_counter", lambda pid: counter)
    monkeypatch.setattr(ending, "_is_first_namespace", lambda: False)
    if before is not None:
        counter.write_text(f"low 0\noom 7\noom_kill {before}\noom_group_kill 0\n")
    pidfd = os.pidfd_open(sleeper.pid)
    watched = Watched(sleeper.pid, pidfd)
    sleeper.send_signal(killed_by)
    until(watched.has_ended)
    if after is not None:
        counter.write_text(f"low 0\noom 9\noom_kill {after}\noom_group_kill 0\n")
    assert watched.ending() == Ending(None, killed_by.name, expected)
    os.close(pidfd)


def test_the_kernels_log_names_who_was_killed(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_bytes(
        b"3,1,2,-;Out of memory: Killed process 4242 (python) total-vm:1kB\n6,2,3,-;usb 1-1: new device\n"
        b"3,3,4,-;Memory cgroup out of memory: Killed process 77 (a b) total-vm:1kB\n"
    )
    opened = os.open(log, os.O_RDONLY)
    assert ending._killed(opened) == {4242, 77}
    os.close(opened)


@pytest.mark.slow
def test_a_process_that_is_killed_for_its_memory(tmp_path: Path) -> None:
    group = Path("/sys/fs/cgroup/memory") / f"useg-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 * 2**20))
    except OSError as error:
        pytest.skip(f"no right to make a group of processes of limited memory: {error}")
    try:
        with python("keep = bytearray(300 * 2**20)") as process:
            (group / "cgroup.procs").write_text(str(process.pid))
            pidfd = os.pidfd_open(process.pid)
            watched = Watched(process.pid, pidfd)
            process.stdin.write(b"\n")
            process.stdin.flush()
            until(watched.has_ended)
            assert watched.ending() == Ending(None, "SIGKILL", True)
            os.close(pidfd)
    finally:
        group.rmdir()
