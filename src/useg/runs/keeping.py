"""What the keeper's process does: renews the lease, ships the journal, keeps the output, writes down the end."""

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import orjson

from useg.errors import UsegError
from useg.home.folder import write_atomically
from useg.home.store import Folder, Store, open_store
from useg.runs.ending import Ending, Watched
from useg.runs.lease import Lease
from useg.runs.logs import Channel, Log, Pump
from useg.runs.shipping import Shipper
from useg.runs.system import Sampler, add_sample

SHIP_S = 1.0
FILES_S = 5.0
GIVE_UP_S = 3600.0
"""For so long after the trainer's end a home that does not answer is asked again."""
DRAINED, DONE = b"d", b"."
"""What a keeper answers: all output is shown and kept; everything is in the home."""
_LONGEST_PAUSE_S = 30.0
_ASK_S = 2.0


@dataclass(frozen=True)
class Task:
    """What a keeper has to do; one JSON word on its command line.

    Attributes:
        attempt: the attempt's folder on this machine; its name is its number.
        run: the run's id.
        home: where the run belongs.
        pid: of the trainer.
        pidfd: of the trainer, inherited; None where the system has no such.
        control: a socket to the trainer, inherited.
        channels: of the trainer's output: (reading, onto), inherited.
        interval_s: how often the lease is renewed and the system sampled.
    """

    attempt: str
    run: str
    home: str
    pid: int
    pidfd: int | None
    control: int
    channels: tuple[tuple[int, int], ...]
    interval_s: float


class Keeping:
    """The work of one keeper.

    Args:
        task: what to do.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._attempt = Path(task.attempt)
        self._watched = Watched(task.pid, task.pidfd)
        self._control = socket.socket(fileno=task.control)
        self._log = Log(self._attempt / "log.txt")
        self._pump = Pump([Channel(reading, onto, ()) for reading, onto in task.channels], self._log)
        self._over, self._is_done = Flag(), Flag()
        self._is_shipped = False
        self._word: dict[str, Any] | None = None
        self._ending: Ending | None = None

    def keep(self) -> None:
        """Until the trainer is done or over, and everything is in the home."""
        self._pump.start()
        _, shipping = (self._thread(work) for work in (self._renew, self._ship))
        Thread(target=self._sample, name="system", daemon=True).start()
        self._watch()
        self._write_end()
        self._over.set()
        shipping.join()
        self._is_done.set()
        if self._is_shipped:
            self._answer(DONE)

    def _thread(self, work: Callable[[], None]) -> Thread:
        """Start a thread whose failure ends the whole process, so that another one is started."""

        def guarded() -> None:
            try:
                work()
            except BaseException:
                _tell_failure(self._log)
                os._exit(1)

        thread = Thread(target=guarded, name=work.__name__, daemon=True)
        thread.start()
        return thread

    def _sample(self) -> None:
        """Sample the system until the trainer is over."""
        sampler = Sampler(self._task.pid, self._attempt, interval_s=self._task.interval_s)
        while not self._over.wait(self._task.interval_s):
            add_sample(self._attempt / "system.jsonl", sampler.sample())
        sampler.close()

    def _watch(self) -> None:
        """Wait until the trainer says that it is done, or is over."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if self._task.pidfd is not None:
            poll.register(self._task.pidfd, select.POLLIN)
        heard = b""
        while not self._watched.has_ended() and self._word is None:
            ready = [fd for fd, _ in poll.poll(None if self._task.pidfd is not None else 1000)]
            if self._control.fileno() in ready:
                content = self._hear()
                heard += content
                if not content:
                    poll.unregister(self._control)
                self._obey(heard)
        if self._word is None:
            self._obey(heard + self._hear())  # the last word of a process that did not wait for an answer
        if self._word is None:
            self._ending = self._watched.ending()

    def _hear(self) -> bytes:
        try:
            return self._control.recv(4096, socket.MSG_DONTWAIT)
        except OSError:
            return b""

    def _obey(self, heard: bytes) -> None:
        if not heard.endswith(b"\n") or self._word is not None:
            return
        word = orjson.loads(heard.splitlines()[-1])
        if "status" in word:
            self._word = word
        else:
            self._pump.drain()
            self._answer(DRAINED)

    def _answer(self, word: bytes) -> None:
        with suppress(OSError):
            self._control.send(word, socket.MSG_NOSIGNAL)

    def _write_end(self) -> None:
        self._pump.drain()
        self._log.close()
        ending = self._ending or Ending(None, None, False)
        end = {
            "exit_code": ending.exit_code,
            "signal": ending.signal,
            "out_of_memory": ending.out_of_memory,
            "status": self._word["status"] if self._word else None,
            "log_tail": self._log.tail(),
            "step": _last_step(self._attempt),
            "time": time.time(),
        }
        with suppress(UsegError):
            write_atomically(self._attempt / "end.json", orjson.dumps(end, option=orjson.OPT_INDENT_2) + b"\n")

    def _renew(self) -> None:
        lease: Lease | None = None
        is_asked, due = False, 0.0
        failing = _Failing(self._log)
        while not self._is_done.is_set():
            with failing:
                lease = lease or Lease(
                    open_store(self._task.home), self._task.run, int(self._attempt.name),
                    interval_s=self._task.interval_s,
                )  # fmt: skip
                if time.monotonic() >= due:
                    lease.renew()
                    due = time.monotonic() + self._task.interval_s
                if not is_asked and not self._over.is_set() and lease.is_asked_to_stop():
                    self._log.write(b"[useg: this attempt was asked to stop]\n")
                    self._watched.send(signal.SIGTERM)
                    is_asked = True
            self._is_done.wait(min(_ASK_S, self._task.interval_s))

    def _ship(self) -> None:
        failing, due = _Failing(self._log), 0.0
        shipper: Shipper | None = None
        while not self._over.is_set():
            begun = time.monotonic()
            with failing:
                if shipper is None:
                    store = open_store(self._task.home)
                    if _is_home_of(store, self._attempt):
                        self._is_shipped = True
                        return
                    shipper = Shipper(self._attempt.parents[1], int(self._attempt.name), store, self._task.run)
                shipper.ship_growing()
                if begun >= due:
                    shipper.ship_files()
                    due = begun + FILES_S
            self._over.wait(max(failing.pause_s, begun + SHIP_S - time.monotonic()))
        until = time.monotonic() + GIVE_UP_S
        while time.monotonic() < until and shipper is not None:
            with failing:
                if self._ending is not None and (self._attempt / "end.json").exists():
                    # nobody else says that the run is dead
                    shipper.ship_file(f"attempts/{self._attempt.name}/end.json")
                shipper.finish()
                self._is_shipped = True
                return
            time.sleep(failing.pause_s)


class _Failing:
    """Errors of a home that does not answer: told once in the log, waited for longer and longer."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.pause_s = 0.0

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            if self.pause_s:
                self._log.write(b"[useg: the home answers again]\n")
            self.pause_s = 0.0
            return False
        if not isinstance(error, UsegError | OSError):
            return False
        if not self.pause_s:
            self._log.write(f"[useg: {error}; it is tried again]\n".encode())
        self.pause_s = min(_LONGEST_PAUSE_S, 2 * self.pause_s or 1.0)
        return True


def _is_home_of(store: Store, attempt: Path) -> bool:
    """Whether the attempt's folder lies in the home itself, so that nothing needs to be brought there."""
    if not isinstance(store, Folder):
        return False
    return attempt.parents[1].resolve() == (store.root / "runs" / attempt.parents[1].name).resolve()


def _last_step(attempt: Path) -> int | None:
    """The highest step of the newest events; those of a run in folds are in the folds' own journals."""
    files = [attempt / "journal.jsonl", *attempt.parents[1].glob("folds/*/attempts/*/journal.jsonl")]
    for file in sorted(filter(Path.exists, files), key=lambda each: each.stat().st_mtime_ns, reverse=True):
        with file.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - 2**20))
            for line in reversed(opened.read().split(b"\n")):
                with suppress(orjson.JSONDecodeError, AttributeError):
                    step = orjson.loads(line).get("step")
                    if isinstance(step, int):
                        return step
    return None


def main(words: list[str]) -> int:
    """Keep, as the one word says; the trainer starts this."""
    task = Task(**orjson.loads(words[0]))
    try:
        Keeping(task).keep()
    except BaseException:
        _tell_failure(Log(Path(task.attempt) / "log.txt"))
        os._exit(1)
    return 0


def _tell_failure(log: Log) -> None:
    log.write(b"[useg: the keeper failed]\n" + traceback.format_exc().encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
