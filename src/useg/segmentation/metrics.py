"""Overlap of class maps: pixels are counted first, ratios come last, and what is empty has a stated policy.

The policy. A ratio with nothing to divide by is None, never 0 or 1. In a mean over images, an image without
the class in truth and prediction is left out and counted as absent; an image that has the class in only one
of them scores 0 and is counted as missed (truth only) or false (prediction only).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from useg.arrays import IGNORE, Labels

Confusion = Int[np.ndarray, "classes columns"]
"""Pixels by true class (row) and predicted class (column); the last column is "no class predicted"."""

_BLOCK = 1 << 20


def confusion(truth: Labels, predicted: Labels, num_classes: int) -> Confusion:
    """Count pixels by true and predicted class.

    Pixels whose truth is IGNORE do not count. A prediction of IGNORE on a counted pixel is an answer
    withheld: it goes to the last column, so it is a miss for the true class and nobody's false positive.

    Args:
        truth: class ids 0..num_classes-1, or IGNORE.
        predicted: the same, of the same shape.
        num_classes: classes including background, 1..254.

    Returns:
        int64, (num_classes, num_classes + 1).

    Raises:
        ValueError: shapes differ, or an id is neither below `num_classes` nor IGNORE.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"label maps must have the same shape, got {truth.shape} and {predicted.shape}")
    for name, labels in (("truth", truth), ("prediction", predicted)):
        present = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256))
        unknown = present[(present >= num_classes) & (present != IGNORE)]
        if unknown.size:
            raise ValueError(f"{name} has class ids {unknown.tolist()}, wanted 0..{num_classes - 1} or {IGNORE}")
    columns = num_classes + 1
    column_of = np.arange(256, dtype=np.uint16)
    column_of[IGNORE] = num_classes
    row_of = column_of * columns
    flat_truth, flat_predicted = truth.reshape(-1), predicted.reshape(-1)
    counts = np.zeros(columns * columns, dtype=np.int64)
    for start in range(0, flat_truth.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        counts += np.bincount(row_of[flat_truth[block]] + column_of[flat_predicted[block]], minlength=counts.size)
    return counts.reshape(columns, columns)[:num_classes]


def class_counts(table: Confusion) -> list[dict[str, int]]:
    """Return true positive, false positive and false negative pixels (`tp`, `fp`, `fn`) of every class."""
    hits = np.diagonal(table)
    return [
        {"tp": int(hit), "fp": int(predicted - hit), "fn": int(true - hit)}
        for hit, predicted, true in zip(hits, table.sum(axis=0)[:-1], table.sum(axis=1), strict=True)
    ]


def iou(tp: int, fp: int, fn: int) -> float | None:
    """Return intersection over union, 0..1; None when the class is in neither map."""
    return ratio(tp, tp + fp + fn)


def dice(tp: int, fp: int, fn: int) -> float | None:
    """Return the Dice coefficient (F1 of pixels), 0..1; None when the class is in neither map."""
    return ratio(2 * tp, 2 * tp + fp + fn)


def pixel_error(table: Confusion) -> float | None:
    """Return the share of counted pixels with a wrong class, 0..1; None when every pixel is ignored."""
    total = int(table.sum())
    return ratio(total - int(np.diagonal(table).sum()), total)


def ratio(part: int, whole: int) -> float | None:
    """Return part / whole, None when `whole` is 0."""
    return part / whole if whole else None


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there, None when none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def class_scores(tables: Sequence[Confusion], index: int) -> dict[str, Any]:
    """Return the scores of one class over several images, ready for JSON.

    Keys: `iou`, `dice`, `precision`, `recall` from the summed pixels of all images; `iou_mean`, `dice_mean`
        over
    images; and how many images there are (`images`), have the class (`images_with_class`), missed it
    altogether (`images_missed`), found it where it is not (`images_false`), have it in neither map
    (`images_absent`); `truth_pixels`, `predicted_pixels`.
    """
    each = [class_counts(table)[index] for table in tables]
    total = {key: sum(counts[key] for counts in each) for key in ("tp", "fp", "fn")}
    true = [counts["tp"] + counts["fn"] for counts in each]
    predicted = [counts["tp"] + counts["fp"] for counts in each]
    pairs = list(zip(true, predicted, strict=True))
    return {
        "iou": iou(**total),
        "dice": dice(**total),
        "precision": ratio(total["tp"], sum(predicted)),
        "recall": ratio(total["tp"], sum(true)),
        "iou_mean": mean([iou(**counts) for counts in each]),
        "dice_mean": mean([dice(**counts) for counts in each]),
        "images": len(each),
        "images_with_class": sum(1 for pixels in true if pixels),
        "images_missed": sum(1 for real, found in pairs if real and not found),
        "images_false": sum(1 for real, found in pairs if found and not real),
        "images_absent": sum(1 for real, found in pairs if not found and not real),
        "truth_pixels": sum(true),
        "predicted_pixels": sum(predicted),
    }
