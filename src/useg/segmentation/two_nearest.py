"""Each pixel's distances to the nearest and to the second nearest object, exact, for all objects at once.

They are found one axis after the other, so that the cost does not depend on how many objects there are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from useg.arrays import Instances

_FAR = 12000
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Squares:
    """Squares of distances to the nearest and the second nearest object, as whole numbers of 1 / `unit`."""

    nearest: np.ndarray
    second: np.ndarray
    unit: int

    def within(self, squares: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Flat places of those that are about within a radius, and the distances there."""
        places = np.flatnonzero(squares <= int(radius * radius * self.unit) + 1)
        distances = self.distances(squares.reshape(-1)[places])
        is_within = distances <= np.float32(radius)
        return places[is_within], distances[is_within]

    def distances(self, squares: np.ndarray) -> np.ndarray:
        """Distances in pixels of the last axis, float32."""
        return np.asarray(np.sqrt(squares.astype(np.float32) * np.float32(1 / self.unit)))


def two_nearest(
    instances: Instances, radius: float, steps: tuple[float, ...], *, near: float | None = None,
    only_first: bool = False,
) -> Squares:  # fmt: skip
    """Distances to the nearest and the second nearest object, exact up to `radius`; the nearest, where it is wanted
    for no more than that, up to `near`.

    Squares of distances are kept as integers: as they are for pixels of equal size, else in 1/1024. Along the last
    axis the objects on either side are found by a scan. Then, one axis after the other, each pixel looks along the
    axis: the nearest is the least of the squares it sees, with the id in the low bits; the second is the least among
    all others, and what a pixel seen offers is its own nearest object or, if that is ours already, its second.
    """
    whole = all(step == round(step) for step in steps)
    unit = 1 if whole else 1024
    limit = int(radius * radius * unit) + 1
    objects = _numbered(instances)
    bits = int(objects.max(initial=0)).bit_length()
    small = whole and bits <= 16 and limit < _FAR and instances.shape[-1] < 1 << 14
    far = _FAR if small else 2 * limit
    kind: np.dtype[Any] = np.dtype(np.int16 if small else np.int64)
    best, owner, other = _scan(objects.reshape(-1, objects.shape[-1]), round(steps[-1] ** 2 * unit), far, kind)
    held = [values.reshape(objects.shape) for values in (best, owner.view(np.uint16) if small else owner, other)]
    for axis in reversed(range(instances.ndim - 1)):
        reach = min(int(radius / steps[axis]), instances.shape[axis] - 1)
        squares = [round((offset * steps[axis]) ** 2 * unit) for offset in range(1, reach + 1)]
        # the axes before the last one need all that the last one may look at
        most = reach if axis or near is None else min(reach, int(near / steps[axis]))

        def look(
            best: np.ndarray, owner: np.ndarray, other: np.ndarray, squares: list[int] = squares, most: int = most
        ) -> tuple[np.ndarray, ...]:
            if only_first:
                return _nearest(best, squares, far), owner, other
            return _look(best, owner, other, squares, most, far, bits)

        held = _along(axis, held, look)
    return Squares(held[0], held[2], unit)


def _numbered(instances: Instances) -> np.ndarray:
    """Ids without negative ones, and small enough for short integers unless there are very many objects."""
    objects: np.ndarray = np.maximum(instances, 0)
    if objects.max(initial=0) < 1 << 16:
        return objects
    ids, places = np.unique(objects, return_inverse=True)
    return places.reshape(objects.shape) + int(ids[0] > 0)


def _along(axis: int, arrays: Sequence[np.ndarray], work: Callable[..., tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Do `work` on lines along an axis, brought first and side by side, in blocks that stay in the cache."""
    results = [np.empty_like(array) for array in arrays]
    lines = [np.moveaxis(array, axis, 0) for array in arrays]
    columns = [np.moveaxis(array, axis, 0) for array in results]
    for block in _blocks(lines[0].shape):
        found = work(*(np.ascontiguousarray(line[block]).reshape(len(line), -1) for line in lines))
        for column, values in zip(columns, found, strict=True):
            column[block] = values.reshape(column[block].shape)
    return results


def _scan(lines: np.ndarray, unit: int, far: int, kind: np.dtype[Any]) -> tuple[np.ndarray, ...]:
    """The squares of the two nearest objects' distances along the last axis, and between them the nearest one's id.

    Which two objects these are is the same for all pixels of an object, and of the half of a gap.
    """
    side, beyond = lines.shape[1], math.isqrt(far // unit) + 1
    flat = lines.reshape(-1)
    begins = np.empty(flat.shape, dtype=bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::side] = True
    starts = np.flatnonzero(begins)
    row, first = np.divmod(starts, side)
    lengths = np.diff(starts, append=len(flat))
    ids = flat[starts]
    last = first + lengths - 1

    at_left, farther_left = _met(ids, row)
    at_right, farther_right = (np.where(met < 0, -1, len(ids) - 1 - met)[::-1] for met in _met(ids[::-1], row[::-1]))
    id_left, id_right = (np.append(ids, 0)[met] for met in (at_left, at_right))
    left, other_left = (np.append(last, -1 - beyond)[met] for met in (at_left, farther_left))
    right, other_right = (np.append(first, side + beyond)[met] for met in (at_right, farther_right))
    is_same = id_left == id_right
    half = np.where(ids > 0, lengths, np.clip((left + right) // 2 + 1 - first, 0, lengths))

    def spread(*halves: np.ndarray) -> np.ndarray:
        values = np.stack(halves, axis=1).astype(kind)
        return np.repeat(values.reshape(-1), np.stack([half, lengths - half], axis=1).reshape(-1)).reshape(lines.shape)

    places = np.arange(side, dtype=kind)
    nearest = np.abs(places - spread(left, right)) * (lines == 0)
    other = np.minimum(
        places - spread(other_left, np.where(is_same, other_left, left)),
        spread(np.where(is_same, other_right, right), other_right) - places,
    )
    squares = (np.minimum(np.minimum(distance, beyond) ** 2 * kind.type(unit), far) for distance in (nearest, other))
    return next(squares), spread(id_left, id_right), next(squares)


def _met(ids: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each stretch, the object's at it or before, and the last before that of another object, in its row; or -1."""
    objects = np.flatnonzero(ids)
    met = np.where(ids > 0, np.arange(len(ids)), -1)
    other = np.full(len(ids) + 1, -1)
    is_new = ids[objects[1:]] != ids[objects[:-1]]
    other[objects[1:]] = np.maximum.accumulate(np.where(is_new, objects[:-1], -1))
    met = np.maximum.accumulate(met)
    found = (np.where(row[index] == row, index, -1) for index in (met, other[met]))
    return next(found), next(found)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut all axes but the first such that a block stays in the processor's cache."""
    width = max(1, _BLOCK // max(1, shape[0]))
    if len(shape) == 2:
        for start in range(0, shape[1], width):
            yield (slice(None), slice(start, start + width))
    else:
        rows = max(1, width // shape[2])
        for start in range(0, shape[1], rows):
            yield (slice(None), slice(start, start + rows))


def _nearest(best: np.ndarray, squares: list[int], far: int) -> np.ndarray:
    """The least of each value and its neighbours' along the first axis, plus the squares of their distances."""
    side, reach = len(best), len(squares)
    padded = _padded(best, reach, far)
    least, seen = best.copy(), np.empty_like(best)
    for offset, square in enumerate(squares, start=1):
        np.minimum(padded[reach - offset :][:side], padded[reach + offset :][:side], out=seen)
        seen += best.dtype.type(square)
        np.minimum(least, seen, out=least)
    return least


def _look(
    best: np.ndarray, owner: np.ndarray, other: np.ndarray, squares: list[int], most: int, far: int, bits: int
) -> tuple[np.ndarray, ...]:
    """One step of `two_nearest` along the first axis, for lines side by side; for the nearest only `most` far."""
    side, reach = len(best), len(squares)
    wide = np.dtype(np.int32 if best.dtype == np.int16 else np.int64)
    key = best.astype(wide) << bits | owner.astype(wide)
    key = _nearest(key, [square << bits for square in squares[:most]], far << bits)
    mine = (key & wide.type((1 << bits) - 1)).astype(owner.dtype)
    nearest = (key >> bits).astype(best.dtype)
    farther = _padded(other, reach, far)
    gain = _padded(other - best, reach, 0)
    owners = _padded(owner, reach, 0)
    second, seen = np.full_like(best, far), np.empty_like(best)
    differs, mask = np.empty(best.shape, dtype=bool), np.empty_like(best)
    for offset, square in enumerate([0, *squares]):
        for start in {reach - offset, reach + offset}:
            np.not_equal(owners[start : start + side], mine, out=differs)
            np.negative(differs.view(np.int8), out=mask)  # all bits or none: ten times faster than np.where
            np.bitwise_and(gain[start : start + side], mask, out=mask)
            np.subtract(farther[start : start + side], mask, out=seen)
            seen += best.dtype.type(square)
            np.minimum(second, seen, out=second)
    return nearest, mine, second


def _padded(lines: np.ndarray, reach: int, value: int) -> np.ndarray:
    padded = np.full((len(lines) + 2 * reach, lines.shape[1]), value, dtype=lines.dtype)
    padded[reach : reach + len(lines)] = lines
    return padded


__all__ = ["Squares", "two_nearest"]
