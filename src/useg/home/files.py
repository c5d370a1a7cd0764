"""New files that are there whole or not at all, and never in the place of another."""

import fcntl
import os
import shutil
from collections.abc import Sequence
from errno import EINVAL, EOPNOTSUPP, EPERM
from pathlib import Path

from useg.errors import InputError, ResourceError

_FICLONE = 0x40049409
_PIECES_AT_ONCE = 1024  # what a call takes on any system


def read_range(file: int, start: int, end: int) -> bytes:
    """What an open file holds from `start` up to `end`; less where it ends before."""
    pieces = []
    while start < end and (piece := os.pread(file, min(end - start, 2**30), start)):
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_new(file: str, content: bytes | list[bytes] | Path) -> None:
    """Write a file that is not there yet, through to the disk; another's bytes are shared where that is possible.

    Raises:
        InputError: the file to copy cannot be read.
    """
    if not isinstance(content, Path):
        with open(file, "xb", buffering=0) as target:
            _write_all(target.fileno(), [content] if isinstance(content, bytes) else content)
            os.fsync(target.fileno())
        return
    try:
        source = content.open("rb")
    except OSError as error:
        raise InputError(f"{content}: cannot read: {error.strerror or error}") from error
    with source, open(file, "xb") as target:
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError:
            shutil.copyfileobj(source, target, 2**20)
        target.flush()
        os.fsync(target.fileno())


def _write_all(file: int, pieces: Sequence[bytes]) -> None:
    for start in range(0, len(pieces), _PIECES_AT_ONCE):
        left: list[bytes | memoryview] = [*pieces[start : start + _PIECES_AT_ONCE]]
        written = os.writev(file, left)
        while left:
            if written >= len(left[0]):
                written -= len(left.pop(0))
            else:
                left[0] = memoryview(left[0])[written:]
                written = os.writev(file, left)


def link_new(temporary: str, file: str, home: str) -> bool:
    """Give a file, of one name, a second one; False when something has that already.

    Raises:
        ResourceError: the file system cannot do that.
    """
    try:
        os.link(temporary, file)
    except FileExistsError:
        # a network file system that has sent its request twice tells of its own success so
        return os.stat(temporary).st_nlink == 2
    except OSError as error:
        if error.errno in (EPERM, EOPNOTSUPP):
            raise ResourceError(
                f"{home}: this file system has no hard links, without which two writers cannot be kept apart; "
                "make the home elsewhere"
            ) from error
        raise
    return True


def sync_folder(folder: str) -> None:
    """Make the names in a folder survive a power cut."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    except OSError as error:
        # some network file systems have nothing to do here, and say so
        if error.errno != EINVAL:
            raise
    finally:
        os.close(directory)


__all__ = ["link_new", "read_range", "sync_folder", "write_new"]
