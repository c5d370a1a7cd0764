"""What a file says about its image before any pixel is decoded, and how decoding is kept safe."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from useg.errors import DataError, Problem, UsegError

Window = tuple[slice, ...]
"""One slice with start and stop and without a step for each axis of space."""

LIMIT_VARIABLE = "USEG_DECODE_LIMIT_BYTES"

_COLOURS = ("grey", "rgb", "rgba", "palette", "bands", "binary")


@dataclass(frozen=True)
class Header:
    """What is known of an image without decoding it.

    Attributes:
        ref: the name it was asked for by: a path, `file.h5#dataset`, `clip.mp4#12`, `stack.tif#3`.
        format: "png", "jpeg", "webp", "bmp", "gif", "tiff", "nifti", "npy", "hdf5" or "video".
        shape: (C, H, W) or (C, D, H, W), upright: after the orientation tag was applied.
        dtype: of the array that `read_image` gives, in native byte order.
        colour: "grey", "rgb", "rgba" (the last channel is alpha, also of two), "palette" (one channel
            of indices), "binary" (one channel of 0 and 1) or "bands" (anything else).
        lossy: the pixels went through a lossy codec, so stored values are not exact.
        spacing: size of a pixel along each axis of space, in `spacing_unit`; None if the file does not say.
        spacing_unit: "mm", "um", "m", "degree", ... as the file says it; None if it does not.
        palette: (n, 3) uint8 colours of the indices, for colour "palette".
        orientation: the EXIF/TIFF orientation tag as found, 1 to 8; 1 means upright as stored.
        affine: NIfTI's 4x4 matrix from voxel indices (x, y, z), the reverse of our axes, to world.
        file_bytes: size of the file.
    """

    ref: str
    format: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    colour: str
    lossy: bool = False
    spacing: tuple[float, ...] | None = None
    spacing_unit: str | None = None
    palette: np.ndarray | None = field(default=None, compare=False)
    orientation: int = 1
    affine: np.ndarray | None = field(default=None, compare=False)
    file_bytes: int = 0

    def __post_init__(self) -> None:
        """Refuse what no reader may hand out: an empty image, an unknown colour."""
        if len(self.shape) not in (3, 4) or min(self.shape) < 1:
            raise ValueError(f"an image of shape {self.shape} has no pixels or too many axes")
        if self.colour not in _COLOURS:
            raise ValueError(f"unknown colour {self.colour!r}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]

    @property
    def space(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W)."""
        return self.shape[1:]

    @property
    def ndim(self) -> int:
        """Axes of space: 2 or 3."""
        return len(self.shape) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded image."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def path(self) -> Path:
        """The file, without the part of `ref` that names something inside it."""
        return split_ref(self.ref)[0]


@dataclass(frozen=True)
class Opened:
    """An open file: its header as stored (orientation not yet applied) and how to read a part of it.

    Attributes:
        header: shape and spacing in the *stored* orientation.
        read: gives (C, *window) for a full window over the stored space.
        streamable: a window costs about the memory of the window, not of the image.
        random_access: it costs about the time of the window, too, wherever it lies.
    """

    header: Header
    read: Callable[[Window], np.ndarray]
    streamable: bool
    random_access: bool = False


def split_ref(ref: str) -> tuple[Path, str]:
    """The file of a ref and the part after `#` ("" without one); a `#` in a file's own name is respected."""
    path = Path(ref)
    if "#" not in ref or path.is_file():
        return path, ""
    name, _, inside = ref.rpartition("#")
    while "#" in name and not Path(name).is_file():
        name, _, more = name.rpartition("#")
        inside = f"{more}#{inside}"
    return Path(name), inside


@lru_cache(maxsize=1)
def _memory_bytes() -> int:
    import psutil

    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def decode_limit_bytes() -> int:
    """Most bytes that one decoded array may have: `USEG_DECODE_LIMIT_BYTES`, or a quarter of the memory."""
    asked = os.environ.get(LIMIT_VARIABLE, "").strip()
    return int(asked) if asked.isdigit() else _memory_bytes() // 4


def check_limit(ref: str, nbytes: int, what: str) -> None:
    """Refuse to decode more than allowed.

    Raises:
        DataError: `nbytes` is above `decode_limit_bytes()`.
    """
    limit = decode_limit_bytes()
    if nbytes > limit:
        remedy = f"if the file is to be trusted, set {LIMIT_VARIABLE} to {nbytes} or more"
        raise unreadable(ref, f"{what} asks for {nbytes:,} bytes of memory, {limit:,} are allowed", remedy)


def unreadable(ref: str, what: str, remedy: str = "") -> DataError:
    """The error for one file that cannot be read."""
    return DataError(f"cannot read {Path(ref).name}", [Problem(ref, what, remedy)])


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_before: list[Any] = []
_nibabel_logger = logging.getLogger("nibabel.global")  # it brings a handler to stderr of its own


@lru_cache(maxsize=1)
def _pillow() -> Any:
    from PIL import Image

    # A logger without any handler prints to stderr; one that the program configured keeps its own.
    for name in ("tifffile", "PIL", "libav"):
        if not logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(logging.NullHandler())
    return Image


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what decoders print and lift Pillow's own size limit (`check_limit` replaces it).

    These settings belong to the process; counting the threads inside keeps one from restoring what
    another still needs, or what another had set.
    """
    global _quiet_depth
    image = _pillow()
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _quiet_before[:] = [warnings.filters[:], image.MAX_IMAGE_PIXELS, _nibabel_logger.disabled]
            warnings.simplefilter("ignore")
            image.MAX_IMAGE_PIXELS = None
            _nibabel_logger.disabled = True
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                filters, image.MAX_IMAGE_PIXELS, _nibabel_logger.disabled = _quiet_before
                warnings.filters[:] = filters  # type: ignore[index]


@contextmanager
def decoding(ref: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `DataError` that names the file.

    Decoders of foreign bytes fail in every way there is (struct, zlib, index, attribute errors, ...),
    so everything is caught that is not already ours.
    """
    try:
        with quiet():
            yield
    except UsegError:
        raise
    except FileNotFoundError:
        raise unreadable(ref, "there is no such file") from None
    except IsADirectoryError:
        raise unreadable(ref, "this is a folder, an image file was wanted") from None
    except PermissionError:
        raise unreadable(ref, "permission to read it was refused") from None
    except MemoryError:
        raise unreadable(ref, "there is not enough memory to decode it") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "the file is damaged or cut off: copy or export it again, or leave it out"
        raise unreadable(ref, f"it cannot be decoded: {reason[:200]}", remedy) from error
