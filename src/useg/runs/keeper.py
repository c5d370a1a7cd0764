"""The small process beside a trainer: how it is started, told of the end, and replaced when it is killed.

It has a session of its own, so that neither Ctrl-C nor the end of the trainer's process group takes it along, and is
handed a pidfd of the trainer, which no later process of the same number can be taken for. Through a socket the trainer
says when it is done; of a trainer that ends without a word the pidfd tells, and the kernel tells how it ended. When the
keeper is killed, training goes on, and a thread of the trainer starts another one. `keeping.py` is what it does.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import orjson

from useg.home.folder import writing
from useg.runs.keeping import DONE, DRAINED, Task
from useg.runs.lease import INTERVAL_S
from useg.runs.logs import Output

MOST_RESTARTS = 5
"""So often a keeper that was killed is replaced."""
_SOURCE = str(Path(__file__).parents[2])
_PROGRAM = (
    "import sys; source = sys.argv.pop(1); source in sys.path or sys.path.insert(0, source); "
    "from useg.runs.keeping import main; sys.exit(main(sys.argv[1:]))"
)


class Keeper:
    """A trainer's hold on its keeper; see `start_keeper`."""

    def __init__(self, attempt: Path, run: str, home: str, pid: int, output: Output | None, interval_s: float) -> None:
        self._attempt, self._run, self._home, self._watched = attempt, run, home, pid
        self._output, self._interval_s = output, interval_s
        self._owner = os.getpid()
        self._is_closing = False
        self._lock = Lock()
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._pidfd = None
        self._process, self._control = self._start()
        self._guard = Thread(target=self._watch_over, name="useg-keeper", daemon=True)
        self._guard.start()
        atexit.register(self._leave)

    @property
    def pid(self) -> int | None:
        """The keeper's process; None when there is none any more."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def close(self, status: str, *, wait_s: float = 60.0) -> bool:
        """Say that the trainer is done, and wait until everything is in the home.

        Args:
            status: "finished", "stopped" or "failed", as the record has it.
            wait_s: for how long to wait; the keeper then goes on alone.

        Returns:
            Whether everything is there; also False when there is no keeper any more.
        """
        is_done = self._end({"status": status}, DONE, wait_s)
        atexit.unregister(self._leave)
        return is_done

    def _leave(self) -> None:
        """Say that the process ends by itself, though nobody closed this; called when the interpreter ends."""
        self._end({"leaving": True}, DRAINED, 2.0)

    def _end(self, word: dict[str, Any], answer: bytes, wait_s: float) -> bool:
        if os.getpid() != self._owner:
            return False
        with self._lock:
            if self._is_closing:
                return False
            self._is_closing = True
        if self._output is not None:
            self._output.restore()
        is_answered = self._ask(word, answer, wait_s)
        if is_answered is None and self.pid is None:  # killed just now: another one brings the rest home
            self._control.close()
            self._process, self._control = self._start()
            is_answered = self._ask(word, answer, wait_s)
        self._control.close()
        if answer == DONE:
            if self._output is not None:
                self._output.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
        return bool(is_answered)

    def _ask(self, word: dict[str, Any], answer: bytes, wait_s: float) -> bool | None:
        """Whether the keeper answered in time; None when it is not there."""
        try:
            self._control.settimeout(wait_s)
            self._control.sendall(orjson.dumps(word) + b"\n")
            while heard := self._control.recv(64):
                if answer in heard:
                    return True
        except TimeoutError:
            return False
        except OSError:
            pass
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        return None

    def _start(self) -> tuple[subprocess.Popen[bytes] | None, socket.socket]:
        mine, its = socket.socketpair()
        with its:
            channels = [] if self._output is None else self._output.channels
            task = Task(
                str(self._attempt), self._run, self._home, self._watched, self._pidfd, its.fileno(),
                tuple((channel.reading, channel.onto) for channel in channels), self._interval_s,
            )  # fmt: skip
            handed = {its.fileno(), *(fd for pair in task.channels for fd in pair)}
            # it begins with these blocked, and ends with the trainer, whatever else is being ended
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            try:
                process = subprocess.Popen(
                    # -P: nothing in the folder where the user stands is imported instead of what is meant
                    [sys.executable, "-P", "-c", _PROGRAM, _SOURCE, orjson.dumps(asdict(task)).decode()],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=[*handed, *([] if self._pidfd is None else [self._pidfd])], start_new_session=True,
                )  # fmt: skip
            except OSError:
                process = None
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process, mine

    def _watch_over(self) -> None:
        for restart in range(MOST_RESTARTS + 1):
            if self._process is not None:
                self._process.wait()
            if restart and not self._is_closing:
                time.sleep(0.1 * 2**restart)
            with self._lock:
                if self._is_closing:
                    break
                if restart == MOST_RESTARTS:
                    self._give_up()
                    return
                self._control.close()
                self._process, self._control = self._start()
            if restart == 0:  # not before: until there is a keeper, the warning itself may have to wait to be shown
                _warn(f"the keeper of run {self._run} was ended; another one was started, training goes on")
        if self._process is not None:
            self._process.wait()

    def _give_up(self) -> None:
        if self._output is not None:
            self._output.restore()
            self._output.close()
        _warn(f"run {self._run} has no keeper any more and may be shown as dead; training goes on")


def start_keeper(
    attempt: Path,
    *,
    run: str,
    home: str | Path,
    pid: int | None = None,
    keep_output: bool = True,
    interval_s: float = INTERVAL_S,
) -> Keeper:
    """Start a keeper for an attempt that this process has claimed.

    Args:
        attempt: its folder on this machine, in the folder of the run; its name is its number.
        run: the run's id.
        home: where the run belongs; what is not there yet is brought there.
        pid: the trainer, if it is not this process.
        keep_output: whether stdout and stderr of this process are kept in `log.txt` until the keeper is closed; of
            several at a time only the first one's are.
        interval_s: how often the lease is renewed and the system sampled.

    Returns:
        What to `close` at the end. Where no keeper can be started training goes on, after a warning.

    Raises:
        ResourceError: the attempt's folder cannot be made.
    """
    with writing(attempt):
        attempt.mkdir(parents=True, exist_ok=True)
    output = Output() if keep_output and not Output.is_active else None
    where = str(home) if isinstance(home, str) and ":" in home else str(Path(home).absolute())
    return Keeper(attempt.absolute(), run, where, pid or os.getpid(), output, interval_s)


def _warn(text: str) -> None:
    with suppress(OSError, ValueError):
        print(f"warning: {text}", file=sys.stderr, flush=True)


__all__ = ["Keeper", "start_keeper"]
