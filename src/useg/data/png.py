"""PNG files: the header from the chunks alone, the pixels by the fastest decoder that gives the same ones."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from useg.data.headers import Header, Opened, Window, unreadable

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_COLOURS = {_GREY: "grey", _RGB: "rgb", _PALETTE: "palette", _GREY_ALPHA: "rgba", _RGBA: "rgba"}
_CUT = "the file is cut off in the middle"
_CUT_REMEDY = "copy or export it again, or leave it out"


@dataclass
class _Chunks:
    """What the chunks of a PNG say."""

    height: int
    width: int
    bits: int
    colour_type: int
    palette: np.ndarray | None = None
    transparent: bool = False
    orientation: int = 1


def _orientation(exif: bytes) -> int:
    from PIL import Image

    tags = Image.Exif()
    tags.load(exif)
    value = tags.get(0x0112, 1)
    return int(value) if value in range(1, 9) else 1


def _walk(ref: str, stream: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Give (name, bytes) of each chunk up to the end mark, pixel data skipped.

    Raises:
        DataError: the file ends before the end mark.
    """
    position = len(SIGNATURE)
    while True:
        stream.seek(position)
        start = stream.read(8)
        if len(start) < 8:
            raise unreadable(ref, _CUT, _CUT_REMEDY)
        length, name = struct.unpack(">I4s", start)
        position += 12 + length
        if position > size:
            raise unreadable(ref, _CUT, _CUT_REMEDY)
        if name == b"IEND":
            return
        if name in (b"IHDR", b"PLTE", b"tRNS", b"eXIf"):
            yield name, stream.read(length)


def _chunks(ref: str, stream: BinaryIO, size: int) -> _Chunks:
    found: _Chunks | None = None
    for name, data in _walk(ref, stream, size):
        if name == b"IHDR":
            width, height, bits, colour_type = struct.unpack(">IIBB", data[:10])
            if colour_type not in _CHANNELS or bits not in (1, 2, 4, 8, 16) or not width or not height:
                raise unreadable(ref, "its PNG header makes no sense", _CUT_REMEDY)
            found = _Chunks(height, width, bits, colour_type)
        elif found is None:
            break
        elif name == b"PLTE":
            found.palette = np.frombuffer(data[: len(data) // 3 * 3], np.uint8).reshape(-1, 3)
        elif name == b"tRNS":
            found.transparent = True
        else:
            found.orientation = _orientation(data)
    if found is None or (found.colour_type == _PALETTE and found.palette is None):
        raise unreadable(ref, "its PNG header makes no sense", _CUT_REMEDY)
    return found


def _header(ref: str, chunks: _Chunks, size: int) -> Header:
    binary = chunks.colour_type == _GREY and chunks.bits == 1
    return Header(
        ref=ref,
        format="png",
        shape=(_CHANNELS[chunks.colour_type], chunks.height, chunks.width),
        dtype=np.dtype(np.uint16 if chunks.bits == 16 else np.uint8),
        colour="binary" if binary else _COLOURS[chunks.colour_type],
        palette=chunks.palette if chunks.colour_type == _PALETTE else None,
        orientation=chunks.orientation,
        file_bytes=size,
    )


def _pixels(data: bytes, chunks: _Chunks) -> np.ndarray:
    """(H, W[, channels]) as stored; grey of 2 and 4 bits is spread over 0..255, as viewers show it."""
    # The fast decoder turns indices into colours and transparency into a channel, so those go to Pillow,
    # which in turn would cut colours of 16 bits down to 8.
    if chunks.bits >= 8 and chunks.colour_type != _PALETTE and not chunks.transparent:
        import imagecodecs

        return np.asarray(imagecodecs.png_decode(data))
    if chunks.bits == 16 and chunks.colour_type == _RGB:
        import imagecodecs

        return np.asarray(imagecodecs.png_decode(data))[..., :3]
    from PIL import Image

    with Image.open(BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image)


@contextmanager
def open_png(path: Path) -> Iterator[Opened]:
    """Open a PNG; of an animated one only its still picture is read."""
    ref = str(path)
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        chunks = _chunks(ref, stream, size)
        header = _header(ref, chunks, size)

        def read(window: Window) -> np.ndarray:
            stream.seek(0)
            pixels = _pixels(stream.read(), chunks)
            if pixels.shape[:2] != header.space:
                raise unreadable(ref, f"its pixels are {pixels.shape}, its header says {header.shape}")
            part = pixels[window].astype(header.dtype, copy=False)
            return part[None] if part.ndim == 2 else np.moveaxis(part, -1, 0)

        yield Opened(header, read, streamable=False)
