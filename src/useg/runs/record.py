"""The folder of a run: where each of its files lies, and the record of what went in and came out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from useg.errors import DamagedFile
from useg.home.folder import write_atomically
from useg.runs.journal import Event, read_journal


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
        path = self.path / "record.json"
        try:
            record: dict[str, Any] = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            raise DamagedFile(f"{self.path}: not a run: it has no record.json") from None
        except orjson.JSONDecodeError as error:
            raise DamagedFile(f"{path}: not JSON: {error}") from error
        return record

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change some entries of the record."""
        record = (self.record() if (self.path / "record.json").exists() else {}) | changes
        self.write_json("record.json", record)
        return record

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote.

        Raises:
            DamagedFile: it is not there, or not JSON.
        """
        path = self.path / name
        try:
            return orjson.loads(path.read_bytes())
        except FileNotFoundError:
            raise DamagedFile(f"{path} is missing, so this run cannot go on; begin a new one") from None
        except orjson.JSONDecodeError as error:
            raise DamagedFile(f"{path}: not JSON: {error}; this run cannot go on, begin a new one") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write one JSON file, readable for people."""
        options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        write_atomically(self.path / name, orjson.dumps(content, option=options, default=str) + b"\n")

    def write_text(self, name: str, content: str) -> None:
        """Write one text file."""
        write_atomically(self.path / name, content.encode())


def now() -> str:
    """The time, for people: ISO 8601 with the zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
