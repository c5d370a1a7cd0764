"""What of each run was sent to an MLflow server, remembered in a file of this machine, for one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import orjson

from useg.errors import InputError
from useg.home.folder import write_atomically, writing
from useg.home.store import Entry, Store
from useg.runs.pictures import folder_name


@dataclass
class Known:
    """What is known of a run's mirror image, kept in a file of this machine.

    Attributes:
        experiment: where it is, such that no later experiment can be meant.
        there: its id of MLflow's.
        sign: of the run, when all of it had been sent; "" before.
        sent: by journal, of how many events the points were sent.
        files: by key, size and time of what was sent.
    """

    experiment: str = ""
    there: str = ""
    sign: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[float]] = field(default_factory=dict)

    def is_new(self, entry: Entry) -> bool:
        """Whether a file was not sent as it is now."""
        return self.files.get(entry.key) != [entry.size, entry.modified]


class Remembered:
    """What this machine knows of all runs, a file each.

    Args:
        folder: where; see `mirroring`.
        experiment: what is known of another one does not count.
    """

    def __init__(self, folder: Path, experiment: str) -> None:
        self._folder, self._experiment = folder, experiment

    def of(self, run: str) -> Known:
        """What is known of a run; nothing, where the file is lost."""
        with suppress(OSError, ValueError, TypeError):
            known = Known(**orjson.loads(self._file(run).read_bytes()))
            if known.experiment == self._experiment:
                return known
        return Known()

    def keep(self, run: str, known: Known) -> None:
        """Write it down.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        known.experiment = self._experiment
        write_atomically(self._file(run), orjson.dumps(asdict(known)))

    def _file(self, run: str) -> Path:
        return self._folder / f"{folder_name(run)}.json"


@contextmanager
def mirroring(store: Store, address: str, experiment: str) -> Iterator[Path]:
    """Where this machine remembers what of a home was sent to an experiment; for this process alone.

    Raises:
        InputError: another process sends them. ResourceError: it cannot be written.
    """
    from useg.home.cache import cache_folder

    digest = sha256(orjson.dumps([store.url, address.rstrip("/"), experiment])).hexdigest()[:16]
    folder = cache_folder() / "mirror" / digest
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another `useg runs mirror` sends the runs of {store.url} there already") from None
        yield folder
    finally:
        os.close(lock)


__all__ = ["Known", "Remembered", "mirroring"]
