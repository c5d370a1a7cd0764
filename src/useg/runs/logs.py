"""Stdout and stderr of a process, also of its C code and its children, kept in a file while they are shown as ever.

The descriptors 1 and 2 are made to lead to the keeper, which copies what comes to where it went before and to the log.
The other ways were found wanting. A thread of the trainer that copies waits for the interpreter's lock, so that C code
which holds the lock and fills the pipe would wait for ever; and what is in the pipe is lost by kill -9. Writing to the
file and showing that would kill the trainer when the disk is full. A pipe would be no terminal, without bars of
progress: where a terminal was, there is a pseudo-terminal now. Where both descriptors lead to one place they share a
channel, so that their order is exact; else it is that in which the keeper reads them.

The trainer keeps the reading end open, too: when the keeper dies, what is printed waits there for the next one, up to
a mebibyte before somebody has to wait. A process that the trainer leaves behind can print until the keeper is gone, and
then finds that nobody reads.
"""

import fcntl
import os
import pty
import select
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import ClassVar

from useg.runs.folding import Folding

LARGEST_LOG = 16 * 2**20
"""Bytes of a log; of a longer one the first half and the last quarter are kept."""
_PIPE_BYTES = 2**20
_SET_PIPE_SIZE = 1031
_WINDOW_BYTES = 8


@dataclass(frozen=True)
class Channel:
    """What was put in the way of some descriptors.

    Attributes:
        reading: where what they were given comes out.
        onto: a copy of what they led to before.
        streams: the descriptors.
    """

    reading: int
    onto: int
    streams: tuple[int, ...]


class Output:
    """Stdout and stderr of this process, led to a keeper until `restore`.

    Attributes:
        channels: for the keeper to read.
        is_active: whether one of this process is in use; there can be no second one.
    """

    is_active: ClassVar[bool] = False

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        Output.is_active = True
        _flush()
        for streams in _places():
            onto = os.dup(streams[0])
            try:
                reading, writing = _pseudo_terminal(onto) if os.isatty(onto) else _pipe()
            except OSError:  # no such thing is left: these go on as they were, and are not kept
                os.close(onto)
                continue
            for stream in streams:
                os.dup2(writing, stream)
            os.close(writing)
            self.channels.append(Channel(reading, onto, streams))

    def restore(self) -> None:
        """Let the descriptors lead to where they led before; children go on to lead to the keeper."""
        _flush()
        Output.is_active = False
        for channel in self.channels:
            for stream in channel.streams:
                os.dup2(channel.onto, stream)

    def close(self) -> None:
        """Let go of the other end, once nobody prints to it; until then a thread shows what children print."""
        channels, self.channels = self.channels, []
        Thread(target=_show_rest, args=(channels,), name="useg-output", daemon=True).start()


def _show_rest(channels: Sequence[Channel]) -> None:
    pump = Pump(channels, None)
    pump.run()
    pump.close()
    for channel in channels:
        os.close(channel.reading)
        os.close(channel.onto)


class Log:
    """A file of text that is bounded, and only ever grows; its lines may come from several threads.

    Args:
        file: where it lies. What comes after the first half waits in hidden files beside it until `close`.
        largest: bytes.
    """

    def __init__(self, file: Path, largest: int = LARGEST_LOG) -> None:
        self.file, self._largest = file, largest
        self._last, self._before = file.with_name(f".{file.name}-last"), file.with_name(f".{file.name}-before")
        self._lock = Lock()
        self._missing = 0

    def write(self, lines: bytes) -> None:
        """Add whole lines; a full disk costs them, is told of when there is space again, and raises nothing."""
        if not lines:
            return
        with self._lock:
            try:
                if self._missing:
                    self._append(b"[useg: %d bytes could not be kept here: the disk was full]\n" % self._missing)
                    self._missing = 0
                self._append(lines)
            except OSError:
                self._missing += len(lines)

    def close(self) -> None:
        """Add what waits beside the file; may be called again."""
        with self._lock, suppress(OSError):
            kept = [file.read_bytes() for file in (self._before, self._last) if file.exists()]
            if kept:
                _add(self.file, b"[useg: some lines are left out here]\n" + b"".join(kept))
            self._last.unlink(missing_ok=True)
            self._before.unlink(missing_ok=True)

    def tail(self, count: int = 20) -> list[str]:
        """The last lines, each cut to 1000 characters."""
        for file in (self._last, self.file):
            with suppress(OSError), file.open("rb") as opened:
                opened.seek(max(0, os.fstat(opened.fileno()).st_size - 64 * 1024))
                return [line[:1000] for line in opened.read().decode(errors="replace").splitlines()[-count:]]
        return []

    def _append(self, lines: bytes) -> None:
        if not self._last.exists() and _size(self.file) + len(lines) <= self._largest // 2:
            _add(self.file, lines)
            return
        if _size(self._last) + len(lines) > self._largest // 4 and self._last.exists():
            os.replace(self._last, self._before)
        _add(self._last, lines[-self._largest // 4 :])


class Pump(Thread):
    """Copies what comes out of channels to where it went before, and to a log.

    Args:
        channels: to read.
        log: None to keep nothing.
    """

    def __init__(self, channels: Sequence[Channel], log: Log | None) -> None:
        super().__init__(name="useg-output", daemon=True)
        self._log = log
        self._channels = {channel.reading: channel for channel in channels}
        self._foldings = {channel.reading: Folding() for channel in channels}
        self._shown = set(self._channels)
        self._windows: dict[int, bytes] = {}
        self._waking, self._wake = os.pipe()

    def run(self) -> None:
        """Copy until `drain`, or until nobody can print any more."""
        poll = select.poll()
        for reading in (self._waking, *self._channels):
            poll.register(reading, select.POLLIN)
        is_ending, left = False, len(self._channels)
        while left:
            ready = [reading for reading, _ in poll.poll(0 if is_ending else None)]
            if self._waking in ready:
                poll.unregister(self._waking)
                is_ending = True
                continue
            if not ready and is_ending:
                break
            for reading in ready:
                if not self._copy(reading):
                    poll.unregister(reading)
                    left -= 1
        for folding in self._foldings.values():
            self._keep(folding.close())

    def drain(self, timeout_s: float = 2.0) -> None:
        """Copy what there still is, then let go of where it was shown, so that nobody waits for its end."""
        if self.is_alive():
            os.write(self._wake, b".")
            self.join(timeout_s)
        if self.is_alive():
            return  # a terminal that somebody has halted; what it still gets is in the log
        for channel in self._channels.values():
            os.close(channel.onto)
        self._channels, self._shown = {}, set()

    def close(self) -> None:
        """Let go of what only a running pump needs."""
        for end in (self._waking, self._wake):
            os.close(end)

    def _copy(self, reading: int) -> bool:
        """Copy what is there; False when nothing can come any more."""
        try:
            content = os.read(reading, 64 * 1024)
        except OSError:  # a pseudo-terminal that nobody has open any more
            content = b""
        self._keep(self._foldings[reading].feed(content))
        if reading in self._shown:
            self._fit_window(reading)
            if not _show(self._channels[reading].onto, content):
                self._shown.discard(reading)
        return bool(content)

    def _keep(self, lines: bytes) -> None:
        if self._log is not None:
            self._log.write(lines)

    def _fit_window(self, reading: int) -> None:
        """Tell a pseudo-terminal how large the terminal has become."""
        onto = self._channels[reading].onto
        with suppress(OSError):
            if os.isatty(onto) and os.isatty(reading):
                window = fcntl.ioctl(onto, termios.TIOCGWINSZ, bytes(_WINDOW_BYTES))
                if self._windows.get(reading) != window:
                    fcntl.ioctl(reading, termios.TIOCSWINSZ, window)
                    self._windows[reading] = window


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.flush()


def _places() -> list[tuple[int, ...]]:
    """Stdout and stderr, together where they lead to one place, without what is closed."""
    places: dict[tuple[int, int], tuple[int, ...]] = {}
    for stream in (1, 2):
        with suppress(OSError):
            status = os.fstat(stream)
            place = (status.st_dev, status.st_ino)
            places[place] = (*places.get(place, ()), stream)
    return list(places.values())


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(reading, _SET_PIPE_SIZE, _PIPE_BYTES)
    return reading, writing


def _pseudo_terminal(like: int) -> tuple[int, int]:
    """A terminal of the size of another that changes nothing: what it is given comes out as it was."""
    reading, writing = pty.openpty()
    modes = termios.tcgetattr(writing)
    modes[1] &= ~termios.OPOST
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(writing, termios.TCSANOW, modes)
    with suppress(OSError):
        fcntl.ioctl(reading, termios.TIOCSWINSZ, fcntl.ioctl(like, termios.TIOCGWINSZ, bytes(_WINDOW_BYTES)))
    return reading, writing


def _show(onto: int, content: bytes) -> bool:
    """Write all of it; False when nobody looks any more."""
    while content:
        try:
            content = content[os.write(onto, content) :]
        except BlockingIOError:
            select.select([], [onto], [])
        except OSError:
            return False
    return True


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _add(file: Path, lines: bytes) -> None:
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        while lines:
            lines = lines[os.write(opened, lines) :]
    finally:
        os.close(opened)


__all__ = ["LARGEST_LOG", "Channel", "Log", "Output", "Pump"]
