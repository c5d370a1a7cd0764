"""Objects against objects: counts for AP, PQ, SEG, merges and splits, and the ratios made from their sums."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from useg.arrays import Instances
from useg.segmentation.flooding import compact

AP_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""The IoU thresholds of AP: 0.5, 0.55, ..., 0.95."""


@dataclass(frozen=True)
class Overlaps:
    """Which true object shares how many pixels with which predicted one; only pairs that share any.

    Attributes:
        truth: index of the true object of each pair, from 0.
        predicted: index of the predicted object of each pair, from 0.
        shared: pixels they share.
        truth_sizes: pixels of every true object.
        predicted_sizes: pixels of every predicted object.
    """

    truth: Int[np.ndarray, " pairs"]
    predicted: Int[np.ndarray, " pairs"]
    shared: Int[np.ndarray, " pairs"]
    truth_sizes: Int[np.ndarray, " truths"]
    predicted_sizes: Int[np.ndarray, " predictions"]

    def iou(self) -> Float[np.ndarray, " pairs"]:
        """Return intersection over union of every pair."""
        union = self.truth_sizes[self.truth] + self.predicted_sizes[self.predicted] - self.shared
        return np.asarray(self.shared / union)

    def only(self, kept: Bool[np.ndarray, " predictions"]) -> "Overlaps":
        """Return the table as if no other predicted objects than these had been there."""
        number = np.cumsum(kept) - 1
        pairs = kept[self.predicted]
        return Overlaps(
            self.truth[pairs],
            number[self.predicted[pairs]],
            self.shared[pairs],
            self.truth_sizes,
            self.predicted_sizes[kept],
        )


def overlaps(truth: Instances, predicted: Instances, ignored: Bool[np.ndarray, "*space"] | None = None) -> Overlaps:
    """Return the table of overlaps of two instance maps.

    Args:
        truth: true objects, 0 is background; ids may have gaps.
        predicted: predicted objects, of the same shape.
        ignored: pixels that do not count. They are taken off both maps; a predicted object with more than
            half of its pixels there is left out altogether, for nobody knows whether it is right.

    Raises:
        ValueError: the shapes differ, or an id is negative.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"instance maps must have the same shape, got {truth.shape} and {predicted.shape}")
    true_map, true_ids = compact(truth)
    predicted_map, predicted_ids = compact(predicted)
    if ignored is not None and ignored.any():
        whole = np.bincount(predicted_map.reshape(-1), minlength=predicted_ids.size + 1)
        hidden = np.bincount(predicted_map[ignored], minlength=predicted_ids.size + 1)
        unknown = 2 * hidden > whole
        unknown[0] = True
        true_map, true_ids = compact(np.where(ignored, 0, true_map))
        predicted_map, predicted_ids = compact(np.where(ignored | unknown[predicted_map], 0, predicted_map))
    both = np.flatnonzero((true_map > 0) & (predicted_map > 0))
    code = true_map.reshape(-1)[both].astype(np.int64) * (predicted_ids.size + 1)
    code += predicted_map.reshape(-1)[both]
    if true_ids.size * predicted_ids.size <= max(4 * truth.size, 1 << 20):
        table = np.bincount(code)
        pairs = np.flatnonzero(table)
        shared = table[pairs]
    else:
        pairs, shared = np.unique(code, return_counts=True)
    rows, columns = np.divmod(pairs, predicted_ids.size + 1)
    return Overlaps(
        truth=rows - 1,
        predicted=columns - 1,
        shared=shared,
        truth_sizes=np.bincount(true_map.reshape(-1), minlength=true_ids.size + 1)[1:],
        predicted_sizes=np.bincount(predicted_map.reshape(-1), minlength=predicted_ids.size + 1)[1:],
    )


@dataclass(frozen=True)
class ObjectCounts:
    """What is counted on one image, or on many by adding; every ratio is made from these sums.

    Attributes:
        truths: true objects.
        predictions: predicted objects.
        hits: matched pairs at each of AP_THRESHOLDS (IoU at least the threshold).
        pairs: matched pairs with an IoU above 0.5 (the panoptic rule, which makes a match unique).
        pair_iou: sum of the IoU of those pairs.
        seg: sum over true objects of the IoU with the prediction that covers more than half of it, else 0.
        merges: predicted objects that cover more than half of each of two or more true ones.
        merged: the true objects in them.
        splits: true objects of which two or more predicted ones lie inside with more than half of themselves.
        fragments: the predicted objects in them.
    """

    truths: int = 0
    predictions: int = 0
    hits: tuple[int, ...] = (0,) * len(AP_THRESHOLDS)
    pairs: int = 0
    pair_iou: float = 0.0
    seg: float = 0.0
    merges: int = 0
    merged: int = 0
    splits: int = 0
    fragments: int = 0

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        hits = tuple(mine + theirs for mine, theirs in zip(self.hits, other.hits, strict=True))
        rest = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name != "hits"
        }
        return ObjectCounts(hits=hits, **rest)


def count_objects(table: Overlaps) -> ObjectCounts:
    """Count matches, merges and splits of one image.

    A match at threshold t is a pair with IoU >= t, each object in one pair at most, as many pairs as
    possible. For t >= 0.5 no search is needed: two pairs can share an object only when it falls into exactly
    two halves.
    """
    iou = table.iou()
    hits = tuple(_matched(table, iou >= threshold) for threshold in AP_THRESHOLDS)
    panoptic = iou > 0.5
    covers = 2 * table.shared > table.truth_sizes[table.truth]
    covered_by = np.bincount(table.predicted[covers], minlength=table.predicted_sizes.size)
    within = 2 * table.shared > table.predicted_sizes[table.predicted]
    inside = np.bincount(table.truth[within], minlength=table.truth_sizes.size)
    return ObjectCounts(
        truths=int(table.truth_sizes.size),
        predictions=int(table.predicted_sizes.size),
        hits=hits,
        pairs=int(panoptic.sum()),
        pair_iou=float(iou[panoptic].sum()),
        seg=float(iou[covers].sum()),
        merges=int((covered_by >= 2).sum()),
        merged=int(covered_by[covered_by >= 2].sum()),
        splits=int((inside >= 2).sum()),
        fragments=int(inside[inside >= 2].sum()),
    )


def _matched(table: Overlaps, good: Bool[np.ndarray, " pairs"]) -> int:
    truths, predictions = table.truth[good], table.predicted[good]
    return int(np.unique(truths).size + np.unique(predictions).size - truths.size)


def sum_counts(counts: Iterable[ObjectCounts]) -> ObjectCounts:
    """Add the counts of several images."""
    return sum(counts, start=ObjectCounts())


def average_precision(counts: ObjectCounts) -> dict[float, float | None]:
    """Return TP / (TP + FP + FN) at each of AP_THRESHOLDS; None without a true or a predicted object.

    Source: Schmidt et al. 2018 (StarDist), Table 1, pooled over images; not the AP of COCO.
    """
    scores: dict[float, float | None] = {}
    for threshold, hits in zip(AP_THRESHOLDS, counts.hits, strict=True):
        total = counts.truths + counts.predictions - hits
        scores[threshold] = hits / total if total else None
    return scores


def mean_average_precision(counts: ObjectCounts) -> float | None:
    """Return the mean of `average_precision` over AP_THRESHOLDS; None without any object."""
    scores = [score for score in average_precision(counts).values() if score is not None]
    return sum(scores) / len(scores) if scores else None


def object_scores(counts: ObjectCounts) -> dict[str, Any]:
    """Return every ratio of `counts` with the counts beside it, ready for JSON.

    Keys: `ap` (by threshold, as text), `ap50`, `ap_mean`, `pq`, `sq`, `rq` (panoptic quality and its two
        factors),
    `seg` (Cell Tracking Challenge), `precision50`, `recall50`, and the counts. A ratio is None where there is
    nothing to divide by: `sq` without a match, `seg` and `recall50` without a true object, `precision50`
    without a predicted one, the others without any object.

    Source: Kirillov et al. 2019 (PQ = SQ x RQ, IoU > 0.5); Ulman et al. 2017 (SEG, which ignores false
        positives).
    """
    precision = average_precision(counts)
    either = counts.truths + counts.predictions
    return {
        "ap": {f"{threshold:.2f}": score for threshold, score in precision.items()},
        "ap50": precision[0.5],
        "ap_mean": mean_average_precision(counts),
        "pq": 2 * counts.pair_iou / either if either else None,
        "sq": counts.pair_iou / counts.pairs if counts.pairs else None,
        "rq": 2 * counts.pairs / either if either else None,
        "seg": counts.seg / counts.truths if counts.truths else None,
        "precision50": counts.hits[0] / counts.predictions if counts.predictions else None,
        "recall50": counts.hits[0] / counts.truths if counts.truths else None,
        "truths": counts.truths,
        "predictions": counts.predictions,
        "missed50": counts.truths - counts.hits[0],
        "false50": counts.predictions - counts.hits[0],
        "merges": counts.merges,
        "merged_objects": counts.merged,
        "splits": counts.splits,
        "fragments": counts.fragments,
    }
