"""What happened in a run, in order: one JSON line an event, written before the call returns."""

import os
import time
from pathlib import Path
from typing import Any

import orjson

from useg.home.folder import writing

Event = dict[str, Any]
_FSYNC_EVERY_S = 1.0


class Journal:
    """The append-only event file of one attempt of a run.

    Each event is one `write`, so that a killed process loses nothing it reported; `fsync` is grouped,
    once a second.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._synced = time.monotonic()
        self._torn = False

    def write(self, event: Event, *, sync: bool = False) -> None:
        """Append one event; `sync` also waits until it is on the disk.

        Raises:
            ResourceError: the disk is full; the next event begins a new line, so that it is not lost, too.
        """
        line = orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        rest = b"\n" + line if self._torn else line
        with writing(self.path):
            self._torn = True
            while rest:  # a disk that fills up takes the beginning of a line without an error
                rest = rest[os.write(self._file, rest) :]
            self._torn = False
            if sync or time.monotonic() - self._synced > _FSYNC_EVERY_S:
                os.fsync(self._file)
                self._synced = time.monotonic()

    def close(self) -> None:
        """Flush to the disk and close."""
        with writing(self.path):
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)


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
            events.append(orjson.loads(line))
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
