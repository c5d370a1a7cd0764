"""Choose thresholds and object parameters on validation predictions, by the metric of the task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from useg.arrays import Instances, Labels
from useg.errors import ConfigError
from useg.segmentation.flooding import components
from useg.segmentation.instances import Mode, SeparationParameters, checked_mode, flooded
from useg.segmentation.matching import (
    ObjectCounts,
    average_precision,
    count_objects,
    mean_average_precision,
    overlaps,
)
from useg.segmentation.membranes import count_regions, thin
from useg.segmentation.metrics import dice, mean, ratio

ThresholdMetric = Literal["pixel_error", "dice", "v_rand"]
Probability = Float[np.ndarray, "*space"]

MASK_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
SEED_THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9)
EROSIONS_PX = (0, 1, 2, 3)
_FINE = tuple(round(0.01 * step, 2) for step in range(1, 100))
_COARSE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold that is best for one metric.

    Attributes:
        threshold: class 1 where its probability is at least this, 0..1.
        score: the metric there, on the images tuned on; None when it could not be measured.
    """

    threshold: float
    score: float | None


def tune_separation(
    samples: Sequence[tuple[Float[np.ndarray, "outputs *space"], Instances]],
    num_classes: int,
    mode: Mode,
    *,
    start: SeparationParameters = SeparationParameters(),
    max_pixels: int = 2_000_000,
) -> tuple[SeparationParameters, list[dict[str, Any]]]:
    """Choose the parameters of `separate` with the best mean AP at 0.5..0.95, pooled over the samples.

    A full grid: mask threshold times seed threshold (modes `border` and `distance`) or erosion (`weights`,
    `none`) times minimum size. The minimum sizes share one watershed and one table of overlaps. Sizes tried
    are the one of `start`, 1, and a quarter and a half of the size that 5 % of the true objects fall below.
    Ties go to the parameters nearest to `start`.

    Args:
        samples: activated outputs and true objects of each image.
        num_classes: classes including background.
        mode: one of `instances.MODES`.
        start: kept where nothing is tuned, and the answer when no sample has an object.
        max_pixels: cost bound: evenly spaced samples are used until this many pixels (always one at least);
            about 4 seconds a million pixels.

    Returns:
        The parameters, and a table with a row for each combination: its parameters, `ap50` and `ap_mean`.

    Raises:
        ConfigError: unknown mode, or channels that do not fit it.
    """
    chosen = bounded(samples, [truth.size for _, truth in samples], max_pixels)
    sizes = np.concatenate([_sizes(truth) for _, truth in chosen]) if chosen else np.zeros(0, dtype=np.int64)
    if not sizes.size:
        return start, []
    small = float(np.quantile(sizes, 0.05))
    minimum_sizes = sorted({start.min_size_px, 1, max(int(small / 4), 1), max(int(small / 2), 1)})
    rows: list[tuple[SeparationParameters, ObjectCounts]] = []
    for candidate in _grid(checked_mode(mode), start):
        tables = [overlaps(truth, flooded(outputs, num_classes, mode, candidate)) for outputs, truth in chosen]
        for size in minimum_sizes:
            counts = sum((count_objects(table.without_small(size)) for table in tables), start=ObjectCounts())
            rows.append((replace(candidate, min_size_px=size), counts))
    best = max(rows, key=lambda row: (round(mean_average_precision(row[1]) or 0.0, 9), -_apart(row[0], start)))
    table = [
        {
            **parameters.to_json(),
            "ap50": average_precision(counts)[0.5],
            "ap_mean": mean_average_precision(counts),
        }
        for parameters, counts in rows
    ]
    return best[0], table


def _sizes(truth: Instances) -> np.ndarray:
    sizes = np.bincount(truth[truth > 0])
    return sizes[sizes > 0]


def _grid(mode: Mode, start: SeparationParameters) -> list[SeparationParameters]:
    masks = sorted({*MASK_THRESHOLDS, start.mask_threshold})
    if mode in ("border", "distance"):
        seeds = sorted({*SEED_THRESHOLDS, start.seed_threshold})
        return [replace(start, mask_threshold=mask, seed_threshold=seed) for mask in masks for seed in seeds]
    erosions = sorted({*EROSIONS_PX, start.erosion_px})
    return [replace(start, mask_threshold=mask, erosion_px=erosion) for mask in masks for erosion in erosions]


def _apart(one: SeparationParameters, other: SeparationParameters) -> float:
    return (
        abs(one.mask_threshold - other.mask_threshold)
        + abs(one.seed_threshold - other.seed_threshold)
        + abs(one.erosion_px - other.erosion_px)
        + abs(one.min_size_px - other.min_size_px) / 100
    )


def bounded(items: Sequence[Any], sizes: Sequence[int], limit: int) -> list[Any]:
    """Return evenly spaced items whose sizes add up to `limit` at most; one at least, if there is any."""
    for count in range(len(items), 0, -1):
        picked = sorted({round(index) for index in np.linspace(0, len(items) - 1, count)})
        if count == 1 or sum(sizes[index] for index in picked) <= limit:
            return [items[index] for index in picked]
    return []


def tune_threshold(
    probabilities: Sequence[Probability],
    labels: Sequence[Labels],
    metrics: Iterable[ThresholdMetric] = ("pixel_error", "dice"),
    *,
    cell_class: int = 1,
    max_images: int = 4,
) -> dict[str, OperatingPoint]:
    """Choose the threshold of a task with two classes for each metric by itself.

    `pixel_error` (lowest) and `dice` of class 1 (highest) are pooled over all images and tried at 0.01..0.99.
    `v_rand` (highest mean over images, after thinning) is tried at 0.1..0.95 and then in steps of 0.02 around
    the best; it jumps when a gap opens, so of neighbouring thresholds within 0.002 of the best the middle one
    is taken.

    Args:
        probabilities: of class 1, one array an image, 0..1.
        labels: 0, 1 or IGNORE (not counted).
        metrics: which to tune for.
        cell_class: for `v_rand`: which class is the inside of cells (the other is the membrane), 0 or 1.
        max_images: `v_rand` looks at this many evenly spaced images at most; about 0.05 s for 512x512 and
            threshold.

    Returns:
        For every metric its operating point; threshold 0.5 and score None when no pixel can be scored.

    Raises:
        ConfigError: an unknown metric.
        ValueError: lists of different length, or `cell_class` is neither 0 nor 1.
    """
    wanted = tuple(metrics)
    if cell_class not in (0, 1) or len(probabilities) != len(labels):
        raise ValueError("tuning needs one label map for each probability map, and cell_class 0 or 1")
    points: dict[str, OperatingPoint] = {}
    for metric in wanted:
        if metric not in get_args(ThresholdMetric):
            raise ConfigError(f"unknown metric {metric!r}: choose from {', '.join(get_args(ThresholdMetric))}")
    if set(wanted) - {"v_rand"}:
        points |= _pixel_points(probabilities, labels)
    if "v_rand" in wanted:
        pairs = bounded(list(zip(probabilities, labels, strict=True)), [1] * len(labels), max_images)
        points["v_rand"] = _v_rand_point(pairs, cell_class)
    return {metric: points[metric] for metric in wanted}


def _pixel_points(probabilities: Sequence[Probability], labels: Sequence[Labels]) -> dict[str, OperatingPoint]:
    """All thresholds at once: how many pixels of each true class pass 0, 1, 2, ... of them."""
    steps = np.asarray(_FINE)
    passed = np.zeros((2, steps.size + 1), dtype=np.int64)
    for probability, label in zip(probabilities, labels, strict=True):
        for true_class in (0, 1):
            bins = np.searchsorted(steps, probability[label == true_class].astype(np.float64), side="right")
            passed[true_class] += np.bincount(bins, minlength=steps.size + 1)
    # called class 1 at threshold k: those that pass more than k thresholds
    called = passed[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    fp, tp = called
    fn = passed[1].sum() - tp
    errors = [ratio(int(wrong), int(passed.sum())) for wrong in fp + fn]
    dices = [dice(int(a), int(b), int(c)) for a, b, c in zip(tp, fp, fn, strict=True)]
    return {
        "pixel_error": _best([None if error is None else -error for error in errors], sign=-1.0),
        "dice": _best(dices, sign=1.0),
    }


def _best(scores: Sequence[float | None], *, sign: float) -> OperatingPoint:
    there = [(score, -abs(step - 0.5), step) for score, step in zip(scores, _FINE, strict=True) if score is not None]
    if not there:
        return OperatingPoint(0.5, None)
    score, _, step = max(there)
    return OperatingPoint(step, sign * score)


def _v_rand_point(pairs: Sequence[tuple[Probability, Labels]], cell_class: int) -> OperatingPoint:
    cells = [components(label == cell_class) for _, label in pairs]
    known = [(pair[0], cell) for pair, cell in zip(pairs, cells, strict=True) if cell.any()]
    if not known:
        return OperatingPoint(0.5, None)

    def score(threshold: float) -> float:
        values = [count_regions(cell, cell_regions(chance, threshold, cell_class)).v_rand for chance, cell in known]
        return mean(values) or 0.0

    tried = {step: score(step) for step in _COARSE}
    around = max(tried, key=lambda step: (tried[step], -abs(step - 0.5)))
    for step in (round(around + 0.02 * shift, 2) for shift in (-4, -3, -2, -1, 1, 2, 3, 4)):
        if 0.0 < step < 1.0 and step not in tried:
            tried[step] = score(step)
    steps = sorted(tried)
    top = max(tried.values())
    middle = next(index for index, step in enumerate(steps) if tried[step] == top)
    low = high = middle
    while low > 0 and tried[steps[low - 1]] >= top - 0.002:
        low -= 1
    while high < len(steps) - 1 and tried[steps[high + 1]] >= top - 0.002:
        high += 1
    goal = (steps[low] + steps[high]) / 2
    chosen = min(steps[low : high + 1], key=lambda step: abs(step - goal))
    return OperatingPoint(chosen, tried[chosen])


def cell_regions(probability: Probability, threshold: float, cell_class: int) -> Instances:
    """Return thinned regions from the probability of class 1, whichever class the cells are.

    Args:
        probability: of class 1, 0..1.
        threshold: class 1 where the probability is at least this.
        cell_class: 1 when class 1 is the inside of cells, 0 when it is the membrane.
    """
    if cell_class == 1:
        return thin(probability, threshold)
    return thin(1 - probability, 1 - threshold)
