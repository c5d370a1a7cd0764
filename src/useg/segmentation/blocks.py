"""Instances of an image too large to separate at once: block by block, objects joined across the seams."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from useg.arrays import Instances
from useg.errors import ConfigError
from useg.segmentation.instances import FOREGROUND_STEPS, summed_foreground
from useg.segmentation.tiling import Band

__all__ = ["Joins", "block_cuts", "label_blocks"]


class Joins:
    """Which provisional ids are one object, and how many pixels each has.

    Ids are handed out block by block, so an object that lies in several blocks has several until `lookup`.
    """

    def __init__(self, agreement: float = 0.5) -> None:
        """Two views are of one object if they share more than `agreement` (0 to 1) of the smaller."""
        if not 0 <= agreement < 1:
            raise ConfigError(f"the agreement of two views must be at least 0 and below 1, not {agreement}")
        self._agreement = agreement
        self._issued = 0
        self._pairs: list[np.ndarray] = []
        self._sizes: list[tuple[int, np.ndarray, np.ndarray]] = []

    def number(self, labels: Instances) -> Instances:
        """The block's own ids 1..n as provisional ids that no other block has."""
        first = self._issued
        self._issued += int(labels.max(initial=0))
        if self._issued >= np.iinfo(np.int32).max:
            raise ConfigError("more than 2^31 objects: raise the smallest size of an object")
        return np.where(labels > 0, labels + first, 0).astype(np.int32)

    def compare(self, one: Instances, other: Instances) -> None:
        """Joins the objects of two views of the same pixels that agree."""
        both = (one > 0) & (other > 0)
        if not both.any():
            return
        keys, shared = np.unique((one[both].astype(np.int64) << 32) | other[both], return_counts=True)
        pairs = np.stack([keys >> 32, keys & (2**32 - 1)])
        smaller = np.minimum(_sizes_of(one, pairs[0]), _sizes_of(other, pairs[1]))
        self._pairs.append(pairs[:, shared > self._agreement * smaller])

    def count(self, labels: Instances, background: Float[np.ndarray, "*space"]) -> None:
        """Adds finished pixels to the objects' sizes and scores."""
        present = labels[labels > 0]
        if present.size:
            first = int(present.min())
            ids = present - first
            self._sizes.append((first, np.bincount(ids), summed_foreground(ids, background[labels > 0])))

    def lookup(self, min_size_px: int, min_score: float = 0.0) -> Int[np.ndarray, " ids"]:
        """Final id of each provisional id: 1..n in the order of appearance, 0 for too small and too faint objects."""
        nodes = self._issued + 1
        pairs = np.concatenate(self._pairs, axis=1) if self._pairs else np.zeros((2, 0), np.int64)
        links = coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(nodes, nodes))
        # Components are numbered by their first node, that is in the order of appearance.
        _, component = connected_components(links, directed=False)
        del links, pairs
        sizes = np.zeros(int(component.max()) + 1, np.int64)
        sums = np.zeros(sizes.size, np.float64)
        for first, counts, foreground in self._sizes:
            np.add.at(sizes, component[first : first + counts.size], counts)
            np.add.at(sums, component[first : first + counts.size], foreground)
        kept = (sizes >= max(min_size_px, 1)) & (sums >= min_score * FOREGROUND_STEPS * sizes)
        kept[component[0]] = False
        final = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
        result: np.ndarray = final[component]
        return result


def _sizes_of(labels: Instances, wanted: Integer[np.ndarray, " pairs"]) -> np.ndarray:
    ids, counts = np.unique(labels, return_counts=True)
    return counts[np.searchsorted(ids, wanted)]


def block_cuts(size: int, block_px: int, overlap_px: int) -> list[tuple[int, int]]:
    """Blocks (start, stop) over an axis, evenly spread, neighbours sharing at least `overlap_px`.

    Raises:
        ConfigError: the overlap is not shorter than the block.
    """
    if not 0 < overlap_px < block_px:
        raise ConfigError(f"blocks of {block_px} pixels cannot overlap by {overlap_px}")
    if size <= block_px:
        return [(0, size)]
    count = -(-(size - overlap_px) // (block_px - overlap_px))
    starts = [index * (size - block_px) // (count - 1) for index in range(count)]
    return [(start, start + block_px) for start in starts]


def label_blocks(
    bands: Iterator[Band],
    space: tuple[int, ...],
    separate: Callable[[np.ndarray], Instances],
    joins: Joins,
    *,
    block_px: int,
    overlap_px: int,
) -> Iterator[Band]:
    """Yields (first row, provisional ids of rows) from top to bottom; `joins.lookup` makes them final.

    Each block is separated with `overlap_px` seen by its neighbour as well. Of what two neighbours see, the
    half around the seam decides which of their objects are one; each gives the pixels on its side of it.

    Args:
        bands: activated outputs, the background first, bands along the first axis in order, as `predict_tiled`
            yields them.
        space: pixels of the image along each axis.
        separate: outputs of a block (outputs, *block) to instances 1..n, 0 background.
        joins: collects ids, sizes and pairs; use a new one for each image.
        block_px: longest side of a block.
        overlap_px: should exceed the diameter of most objects.
    """
    cuts = block_cuts(space[0], block_px, overlap_px)
    seams = _seams(cuts, space[0])
    slab: np.ndarray | None = None
    held_from = 0
    previous: tuple[int, np.ndarray] | None = None
    for (start, stop), (first, last) in zip(cuts, pairwise(seams), strict=True):
        parts = [] if slab is None else [slab[:, start - held_from :]]
        held_from = start
        while held_from + sum(part.shape[1] for part in parts) < stop:
            parts.append(next(bands)[1])
        slab = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        del parts
        labels = _label(slab[:, : stop - start], separate, joins, block_px, overlap_px, axis=1)
        if previous is not None:
            _compare(joins, previous[1], labels, previous[0], start, axis=0)
        previous = (start, labels)
        rows = labels[first - start : last - start]
        joins.count(rows, slab[0, first - start : last - start])
        yield first, rows


def _label(
    outputs: np.ndarray,
    separate: Callable[[np.ndarray], Instances],
    joins: Joins,
    block_px: int,
    overlap_px: int,
    *,
    axis: int,
) -> Instances:
    """Provisional ids of one slab, cut along `axis` (of space) and all later ones."""
    space = outputs.shape[1:]
    if axis == len(space):
        return joins.number(separate(np.ascontiguousarray(outputs)))
    lead = (slice(None),) * axis
    result = np.zeros(space, np.int32)
    cuts = block_cuts(space[axis], block_px, overlap_px)
    previous: tuple[int, np.ndarray] | None = None
    for (start, stop), (first, last) in zip(cuts, pairwise(_seams(cuts, space[axis])), strict=True):
        part = outputs[(slice(None), *lead, slice(start, stop))]
        labels = _label(part, separate, joins, block_px, overlap_px, axis=axis + 1)
        if previous is not None:
            _compare(joins, previous[1], labels, previous[0], start, axis=axis)
        previous = (start, labels)
        result[(*lead, slice(first, last))] = labels[(*lead, slice(first - start, last - start))]
    return result


def _seams(cuts: list[tuple[int, int]], size: int) -> list[int]:
    """0, the middle of each overlap, and the end."""
    return [0, *((stop + start) // 2 for (_, stop), (start, _) in pairwise(cuts)), size]


def _compare(
    joins: Joins, before: Instances, after: Instances, before_start: int, after_start: int, *, axis: int
) -> None:
    """Compares two neighbours on the middle half of what both see; near a block's end objects are cut off."""
    lead = (slice(None),) * axis
    stop = before_start + before.shape[axis]
    quarter = (stop - after_start) // 4
    first, last = after_start + quarter, max(stop - quarter, after_start + quarter + 1)
    joins.compare(
        before[(*lead, slice(first - before_start, last - before_start))],
        after[(*lead, slice(first - after_start, last - after_start))],
    )
