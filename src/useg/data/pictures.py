"""JPEG, WebP, BMP and GIF files, by Pillow; a GIF or WebP of several frames is a stack of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from useg.data.headers import Header, Opened, Window, unreadable

_FORMATS = {"jpeg": ("JPEG", "MPO"), "bmp": ("BMP", "DIB"), "gif": ("GIF",), "webp": ("WEBP",)}
_MODES = {"1": "1", "L": "L", "P": "P", "RGB": "RGB", "RGBA": "RGBA", "LA": "LA", "PA": "RGBA"}
_COLOURS = {"1": "binary", "L": "grey", "P": "palette", "RGB": "rgb", "RGBA": "rgba", "LA": "rgba"}
_CHANNELS = {"1": 1, "L": 1, "P": 1, "RGB": 3, "RGBA": 4, "LA": 2}


def _palette(image: Any) -> np.ndarray | None:
    colours = image.getpalette("RGB")
    return None if colours is None else np.asarray(colours, np.uint8).reshape(-1, 3)


def _orientation(image: Any) -> int:
    value = image.getexif().get(0x0112, 1)
    return int(value) if value in range(1, 9) else 1


def _is_lossy_webp(path: Path) -> bool:
    """Whether the first frame of a WebP went through the lossy codec: pixels are in a chunk `VP8 `, not `VP8L`."""
    with path.open("rb") as stream:
        stream.seek(12)
        while len(chunk := stream.read(8)) == 8:
            name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
            if name in (b"VP8 ", b"VP8L"):
                return name == b"VP8 "
            # a frame of an animation is a chunk that begins with 16 bytes of its own and then holds chunks
            stream.seek(16 if name == b"ANMF" else size + size % 2, 1)
    return True


@contextmanager
def open_picture(path: Path, format_name: str) -> Iterator[Opened]:
    """Open a JPEG, WebP, BMP or GIF.

    CMYK and YCCK pictures are turned into RGB. A GIF or WebP of several frames is read as a stack (C, D, H, W):
    of RGB, or grey if its first frame is, since later frames may bring palettes of their own.
    """
    from PIL import Image

    with Image.open(path, formats=_FORMATS[format_name]) as image:
        frames = int(getattr(image, "n_frames", 1)) if format_name in ("gif", "webp") else 1
        mode = _MODES.get(image.mode, "RGB")
        if frames > 1 and mode != "L":
            mode = "RGB"
        shape = (_CHANNELS[mode], *((frames,) if frames > 1 else ()), image.height, image.width)
        header = Header(
            ref=str(path),
            format=format_name,
            shape=shape,
            dtype=np.dtype(np.uint8),
            colour=_COLOURS[mode],
            lossy=format_name == "jpeg" or (format_name == "webp" and _is_lossy_webp(path)),
            palette=_palette(image) if mode == "P" else None,
            orientation=_orientation(image) if format_name in ("jpeg", "webp") and frames == 1 else 1,
            file_bytes=path.stat().st_size,
        )

        def read(window: Window) -> np.ndarray:
            if frames == 1:
                return _frame(image, mode, window)
            planes = []
            for index in range(window[0].start, window[0].stop):
                image.seek(index)
                planes.append(_frame(image, mode, window[1:]))
            if not planes:
                raise unreadable(str(path), "an empty range of frames was asked for")
            return np.stack(planes, axis=1)

        yield Opened(header, read, streamable=frames > 1)


def _frame(image: Any, mode: str, window: Window) -> np.ndarray:
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))[window]
    pixels = pixels.astype(np.uint8, copy=False)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
