"""Valid sizes, margins and tile positions for a U-Net of any depth, with valid or padded convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from useg.errors import ConfigError

__all__ = [
    "AxisTiles",
    "Geometry",
    "axis_tiles",
    "margin_px",
    "mirror_index",
    "output_size",
    "per_axis",
    "valid_input_sizes",
]


@dataclass(frozen=True)
class Geometry:
    """What a U-Net does to the length of one axis.

    Attributes:
        strides: by what each pooling divides the axis, finest first; (2, 2, 2, 2) for the network of 2015.
        valid: True for convolutions without padding, which shorten the axis; False for padded ones.
        loss_px: pixels that the two 3-wide convolutions of one block take from the axis, at the block's
            own resolution; without effect for padded ones.
    """

    strides: tuple[int, ...]
    valid: bool
    loss_px: int = 4

    def __post_init__(self) -> None:
        if any(stride < 1 for stride in self.strides) or self.loss_px < 0 or self.loss_px % 2:
            raise ConfigError(
                "a U-Net needs strides of 1 or more and an even loss per block; "
                f"got strides {self.strides} and {self.loss_px} pixels"
            )

    @classmethod
    def halving(cls, depth: int, *, valid: bool) -> "Geometry":
        """The axis is halved `depth` times."""
        return cls((2,) * depth, valid)

    @property
    def factor(self) -> int:
        """2^depth where every stride is 2: starts at multiples of it meet the same pooling windows."""
        return prod(self.strides)

    @property
    def margin_px(self) -> int:
        """Pixels by which the input exceeds the output at each end; 92 for the network of 2015."""
        return self._loss * (2 * sum(self._scales) + self.factor) // 2

    @property
    def smallest_output(self) -> int:
        """The shortest output the network can give; 4 for the network of 2015."""
        return -self._loss * sum(self._scales) % self.factor or self.factor

    @property
    def smallest_input(self) -> int:
        """The shortest input the network accepts; 188 for the network of 2015."""
        return self.smallest_output + 2 * self.margin_px

    @property
    def _loss(self) -> int:
        return self.loss_px if self.valid else 0

    @property
    def _scales(self) -> list[int]:
        """Input pixels per pixel, at each level above the lowest."""
        return [prod(self.strides[:level]) for level in range(len(self.strides))]

    def accepts(self, size: int) -> bool:
        """Whether every pooling sees an even length and something is left at the end."""
        return size >= self.smallest_input and (size - self.smallest_input) % self.factor == 0

    def output_size(self, size: int) -> int:
        """Length of the output for an input of length `size`.

        Raises:
            ConfigError: the network does not accept this length.
        """
        if not self.accepts(size):
            first = self.smallest_input
            raise ConfigError(
                f"a U-Net of strides {self.strides} with {'valid' if self.valid else 'padded'} convolutions "
                f"takes inputs of {first} + {self.factor}k pixels, not {size}; the nearest larger one is "
                f"{self.input_size(max(size - 2 * self.margin_px, 1))}"
            )
        return size - 2 * self.margin_px

    def input_size(self, output: int) -> int:
        """The shortest accepted input whose output has at least `output` pixels."""
        missing = max(output - self.smallest_output, 0)
        return self.smallest_input + -(-missing // self.factor) * self.factor


def valid_input_sizes(depth: int, count: int) -> list[int]:
    """The `count` smallest inputs of a U-Net with valid convolutions: 188, 204, 220, ... for depth 4."""
    geometry = Geometry.halving(depth, valid=True)
    return [geometry.smallest_input + geometry.factor * index for index in range(count)]


def output_size(size: int, depth: int, *, valid: bool) -> int:
    """Length of the output for an input of length `size`: 388 for 572, depth 4, valid.

    Raises:
        ConfigError: a network of this depth does not accept `size`.
    """
    return Geometry.halving(depth, valid=valid).output_size(size)


def margin_px(depth: int, *, valid: bool) -> int:
    """Pixels by which the input exceeds the output at each end: 92 for depth 4, valid; 0 for padded."""
    return Geometry.halving(depth, valid=valid).margin_px


def mirror_index(start: int, stop: int, size: int) -> np.ndarray:
    """Where positions start..stop-1 of an axis mirrored at both ends lie on the axis itself.

    The end pixels are not repeated (... 2 1 0 1 2 ...), and an axis shorter than what is asked is mirrored
    again and again; an axis of one pixel repeats it.
    """
    if size == 1:
        return np.zeros(stop - start, dtype=np.intp)
    position = np.arange(start, stop, dtype=np.intp) % (2 * size - 2)
    return np.minimum(position, 2 * size - 2 - position)


@dataclass(frozen=True)
class AxisTiles:
    """Tiles along one axis; positions count from the image's first pixel and may lie outside the image.

    Attributes:
        size: pixels of the image.
        input_px: pixels a tile reads.
        output_px: pixels a tile gives.
        margin_px: pixels it reads before its first output.
        starts: first output position of each tile, ascending.
        ends: for exact tiles, where the next tile takes over; for blended ones, where the tile ends.
    """

    size: int
    input_px: int
    output_px: int
    margin_px: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def source(self, index: int) -> np.ndarray:
        """Pixels of the image that tile `index` reads, mirrored at the ends."""
        first = self.starts[index] - self.margin_px
        return mirror_index(first, first + self.input_px, self.size)


def axis_tiles(size: int, tile: int, geometry: Geometry, *, overlap: float = 0.0, edge_px: int = 0) -> AxisTiles:
    """Places tiles over an axis of `size` pixels.

    Valid convolutions: the first output is pixel 0 and every start is a multiple of 2^depth, so that each
    output equals that of the untiled network. Padded convolutions: neighbours share at least `overlap` of
    a tile, starts differ by multiples of 2^depth and are spread evenly, and at least `edge_px` mirrored
    pixels lie beyond each end. A tile longer than needed is shortened to the least that covers the image.

    Args:
        size: pixels of the axis, 1 or more.
        tile: pixels a tile reads; must be a length that the network accepts.
        geometry: what the network does to this axis.
        overlap: share of a tile, 0 to 0.9; padded convolutions only.
        edge_px: padded convolutions only.

    Raises:
        ConfigError: the tile is no accepted length, too short to step by 2^depth, or overlap out of range.
    """
    if not 0 <= overlap <= 0.9:
        raise ConfigError(f"the overlap of tiles must be between 0 and 0.9 of a tile, not {overlap}")
    geometry.output_size(tile)
    if geometry.valid:
        return _exact(size, tile, geometry)
    factor = geometry.factor
    extent = -(-(size + 2 * edge_px) // factor) * factor
    tile = min(tile, extent)
    step = max(int(tile * (1 - overlap) + 1e-6) // factor * factor, factor)
    count = -(-(extent - tile) // step) + 1
    cells = (extent - tile) // factor
    before = (extent - size) // 2
    starts = [index * cells // max(count - 1, 1) * factor - before for index in range(count)]
    return AxisTiles(size, tile, tile, 0, tuple(starts), tuple(start + tile for start in starts))


def _exact(size: int, tile: int, geometry: Geometry) -> AxisTiles:
    tile = min(tile, geometry.input_size(size))
    output = geometry.output_size(tile)
    step = output // geometry.factor * geometry.factor
    if output >= size:
        starts = [0]
    elif step == 0:
        raise ConfigError(
            f"a tile of {tile} pixels gives {output}, fewer than the {geometry.factor} that exact tiles "
            f"step by; take {geometry.input_size(geometry.factor)} or more"
        )
    else:
        starts = list(range(0, size - output + step, step))
    ends = [*starts[1:], starts[-1] + output]
    return AxisTiles(size, tile, output, geometry.margin_px, tuple(starts), tuple(ends))


def per_axis(geometry: Geometry | Sequence[Geometry], axes: int) -> tuple[Geometry, ...]:
    """One geometry for each axis, from one for all or one each.

    Raises:
        ConfigError: another number of geometries than axes, or valid and padded ones mixed.
    """
    each = (geometry,) * axes if isinstance(geometry, Geometry) else tuple(geometry)
    if len(each) != axes or len({one.valid for one in each}) != 1:
        raise ConfigError(f"{axes} axes need {axes} geometries, all valid or all padded; got {each}")
    return each
