"""The forms a stored label map comes in, brought to two: one plane of numbers, or colours."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32, Integer, Shaped

from useg.arrays import Raw
from useg.errors import DataError

Plane = Shaped[np.ndarray, "*space"]
"""One number per pixel."""

CHUNK = 1 << 22
"""Pixels that are counted at a time."""


def is_grey(raw: Raw) -> bool:
    """Whether one number per pixel says it all: 1 channel, 1 and alpha, or equal colour channels."""
    if len(raw) <= 2:
        return True
    return len(raw) <= 4 and bool((raw[0] == raw[1]).all() and (raw[0] == raw[2]).all())


def as_grey(raw: Raw, *, mean: bool = False) -> Plane:
    """One number per pixel; alpha is dropped.

    Args:
        raw: (channels, *space).
        mean: average colour channels that differ, instead of refusing them.

    Raises:
        DataError: the colour channels differ, or there are more than four channels.
    """
    if len(raw) > 4:
        raise DataError(f"a label map has one channel or a colour, this one has {len(raw)} channels")
    if is_grey(raw):
        first: np.ndarray = raw[0]
        return first
    if mean:
        average: np.ndarray = raw[:3].mean(0)
        return average
    raise DataError('the label map is coloured, and the mapping lists numbers (kind = "colours" lists colours)')


def as_colours(raw: Raw, palette: Shaped[np.ndarray, "n 3"] | None = None) -> Shaped[np.ndarray, "components *space"]:
    """Three or four numbers per pixel: palette indices are looked up, grey becomes (v, v, v).

    Raises:
        DataError: more than four channels; a palette index beyond the palette.
    """
    if len(raw) > 4:
        raise DataError(f"a label map has one channel or a colour, this one has {len(raw)} channels")
    if len(raw) >= 3:
        return raw
    if palette is None:
        return np.repeat(raw[:1], 3, 0)
    if raw[0].size and int(raw[0].max()) >= len(palette):
        raise DataError(f"the label map uses palette entry {int(raw[0].max())}, its palette has {len(palette)}")
    return np.moveaxis(palette[raw[0]], -1, 0)


def whole_numbers(grey: Plane) -> Integer[np.ndarray, "*space"]:
    """The same numbers in an integer dtype.

    Raises:
        DataError: NaN, infinite or fractional values, or complex numbers.
    """
    if grey.dtype.kind == "b":
        return grey.astype(np.uint8)
    if grey.dtype.kind in "iu":
        return grey
    if grey.dtype.kind != "f":
        raise DataError(f"a label map of dtype {grey.dtype} holds no class numbers")
    bad = int(np.count_nonzero(~np.isfinite(grey)))
    if bad:
        raise DataError(f"{bad} label pixels are NaN or infinite")
    whole = grey.astype(np.int64)
    fractions = int(np.count_nonzero(whole != grey))
    if fractions:
        raise DataError(f"{fractions} label pixels are not whole numbers")
    return whole


def pack_colours(colours: Shaped[np.ndarray, "components *space"]) -> Shaped[np.ndarray, "*space"]:
    """One integer code per pixel: 8 bits a component where they fit (uint32), else 16 (uint64)."""
    wide = colours.dtype.itemsize > 1
    step, dtype = (16, np.uint64) if wide else (8, np.uint32)
    code = np.zeros(colours.shape[1:], dtype)
    for component in colours:
        code = (code << dtype(step)) | component.astype(dtype)
    return code


def unpack_colours(codes: Shaped[np.ndarray, "n"], components: int) -> Integer[np.ndarray, "n components"]:
    """Undo `pack_colours`: (n, components) int64."""
    step = 16 if codes.dtype == np.uint64 else 8
    shifts = np.arange(components - 1, -1, -1, dtype=codes.dtype) * codes.dtype.type(step)
    parts: np.ndarray = (codes[:, None] >> shifts) & codes.dtype.type((1 << step) - 1)
    return parts.astype(np.int64)


def count_values(plane: Integer[np.ndarray, "*space"]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct numbers, ascending, and how often each occurs.

    Works through `CHUNK` pixels at a time: counting needs eight bytes a pixel, and label maps may be large.
    """
    flat = plane.reshape(-1)
    whole = flat.dtype.kind in "iu" and flat.size > 0 and int(flat.min()) >= 0
    small = whole and int(flat.max()) < 1 << 20
    values, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        if small:
            number = np.bincount(chunk)
            found = np.flatnonzero(number)
            number = number[found]
        else:
            found, number = np.unique(chunk, return_counts=True)
        if np.array_equal(found, values):
            counts = counts + number
            continue
        values, at = np.unique(np.concatenate([values, found.astype(np.int64)]), return_inverse=True)
        total = np.bincount(at, weights=np.concatenate([counts, number]), minlength=len(values))
        counts = total.astype(np.int64)
    return values, counts


def inside(mask: Plane) -> Bool[np.ndarray, "*space"]:
    """The pixels of a yes-or-no mask that say yes: more than half of its maximum, which must be above 0."""
    if mask.dtype.kind == "b":
        return mask
    peak = mask.max(initial=0)
    if peak <= 0:
        return np.zeros(mask.shape, bool)
    # Whole numbers are compared as such: no floats are made for thousands of masks.
    above: np.ndarray = mask > (peak // 2 if mask.dtype.kind in "iu" else peak / 2)
    return above


def paint(instances: Int32[np.ndarray, "*space"], mask: Bool[np.ndarray, "*space"], areas: list[int]) -> None:
    """Add one object to an instance map in place; where objects overlap, the smaller keeps the pixel.

    Args:
        instances: the map so far.
        mask: the object; nothing happens when it is empty.
        areas: area of each object by id so far (entry 0 is unused); the new one is appended.
    """
    at = np.flatnonzero(mask)
    if not at.size:
        return
    number = len(areas)
    areas.append(at.size)
    flat = instances.reshape(-1)
    before = flat[at]
    if before.any():
        at = at[np.asarray(areas)[before] * (before > 0) + (before == 0) * (at.size + 1) > at.size]
    flat[at] = number


def refuse(unknown: Sequence[object]) -> None:
    """Say which values are not in the mapping, if any.

    Raises:
        DataError: `unknown` is not empty.
    """
    if unknown:
        shown = ", ".join(str(v) for v in unknown[:6]) + (f" and {len(unknown) - 6} more" if len(unknown) > 6 else "")
        raise DataError(f"label value {shown} is not in the mapping")
