"""The folder of a run: where each of its files lies, and the record of what went in and came out."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home.folder import write_atomically
from useg.home.store import Folder, Store
from useg.runs.journal import Event, read_journal
from useg.runs.numbers import from_json, to_json

_ENTRY = re.compile(r"runs/[^/]+/record/(\d{8})")
_TRIES = 100


def read_record(store: Store, run: str) -> dict[str, Any]:
    """What went into a run and what came out: its entries in their order, the later ones over the earlier ones.

    Args:
        store: the home.
        run: id of the run.

    Raises:
        DamagedFile: there is no record, or an entry is not JSON.
    """
    found: dict[str, Any] = {}
    keys = [entry.key for entry in store.list(f"runs/{run}/record/") if _ENTRY.fullmatch(entry.key)]
    for key in _whole_record(store, run) + keys:
        try:
            found |= from_json(store.get(key))
        except (ValueError, TypeError) as error:
            raise DamagedFile(f"{store.url}/{key}: not a JSON object: {error}") from error
    if not found:
        raise DamagedFile(f"{store.url}/runs/{run}: not a run: it has no record")
    return found


def append_record(store: Store, run: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Write the next entry of a run's record; returns the whole record.

    Raises:
        ResourceError: the home cannot be written. DamagedFile: an earlier entry is not JSON.
    """
    content = _json(changes)
    for _ in range(_TRIES):
        numbers = [
            int(match[1]) for entry in store.list(f"runs/{run}/record/") if (match := _ENTRY.fullmatch(entry.key))
        ]
        if store.put(f"runs/{run}/record/{max(numbers, default=0) + 1:08d}", content):
            return read_record(store, run)
    raise ResourceError(f"{store.url}/runs/{run}: others wrote its record {_TRIES} times in between")


def _whole_record(store: Store, run: str) -> list[str]:
    """The record of runs of before the entries had numbers."""
    return [entry.key for entry in store.list(f"runs/{run}/record.json")]


def _json(content: Any) -> bytes:
    return to_json(content, orjson.OPT_INDENT_2) + b"\n"


@dataclass(frozen=True)
class RunFolder:
    """`HOME/runs/<id>/` and what is in it; every file is written whole or not at all.

    Attributes:
        path: the folder; its name is the run's id.
    """

    path: Path

    @property
    def id(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def home(self) -> Path:
        """The home that the run lies in."""
        return self.path.parent.parent

    @property
    def bundle(self) -> Path:
        """The trained model."""
        return self.path / "model.useg"

    @property
    def plan(self) -> Path:
        """The frozen plan."""
        return self.path / "plan.toml"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.path / "report.html"

    def journal(self) -> list[Event]:
        """What happened, as one continuous history over all attempts."""
        return read_journal(self.path)

    def record(self) -> dict[str, Any]:
        """What went in and what came out.

        Raises:
            DamagedFile: there is no record, or it is not JSON.
        """
        return read_record(Folder(self.home), self.id)

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change some fields of the record; returns it."""
        return append_record(Folder(self.home), self.id, changes)

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote; NaN and infinities are what they were.

        Raises:
            DamagedFile: it is not there, or not JSON.
        """
        path = self.path / name
        try:
            return from_json(path.read_bytes())
        except FileNotFoundError:
            raise DamagedFile(f"{path} is missing, so this run cannot go on; begin a new one") from None
        except orjson.JSONDecodeError as error:
            raise DamagedFile(f"{path}: not JSON: {error}; this run cannot go on, begin a new one") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write one JSON file, readable for people."""
        write_atomically(self.path / name, _json(content))

    def write_text(self, name: str, content: str) -> None:
        """Write one text file."""
        write_atomically(self.path / name, content.encode())


def check_tags(tags: Iterable[str]) -> None:
    """Refuse what cannot be a tag of a run.

    Raises:
        InputError: it is empty or too long, or has spaces, commas or quotes.
    """
    for word in tags:
        if not re.fullmatch(r"[^\W_][^\s,'\"]{0,99}", word):
            raise InputError(f"{word!r} cannot be a tag: wanted up to 100 signs without spaces, commas and quotes")


def now() -> str:
    """The time, for people: ISO 8601 with the zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
