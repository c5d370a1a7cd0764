"""The runs of a home as a table of this machine, in SQLite: made again from the files whenever it is lost.

    runs    a run: its id, what tells whether it changed, its status, and what is wrong with it
    facts   a value of one run by its dotted name
    shared  a value of a group of fields (settings, environment, ...) that many runs have in common
    uses    which run has which group

Besides the record there are `last.NAME`, the latest value of each name in the journal, and `seconds`, where the record
has none. The table lies in this machine's cache, one file a home. Whoever finds that runs have changed reads those
anew under a lock; whoever finds none takes no lock. What is damaged or of another format is thrown away; where the
cache cannot be written, the table is made in memory.
"""

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from useg.errors import ResourceError, UsegError
from useg.home.store import Store
from useg.runs.changes import NO_RECORD, pulse_of, signs_of
from useg.runs.facts import decoded, facts_in, facts_of

FORMAT = 1
"""Of the table; one of another format is made anew."""
ENDED = ("finished", "stopped", "failed")
_LOCK_S = 60.0
_AT_ONCE = 500
_FEW = 500
_NO_FAULT_OF_THE_FILE = ("BUSY", "LOCKED", "FULL", "READONLY", "CANTOPEN", "IOERR", "PERM", "NOLFS", "PROTOCOL")
_SCHEMA = f"""
CREATE TABLE runs (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, sign TEXT NOT NULL, pulse TEXT NOT NULL,
                   status TEXT NOT NULL, removed INTEGER NOT NULL, problem TEXT NOT NULL);
CREATE TABLE names (number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE facts (name INTEGER, run INTEGER, value, kind TEXT, PRIMARY KEY (name, run)) WITHOUT ROWID;
CREATE INDEX facts_of_run ON facts (run);
CREATE TABLE groups (number INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL);
CREATE TABLE shared (name INTEGER, part INTEGER, value, kind TEXT, PRIMARY KEY (name, part)) WITHOUT ROWID;
CREATE INDEX shared_of_group ON shared (part);
CREATE TABLE uses (run INTEGER, part INTEGER, PRIMARY KEY (run, part)) WITHOUT ROWID;
CREATE INDEX uses_of_group ON uses (part);
PRAGMA user_version = {FORMAT};
"""
_TABLES = ("runs", "names", "facts", "groups", "shared", "uses")

T = TypeVar("T")
Progress = Callable[..., None]


class Run(NamedTuple):
    """A run as the index knows it.

    Attributes:
        number: in this index.
        id: the name of its folder.
        status: `running`, `finished`, `stopped`, `failed` or `dead`; "" where it cannot be read.
        removed: whether it was taken away, until garbage is collected; 0 or 1.
        problem: why it cannot be read; "" when it can.
        sign: see `useg.runs.changes`.
        pulse: of one that had not ended.
    """

    number: int
    id: str
    status: str
    removed: int
    problem: str
    sign: str
    pulse: str


@dataclass(frozen=True)
class Refreshed:
    """What a look at the home changed.

    Attributes:
        read: runs that were read.
        gone: runs that are not there any more.
    """

    read: int
    gone: int


def asking(
    store: Store, action: "Callable[[Index], T]", *, rebuild: bool = False, progress: Progress | None = None
) -> T:
    """What an action makes of the index of a home, brought up to date before.

    Raises:
        ResourceError: the home does not answer. And what the action raises.
    """

    def asked(file: Path | None) -> T:
        with closing(Index(store, file)) as index:
            index.refresh(rebuild=rebuild, progress=progress)
            with index.unchanging():
                return action(index)

    file = index_file(store)
    for _ in range(2):
        try:
            return asked(file)
        except sqlite3.Error as error:
            name = str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")
            if not name.startswith(_NO_FAULT_OF_THE_FILE):
                _throw_away(file)
        except _Unusable:
            break
    return asked(None)


def index_file(store: Store) -> Path:
    """Where the index of a home lies."""
    from useg.home.cache import cache_folder

    return cache_folder() / "index" / f"runs-{hashlib.sha256(store.url.encode()).hexdigest()[:16]}.sqlite"


class _Unusable(Exception):
    """No index can be kept on this machine's disk just now."""


class Index:
    """The table of one home's runs.

    Args:
        store: the home.
        file: where the table is; None for one in memory.

    Raises:
        sqlite3.Error: it is damaged, or not to be had; `asking` knows what to do then.
    """

    def __init__(self, store: Store, file: Path | None) -> None:
        self.store, self._file = store, file
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _Unusable from error
        self._table = sqlite3.connect(file or ":memory:", timeout=_LOCK_S, isolation_level=None)
        self._numbers: dict[str, int] = {}
        self._runs: list[Run] | None = None
        try:
            if self._format() != FORMAT:
                with self._locked(), self._changing(is_new=self._format() != FORMAT):
                    pass
            self._table.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self._table.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()

    def _format(self) -> int:
        number: int = self._table.execute("PRAGMA user_version").fetchone()[0]
        return number

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Within, all that is asked is of one moment."""
        self._table.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self._table.execute("ROLLBACK")

    @contextmanager
    def _changing(self, *, is_new: bool) -> Iterator[None]:
        """All that is changed within, or nothing of it; beginning with an empty table if it is to be new."""
        with suppress(sqlite3.OperationalError):  # where the file system cannot, SQLite stays with its other way
            self._table.execute("PRAGMA journal_mode = WAL").fetchone()
        self._numbers, self._runs = {}, None
        self._table.execute("BEGIN IMMEDIATE")
        try:
            if is_new:
                for statement in (*(f"DROP TABLE IF EXISTS {name}" for name in _TABLES), *_SCHEMA.split(";")):
                    self._table.execute(statement)
            yield
            self._runs = None
            self._table.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._table.execute("ROLLBACK")
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one that writes; what is in memory needs no lock."""
        if self._file is None:
            yield
            return
        until = time.monotonic() + _LOCK_S
        try:
            lock = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _Unusable from error
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:  # somebody suspended it
                        raise _Unusable from None
                    time.sleep(0.01)
                except OSError as error:
                    raise _Unusable from error
            yield
        finally:
            os.close(lock)

    def refresh(self, *, rebuild: bool = False, progress: Progress | None = None) -> Refreshed:
        """Read the runs that changed since the last time, by whomever; all of them with `rebuild`.

        Raises:
            ResourceError: the home does not answer.
        """
        if not rebuild and not any(self._changes()[:3]):
            return Refreshed(0, 0)
        with self._locked(), self._changing(is_new=rebuild):
            changed, gone, statuses, signs = self._changes()
            self._forget(gone)
            for number, status in statuses:
                self._table.execute("UPDATE runs SET status = ? WHERE number = ?", (status, number))
            for start in range(0, len(changed), _AT_ONCE):
                self._add(changed[start : start + _AT_ONCE], signs)
                if progress is not None:
                    progress(min(start + _AT_ONCE, len(changed)), total=len(changed))
            return Refreshed(len(changed), len(gone))

    def _changes(self) -> tuple[list[str], list[int], list[tuple[int, str]], dict[str, str]]:
        """The ids of runs to read; numbers of those that are gone; statuses that are others now; all signs."""
        known = {run.id: run.sign for run in self.runs()}
        signs = signs_of(self.store, known)
        gone, changed, statuses = [], [], []
        if signs != known:
            gone = [run.number for run in self.runs() if run.id not in signs]
            changed = [name for name, sign in signs.items() if known.get(name) != sign]
        for run in self.runs():
            if run.status in ENDED or run.problem or signs.get(run.id) != run.sign:
                continue
            if pulse_of(self.store, run.id) != run.pulse:
                changed.append(run.id)
            elif run.status != "dead" and (status := _status(self.store, run.id)) != run.status:
                statuses.append((run.number, status))
        return changed, gone, statuses, signs

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            for table, column in (("facts", "run"), ("uses", "run"), ("runs", "number")):
                self._table.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))

    def _add(self, names: Sequence[str], signs: dict[str, str]) -> None:
        """Read some runs and put them in."""
        facts: list[tuple[int, int, Any, str | None]] = []
        for name in names:
            pulse = pulse_of(self.store, name)
            problem = "" if signs[name] != NO_RECORD else "no record in it"
            sign, status, found = signs[name], "", facts_of({}, {}, "")
            if not problem:
                try:
                    found = facts_of(*_read(self.store, name), name)
                    status = found.status if found.status in ENDED else _status(self.store, name)
                except UsegError as error:
                    problem = str(error)
                    if isinstance(error, ResourceError):
                        sign = "?"  # so that it is read again at the next look
            row = (sign, pulse, status, found.removed, problem, name)
            known = self._table.execute("SELECT number FROM runs WHERE id = ?", (name,)).fetchone()
            if known:
                number = known[0]
                self._table.execute(
                    "UPDATE runs SET sign = ?, pulse = ?, status = ?, removed = ?, problem = ? WHERE id = ?", row
                )
                self._table.execute("DELETE FROM facts WHERE run = ?", (number,))
                self._table.execute("DELETE FROM uses WHERE run = ?", (number,))
            else:
                number = self._table.execute(
                    "INSERT INTO runs (sign, pulse, status, removed, problem, id) VALUES (?, ?, ?, ?, ?, ?)", row
                ).lastrowid
            facts += [(self._number(fact.name), number, fact.value, fact.kind) for fact in found.own]
            for group in found.groups:
                self._table.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (number, self._group(*group)))
        facts.sort(key=lambda row: row[:2])
        self._table.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", facts)

    def _group(self, digest: bytes, field: str, content: dict[str, Any]) -> int:
        """The number of a group of values, which is put in when it is new."""
        known = self._table.execute("SELECT number FROM groups WHERE digest = ?", (digest,)).fetchone()
        if known:
            return int(known[0])
        number = self._table.execute("INSERT INTO groups (digest) VALUES (?)", (digest,)).lastrowid or 0
        rows = [(self._number(fact.name), number, fact.value, fact.kind) for fact in facts_in(content, field)]
        self._table.executemany("INSERT OR REPLACE INTO shared VALUES (?, ?, ?, ?)", rows)
        return number

    def _number(self, name: str) -> int:
        """The number of a name, which is put in when it is new."""
        if not self._numbers:
            self._numbers = dict(self._table.execute("SELECT name, number FROM names"))
        if name not in self._numbers:
            self._numbers[name] = self._table.execute("INSERT INTO names (name) VALUES (?)", (name,)).lastrowid or 0
        return self._numbers[name]

    def runs(self) -> list[Run]:
        """All runs, also those that cannot be read and those that were removed."""
        if self._runs is None:
            ended = ", ".join(f"'{status}'" for status in ENDED)
            rows = self._table.execute(
                "SELECT number, id, status, removed, problem, sign, "
                f"CASE WHEN status IN ({ended}) THEN '' ELSE pulse END FROM runs"
            )
            self._runs = [*map(Run._make, rows)]
        return self._runs

    def has(self, name: str) -> bool:
        """Whether any run has, or had, a field of this name."""
        return self._table.execute("SELECT 1 FROM names WHERE name = ?", (name,)).fetchone() is not None

    def names(self) -> list[str]:
        """The names of all fields."""
        return [name for (name,) in self._table.execute("SELECT name FROM names ORDER BY name")]

    def column(self, name: str, runs: Sequence[Run]) -> dict[int, Any]:
        """A field's value by the numbers of some runs; without those that do not have it."""
        if name in ("run", "status"):
            return {run.number: run.id if name == "run" else run.status for run in runs}
        number = self._table.execute("SELECT number FROM names WHERE name = ?", (name,)).fetchone()
        if number is None:
            return {}
        own = "SELECT run, value, kind FROM facts WHERE name = ?"
        common = "SELECT run, value, kind FROM shared JOIN uses ON uses.part = shared.part WHERE name = ?"
        found: dict[int, Any] = {}
        for sql in (common, own):
            if len(runs) > _FEW:
                rows: Iterable[Any] = self._table.execute(sql, number)
            else:
                each = f"{sql} AND run = ?"
                rows = [row for run in runs for row in self._table.execute(each, (number[0], run.number))]
            found |= {run: value if kind is None else decoded(value, kind) for run, value, kind in rows}
        return found

    def values(self, run: Run) -> dict[str, Any]:
        """All fields of one run by name."""
        rows = self._table.execute(
            "SELECT names.name, value, kind FROM uses JOIN shared ON shared.part = uses.part "
            "JOIN names ON names.number = shared.name WHERE uses.run = ? "
            "UNION ALL SELECT names.name, value, kind FROM facts JOIN names ON names.number = facts.name WHERE run = ?",
            (run.number, run.number),
        )
        found = {name: decoded(value, kind) for name, value, kind in rows}
        return {"run": run.id, "status": run.status} | found

    def with_value(self, name: str, value: str) -> list[Run]:
        """The runs that have this text in this field."""
        column = self.column(name, runs := self.runs())
        return [run for run in runs if column.get(run.number) == value]


def _read(store: Store, run: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's record, completed from its other files where it is old, and the last values of its journal."""
    from useg.runs.facts import completed
    from useg.runs.following import last_values
    from useg.runs.record import read_record

    record = completed(store, run, read_record(store, run))
    listing = [*store.list(f"runs/{run}/attempts/"), *store.list(f"runs/{run}/folds/")]
    return record, last_values(store, run, listing)


def _status(store: Store, run: str) -> str:
    from useg.runs.lease import status_of

    return status_of(store, run)


def _throw_away(file: Path) -> None:
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        with suppress(OSError):
            os.unlink(file.with_name(name))


__all__ = ["ENDED", "FORMAT", "Index", "Refreshed", "Run", "asking", "index_file"]
