"""The form a map takes in its file: shape, dtype, palette, and what it inherits from its source."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np


@dataclass(frozen=True)
class MapForm:
    """What an encoder needs to know before the first block comes.

    Attributes:
        shape: (C, H, W) or (C, D, H, W) as stored in the file.
        dtype: of the stored values.
        palette: (n, 3) uint8 colours of the values of one uint8 channel.
        orientation: the tag to write; `shape` is already turned accordingly.
        spacing: per stored axis of space.
        spacing_unit: as in the source's header.
        affine: NIfTI's, if the source had one.
        source: the source's file, for tags that are copied as they are; it may be gone.
        source_format: the source's format.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    palette: np.ndarray | None
    orientation: int
    spacing: tuple[float, ...] | None
    spacing_unit: str | None
    affine: np.ndarray | None
    source: Path
    source_format: str

    @property
    def nbytes(self) -> int:
        """Bytes of all values, not compressed."""
        return prod(self.shape) * self.dtype.itemsize

    def full_palette(self) -> np.ndarray:
        """The palette with 256 colours, black where none is given."""
        colours = np.zeros((256, 3), np.uint8)
        if self.palette is not None:
            colours[: len(self.palette)] = self.palette[:256]
        return colours


class Encoder(Protocol):
    """Turns blocks of rows (of planes, in 3D) that come in order into the bytes of a file."""

    def __init__(self, stream: BinaryIO, form: MapForm) -> None: ...

    def write(self, block: np.ndarray) -> None:
        """Take the next block, (C, h, W) or (C, d, H, W)."""

    def finish(self) -> None:
        """Write what is left after the last block; the stream stays open."""

    def close(self) -> None:
        """Let go of what the encoder itself holds, also when the map is given up."""
