"""How a process ended that is no child of ours: exit code, signal, memory; None for what cannot be known."""

import fcntl
import os
import re
import select
import signal
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GET_INFO = 0xC040FF0B
"""Linux 6.15 and later tell by this request how a process ended, also when its parent has long asked."""
_INFO = struct.Struct("QQ11Ii")
_INFO_EXIT = 1 << 3
_EXIT_CODE_FIELD = 52
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
_KILLED = re.compile(rb"Killed process (\d+) ")


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        exit_code: 0 to 255; None when a signal ended it, or when it is not known.
        signal: the name of the signal that ended it, `SIGKILL`; None when none did, or when it is not known.
        out_of_memory: whether the kernel killed it for its memory; None when nothing that tells could be read.
    """

    exit_code: int | None
    signal: str | None
    out_of_memory: bool | None


class Watched:
    """A process that is watched until it ends, without mistaking a later one of the same number for it.

    Args:
        pid: its number.
        pidfd: what `os.pidfd_open` gave to somebody who knew the process for certain; None where there is no such.
    """

    def __init__(self, pid: int, pidfd: int | None) -> None:
        self.pid, self.pidfd = pid, pidfd
        self._stat = _opened(f"/proc/{pid}/stat", os.O_RDONLY)
        self._counter = _counter(pid)
        self._kills_before = _kills(self._counter)
        self._log = _opened("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK) if _is_first_namespace() else None
        if self._log is not None:
            os.lseek(self._log, 0, os.SEEK_END)
        self._process = None
        if pidfd is None:
            import psutil

            with suppress(psutil.NoSuchProcess):
                self._process = psutil.Process(pid)

    def has_ended(self) -> bool:
        """Whether the process is over; one that is suspended is not."""
        if self.pidfd is not None:
            return bool(select.select([self.pidfd], [], [], 0)[0])
        return self._process is None or not self._process.is_running() or self._process.status() == "zombie"

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process is over, or another user's."""
        with suppress(OSError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            elif not self.has_ended():
                os.kill(self.pid, number)

    def ending(self) -> Ending:
        """How it ended; to be asked once it has, and soon: old kernels forget when the parent has asked."""
        status = self._wait_status()
        if status is None:
            return Ending(None, None, self._was_out_of_memory() or None)
        if os.WIFSIGNALED(status):
            name = _name(os.WTERMSIG(status))
            return Ending(None, name, self._was_out_of_memory() if name == "SIGKILL" else False)
        return Ending(os.WEXITSTATUS(status), None, False)

    def _wait_status(self) -> int | None:
        """What `wait` tells the parent."""
        # the parent may ask between the two: before that the one tells, after that the other
        for ask in (self._told_by_pidfd, self._told_by_stat, self._told_by_pidfd):
            with suppress(OSError):
                status = ask()
                if status is not None:
                    return status
        return None

    def _told_by_pidfd(self) -> int | None:
        if self.pidfd is None:
            return None
        answer = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
        fcntl.ioctl(self.pidfd, _GET_INFO, answer)
        mask, *_, status = _INFO.unpack(answer)
        return int(status) if mask & _INFO_EXIT else None

    def _told_by_stat(self) -> int | None:
        if self._stat is None:
            return None
        # the name of the program stands in brackets and may itself have brackets and spaces
        fields = os.pread(self._stat, 4096, 0).rpartition(b")")[2].split()
        return int(fields[_EXIT_CODE_FIELD - 3]) if fields[0] in (b"Z", b"X") else None

    def _was_out_of_memory(self) -> bool | None:
        kills = _kills(self._counter)
        if kills is not None and self._kills_before is not None and kills > self._kills_before:
            return True
        told = None
        if self._log is not None:
            told = self.pid in _killed(self._log)
        return told if told or kills is None else False


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _opened(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None


def _is_first_namespace() -> bool:
    """Whether the kernel's log speaks of processes by the numbers that they have here."""
    try:
        return os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def _counter(pid: int) -> Path | None:
    """The file in which the kernel counts what it killed for memory in the group of this process."""
    try:
        groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    except OSError:
        return None
    root = Path("/sys/fs/cgroup")
    places = {"": (root, "memory.events"), "memory": (root / "memory", "memory.oom_control")}
    for _, controllers, path in groups:
        for controller in places.keys() & controllers.split(","):
            mounted, name = places[controller]
            # in a container the path may be told as it is outside
            for place in (mounted / path.lstrip("/") / name, mounted / name):
                if _kills(place) is not None:
                    return place
    return None


def _kills(counter: Path | None) -> int | None:
    if counter is None:
        return None
    try:
        rows = dict(line.split(" ", 1) for line in counter.read_text().splitlines())
        return int(rows["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None


def _killed(log: int) -> set[int]:
    """The processes that were killed for memory since the kernel's log was opened."""
    found: set[int] = set()
    while True:
        try:
            record = os.read(log, 8192)
        except BrokenPipeError:  # so much was logged that the first of it is gone
            continue
        except OSError:
            return found
        if not record:
            return found
        found.update(int(pid) for pid in _KILLED.findall(record))


__all__ = ["Ending", "Watched"]
