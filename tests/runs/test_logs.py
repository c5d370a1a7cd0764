"""The log: everything in order, shown as ever; bounded; a full disk and a dead keeper cost lines, never the trainer."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from threading import Thread

import pytest
from tests.runs.trainers import until

from useg.runs import logs
from useg.runs.logs import Channel, Log, Pump

BEGIN = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
from useg.runs.logs import Log, Output, Pump
output = Output()
log = Log(Path(sys.argv[1]))
if (keeper := os.fork()) == 0:  # stands for the keeper
    pump = Pump(output.channels, log)
    pump.start()
    for stream in (0, 1, 2):
        os.close(stream)
    while os.getppid() == int(sys.argv[2] if len(sys.argv) > 2 else os.environ["PARENT"]):
        time.sleep(0.01)
    pump.drain()
    os._exit(0)
"""
PROGRAM = BEGIN.replace("output = Output()", "os.environ['PARENT'] = str(os.getpid())\noutput = Output()")


def run(program: str, log: Path, **options) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, "-c", PROGRAM + program, str(log)], timeout=60, check=False, **options)
    return done


PRINTS = """
for number in range(200):
    print("out", number, flush=True)
    print("err", number, file=sys.stderr)
ctypes.CDLL(None).write(1, b"from C\\n", 7)
subprocess.run(["sh", "-c", "echo a child; echo its error >&2"])
print("not flushed", end="")
"""


def expected() -> bytes:
    lines = b"".join(b"out %d\nerr %d\n" % (number, number) for number in range(200))
    return lines + b"from C\na child\nits error\nnot flushed"


def test_all_is_kept_and_shown_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = run(PRINTS, log, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.stdout == expected()
    assert log.read_bytes() == expected() + b"\n"


def test_where_they_lead_apart_each_is_shown_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = run(PRINTS, log, capture_output=True)
    both = expected().splitlines(keepends=True)
    errors = [line for line in both if line.startswith((b"err", b"its error"))]
    others = [line for line in both if line not in errors]
    assert done.stdout.splitlines(keepends=True) == others
    assert done.stderr.splitlines(keepends=True) == errors
    kept = log.read_bytes().splitlines(keepends=True)
    assert [line for line in kept if line in errors] == errors
    assert sorted(kept) == sorted(line.rstrip(b"\n") + b"\n" for line in both)


def test_after_kill_what_was_printed_is_there(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = run(PRINTS + "sys.stdout.flush(); os.kill(os.getpid(), 9)", log, stdout=subprocess.PIPE,
               stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == -9
    assert done.stdout == expected()
    assert log.read_bytes() == expected() + b"\n"


def test_a_closed_output_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = run("os.write(1, b'out\\n')", log, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert done.returncode == 0
    assert log.read_bytes() == b"out\n"


def test_a_terminal_stays_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    program = """
print(os.isatty(1), os.isatty(2), sys.stdout.isatty(), os.get_terminal_size(1))
from rich.progress import Progress
with Progress(refresh_per_second=100) as progress:
    task = progress.add_task("training", total=50)
    for step in range(50):
        progress.advance(task)
        time.sleep(0.005)
os.write(1, b"line\\n")
"""
    shown = bytearray()

    def look() -> None:
        try:
            while content := os.read(master, 4096):
                shown.extend(content)
        except OSError:
            return

    watcher = Thread(target=look)
    watcher.start()
    done = run(program, log, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    watcher.join(20)
    os.close(master)
    assert done.returncode == 0
    assert b"True True True os.terminal_size(columns=77, lines=33)\r\n" in shown
    assert shown.count(b"\x1b[2K") > 5, "bars are drawn again and again"
    assert b"100%" in shown
    lines = log.read_text().splitlines()
    assert lines[0].startswith("True True True")
    assert len(lines) == 3
    assert "100%" in lines[1]
    assert lines[2] == "line"


def test_a_log_is_bounded_and_only_grows(tmp_path: Path) -> None:
    log, before = Log(tmp_path / "log.txt", 1000), b""
    for number in range(1000):
        log.write(b"line %d\n" % number)
        content = log.file.read_bytes()
        assert content.startswith(before)
        before = content
    assert log.tail(2) == ["line 998", "line 999"]
    log.close()
    content = log.file.read_bytes()
    assert content.startswith(before)
    assert len(content) <= 1000 + 100
    lines = content.split(b"\n")
    gap = lines.index(b"[useg: some lines are left out here]")
    assert lines[:gap] == [b"line %d" % number for number in range(gap)]
    assert lines[gap + 1 : -1] == [b"line %d" % number for number in range(1000 - (len(lines) - gap - 2), 1000)]
    assert min(gap, len(lines) - gap) > 15
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
    log.close()
    assert log.file.read_bytes() == content
    assert log.tail(1) == ["line 999"]


def test_a_keeper_after_another_goes_on_with_the_log(tmp_path: Path) -> None:
    for number in range(100):
        Log(tmp_path / "log.txt", 1000).write(b"line %d\n" % number)
    log = Log(tmp_path / "log.txt", 1000)
    log.close()
    assert log.file.read_bytes().endswith(b"line 98\nline 99\n")


def test_a_full_disk_costs_lines_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, add = Log(tmp_path / "log.txt"), logs._add
    log.write(b"before\n")

    def full(file: Path, lines: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs, "_add", full)
    log.write(b"lost\n")
    log.write(b"lost, too\n")
    monkeypatch.setattr(logs, "_add", add)
    log.write(b"after\n")
    assert log.file.read_bytes() == b"before\n[useg: 15 bytes could not be kept here: the disk was full]\nafter\n"


def test_where_nobody_looks_any_more_it_is_still_kept(tmp_path: Path) -> None:
    (reading, writing), (looking, onto) = os.pipe(), os.pipe()
    os.close(looking)
    log = Log(tmp_path / "log.txt")
    pump = Pump([Channel(reading, onto, ())], log)
    pump.start()
    for _ in range(3):
        os.write(writing, b"line\n")
    pump.drain()
    assert log.file.read_bytes() == b"line\n" * 3
    pump.close()
    os.close(reading)
    os.close(writing)


def test_what_a_slow_reader_takes_is_all_there(tmp_path: Path) -> None:
    (reading, writing), (looking, onto) = os.pipe(), os.pipe()
    os.set_blocking(onto, False)
    pump = Pump([Channel(reading, onto, ())], None)
    pump.start()
    content = b"".join(b"line %d\n" % number for number in range(40_000))
    writer = Thread(target=lambda: (os.write(writing, content), os.close(writing)))
    writer.start()
    found = b""
    while len(found) < len(content):
        found += os.read(looking, 1000)
    assert found == content
    writer.join()
    until(lambda: not pump.is_alive())
    pump.drain()
    pump.close()
    os.close(reading)
    os.close(looking)


def test_the_tail_is_of_bounded_lines(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.txt")
    assert log.tail() == []
    log.write(b"first\n" + b"\xff" + b"x" * 5000 + b"\nlast\n")
    assert log.tail(2) == ["\ufffd" + "x" * 999, "last"]


def test_a_device_that_is_always_full_raises_nothing() -> None:
    log = Log(Path("/dev/full"))
    log.write(b"lost\n")
    log.write(b"lost, too\n")
    assert log._missing == 15
