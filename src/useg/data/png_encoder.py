"""Writes PNG row by row, so that a map never has to be whole in memory."""

import struct
import zlib
from typing import Any, BinaryIO

import numpy as np

from useg.data.map_form import MapForm
from useg.data.png import SIGNATURE

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
_PALETTE = 3
_PIECE_BYTES = 2**18


def png_can_hold(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether a PNG has a place for such an array: 2D, 1, 3 or 4 channels of 8 or 16 bits, unsigned."""
    return len(shape) == 3 and shape[0] in _COLOUR_TYPES and dtype in (np.uint8, np.uint16)


def orientation_block(orientation: int) -> bytes:
    """An EXIF block that holds nothing but the orientation tag."""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, orientation, 0, 0)


class PngEncoder:
    """An `Encoder` for PNG: grey, indexed (one uint8 channel with a palette), RGB or RGBA."""

    def __init__(self, stream: BinaryIO, form: MapForm) -> None:
        channels, height, width = form.shape
        self._stream = stream
        self._deflate = zlib.compressobj(6)
        self._waiting = bytearray()
        indexed = form.palette is not None and channels == 1 and form.dtype == np.uint8
        colour_type = _PALETTE if indexed else _COLOUR_TYPES[channels]
        stream.write(SIGNATURE)
        bits = form.dtype.itemsize * 8
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
        if indexed:
            self._chunk(b"PLTE", form.full_palette().tobytes())
        if form.orientation != 1:
            self._chunk(b"eXIf", orientation_block(form.orientation))

    def _chunk(self, name: bytes, data: bytes) -> None:
        check = zlib.crc32(data, zlib.crc32(name))
        self._stream.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", check))

    def write(self, block: np.ndarray) -> None:
        """Take the next rows (C, h, W)."""
        rows = np.moveaxis(block, 0, -1)
        big_endian = rows.astype(rows.dtype.newbyteorder(">"), order="C").reshape(len(rows), -1)
        # Each row begins with the number of its filter; maps of flat areas need none.
        filtered = np.zeros((len(rows), 1 + big_endian.shape[1] * rows.dtype.itemsize), np.uint8)
        filtered[:, 1:] = big_endian.view(np.uint8)
        self._waiting += self._deflate.compress(filtered.tobytes())
        if len(self._waiting) >= _PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._chunk(b"IDAT", bytes(self._waiting))
            self._waiting.clear()

    def finish(self) -> None:
        """Write the end of the pixels and the end mark."""
        self._waiting += self._deflate.flush()
        self._flush()
        self._chunk(b"IEND", b"")

    def close(self) -> None:
        """Forget what was not written."""
        self._waiting.clear()
