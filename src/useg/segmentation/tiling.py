"""Overlap tiles in and out: an image of any size through a network, in order, within bounded memory.

Bands run along the first axis of space (rows of a picture, planes of a volume). What is held at a time is
one band of the source, one band of outputs and one batch of tiles; each source row is read once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod

import numpy as np

from useg.errors import ConfigError, ResourceError
from useg.segmentation.geometry import AxisTiles, Geometry, axis_tiles, per_axis

__all__ = [
    "Band",
    "Network",
    "Read",
    "TilePlan",
    "averaged_over_symmetries",
    "in_step",
    "plan_tiles",
    "predict_tiled",
]

Read = Callable[[tuple[slice, ...]], np.ndarray]
"""Gives the pixels (channels, *window) of a window inside the image, in any dtype."""

Network = Callable[[np.ndarray], np.ndarray]
"""Turns a batch (N, channels, *tile), dtype as read, into (N, outputs, *output tile), float32."""

Band = tuple[int, np.ndarray]
"""First row (or plane) and finished outputs (outputs, rows, ...); the array is the receiver's to keep."""

_GROWTH = (2.0, 1.5, 1.0)
_BATCH_PIXELS = 2**18
_READ_ROWS = (512, 64, 8, 1)


@dataclass(frozen=True)
class TilePlan:
    """How one image is cut.

    Attributes:
        axes: tiles along each axis of space.
        blended: neighbours are averaged with a smooth window (padded networks) instead of cut at seams.
        batch: tiles per call of the network, at most.
        read_rows: rows are read in blocks that start at multiples of this.
        peak_bytes: the most that prediction should need beyond what the process holds already.
    """

    axes: tuple[AxisTiles, ...]
    blended: bool
    batch: int
    read_rows: int
    peak_bytes: int

    @property
    def tile(self) -> tuple[int, ...]:
        """Shape of the network's input."""
        return tuple(axis.input_px for axis in self.axes)

    @property
    def count(self) -> int:
        """Tiles in all."""
        return prod(len(axis.starts) for axis in self.axes)


def plan_tiles(
    space: Sequence[int],
    channels: int,
    outputs: int,
    limit_bytes: int,
    *,
    patch: Sequence[int],
    geometry: Geometry | Sequence[Geometry],
    overlap: float = 0.25,
    edge_px: int = 0,
    item_bytes: int = 4,
    network_bytes_per_pixel: float = 0.0,
    receiver_bytes_per_pixel: float = 0.0,
    most_batch_pixels: int | None = None,
) -> TilePlan:
    """The largest tiles, reads and batches, in this order of importance, that stay within a memory limit.

    Tiles are between one and two times the patch; only a limit too small for that makes exact tiles smaller.
    For valid convolutions no choice changes the result. For padded ones the tile's size does, slightly (its
    border is where the network sees padding), and so it depends on the limit only where twice the patch does
    not fit.

    Args:
        space: pixels of the image along each axis.
        channels: channels as read.
        outputs: channels of the network's result.
        limit_bytes: for all arrays together, on top of what the process holds before.
        patch: tile the network was trained on; lengths it does not accept are raised to the next accepted.
        geometry: of the network, one for all axes or one each.
        overlap: what blended neighbours have in common at least, as a share of the patch: how far padding is
            felt has nothing to do with the size of a tile.
        edge_px: mirrored pixels beyond each end, at least, for blended tiles.
        item_bytes: bytes of one channel of one pixel as read.
        network_bytes_per_pixel: peak memory of the network per pixel of its input.
        receiver_bytes_per_pixel: what the receiver of a band needs per pixel of it.
        most_batch_pixels: bound of a batch that has nothing to do with the limit: a GPU's own memory. The
            smallest tile is tried whatever its size.

    Raises:
        ResourceError: no tiling fits; the text names the least limit that would do.
    """
    geometries = per_axis(geometry, len(space))
    least: TilePlan | None = None
    sizes = _tile_sizes(tuple(patch), geometries)
    for tile in sizes:
        axes = tuple(
            axis_tiles(size, length, one, overlap=min(overlap * trained / length, overlap), edge_px=edge_px)
            for size, length, trained, one in zip(space, tile, patch, geometries, strict=True)
        )
        pixels = prod(axis.input_px for axis in axes)
        tiles_in_band = prod(len(axis.starts) for axis in axes[1:])
        if most_batch_pixels is not None and pixels > most_batch_pixels and tile != sizes[-1]:
            continue
        most = min(_BATCH_PIXELS, most_batch_pixels or _BATCH_PIXELS)
        wanted_batch = min(max(most // pixels, 1), tiles_in_band)
        for read_rows, batch in product(_READ_ROWS, sorted({wanted_batch, 1}, reverse=True)):
            rows = min(read_rows, space[0])
            need = _peak_bytes(axes, channels * item_bytes, outputs, rows, receiver_bytes_per_pixel)
            need += round(batch * pixels * (network_bytes_per_pixel + channels * item_bytes + outputs * 4))
            plan = TilePlan(axes, not geometries[0].valid, batch, read_rows, need)
            if need <= limit_bytes:
                return plan
            least = plan if least is None or need < least.peak_bytes else least
    if least is None:
        raise ConfigError(f"no tile of {tuple(patch)} fits the network")
    raise ResourceError(
        f"predicting an image of {' x '.join(map(str, space))} pixels in tiles of "
        f"{' x '.join(map(str, least.tile))} needs {least.peak_bytes / 1e6:.0f} MB beyond what the program "
        f"itself takes; the memory limit leaves {max(limit_bytes, 0) / 1e6:.0f} MB. Raise it by "
        f"{(least.peak_bytes - limit_bytes) / 1e6:.0f} MB or more"
    )


def _tile_sizes(patch: tuple[int, ...], geometries: tuple[Geometry, ...]) -> list[tuple[int, ...]]:
    """Accepted tile shapes to try, largest first."""
    shares = [*_GROWTH, 0.75, 0.5, 0.25, 0.0] if geometries[0].valid else list(_GROWTH)
    shapes = []
    for share in shares:
        shape = []
        for length, one in zip(patch, geometries, strict=True):
            output = max(round(length * share) - 2 * one.margin_px, one.factor)
            shape.append(one.input_size(output))
        if tuple(shape) not in shapes:
            shapes.append(tuple(shape))
    return shapes


def _peak_bytes(axes: Sequence[AxisTiles], row_pixel_bytes: int, outputs: int, read_rows: int, receiver: float) -> int:
    """Source rows (twice while a block is appended) and bands of outputs (the next beside the last)."""
    first, others = axes[0], axes[1:]
    source_inner = prod(axis.size for axis in others)
    output_inner = prod(max(axis.ends[-1] - axis.starts[0], axis.size) for axis in others)
    source_rows = min(first.input_px + read_rows, first.size)
    source = (2 * source_rows + read_rows) * source_inner * row_pixel_bytes
    bands = 2 * first.output_px * output_inner * outputs * 4
    return round(source + bands + first.output_px * output_inner * receiver)


def predict_tiled(
    read: Read,
    space: Sequence[int],
    network: Network,
    plan: TilePlan,
    *,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Band]:
    """Yields bands of finished outputs from the first row to the last, without gaps.

    At its ends the image goes on as its mirror image; one smaller than a tile is mirrored repeatedly.
    Exact tiles (valid convolutions) give what the network would give for the whole mirrored image at once.
    Blended tiles are averaged with a Gaussian window (standard deviation 1/8 of a tile) that is scaled so
    that the weights of a pixel sum to 1.

    Args:
        read: called with windows that span all axes but the first entirely, top to bottom, once a row.
        space: pixels of the image along each axis.
        network: gets batches of at most `plan.batch` tiles.
        plan: made for this `space` by `plan_tiles`.
        advance: told how many tiles were finished after each call of the network.
    """
    first, others = plan.axes[0], plan.axes[1:]
    rows = _Rows(read, tuple(space), plan.read_rows)
    sources = [first.source(index) for index in range(len(first.starts))]
    kept_from = np.minimum.accumulate([int(source.min()) for source in sources][::-1])[::-1]
    grid = list(product(*(range(len(axis.starts)) for axis in others)))
    bands = _Bands(plan)
    for index, source in enumerate(sources):
        rows.hold(int(kept_from[index]), int(source.max()) + 1)
        for start in range(0, len(grid), plan.batch):
            places = grid[start : start + plan.batch]
            tiles = np.stack([rows.gather(source, others, place) for place in places])
            for place, output in zip(places, network(tiles), strict=True):
                bands.put((index, *place), output)
            if advance is not None:
                advance(len(places))
        band = bands.finish(index)
        if band is not None:
            yield band


class _Rows:
    """A sliding window over the rows of an image, filled in aligned blocks, each row read once."""

    def __init__(self, read: Read, space: tuple[int, ...], block: int) -> None:
        self._read, self._space, self._block = read, space, block
        self._start = self._stop = 0
        self._data: np.ndarray | None = None

    def hold(self, start: int, stop: int) -> None:
        """Makes rows start..stop-1 available and forgets those before `start`."""
        whole = tuple(slice(0, size) for size in self._space[1:])
        start = min(start, self._stop)
        end = min(-(-stop // self._block) * self._block, self._space[0])
        parts = []
        if self._data is not None:
            parts.append(self._data[:, start - self._start :] if end > self._stop else self._data)
        if end > self._stop:
            parts.append(self._read((slice(self._stop, end), *whole)))
            self._start = start if self._data is not None else self._stop
            self._data = None
            self._data = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
            self._stop = end

    def gather(self, source: np.ndarray, others: Sequence[AxisTiles], place: tuple[int, ...]) -> np.ndarray:
        """One tile (channels, *tile): rows `source`, along the other axes the tiles numbered `place`."""
        if self._data is None:
            raise ConfigError("no rows are held")
        tile = self._data
        indices = [source - self._start, *(axis.source(at) for axis, at in zip(others, place, strict=True))]
        for axis, index in enumerate(indices, start=1):
            first, last = int(index[0]), int(index[-1])
            if last - first == len(index) - 1 and bool((np.diff(index) == 1).all()):
                tile = tile[(slice(None),) * axis + (slice(first, last + 1),)]
            else:
                tile = np.take(tile, index, axis=axis)
        return tile


class _Bands:
    """Puts output tiles together: at seams for exact tiles, averaged for blended ones."""

    def __init__(self, plan: TilePlan) -> None:
        self._axes, self._blended = plan.axes, plan.blended
        self._windows = [_unit_windows(axis) for axis in plan.axes] if plan.blended else []
        self._band: np.ndarray | None = None

    def put(self, place: tuple[int, ...], output: np.ndarray) -> None:
        """Adds the tile numbered `place` along each axis."""
        if self._band is None:
            first, others = self._axes[0], self._axes[1:]
            extents = [axis.ends[-1] - axis.starts[0] for axis in others]
            self._band = np.zeros((output.shape[0], first.output_px, *extents), np.float32)
        target: list[slice] = [slice(None)]
        kept: list[slice] = [slice(None)]
        for number, (axis, at) in enumerate(zip(self._axes, place, strict=True)):
            origin = axis.starts[at] if number == 0 else axis.starts[0]
            length = axis.ends[at] - axis.starts[at]
            target.append(slice(axis.starts[at] - origin, axis.ends[at] - origin))
            kept.append(slice(0, length))
        if not self._blended:
            self._band[tuple(target)] = output[tuple(kept)]
            return
        for number, (windows, at) in enumerate(zip(self._windows, place, strict=True)):
            shape = [1] * output.ndim
            shape[number + 1] = -1
            output = output * windows[at].reshape(shape)
        self._band[tuple(target)] += output

    def finish(self, index: int) -> Band | None:
        """The rows that no later tile adds to; None where they lie outside the image."""
        first, others = self._axes[0], self._axes[1:]
        if self._band is None:
            raise ConfigError("a band without tiles")
        band, start = self._band, first.starts[index]
        last = index + 1 == len(first.starts)
        stop = first.ends[index] if last else first.starts[index + 1]
        self._band = None
        if self._blended and not last:
            self._band = np.zeros_like(band)
            self._band[:, : first.output_px - (stop - start)] = band[:, stop - start :]
        begin, end = max(start, 0), min(stop, first.size)
        if begin >= end:
            return None
        inner = tuple(slice(-axis.starts[0], axis.size - axis.starts[0]) for axis in others)
        return begin, band[(slice(None), slice(begin - start, end - start), *inner)]


def _unit_windows(axis: AxisTiles) -> np.ndarray:
    """(tiles, output pixels): Gaussian windows, scaled so that those over a pixel sum to 1."""
    offset = (np.arange(axis.output_px) - (axis.output_px - 1) / 2) / (axis.output_px / 8)
    window = np.exp(-0.5 * offset**2)
    origin = axis.starts[0]
    total = np.zeros(axis.ends[-1] - origin)
    for start in axis.starts:
        total[start - origin : start - origin + axis.output_px] += window
    return np.stack([window / total[start - origin : start - origin + axis.output_px] for start in axis.starts]).astype(
        np.float32
    )


def averaged_over_symmetries(network: Network, *, rotations: bool, flips: Sequence[bool] | None = None) -> Network:
    """The mean of the network's results over flips of each axis and, in 2D, rotations by 90 degrees.

    2D with rotations: all 8 symmetries of the square (the paper of 2015 averages 7 rotated versions);
    otherwise all flips: 4 in 2D, 8 in 3D.

    Args:
        network: must treat both axes alike if `rotations`.
        rotations: rotate as well; two axes of space only.
        flips: which axes of space may be flipped; None is all of them.
    """

    def averaged(batch: np.ndarray) -> np.ndarray:
        axes = tuple(range(2, batch.ndim))
        free = axes if flips is None else tuple(axis for axis, may in zip(axes, flips, strict=True) if may)
        changes: list[tuple[int, tuple[int, ...]]] = []
        if rotations and len(axes) == 2:
            changes = [(turns, flip) for turns in range(4) for flip in ((), axes[1:])]
        else:
            changes = [(0, flip) for count in range(len(free) + 1) for flip in combinations(free, count)]
        total: np.ndarray | None = None
        for turns, flip in changes:
            seen = np.flip(np.rot90(batch, turns, axes=(-2, -1)), flip)
            result = np.rot90(np.flip(network(np.ascontiguousarray(seen)), flip), -turns, axes=(-2, -1))
            total = np.array(result) if total is None else np.add(total, result, out=total)
        if total is None:
            raise ConfigError("no symmetry to average over")
        total /= len(changes)
        return total

    return averaged


def in_step(streams: Sequence[Iterator[Band]]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Bands of several streams over one image, cut so that all cover the same rows."""
    pending: list[Band | None] = [None] * len(streams)
    while True:
        for number, stream in enumerate(streams):
            if pending[number] is None:
                pending[number] = next(stream, None)
        ready = [band for band in pending if band is not None]
        if len(ready) < len(streams):
            return
        rows = min(band.shape[1] for _, band in ready)
        yield ready[0][0], [band[:, :rows] for _, band in ready]
        pending = [(row + rows, band[:, rows:]) if band.shape[1] > rows else None for row, band in ready]
