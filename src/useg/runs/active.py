"""A run of one's own loop: three calls put what it does into the home, beside the runs of `useg train`."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson
from blake3 import blake3

from useg import __version__
from useg.home.folder import new_run
from useg.home.opening import folder_for_runs, is_folder, open_home
from useg.runs.journal import LONGEST_TEXT, Journal
from useg.runs.keeper import start_keeper
from useg.runs.lease import claim_attempt
from useg.runs.numbers import from_json, to_json
from useg.runs.record import RunFolder, now
from useg.runs.surroundings import running_script, surroundings

if TYPE_CHECKING:
    import numpy as np


def start(
    *,
    config: Mapping[str, Any] | None = None,
    name: str | None = None,
    home: str | Path | None = None,
    data: Path | str | None = None,
    script: Path | None = None,
) -> "ActiveRun":
    """Begin a run.

    Args:
        config: settings, as nested mappings of numbers, texts and truth values.
        name: part of the run's id.
        home: a folder; default `USEG_HOME`, else the nearest `useg-home/`. A run of a bucket's or a served home lies
            in the nearest `useg-home/` while it goes on, and its keeper brings it home.
        data: what is learned from, to be recorded.
        script: whose repository is recorded; default the program that runs.

    Raises:
        InputError: the name or the settings cannot be kept. ResourceError: the home cannot be written.
    """
    address = None if home is None else str(home)
    folder = RunFolder(new_run(folder_for_runs(address), name))
    elsewhere = None if is_folder(address) else address or os.environ["USEG_HOME"]
    canonical = to_json(dict(config or {}), orjson.OPT_SORT_KEYS)
    settings = from_json(canonical)
    folder.update(
        format=2,
        run=folder.id,
        name=name,
        status="running",
        started=now(),
        useg=__version__,
        command=[word.encode("utf-8", "backslashreplace").decode() for word in sys.argv],
        data=None if data is None else str(data),
        config=settings,
        config_digest=blake3(canonical).hexdigest(),
        origin=elsewhere and {"home": elsewhere},
        **surroundings(open_home(elsewhere or folder.home)[1], script=script or running_script()),
    )
    return ActiveRun(folder, elsewhere or folder.home)


class ActiveRun:
    """A run that goes on; leaving its `with` block ends it: as finished, stopped by Ctrl-C, or failed by an error.

    Attributes:
        folder: where it lies on this machine.
    """

    def __init__(self, folder: RunFolder, home: Path | str) -> None:
        self.folder = folder
        number = claim_attempt(open_home(home)[0], folder.id)
        place = folder.path / "attempts" / str(number)
        self._keeper = start_keeper(place, run=folder.id, home=home)
        self._journal = Journal(place / "journal.jsonl", lambda text: print(f"warning: {text}", file=sys.stderr))
        self._journal.write({"event": "started", "step": 0, "time": time.time()}, sync=True)
        self._begun = time.monotonic()
        self._open = True

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.id

    def log(self, step: int, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Put numbers of a step into the journal; they are there when this returns, whatever happens afterwards.

        Args:
            step: of the training; they may come in any order.
            values: by name, for names that are no words of Python. more: by name.

        Numbers are kept as they are, NaN and infinities too; what has `item()` (a tensor of one number) is asked for
        it. Very long texts are cut.
        """
        event: dict[str, Any] = {"event": "step", "step": step, "time": time.time()}
        if values:
            event.update(values)
        event.update(more)
        self._journal.write(event)

    def image(self, name: str, picture: "np.ndarray", step: int) -> Path:
        """Keep a picture of a step, so that it can be followed over time.

        Args:
            name: of what is shown.
            picture: (H, W) or (H, W, 3), uint8, or floats from 0 to 1.
            step: of the training.

        Raises:
            InputError: it is no such picture.
        """
        from useg.runs.pictures import keep_picture

        return keep_picture(self.folder.path, name, step, picture)

    def finish(self, scores: Mapping[str, Any] | None = None, *, status: str = "finished", error: str = "") -> None:
        """End the run; later calls change nothing.

        Args:
            scores: what came of it, by name.
            status: "finished", "stopped" or "failed". error: why it failed.
        """
        if not self._open:
            return
        self._open = False
        self._journal.write({"event": status, "time": time.time()})
        self._journal.close()
        more: dict[str, Any] = {"error": error} if error else {}
        if scores is not None:
            more["scores"] = dict(scores)
        seconds = round(time.monotonic() - self._begun, 3)
        self.folder.update(status=status, ended=now(), seconds=seconds, **more)
        self._keeper.close(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish(status="stopped")
        else:
            self.finish(status="failed", error=f"{type(error).__name__}: {error}"[:LONGEST_TEXT])
