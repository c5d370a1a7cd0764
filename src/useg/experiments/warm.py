"""Trainings that begin without the second in which a process loads what it needs.

A process loads it once and forks a training whenever it is told to; what is forked has a session, words, variables and
files of its own, outlives both processes, and is to the system what `python -m useg train` is. Elsewhere than on Linux,
and when that process is lost, a training is an ordinary new process.
"""

import atexit
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from useg import let_threads_sleep

_LOADED = ("useg.cli.train", "useg.experiments.train", "useg.experiments.finish", "useg.experiments.evaluate_model")
_READ_WHEN_LOADED = ("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "TORCH", "PYTORCH", "PYTHON", "LD_", "MALLOC_")
_PROGRAM = "import sys; sys.path[:0] = [sys.argv[1]]; from useg.experiments.warm import serve; serve()"
_ROOM = 4096
"""Bytes of a command line that others see, `ps` for one."""


class Forked:
    """A training that was forked; with what is needed here of `subprocess.Popen`.

    Attributes:
        pid: of the process. returncode: how it ended, negative for a signal; None while it runs. Of one that outlived
            what it was forked from nobody can tell, and it is 0: its record tells.
    """

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid, self._line = pid, line
        self._itself: int | None = None
        self.returncode: int | None = None

    def fileno(self) -> int:
        """Of what can be read when it has ended, for `select`."""
        return self._line.fileno() if self._itself is None else self._itself

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        if self.returncode is None and self._itself is None and _can_be_read(self._line.fileno()):
            told = self._line.recv(64)
            self._line.close()
            self.returncode = int(told) if told else None
            if not told:
                try:
                    self._itself = os.pidfd_open(self.pid)
                except ProcessLookupError:
                    self.returncode = 0
        if self.returncode is None and self._itself is not None and _can_be_read(self._itself):
            os.close(self._itself)
            self.returncode = 0
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _can_be_read(file: int) -> bool:
    return bool(select.select([file], [], [], 0)[0])


class _Warm:
    """The process that forks; one for all trainings whose libraries are to be loaded under the same variables."""

    def __init__(self, variables: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.variables = variables
        self._control, theirs = socket.socketpair()
        source = str(Path(__file__).parents[2])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, source, "useg".ljust(_ROOM)], stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environment), start_new_session=True,
            )  # fmt: skip

    def fork(self, words: Sequence[str], out: int, kept: Sequence[int], environment: Mapping[str, str]) -> Forked:
        """Raises: OSError, ValueError: it is lost, or cannot."""
        told = orjson.dumps({"words": words, "environment": dict(environment), "folder": os.getcwd()})
        line, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"."], [theirs.fileno(), out, *kept])
            line.sendall(told + b"\n")
            return Forked(int(line.recv(64)), line)
        except BaseException:
            line.close()
            raise

    def close(self) -> None:
        """Have it end; what it forked goes on."""
        self._control.close()
        self._process.wait()


_warm: _Warm | None = None


def begin_training(
    words: Sequence[str], *, out: int, kept: Sequence[int], environment: Mapping[str, str]
) -> "Forked | subprocess.Popen[bytes]":
    """Begin a training that outlives this process.

    Args:
        words: what follows `useg train`. out: the file its stdout and stderr go to. kept: further files that it holds.
        environment: its variables.
    """
    global _warm
    variables = {name: value for name, value in environment.items() if name.startswith(_READ_WHEN_LOADED)}
    for _ in range(2 if sys.platform == "linux" else 0):  # what forks may have been killed
        with suppress(OSError, ValueError):
            if _warm is None or _warm.variables != variables:
                _cool()
                _warm = _Warm(variables, environment)
            return _warm.fork(words, out, kept, environment)
        _cool()
    return subprocess.Popen(
        [sys.executable, "-m", "useg", "train", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        env=dict(environment), start_new_session=True, pass_fds=list(kept),
    )  # fmt: skip


@atexit.register
def _cool() -> None:
    global _warm
    if _warm is not None:
        _warm.close()
    _warm = None


def serve() -> None:
    """Load what a training needs, then fork one for each request, until whoever asks is gone."""
    let_threads_sleep()
    for name in _LOADED:
        importlib.import_module(name)
    control, running = socket.socket(fileno=os.dup(0)), dict[int, socket.socket]()
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    gc.collect()
    gc.freeze()  # or every training would have a copy of what is loaded as soon as it collects
    while True:
        readable = select.select([control, woken], [], [])[0]
        if woken in readable:
            woken.recv(4096)
            _bury(running)
        if control in readable:
            _, files, _, _ = socket.recv_fds(control, 1, 8)
            if not files:
                return
            line = socket.socket(fileno=files[0])
            told = _read(line)
            with suppress(OSError):
                pid = os.fork()
                if not pid:
                    break
                running[pid] = line
                line.sendall(b"%d\n" % pid)
            for file in files[1:]:
                os.close(file)
    for each in (control, woken, wakes, line, *running.values()):
        each.close()
    _become_training(told, files[1])


def _bury(running: dict[int, socket.socket]) -> None:
    """Tell how those ended that have."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        with running.pop(pid) as line, suppress(OSError):
            line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _read(line: socket.socket) -> dict[str, Any]:
    told = b""
    while not told.endswith(b"\n") and (more := line.recv(65536)):
        told += more
    return dict(orjson.loads(told))


def _become_training(told: dict[str, Any], out: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, out, out)):
        os.dup2(file, number)
    os.close(nothing)
    os.close(out)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = ["useg", "train", *told["words"]]
    _show([sys.executable, "-m", *sys.argv])
    try:
        runpy.run_module("useg", run_name="__main__", alter_sys=True)
    finally:
        gc.unfreeze()  # some libraries complain of what nobody collected


def _show(line: Sequence[str]) -> None:
    """Have the system show another command line for this process, as far as there is room."""
    with suppress(OSError):
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        begin, end = int(stat[45]), int(stat[46])
        shown = b"\0".join(os.fsencode(word) for word in line)[: end - begin - 1]
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            memory.write(shown.ljust(end - begin, b"\0"))


__all__ = ["Forked", "begin_training", "serve"]
