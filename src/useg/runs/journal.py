"""What happened in a run, in order: one JSON line an event, written before the call returns."""

import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from useg.errors import ResourceError
from useg.home.folder import writing

Event = dict[str, Any]
LONGEST_TEXT = 100_000
LONGEST_LINE = 2**20
"""Bytes; texts of an event beyond that are cut to `LONGEST_TEXT` characters."""

_FSYNC_EVERY_S = 1.0
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Journal:
    """The append-only event file of one attempt of a run; may be used from several threads.

    Each event is one `write`, so that a killed process loses nothing it reported. A thread brings what was written to
    the disk once a second: whoever writes waits for no disk. While the disk is full events are lost, and as soon as
    one can be written again, an event `gap` before it says how many. Of a file that is there, a last line that a crash
    has torn is left as it is.

    Args:
        path: of the file.
        warn: told once, when the first event is lost.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.path, self._warn = path, warn
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            size = os.fstat(self._file).st_size
            self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self._lock = threading.Lock()
        self._lost = 0
        self._warned = False
        self._fresh, self._closed = threading.Event(), threading.Event()
        self._syncing = threading.Thread(target=self._sync, name="journal", daemon=True)
        self._syncing.start()

    def write(self, event: Event, *, sync: bool = False) -> None:
        """Append one event.

        Args:
            event: what happened; NumPy's numbers are understood, and so are NaN and infinities.
            sync: it must be on the disk when this returns.

        Raises:
            ResourceError: with `sync`, it could not be written.
        """
        line = _encoded(event)
        with self._lock:
            try:
                if self._lost:
                    self._append(_encoded({"event": "gap", "lost": self._lost}))
                    self._lost = 0
                self._append(line)
                if sync:
                    os.fsync(self._file)
            except OSError as error:
                self._lost += not sync
                problem = ResourceError(
                    f"{self.path}: cannot write: {error.strerror or error}; free space or give the permission back"
                )
                if sync:
                    raise problem from error
            else:
                self._fresh.set()
                return
        if not self._warned:
            self._warned = True
            self._warn(f"{problem}. Training goes on, and what is lost of its journal is marked there")

    def _append(self, line: bytes) -> None:
        rest = b"\n" + line if self._torn else line
        self._torn = True
        while rest:  # a disk that fills up takes the beginning of a line without an error
            rest = rest[os.write(self._file, rest) :]
        self._torn = False

    def _sync(self) -> None:
        while not self._closed.is_set():
            self._fresh.wait()
            self._fresh.clear()
            with suppress(OSError):  # the next event, or closing, says so
                os.fsync(self._file)
            self._closed.wait(_FSYNC_EVERY_S)

    def close(self) -> None:
        """Flush to the disk and close.

        Raises:
            ResourceError: it is not on the disk.
        """
        self._closed.set()
        self._fresh.set()
        self._syncing.join()
        with writing(self.path):
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)


def _encoded(event: Event) -> bytes:
    line = orjson.dumps(event, _plain, orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in line:  # so it writes NaN and infinities, too
        line = orjson.dumps(_sayable(event), _plain, orjson.OPT_SERIALIZE_NUMPY)
    if len(line) > LONGEST_LINE:
        line = orjson.dumps(_cut(event), _plain, orjson.OPT_SERIALIZE_NUMPY)
    return line + b"\n"


def _plain(value: Any) -> Any:
    """What JSON does not know: the number that a tensor of one holds, else its text."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 0) == 0 else str(value)


def _cut(value: Any) -> Any:
    """The same with long texts cut."""
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}... ({len(value)} characters)"
    return value


def _sayable(value: Any) -> Any:
    """The same with words for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _sayable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(each) for each in value]
    try:
        if isinstance(value, str) or value is None or math.isfinite(value):
            return value
    except TypeError:
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decoded(line: bytes) -> Event:
    """The event of a line.

    Raises:
        ValueError: it is not whole.
    """
    event: Event = orjson.loads(line)
    return _numbers(event) if b'NaN"' in line or b'Infinity"' in line else event


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def claim_attempt(run: Path) -> Path:
    """Make the next `attempts/<n>/` of a run; two processes never get the same one."""
    with writing(run):
        (run / "attempts").mkdir(exist_ok=True)
        number = 1 + max((int(p.name) for p in (run / "attempts").iterdir() if p.name.isdigit()), default=0)
        while True:
            folder = run / "attempts" / str(number)
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1


def read_attempt(path: Path) -> list[Event]:
    """The events of one journal file; a torn last line is left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    events = []
    for line in content.split(b"\n")[:-1]:
        try:
            events.append(decoded(line))
        except orjson.JSONDecodeError:
            continue  # cut short by a full disk; the event after it began a new line
    return events


def read_journal(run: Path) -> list[Event]:
    """One continuous history of a run: of steps done again after a resume, the later ones count."""
    history: list[Event] = []
    folders = [p for p in (run / "attempts").glob("*") if p.name.isdigit()]
    for folder in sorted(folders, key=lambda p: int(p.name)):
        for event in read_attempt(folder / "journal.jsonl"):
            if event.get("event") == "resumed":
                kept = event["step"]
                history = [e for e in history if e.get("step", 0) <= kept or e["event"] == "decision"]
            history.append(event)
    return history
