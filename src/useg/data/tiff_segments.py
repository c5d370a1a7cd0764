"""The strips and tiles of a TIFF page: which of them a window touches, decoded once and pasted together."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from useg.data.headers import Window, check_limit, unreadable
from useg.data.tiff_rows import DeflatedRows, can_stream

_CACHE_BYTES = 64 * 2**20
_MOST_STRIPS = 4
_CUT = "the file is cut off: its pixels reach beyond its end"
_CUT_REMEDY = "copy or export it again, or leave it out"


def read_contiguous(
    ref: str, stream: Any, offset: int, dtype: np.dtype[Any], shape: Sequence[int], window: Window
) -> np.ndarray:
    """A window of an array that lies uncompressed and in one piece at `offset`."""
    if offset + prod(shape) * dtype.itemsize > stream.size:
        raise unreadable(ref, _CUT, _CUT_REMEDY)
    whole = np.memmap(stream.path, dtype, "r", offset, tuple(shape))
    return np.array(whole[window])


class Segments:
    """Decodes strips and tiles, and keeps the last ones (at most 64 MB), which neighbouring bands share."""

    def __init__(self, ref: str, stream: Any, byteorder: str) -> None:
        self.ref, self.stream, self.byteorder = ref, stream, byteorder
        self.decoded = 0
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._kept_bytes = 0
        self._strips: OrderedDict[tuple[int, int], DeflatedRows] = OrderedDict()

    def read_page(self, page: Any, number: int, window: Window, out: np.ndarray) -> None:
        """Decode a window over the page's own axes into `out`.

        `number` names the page among those of its series. Segments that the file leaves out are
        filled with its nodata value, else with 0.
        """
        key = page.keyframe
        separate, depth, length, width, contiguous = key.shaped
        at = _normal_window(key, window)
        size = tuple(axis.stop - axis.start for axis in at)
        target = out.reshape(size)  # a view: `out` is a contiguous block
        if key.is_tiled:
            chunk = (1, key.tiledepth, key.tilelength, key.tilewidth)
        else:
            chunk = (1, 1, min(key.rowsperstrip, length), width)
        counts = [-(-n // c) for n, c in zip((separate, depth, length, width), chunk, strict=True)]
        chunk_bytes = prod(chunk) * contiguous * key.dtype.itemsize
        streamed = can_stream(key, chunk_bytes)
        if not streamed:
            check_limit(self.ref, chunk_bytes, "one strip or tile")
        touched = [range(a.start // c, -(-a.stop // c)) for a, c in zip(at, chunk, strict=False)]
        for position in product(*touched):
            index = int(np.ravel_multi_index(position, counts))
            origin = tuple(p * c for p, c in zip(position, chunk, strict=True))
            if streamed:
                rows = slice(max(at[2].start, origin[2]), min(at[2].stop, origin[2] + chunk[2]))
                strip = self._strip(page, number, index)
                pixels = strip.read(rows.start - origin[2], rows.stop - origin[2])[None]
                _paste(pixels, (*origin[:2], rows.start, 0), at, target)
                continue
            found = self._segment(page, number, index)
            if found is None:
                found = np.full((*chunk[1:], contiguous), key.nodata, key.dtype)
            _paste(found, origin, at, target)

    def _segment(self, page: Any, number: int, index: int) -> np.ndarray | None:
        """(depth, length, width, samples) of one segment; None where the file has none."""
        kept = self._kept.get((number, index))
        if kept is not None:
            self._kept.move_to_end((number, index))
            return kept
        offset, count = self._place(page, index)
        if count == 0:
            return None
        self.stream.seek(offset)
        data = self.stream.read(count)
        # All three may read from the file when first asked for, and so move its position.
        key, arguments = page.keyframe, {}
        if key.compression in {6, 7, 34892, 33007}:
            arguments = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        pixels = key.decode(data, index, **arguments)[0]
        self.decoded += 1
        if pixels is not None:
            self._keep((number, index), pixels)
        return None if pixels is None else np.asarray(pixels)

    def _place(self, page: Any, index: int) -> tuple[int, int]:
        """Where a segment's bytes begin in the file and how many there are."""
        if index >= len(page.dataoffsets):
            raise unreadable(self.ref, _CUT, _CUT_REMEDY)
        offset, count = int(page.dataoffsets[index]), int(page.databytecounts[index])
        if offset + count > self.stream.size:
            raise unreadable(self.ref, _CUT, _CUT_REMEDY)
        return offset, count

    def _strip(self, page: Any, number: int, index: int) -> DeflatedRows:
        """The running decoder of one enormous strip; few are kept, as each keeps the rows read last."""
        strip = self._strips.pop((number, index), None)
        if strip is None:
            strip = DeflatedRows(self.ref, self.stream, page.keyframe, *self._place(page, index), self.byteorder)
        self._strips[number, index] = strip
        while len(self._strips) > _MOST_STRIPS:
            self._strips.popitem(last=False)
        return strip

    def _keep(self, key: tuple[int, int], pixels: np.ndarray) -> None:
        if pixels.nbytes > _CACHE_BYTES // 2:
            return
        self._kept[key] = pixels
        self._kept_bytes += pixels.nbytes
        while self._kept_bytes > _CACHE_BYTES:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes


def _normal_window(key: Any, window: Window) -> Window:
    """The window over (separate samples, depth, length, width, contiguous samples)."""
    named = dict(zip(key.axes, window, strict=True))
    separate, depth, _, _, contiguous = key.shaped
    samples = named.get("S", slice(0, 1))
    return (
        samples if separate > 1 else slice(0, 1),
        named.get("Z", slice(0, depth)),
        named["Y"],
        named["X"],
        samples if contiguous > 1 else slice(0, contiguous),
    )


def _paste(pixels: np.ndarray, origin: tuple[int, ...], at: Window, target: np.ndarray) -> None:
    """Copy the part of a segment that lies in the window `at` to its place in `target`."""
    source: list[slice] = []
    place: list[slice] = [slice(origin[0] - at[0].start, origin[0] - at[0].start + 1)]
    for axis in (1, 2, 3):
        start = max(at[axis].start, origin[axis])
        stop = min(at[axis].stop, origin[axis] + pixels.shape[axis - 1])
        source.append(slice(start - origin[axis], stop - origin[axis]))
        place.append(slice(start - at[axis].start, stop - at[axis].start))
    target[tuple(place)] = pixels[tuple(source)][..., at[4]][None]
