"""Bringing a run from its folder on this machine to a home that is elsewhere, while it grows; and reading it there."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

import orjson

from useg.errors import InputError
from useg.home.store import Folder, Missing, Store, is_key
from useg.runs.pieces import Growing, read_content, read_events
from useg.runs.record import read_record

GROWING = ("journal.jsonl", "system.jsonl", "log.txt")
"""The files of an attempt that are shipped in pieces while they grow."""
CHECKPOINTS = "USEG_CHECKPOINTS"
"""This variable set to `home`: the newest checkpoint of a run that has not finished is kept in its home, too."""
_STAYS_HERE = ("checkpoints", "before-cooldown", "lease")
_AT_THE_END = (".useg", ".safetensors", ".html")
_RENAMED = (".json", ".toml")
_LARGEST_FILE = 16 * 2**20
_ENDED = ("finished", "stopped", "failed")


class Shipper:
    """A run's folder on this machine, on its way to a home that is not a folder here.

    Args:
        folder: of the run.
        attempt: the number of the attempt that is going on; all others are over.
        store: the home.
        run: the run's id there.
    """

    def __init__(self, folder: Path, attempt: int, store: Store, run: str) -> None:
        self._folder, self._attempt, self._store, self._prefix = folder, attempt, store, f"runs/{run}/"
        self._growing: dict[str, Growing] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._shipped: dict[str, tuple[int, int]] = {}
        self._there: dict[str, int] | None = None
        self._recorded: int | None = None
        self._with_checkpoints = os.environ.get(CHECKPOINTS) == "home"

    def ship_growing(self) -> None:
        """Put what was added to the files that grow; an attempt that is over is put whole.

        Raises:
            ResourceError: the home does not answer, or is full; call again.
        """
        for name in self._growing_names():
            growing = self._growing.setdefault(name, Growing(self._folder / name, self._store, self._prefix + name))
            attempt = re.match(r"attempts/(\d+)/", name)
            if attempt and int(attempt[1]) < self._attempt:
                growing.finish()
            else:
                growing.ship()

    def ship_files(self) -> None:
        """Put the small files that are finished; models, pages and the record's last word wait for the end.

        Raises:
            ResourceError: the home does not answer, or is full; call again.
        """
        names = list(self._names())
        for name in names:
            if _is_growing(name) or _is_entry(name) or name.endswith(_AT_THE_END):
                continue
            mark = self._mark(name)
            # what is written by renaming is whole when it is seen
            is_steady = self._seen.get(name) == mark or name.endswith(_RENAMED)
            self._seen[name] = mark
            if is_steady and mark[0] <= _LARGEST_FILE:
                self._ship_file(name, mark)
        self._ship_record([*filter(_is_entry, names)], is_over=False)
        if self._with_checkpoints:
            self._ship_checkpoints()

    def finish(self) -> None:
        """Put everything that is not there yet, the record last; for when nothing will be added.

        Raises:
            ResourceError: the home does not answer, or is full; call again.
        """
        self.ship_growing()
        names = list(self._names())
        for name in names:
            if not _is_growing(name) and not _is_entry(name):
                self._ship_file(name, self._mark(name))
        for name in self._growing_names():
            self._growing[name].finish()
        if self._with_checkpoints:
            self._ship_checkpoints()
        self._ship_record([*filter(_is_entry, names)], is_over=True)

    def ship_file(self, name: str) -> None:
        """Put one file of the run's folder at once.

        Raises:
            ResourceError: the home does not answer, or is full; call again.
        """
        self._ship_file(name, self._mark(name))

    def _ship_checkpoints(self) -> None:
        """Put the newest checkpoint, of each fold; then those before it go, and when the run has finished, all."""
        has_finished = read_record(Folder(self._folder.parents[1]), self._folder.name).get("status") == "finished"
        for place in (self._folder, *sorted(self._folder.glob("folds/*"))):
            newest = sorted(place.glob(f"attempts/{self._attempt}/checkpoints/*.safetensors"))[-1:]
            names = [] if has_finished else [file.relative_to(self._folder).as_posix() for file in newest]
            with suppress(FileNotFoundError):  # there is a newer one
                for name in names:
                    self._ship_file(name, self._mark(name))
            if names or has_finished:
                above = f"{self._prefix}{(place / 'attempts').relative_to(self._folder).as_posix()}/"
                for entry in [*self._store.list(above)]:
                    if "/checkpoints/" in entry.key and entry.key.removeprefix(self._prefix) not in names:
                        self._store.delete(entry.key)

    def _ship_file(self, name: str, mark: tuple[int, int]) -> None:
        if self._shipped.get(name) == mark:
            return
        if self._there is None:
            self._there = {entry.key: entry.size for entry in self._store.list(self._prefix)}
        key, file = self._prefix + name, self._folder / name
        content = file if mark[0] > _LARGEST_FILE else file.read_bytes()
        try:
            if key in self._there or not self._store.put(key, content):
                self._replace(key, content, mark[0])
        except InputError:
            if file.exists():
                raise
            return  # taken away just now
        self._shipped[name], self._there[key] = mark, mark[0]

    def _replace(self, key: str, content: bytes | Path, size: int) -> None:
        """Put what a resumed attempt has made anew; nothing is written where the same is there."""
        if self._there is not None and self._there.get(key, size) == size:
            with suppress(Missing):
                if self._store.get(key) == (content if isinstance(content, bytes) else content.read_bytes()):
                    return
        self._store.delete(key)
        self._store.put(key, content)

    def _mark(self, name: str) -> tuple[int, int]:
        status = (self._folder / name).stat()
        return status.st_size, status.st_mtime_ns

    def _ship_record(self, names: list[str], *, is_over: bool) -> None:
        """Put the new entries of the record, in their order, after those that others have written to the home."""
        if self._recorded == len(names):
            return
        contents = [(self._folder / name).read_bytes() for name in names]
        count, self._recorded = self._count_recorded(contents) if self._recorded is None else self._recorded, None
        for content in contents[count:]:
            # that it is over is only said when what it tells of is there
            if not is_over and _is_last_word(content):
                break
            number = 1 + max((_number(entry.key) for entry in self._store.list(f"{self._prefix}record/")), default=0)
            while not self._store.put(f"{self._prefix}record/{number:08d}", content):
                number += 1
            count += 1
        self._recorded = count

    def _count_recorded(self, contents: list[bytes]) -> int:
        """How many entries are in the home: they went there in their order, with those of others in between."""
        count = 0
        for entry in self._store.list(f"{self._prefix}record/"):
            if count < len(contents) and self._store.get(entry.key) == contents[count]:
                count += 1
        return count

    def _growing_names(self) -> Iterator[str]:
        for place in (self._folder, *sorted(self._folder.glob("folds/*"))):
            for file in sorted(place.glob("attempts/*/*")):
                name = file.relative_to(self._folder).as_posix()
                if _is_growing(name):
                    yield name

    def _names(self) -> Iterator[str]:
        """The files of the run that belong in the home, by their names in its folder."""
        for above, folders, files in os.walk(self._folder):
            folders[:] = sorted(each for each in folders if each not in _STAYS_HERE and not each.startswith("."))
            for each in sorted(files):
                path = Path(above, each)
                name = path.relative_to(self._folder).as_posix()
                if each.startswith(".") or each.endswith(".part") or not is_key(self._prefix + name):
                    continue
                try:
                    is_file = S_ISREG(path.lstat().st_mode)
                except FileNotFoundError:
                    continue
                if is_file:
                    yield name


def _is_growing(name: str) -> bool:
    return "attempts/" in name and name.rpartition("/")[2] in GROWING


def _is_entry(name: str) -> bool:
    return re.fullmatch(r"record/\d{8}", name) is not None


def _number(key: str) -> int:
    name = key.rpartition("/")[2]
    return int(name) if name.isdigit() else 0


def _is_last_word(content: bytes) -> bool:
    """Whether an entry of the record says that the run is over."""
    try:
        return orjson.loads(content).get("status") in _ENDED
    except (orjson.JSONDecodeError, AttributeError):
        return False


__all__ = ["GROWING", "Shipper", "read_content", "read_events"]
