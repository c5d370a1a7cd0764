"""Large files that a home keeps without a copy, where the file system can let two files share their bytes."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from useg.home.packs import ends_as_pack, saves
from useg.home.store import Folder, Store

_FICLONE = 0x40049409
_SAMPLES = (0.1, 0.35, 0.6, 0.85)
_SAMPLE_BYTES = 16 * 1024


def is_better_shared(file: int, length: int) -> bool:
    """Whether a file would gain nothing by being cut and compressed: what is compressed changes as a whole."""
    tail = os.pread(file, 16, max(0, length - 16))
    # kept whole, it would be taken for a pack of many objects
    return not ends_as_pack(tail) and not any(
        saves(os.pread(file, _SAMPLE_BYTES, int(share * length))) for share in _SAMPLES
    )


@contextmanager
def shared(store: Store, file: int) -> Iterator[Path | None]:
    """A file of the home's file system that shares an open file's bytes, and goes at the end; None where none can.

    It stays as it is when the file itself changes.
    """
    if not isinstance(store, Folder):
        yield None
        return
    # where the store sweeps up what a crash has left
    place = store.root / ".tmp" / f"{os.getpid()}-{secrets.token_hex(8)}"
    try:
        yield place if _clone(file, place) else None
    finally:
        with suppress(OSError):
            place.unlink()


def _clone(file: int, place: Path) -> bool:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as target:
            fcntl.ioctl(target.fileno(), _FICLONE, file)
    except OSError:
        return False
    return True


__all__ = ["is_better_shared", "shared"]
