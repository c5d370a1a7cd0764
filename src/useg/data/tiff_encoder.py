"""Writes TIFF band by band: tiles or strips are compressed as they come, the directory follows at the end."""

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from useg.data.map_form import MapForm
from useg.data.tiff_tags import ASCII, DOUBLE, LONG, LONG8, RATIONAL, SHORT, Tag, inherited_tags

_PACK = {SHORT: "H", LONG: "I", DOUBLE: "d", LONG8: "Q"}
_BYTES = {ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, DOUBLE: 8, LONG8: 8}
_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}

_TILE_PX = 256
_TILED_FROM_PX = 2**24  # smaller pictures are kept in strips, which more programs read
_STRIP_BYTES = 2**18
_BIG_FROM_BYTES = 3_500_000_000
_LEVEL_OF_LABELS, _LEVEL_OF_FLOATS = 6, 1  # noise of probabilities hardly packs at any level


class TiffEncoder:
    """An `Encoder` for TIFF: deflate, one page a plane; BigTIFF where the map may pass 4 GB.

    One uint8 channel with a palette is indexed, 3 or 4 uint8 channels are RGB(A), other channels lie
    one after the other (planar). The geo-reference and resolution of a TIFF source are copied;
    spacing of other sources is written as ImageJ does.
    """

    def __init__(self, stream: BinaryIO, form: MapForm) -> None:
        self._stream, self._form = stream, form
        self._channels, (self._height, self._width) = form.shape[0], form.shape[-2:]
        self._big = form.nbytes > _BIG_FROM_BYTES
        self._solid = len(form.shape) == 4
        self._interleaved = form.dtype == np.uint8 and self._channels in (3, 4)
        tiled = not self._solid and self._height * self._width >= _TILED_FROM_PX
        row_bytes = self._width * form.dtype.itemsize * (self._channels if self._interleaved else 1)
        rows = min(self._height, max(1, _STRIP_BYTES // row_bytes))
        self._chunk = (_TILE_PX, _TILE_PX) if tiled else (rows, self._width)
        self._tiled = tiled
        self._level = _LEVEL_OF_FLOATS if form.dtype.kind == "f" else _LEVEL_OF_LABELS
        self._waiting: list[np.ndarray] = []
        self._segments: list[list[tuple[int, int]]] = [[] for _ in range(self._planes_of_samples)]
        self._inherited = inherited_tags(form)
        if self._big:
            stream.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        else:
            stream.write(struct.pack("<2sHI", b"II", 42, 0))
        self._link = 8 if self._big else 4
        self._pages = 0

    @property
    def _planes_of_samples(self) -> int:
        return 1 if self._interleaved else self._channels

    def write(self, block: np.ndarray) -> None:
        """Take the next rows (C, h, W) or planes (C, d, H, W)."""
        if not self._solid:
            self._rows(block)
            return
        for plane in range(block.shape[1]):
            self._rows(block[:, plane])
            self._end_page()

    def finish(self) -> None:
        """Write the last directory."""
        if not self._solid:
            self._end_page()

    def close(self) -> None:
        """Forget what was not written."""
        self._waiting = []

    def _rows(self, rows: np.ndarray) -> None:
        # A copy: the caller may use its block again for the next band.
        self._waiting.append(rows.copy())
        if sum(part.shape[1] for part in self._waiting) >= self._chunk[0]:
            band = np.concatenate(self._waiting, axis=1)
            whole = band.shape[1] // self._chunk[0] * self._chunk[0]
            for start in range(0, whole, self._chunk[0]):
                self._segment_row(band[:, start : start + self._chunk[0]])
            self._waiting = [band[:, whole:].copy()] if whole < band.shape[1] else []

    def _segment_row(self, rows: np.ndarray) -> None:
        """Compress one row of tiles, or one strip."""
        import imagecodecs

        height, width = self._chunk
        for start in range(0, self._width, width):
            part = rows[:, :, start : start + width]
            if self._tiled and part.shape[1:] != self._chunk:
                part = np.pad(part, ((0, 0), (0, height - part.shape[1]), (0, width - part.shape[2])))
            groups = [np.moveaxis(part, 0, -1)] if self._interleaved else list(part)
            for place, samples in zip(self._segments, groups, strict=True):
                data = imagecodecs.deflate_encode(np.ascontiguousarray(samples).tobytes(), self._level)
                place.append((self._stream.tell(), len(data)))
                self._stream.write(data)

    def _end_page(self) -> None:
        if self._waiting:
            self._segment_row(np.concatenate(self._waiting, axis=1))
            self._waiting = []
        segments = [segment for place in self._segments for segment in place]
        tags = [*self._page_tags(), *self._place_tags(segments)]
        self._write_directory(sorted(tags, key=lambda tag: tag[0]))
        self._segments = [[] for _ in range(self._planes_of_samples)]
        self._pages += 1

    def _page_tags(self) -> Iterator[Tag]:
        form, count = self._form, self._channels
        indexed = form.palette is not None and count == 1 and form.dtype == np.uint8
        yield 254, LONG, (2 if self._solid else 0,)
        yield 256, LONG, (self._width,)
        yield 257, LONG, (self._height,)
        yield 258, SHORT, (form.dtype.itemsize * 8,) * count
        yield 259, SHORT, (8,)
        yield 262, SHORT, (3 if indexed else 2 if self._interleaved else 1,)
        yield 274, SHORT, (form.orientation,)
        yield 277, SHORT, (count,)
        yield 284, SHORT, (1 if self._interleaved or count == 1 else 2,)
        yield 305, ASCII, b"useg\0"
        yield 339, SHORT, (_SAMPLE_FORMAT[form.dtype.kind],) * count
        if indexed:
            yield 320, SHORT, tuple((form.full_palette().T.astype(np.uint16) * 257).ravel().tolist())
        extra = count - (3 if self._interleaved else 1)
        if extra:
            yield 338, SHORT, (2 if self._interleaved else 0,) * extra
        if not self._pages:
            yield from self._inherited

    def _place_tags(self, segments: Sequence[tuple[int, int]]) -> Iterator[Tag]:
        kind = LONG8 if self._big else LONG
        if self._tiled:
            yield 322, SHORT, (_TILE_PX,)
            yield 323, SHORT, (_TILE_PX,)
        else:
            yield 278, LONG, (self._chunk[0],)
        yield (324 if self._tiled else 273), kind, [offset for offset, _ in segments]
        yield (325 if self._tiled else 279), kind, [count for _, count in segments]

    def _write_directory(self, tags: Sequence[Tag]) -> None:
        stream, big = self._stream, self._big
        room, entry = (8, "<HHQ") if big else (4, "<HHI")
        parts = []
        for code, kind, values in tags:
            data = _packed(kind, values)
            number = len(data) // _BYTES[kind]
            if len(data) > room:
                stream.write(bytes(stream.tell() % 2))
                where = stream.tell()
                stream.write(data)
                data = struct.pack("<Q" if big else "<I", where)
            parts.append(struct.pack(entry, code, kind, number) + data.ljust(room, b"\0"))
        stream.write(bytes(stream.tell() % 2))
        where = stream.tell()
        stream.write(struct.pack("<Q" if big else "<H", len(parts)) + b"".join(parts) + bytes(room))
        end = stream.tell()
        stream.seek(self._link)
        stream.write(struct.pack("<Q" if big else "<I", where))
        stream.seek(end)
        self._link = end - room


def _packed(kind: int, values: Sequence[Any] | bytes) -> bytes:
    if isinstance(values, bytes):
        return values
    if kind == RATIONAL:
        return b"".join(struct.pack("<II", *_ratio(value)) for value in values)
    return struct.pack(f"<{len(values)}{_PACK[kind]}", *values)


def _ratio(value: float) -> tuple[int, int]:
    """The fraction of two 32-bit numbers nearest to a positive value."""
    if value >= 2**31:
        return 2**32 - 1, 1
    limit = 2**31 - 1 if value <= 1 else max(1, int((2**31 - 1) / value))
    fraction = Fraction(value).limit_denominator(limit)
    return (fraction.numerator, fraction.denominator) if fraction else (1, 2**32 - 1)
