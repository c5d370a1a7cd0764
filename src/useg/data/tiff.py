"""TIFF files of every kind: what is in them, and any window of it without decoding the rest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from useg.data.axes import Role, roles_of_tiff
from useg.data.headers import Header, Opened, Window, unreadable
from useg.data.tiff_segments import Segments, read_contiguous
from useg.data.tiff_spacing import is_georeferenced, spacing_of

_LOSSY = frozenset({6, 7, 33003, 33005, 33007, 34892})
_MIN_IS_WHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_ALPHA = (1, 2)
_LARGEST_PIECE_BYTES = 16 * 2**20


def _main_series(ref: str, tif: Any) -> Any:
    """The series with most pixels, the first of equals: thumbnails and masks of slides are smaller."""
    candidates = [series for series in tif.series if len(series.pages) and prod(series.shape) > 0]
    if not candidates:
        raise unreadable(ref, "there is no image in this TIFF")
    return max(candidates, key=lambda series: prod(series.shape))


def _colour(page: Any, channels: int) -> str:
    samples, photometric = int(page.samplesperpixel), int(page.photometric)
    extra = tuple(int(value) for value in page.extrasamples)
    if channels == 1:
        if int(page.bitspersample) == 1:
            return "binary"
        return "palette" if photometric == _PALETTE and page.colormap is not None else "grey"
    if channels != samples:
        return "bands"
    decoded_to_rgb = photometric == _YCBCR and int(page.compression) in _LOSSY
    if samples == 3 and (photometric == _RGB or decoded_to_rgb):
        return "rgb"
    has_alpha = len(extra) == 1 and extra[0] in _ALPHA
    return "rgba" if has_alpha and samples in (2, 4) and photometric in (0, 1, 2, 6) else "bands"


def _palette(page: Any) -> np.ndarray:
    colours = np.asarray(page.colormap)
    if colours.dtype == np.uint16:
        # Some writers store 0..255 in the 16 bit table.
        colours = colours >> 8 if colours.max() > 255 else colours
    return np.ascontiguousarray(colours.T.astype(np.uint8))


def _orientation(page: Any) -> int:
    # Geographic software ignores the tag: the geo-reference speaks of the pixels as stored.
    if is_georeferenced(page):
        return 1
    tag = page.tags.get(274)
    value = tag.value if tag is not None else 1
    return int(value) if value in range(1, 9) else 1


def _dtype(ref: str, page: Any) -> np.dtype[Any]:
    if page.dtype is None or page.dtype.kind not in "buif":
        raise unreadable(ref, f"its samples ({page.bitspersample} bit, {page.dtype}) are not real numbers")
    return np.dtype(np.uint8) if page.dtype.kind == "b" else np.dtype(page.dtype).newbyteorder("=")


def _header(path: Path, tif: Any, series: Any, roles: Sequence[Role]) -> Header:
    page = series.keyframe
    named = list(zip(roles, series.shape, strict=True))
    sizes = {role: prod(n for r, n in named if r == role) for role in roles}
    space: tuple[int, ...] = (sizes["row"], sizes["column"])
    if "plane" in sizes:
        space = (sizes["plane"], *space)
    channels = sizes.get("channel", 1)
    colour = _colour(page, channels)
    spacing, unit = spacing_of(tif, page, len(space))
    return Header(
        ref=str(path),
        format="tiff",
        shape=(channels, *space),
        dtype=_dtype(str(path), page),
        colour=colour,
        lossy=int(page.compression) in _LOSSY,
        spacing=spacing,
        spacing_unit=unit,
        palette=_palette(page) if colour == "palette" else None,
        orientation=_orientation(page),
        file_bytes=path.stat().st_size,
    )


def _stored_window(series: Any, roles: Sequence[Role], window: Window) -> Window:
    """The window over the file's own axes; axes that are no axis of space are taken whole."""
    names = ("plane", "row", "column")[-len(window) :]
    wanted: dict[str, slice] = dict(zip(names, window, strict=True))
    return tuple(wanted.get(role, slice(0, size)) for size, role in zip(series.shape, roles, strict=True))


def _channels_first(stored: np.ndarray, roles: Sequence[Role], ndim: int) -> np.ndarray:
    names = ("channel", "single", "plane", "row", "column")
    order = sorted(range(len(roles)), key=lambda index: names.index(roles[index]))
    moved = stored.transpose(order)
    return moved.reshape(-1, *moved.shape[len(roles) - ndim :])


class _Reader:
    """Windows of one series."""

    def __init__(self, ref: str, tif: Any, series: Any, roles: Sequence[Role]) -> None:
        self.ref, self.tif, self.series, self.roles = ref, tif, series, roles
        self.segments = Segments(ref, tif.filehandle, tif.byteorder)

    def __call__(self, window: Window) -> np.ndarray:
        stored = _stored_window(self.series, self.roles, window)
        page, offset = self.series.keyframe, self.series.dataoffset
        if offset is not None and page.is_memmappable and page.fillorder == 1:
            dtype = page.dtype.newbyteorder(self.tif.byteorder)
            part = read_contiguous(self.ref, self.tif.filehandle, offset, dtype, self.series.shape, stored)
        else:
            part = self._from_pages(stored)
        part = self._black_is_zero(part)
        if part.dtype == np.bool_:
            part = part.view(np.uint8)
        native = part.astype(part.dtype.newbyteorder("="), copy=False)
        return np.ascontiguousarray(_channels_first(native, self.roles, len(window)))

    def _from_pages(self, stored: Window) -> np.ndarray:
        inside = len(self.series.keyframe.shape)
        leading = len(self.series.shape) - inside
        if leading < 0 or tuple(self.series.shape[leading:]) != tuple(self.series.keyframe.shape):
            raise unreadable(self.ref, "its pages do not fit together to one image")
        outer = stored[:leading]
        dtype = self.series.keyframe.dtype.newbyteorder("=")
        part = np.empty(tuple(axis.stop - axis.start for axis in stored), dtype)
        for at in product(*(range(axis.start, axis.stop) for axis in outer)):
            number = int(np.ravel_multi_index(at, self.series.shape[:leading])) if at else 0
            target = part[tuple(i - axis.start for i, axis in zip(at, outer, strict=True))]
            page = self.series.pages[number]
            if page is None:
                raise unreadable(self.ref, f"its page {number} is missing", "export the stack again")
            self.segments.read_page(page, number, stored[leading:], target)
        return part

    def _black_is_zero(self, part: np.ndarray) -> np.ndarray:
        page = self.series.keyframe
        if int(page.photometric) != _MIN_IS_WHITE or part.dtype.kind not in "bu":
            return part
        if part.dtype.kind == "b":
            return ~part
        white = np.array(2 ** int(page.bitspersample) - 1, part.dtype)
        inverted: np.ndarray = np.subtract(white, part, dtype=part.dtype)
        return inverted


@contextmanager
def open_tiff(path: Path) -> Iterator[Opened]:
    """Open a TIFF (also BigTIFF, ImageJ, OME, LSM, GeoTIFF) at its largest image.

    Grey images stored with white as 0 are turned round, so that 0 is black as in every viewer.
    Files that the metadata names are not followed.
    """
    import tifffile

    ref = str(path)
    with tifffile.TiffFile(path, _multifile=False) as tif:
        series = _main_series(ref, tif)
        try:
            roles = roles_of_tiff(series.axes, tuple(series.shape))
        except ValueError as error:
            raise unreadable(ref, str(error), "split it into files of one volume or picture each") from None
        page = series.keyframe
        piece_bytes = prod(page.chunks) * page.dtype.itemsize
        yield Opened(
            _header(path, tif, series, roles),
            _Reader(ref, tif, series, roles),
            streamable=True,
            random_access=page.is_memmappable or piece_bytes <= _LARGEST_PIECE_BYTES,
        )
