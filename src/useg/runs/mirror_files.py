"""The files of a run on their way to an MLflow server: pictures such that it shows them, the bundle, the page."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from useg.home.folder import writing
from useg.home.store import Entry, Missing, Store
from useg.runs.mirror_known import Known
from useg.runs.mirror_names import file_name_for
from useg.runs.mirror_server import Server, There
from useg.runs.pictures import NAME_FILE

_FILES = ("plan.toml", "classes.toml", "scores.json", "report.html")


class Files:
    """The files of one run.

    Args:
        store: the home. run: the run's id there.
        server: where to. there: the run there.
        known: what was sent; changed. keep: called when it has changed.
    """

    def __init__(
        self, store: Store, run: str, server: Server, there: There, known: Known, keep: Callable[[], None]
    ) -> None:
        self._store, self._run, self._server, self._there, self._known, self._keep = (
            store, run, server, there, known, keep
        )  # fmt: skip
        self._prefix = f"runs/{run}/"

    def send_pictures(self, started_ms: int) -> tuple[int, int]:
        """Send the pictures that are new; how many, and how many that were sent are not in the home any more.

        MLflow shows files of such names with a slider over the steps; of one picture the name is always the same, so
        that what is sent again takes its own place.
        """
        names: dict[str, str] = {}
        prefix = f"{self._prefix}pictures/"
        there, new = set(), []
        for entry in self._store.list(prefix):
            place, _, file = entry.key.removeprefix(prefix).rpartition("/")
            there.add(entry.key)
            if file == NAME_FILE:
                names[place] = self._store.get(entry.key).decode("utf-8", "replace")
            elif file.endswith(".webp") and file[:-5].isdigit() and self._known.is_new(entry):
                new.append((entry, place, int(file[:-5])))
        for entry, place, step in new:
            name = f"{file_name_for(names.get(place, place))}+step+{step}+timestamp+{started_ms + step}"
            self._send_picture(entry, f"{name}+{_mark(f'{self._run} {place} {step}')}")
        gone = sum(key.startswith(prefix) and key not in there for key in self._known.files)
        return len(new), gone

    def _send_picture(self, entry: Entry, name: str) -> None:
        with tempfile.TemporaryDirectory(prefix="useg-mirror-") as temporary, suppress(Missing):
            small, large = Path(temporary, f"{name}+compressed.webp"), Path(temporary, f"{name}.png")
            with writing(small):
                small.write_bytes(self._store.get(entry.key))
                _to_png(small, large)
            self._server.send_file(self._there, large, "images")
            self._server.send_file(self._there, small, "images")
            self._sent(entry)

    def send_rest(self, made: Mapping[str, Any]) -> int:
        """Send the bundle and the files for people, and what was `made` for MLflow as JSON; how many were new."""
        count = 0
        for entry in self._files():
            if self._known.is_new(entry):
                with _as_file(self._store, entry.key) as file:
                    self._server.send_file(self._there, file)
                self._sent(entry)
                count += 1
        for name, content in made.items():
            text = orjson.dumps(content, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
            # in the place of a time: another number for another content
            entry = Entry(f"{self._prefix}{name}", len(text), int(sha256(text).hexdigest()[:12], 16))
            if self._known.is_new(entry):
                with tempfile.TemporaryDirectory(prefix="useg-mirror-") as temporary:
                    file = Path(temporary, name)
                    with writing(file):
                        file.write_bytes(text)
                    self._server.send_file(self._there, file)
                self._sent(entry)
                count += 1
        return count

    def _files(self) -> Iterator[Entry]:
        for beginning in ("model", *_FILES):
            for entry in self._store.list(f"{self._prefix}{beginning}"):
                name = entry.key.removeprefix(self._prefix)
                if "/" not in name and (name in _FILES or name.endswith(".useg")):
                    yield entry

    def _sent(self, entry: Entry) -> None:
        self._known.files[entry.key] = [entry.size, entry.modified]
        self._keep()


def _mark(text: str) -> str:
    """A text as what looks like a random UUID."""
    mark = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{mark[:8]}-{mark[8:12]}-4{mark[12:15]}-8{mark[15:18]}-{mark[18:30]}"


def _to_png(picture: Path, png: Path) -> None:
    from PIL import Image

    with Image.open(picture) as opened:
        opened.save(png)


@contextmanager
def _as_file(store: Store, key: str) -> Iterator[Path]:
    """A file of the home as a file of this machine."""
    path = store.path(key)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="useg-mirror-") as temporary:
        copy = Path(temporary, key.rpartition("/")[2])
        with writing(copy):
            copy.write_bytes(store.get(key))
        yield copy


__all__ = ["Files"]
