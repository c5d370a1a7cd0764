"""Whether the numbers in label maps are classes or objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from useg.data.census import Census

ONE_PIECE = 0.9
"""A value is in one piece when its largest piece holds at least this share of its pixels."""

MOSTLY = 0.8
"""Objects: at least this share of (file, value) pairs is in one piece."""

SIZES_EXPLAINED = 0.5
"""Classes: the value explains at least this share of the variance of log size (organs); objects: less."""

MANY = 20
"""This many values are more likely objects than classes, where nothing else tells."""


@dataclass(frozen=True)
class Verdict:
    """Whether values are objects, why, and what is doubtful."""

    objects: bool
    reason: str = ""
    warnings: tuple[str, ...] = ()


def looks_like_objects(files: Sequence[Census], values: np.ndarray) -> Verdict:
    """Decide whether label values are object numbers.

    Object numbers are mostly in one connected piece each, and a number says nothing about the size of its
    object; a class is in many pieces, or (as an organ) has its typical size in every file.

    Args:
        files: all label files.
        values: the distinct values of all files without ignored ones, ascending.
    """
    numbers = values[values != 0]
    counted = [f for f in files if f.pieces is not None]
    if len(numbers) < 3 or not counted or values[0] < 0:
        return Verdict(objects=False)
    owner, size, share = _pairs(counted)
    if not len(owner) or (share >= ONE_PIECE).mean() < MOSTLY:
        return Verdict(objects=False)
    wide = any(np.dtype(f.dtype).itemsize > 1 for f in files)
    per_file = np.array([np.count_nonzero(f.values) for f in files])
    explained = size_explained(owner, size)
    reason = (
        f"{len(numbers)} label values, each one connected piece, {per_file.min()} to {per_file.max()} a file "
        "-> object numbers: two classes (background, object)"
    )
    doubt = (
        f"the {len(numbers)} label values are each one connected piece; they were taken as {{}}. "
        'If that is wrong, write kind = "{}" into classes.toml'
    )
    if explained is None:
        spread = float(np.std(np.log(size)))
        sure = len(numbers) >= MANY or (wide and len(numbers) >= 10)
        if sure or (len(numbers) >= 5 and spread < 1.0):
            return Verdict(True, reason, () if sure else (doubt.format("objects", "values"),))
        return Verdict(False, warnings=(doubt.format("classes", "instances"),))
    if explained >= SIZES_EXPLAINED:
        return Verdict(False)
    if len(numbers) >= 5:
        sure = len(numbers) >= MANY or (wide and per_file.max() != per_file.min())
        return Verdict(True, reason, () if sure else (doubt.format("objects", "values"),))
    return Verdict(False, warnings=(doubt.format("classes", "instances"),))


def _pairs(files: Sequence[Census]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every (file, value other than 0): the value, its pixels, and its largest piece's share."""
    owner, size, share = [], [], []
    for file in files:
        if file.pieces is None or file.largest is None:
            continue
        seen = (file.values != 0) & (file.pieces > 0)
        owner.append(file.values[seen])
        size.append(file.counts[seen])
        share.append(file.largest[seen] / np.maximum(file.counts[seen], 1))
    return np.concatenate(owner), np.concatenate(size), np.concatenate(share)


def size_explained(owner: np.ndarray, size: np.ndarray) -> float | None:
    """Adjusted share of the variance of log size that the value explains; None when no value occurs twice.

    1: every value always has its own size; about 0: the value says nothing.
    """
    values, at, times = np.unique(owner, return_inverse=True, return_counts=True)
    free = len(owner) - len(values)
    if free < 2 or len(values) < 2:
        return None
    logs = np.log(np.maximum(size, 1).astype(np.float64))
    means = np.bincount(at, weights=logs) / times
    within = float(((logs - means[at]) ** 2).sum()) / free
    total = float(((logs - logs.mean()) ** 2).sum()) / (len(owner) - 1)
    return 1.0 - within / total if total > 0 else 1.0
