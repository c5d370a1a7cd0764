"""Which axis of a stored array is channels, planes, rows or columns, when the file says little."""

from typing import Literal

Role = Literal["channel", "plane", "row", "column", "single"]

FEW = 32
"""An axis of channels has at most this many entries when nothing else tells it from an axis of space."""

_FEW_PLANES = 4


def _is_small(size: int, others: tuple[int, ...]) -> bool:
    return size <= FEW and 4 * size <= min(others)


def guess_roles(shape: tuple[int, ...]) -> tuple[Role, ...]:
    """Roles of the axes of an array without any description (`.npy`, HDF5).

    Two axes are rows and columns. Of three, a last one that is small (at most 32, and a quarter of
    the others) is channels; a first one of at most 4 is channels, else planes. Of four, channels are
    the last or the first axis, whichever is small.

    Raises:
        ValueError: no reading fits.
    """
    used = tuple(size for size in shape if size > 1)
    if len(shape) > 4 and 2 <= len(used) <= 4:
        roles = iter(guess_roles(used))
        return tuple(next(roles) if size > 1 else "single" for size in shape)
    if len(shape) == 2:
        return ("row", "column")
    if len(shape) == 3:
        if _is_small(shape[2], shape[:2]):
            return ("row", "column", "channel")
        first: Role = "channel" if shape[0] <= _FEW_PLANES else "plane"
        return (first, "row", "column")
    if len(shape) == 4:
        if shape[0] <= FEW and shape[0] <= shape[-1]:
            return ("channel", "plane", "row", "column")
        if shape[-1] <= FEW:
            return ("plane", "row", "column", "channel")
    raise ValueError(f"an array of shape {shape} is neither (H, W), (D, H, W) nor one of these with channels")


def roles_of_tiff(axes: str, shape: tuple[int, ...]) -> tuple[Role, ...]:
    """Roles of a TIFF's axes by their letters: Y, X, S samples, C channels, Z planes, T times, or unknown.

    Pages without a description are planes from three on, channels if two; pages far too narrow to
    be pictures are an array (H, W, bands) that was written row by row, and samples many more than
    rows are one (bands, H, W) that was written as (H, W, bands).

    Raises:
        ValueError: more than one axis of planes, or no rows or columns.
    """
    if "Y" not in axes or "X" not in axes:
        raise ValueError(f"its axes {axes} {shape} have no rows and columns")
    rows, columns, samples = axes.index("Y"), axes.index("X"), axes.find("S")
    roles: list[Role] = ["single"] * len(axes)
    for index, (letter, size) in enumerate(zip(axes, shape, strict=True)):
        if letter in "SC":
            roles[index] = "channel" if size > 1 else "single"
        elif letter not in "YX" and size > 1:
            roles[index] = "plane"
    roles[rows], roles[columns] = "row", "column"
    planes = [index for index, role in enumerate(roles) if role == "plane"]
    others = [index for index, role in enumerate(roles) if role == "channel"]
    if len(planes) == 2 and not others and shape[planes[0]] <= _FEW_PLANES and axes[planes[0]] not in "ZT":
        roles[planes[0]] = "channel"
    elif len(planes) > 1:
        said = ", ".join(f"{axes[index]}={shape[index]}" for index in planes)
        raise ValueError(f"it has {len(planes)} axes of planes ({said}), at most one can be read")
    elif planes and axes[planes[0]] not in "ZT" and not others:
        (pages,) = planes
        if _is_small(shape[columns], (shape[pages], shape[rows])):
            roles[pages], roles[rows], roles[columns] = "row", "column", "channel"
        elif shape[pages] == 2:
            roles[pages] = "channel"
    elif not planes and others == [samples]:
        roles[rows], roles[columns], roles[samples] = _mistaken_samples(axes, shape)
    return tuple(roles)


def _mistaken_samples(axes: str, shape: tuple[int, ...]) -> tuple[Role, Role, Role]:
    """Roles of (rows, columns, samples) when an array's channels were taken for an axis of space."""
    height, width, samples = (shape[axes.index(letter)] for letter in "YXS")
    if _is_small(height, (width, samples)):  # (bands, H, W) written as if (H, W, bands)
        return ("channel", "row", "column")
    if _is_small(width, (height, samples)):  # (H, W, bands) written as if (bands, H, W)
        return ("column", "channel", "row")
    return ("row", "column", "channel")
