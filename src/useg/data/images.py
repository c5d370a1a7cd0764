"""Image, video and label files of every usual format as arrays, channels first and upright."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from useg.arrays import Raw
from useg.data.foreign import ways_out
from useg.data.headers import (
    LIMIT_VARIABLE,
    Header,
    Opened,
    Window,
    check_limit,
    decode_limit_bytes,
    decoding,
    split_ref,
    unreadable,
)
from useg.data.orientation import exchanges_axes, stored_shape, stored_window, upright

__all__ = [
    "LIMIT_VARIABLE",
    "SUFFIXES",
    "Header",
    "OpenImage",
    "decode_limit_bytes",
    "is_image",
    "open_image",
    "read_header",
    "read_image",
    "suffix_of",
]

_FORMAT_OF_SUFFIX = {
    ".png": "png",
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    **dict.fromkeys((".bmp", ".dib"), "bmp"),
    ".gif": "gif",
    ".webp": "webp",
    **dict.fromkeys((".tif", ".tiff", ".btf", ".lsm"), "tiff"),
    **dict.fromkeys((".nii", ".nii.gz"), "nifti"),
    ".npy": "npy",
    **dict.fromkeys((".h5", ".hdf5", ".he5"), "hdf5"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"), "video"),
}

SUFFIXES: frozenset[str] = frozenset(_FORMAT_OF_SUFFIX)
"""Suffixes, in lower case, of the files that can be read."""

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    *((start, "tiff") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
)

_AS_CHANNELS = "channels"


def suffix_of(path: Path) -> str:
    """The suffix in lower case that tells the format, `.nii.gz` as a whole."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def is_image(path: Path) -> bool:
    """Whether the suffix is one of a format that can be read; the file is not opened."""
    return suffix_of(path) in SUFFIXES


def _format(ref: str, path: Path) -> str:
    """The format by the first bytes, or by the suffix for those that have no sure sign."""
    with path.open("rb") as stream:
        start = stream.read(12)
    if not start:
        raise unreadable(ref, "the file is empty (0 bytes)", "copy or export it again, or leave it out")
    by_suffix = _FORMAT_OF_SUFFIX.get(suffix_of(path))
    if by_suffix in ("nifti", "video"):
        return by_suffix
    for sign, name in _STARTS:
        if start.startswith(sign):
            return name
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return "webp"
    if by_suffix is None:
        remedy = "; ".join(ways_out([path.name]))
        raise unreadable(ref, f"files named {path.suffix or 'like this'} are not known as images", remedy)
    if by_suffix == "hdf5":  # its sign may stand further inside, after a block of the user's own
        return by_suffix
    remedy = "it was renamed or is damaged: export it again, or leave it out"
    what = f"it is named {path.suffix} but holds something else (it starts with {start[:8]!r})"
    raise unreadable(ref, what, remedy)


def _open_format(name: str, path: Path, inside: str) -> AbstractContextManager[Opened]:
    # Each decoder is loaded when a file first needs it.
    if name == "png":
        from useg.data.png import open_png

        return open_png(path)
    if name == "tiff":
        from useg.data.tiff import open_tiff

        return open_tiff(path)
    if name == "nifti":
        from useg.data.medical import open_nifti

        return open_nifti(path)
    if name == "video":
        from useg.data.video import open_video

        return open_video(path)
    if name in ("npy", "hdf5"):
        from useg.data.array_files import open_hdf5, open_npy

        return open_npy(path) if name == "npy" else open_hdf5(path, inside)
    from useg.data.pictures import open_picture

    return open_picture(path, name)


class OpenImage:
    """An open image: its header, and any window of it; from `open_image`.

    Attributes:
        header: as `read_header` gives it.
        streamable: reading a window costs about the window's memory, whatever the size of the image;
            others (PNG, JPEG, WebP, BMP) are decoded whole at the first window and kept until closed.
        random_access: reading a window costs about the window's time, too, wherever it lies.
    """

    def __init__(self, ref: str, opened: Opened, plane: int | None, *, as_channels: bool) -> None:
        stored = opened.header
        turn = stored.orientation
        spacing = stored.spacing
        if spacing is not None and exchanges_axes(turn):
            spacing = (*spacing[:-2], spacing[-1], spacing[-2])
        shape = stored_shape(stored.shape, turn)
        if plane is not None or as_channels:
            if len(shape) != 4:
                what = f"it is no stack: its shape is {shape}"
                raise unreadable(ref, what, "leave out what follows the last #")
            if plane is not None and not 0 <= plane < shape[1]:
                raise unreadable(ref, f"it has {shape[1]} planes, counted from 0")
            spacing = None if spacing is None else spacing[1:]
            shape = (shape[0] * shape[1] if as_channels else shape[0], *shape[2:])
        colour = "bands" if as_channels and shape[0] > 1 else stored.colour
        self.header = replace(stored, ref=ref, shape=shape, spacing=spacing, colour=colour)
        self.streamable, self.random_access = opened.streamable, opened.random_access
        self._opened, self._plane, self._as_channels = opened, plane, as_channels
        self._whole: Raw | None = None
        if not opened.streamable:
            check_limit(ref, stored.nbytes, f"the image ({' x '.join(map(str, stored.shape))})")

    def read(self, window: Sequence[slice] | None = None) -> Raw:
        """The pixels (C, *window) in the stored dtype, upright, contiguous and the caller's own.

        A window has a slice for each axis of space, without steps; it is cut at the edges of the image.

        Raises:
            DataError: the file cannot be decoded, or the window asks for more memory than allowed.
            ValueError: the window has the wrong number of axes, a step, or no pixels.
        """
        part = full_window(window, self.header.space)
        count = prod(axis.stop - axis.start for axis in part) * self.header.channels
        nbytes = count * self.header.dtype.itemsize
        with decoding(self.header.ref):
            what = "this part of the image" if window else "the image as a whole"
            check_limit(self.header.ref, nbytes, what)
            if self.streamable or part == full_window(None, self.header.space):
                return self._read(part)
            if self._whole is None:
                self._whole = self._read(full_window(None, self.header.space))
            return self._whole[:, *part].copy()

    def _read(self, part: Window) -> Raw:
        stored = self._opened.header
        if self._plane is not None:
            part = (slice(self._plane, self._plane + 1), *part)
        elif self._as_channels:
            part = (slice(0, stored.shape[1]), *part)
        space = stored_shape(stored.shape, stored.orientation)[1:]
        pixels = self._opened.read(stored_window(part, space, stored.orientation))
        pixels = upright(pixels, stored.orientation)
        if self._plane is not None:
            pixels = pixels[:, 0]
        elif self._as_channels:
            pixels = pixels.reshape(-1, *pixels.shape[2:])
        pixels = np.ascontiguousarray(pixels)
        return pixels if pixels.flags.writeable else pixels.copy()


def full_window(window: Sequence[slice] | None, space: tuple[int, ...]) -> Window:
    """A window with start and stop on each axis of `space`, cut at its edges; None is all of it.

    Raises:
        ValueError: wrong number of axes, a step, or no pixels.
    """
    if window is None:
        return tuple(slice(0, size) for size in space)
    if len(window) != len(space):
        raise ValueError(f"a window over {len(space)} axes was wanted, {len(window)} came")
    part = tuple(slice(*axis.indices(size)) for axis, size in zip(window, space, strict=True))
    if any(axis.step != 1 or axis.stop <= axis.start for axis in part):
        raise ValueError(f"the window {tuple(window)} has a step or no pixels in an image of {space}")
    return tuple(slice(axis.start, axis.stop) for axis in part)


@contextmanager
def open_image(ref: str) -> Iterator[OpenImage]:
    """Open an image for several reads.

    A ref is a path, `file.h5#dataset`, `clip.mp4#12` for a frame, `stack.tif#3` for one plane of any
    stack (`file.h5#dataset#3` of one in HDF5), or `stack.tif#channels` for a stack whose planes are
    channels. Palettes give their indices, an alpha channel is kept as the last one, black is 0.

    Raises:
        DataError: the file cannot be read; it is named, with what is wrong and what to do.
        MissingExtra: the format needs an optional dependency.
    """
    path, inside = split_ref(ref)
    with decoding(ref):
        name = _format(ref, path)
        dataset, plane, as_channels = _parts(ref, name, inside)
        manager = _open_format(name, path, dataset)
        opened = manager.__enter__()
    try:
        with decoding(ref):
            image = OpenImage(ref, opened, plane, as_channels=as_channels)
        yield image
    finally:
        manager.__exit__(None, None, None)


def _parts(ref: str, name: str, inside: str) -> tuple[str, int | None, bool]:
    """(dataset, plane, whether planes are channels) of the part of a ref after the file."""
    dataset, last = ("", inside) if name != "hdf5" else (inside, "")
    if name == "hdf5" and "#" in inside:
        dataset, _, last = inside.rpartition("#")
    if not last:
        return dataset, None, False
    if last == _AS_CHANNELS:
        return dataset, None, True
    if not last.isdecimal():
        raise unreadable(ref, f"{last!r} after # is neither the number of a plane nor {_AS_CHANNELS!r}")
    return dataset, int(last), False


def read_header(ref: str) -> Header:
    """What a file says about its image, without decoding it.

    Raises:
        DataError: the file cannot be read, or would need more memory than allowed.
        MissingExtra: the format needs an optional dependency.
    """
    with open_image(ref) as image:
        return image.header


def read_image(ref: str, window: Sequence[slice] | None = None) -> Raw:
    """Read an image, or a window over its axes of space, as (C, *space) in the stored dtype.

    Of TIFF, `.npy`, HDF5 and uncompressed NIfTI only what the window touches is read.

    Raises:
        DataError: the file cannot be read, or the part would need more memory than allowed.
        MissingExtra: the format needs an optional dependency.
        ValueError: the window does not fit the image.
    """
    with open_image(ref) as image:
        return image.read(window)
