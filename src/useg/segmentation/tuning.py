"""Choose thresholds and object parameters on validation predictions, by the metric of the task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from useg.arrays import Instances, Labels
from useg.errors import ConfigError
from useg.segmentation.agglomeration import Agglomeration
from useg.segmentation.flooding import components
from useg.segmentation.instances import Mode, SeparationParameters, checked_mode, flooded, object_scores
from useg.segmentation.matching import count_objects, mean_average_precision, overlaps, sum_counts
from useg.segmentation.membranes import CellParameters, count_regions, thin
from useg.segmentation.metrics import dice, ratio

ThresholdMetric = Literal["pixel_error", "dice"]
Probability = Float[np.ndarray, "*space"]

USUAL = SeparationParameters(smoothing_px=1.0)
MASK_THRESHOLDS = (0.4, 0.5, 0.6)
SEED_THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97)
SMOOTHINGS_PX = (0.0, 1.0)
MERGE_THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5)
MIN_SCORES = (0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
EROSIONS_PX = (0, 1, 2, 3)
CELL_SEEDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
CELL_MERGES = (0.0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
_FINE = tuple(round(0.01 * step, 2) for step in range(1, 100))


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
    start: SeparationParameters | None = None,
    max_pixels: int = 2_000_000,
) -> tuple[SeparationParameters, list[dict[str, Any]]]:
    """Choose the parameters of `separate` by the mean over images of AP at 0.5..0.95.

    A full grid: mask threshold times smoothing, seed and merge threshold (modes `border` and `distance`) or erosion
    (`weights`, `none`) times minimum size times score. What follows the watershed shares it. Sizes tried
    are the one of `start`, 1, and a quarter and a half of the size that 5 % of the true objects fall below.
    Every image counts the same, so that one picture with a thousand objects does not decide for all. Of what
    is as good as the best within one standard error, the parameters nearest to `start` are taken.

    Args:
        samples: activated outputs and true objects of each image.
        num_classes: classes including background.
        mode: one of `instances.MODES`.
        start: kept where nothing is tuned, and the answer when no sample has an object; by default the usual
            parameters with half of the size that 5 % of the true objects fall below as the minimum.
        max_pixels: cost bound: evenly spaced samples are used until this many pixels (always one at least);
            about 8 seconds a million pixels.

    Returns:
        The parameters, and a table with a row for each combination: its parameters and `ap_mean`.

    Raises:
        ConfigError: unknown mode, or channels that do not fit it.
    """
    chosen = bounded(samples, [truth.size for _, truth in samples], max_pixels)
    sizes = np.concatenate([_sizes(truth) for _, truth in chosen]) if chosen else np.zeros(0, dtype=np.int64)
    if not sizes.size:
        return start or USUAL, []
    small = float(np.quantile(sizes, 0.05))
    start = start or replace(USUAL, min_size_px=max(int(small / 2), 1))
    minimum_sizes = sorted({start.min_size_px, 1, max(int(small / 4), 1), max(int(small / 2), 1)})
    filters = [(size, score) for size in minimum_sizes for score in sorted({*MIN_SCORES, start.min_score})]
    rows: list[SeparationParameters] = []
    columns: list[list[float]] = []
    for family in _grid(checked_mode(mode), start):
        each = [_scores(outputs, truth, num_classes, mode, family, filters) for outputs, truth in chosen]
        rows += [replace(member, min_size_px=size, min_score=score) for member in family for size, score in filters]
        columns += [list(column) for column in zip(*each, strict=True)]
    scores = np.asarray(columns).T
    best = _as_good_as_the_best(scores, [_apart(row, start) for row in rows])
    means = np.nanmean(scores, axis=0)
    table = [{**row.to_json(), "ap_mean": float(mean)} for row, mean in zip(rows, means, strict=True)]
    return rows[best], table


def _scores(
    outputs: Float[np.ndarray, "outputs *space"],
    truth: Instances,
    num_classes: int,
    mode: Mode,
    family: Sequence[SeparationParameters],
    filters: Sequence[tuple[int, float]],
) -> list[float]:
    """Mean AP of one image for parameters that differ in the merge threshold, rising, times minimum size and score."""
    cut, line = flooded(outputs, num_classes, mode, family[0])
    joined = Agglomeration(cut, line)
    found = []
    for parameters in family:
        objects = joined.below(parameters.merge_threshold)
        table = overlaps(truth, objects)
        sure = object_scores(objects, outputs[0])[np.unique(objects[objects > 0])]
        known: dict[bytes, float] = {}
        for size, least in filters:
            kept = (table.predicted_sizes >= size) & (sure >= least)
            if kept.tobytes() not in known:
                score = mean_average_precision(sum_counts([count_objects(table.only(kept))]))
                known[kept.tobytes()] = np.nan if score is None else score
            found.append(known[kept.tobytes()])
    return found


def _as_good_as_the_best(scores: Float[np.ndarray, "images candidates"], apart: Sequence[float]) -> int:
    """The candidate with the least `apart` among those whose mean is within one standard error of the best.

    The error is that of the mean difference to the best over the same images. NaN: the image has no score.

    Source:
        Breiman et al. 1984, "Classification and Regression Trees", the one-standard-error rule.
    """
    counted = ~np.isnan(scores).all(axis=1)
    if not counted.any():
        return int(np.argmin(apart))
    known = np.nan_to_num(scores[counted])
    best = int(known.mean(axis=0).argmax())
    short = known[:, [best]] - known
    error = short.std(axis=0, ddof=1) / np.sqrt(len(short)) if len(short) > 1 else np.zeros(short.shape[1])
    good = np.flatnonzero(short.mean(axis=0) <= error + 1e-9)
    return min(good.tolist(), key=lambda index: (apart[index], short.mean(axis=0)[index]))


def _sizes(truth: Instances) -> np.ndarray:
    sizes = np.bincount(truth[truth > 0])
    return sizes[sizes > 0]


def _grid(mode: Mode, start: SeparationParameters) -> list[list[SeparationParameters]]:
    """Families of parameters that share a watershed: only the merge threshold differs, and rises."""
    masks = sorted({*MASK_THRESHOLDS, start.mask_threshold})
    if mode in ("border", "distance"):
        seeds = sorted({*SEED_THRESHOLDS, start.seed_threshold})
        merges = sorted({*MERGE_THRESHOLDS, start.merge_threshold})
        smoothings = sorted({*SMOOTHINGS_PX, start.smoothing_px})
        bases = [
            replace(start, mask_threshold=mask, smoothing_px=smoothing) for mask in masks for smoothing in smoothings
        ]
        return [
            [replace(base, seed_threshold=seed, merge_threshold=merge) for merge in merges]
            for base in bases
            for seed in seeds
        ]
    erosions = sorted({*EROSIONS_PX, start.erosion_px})
    return [[replace(start, mask_threshold=mask, erosion_px=erosion)] for mask in masks for erosion in erosions]


def _apart(one: SeparationParameters, other: SeparationParameters) -> float:
    return (
        abs(one.mask_threshold - other.mask_threshold)
        + abs(one.seed_threshold - other.seed_threshold)
        + abs(one.merge_threshold - other.merge_threshold)
        + abs(one.min_score - other.min_score)
        + abs(one.smoothing_px - other.smoothing_px) / 10
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
) -> dict[str, OperatingPoint]:
    """Choose the threshold of a task with two classes for each metric by itself.

    `pixel_error` (lowest) and `dice` of class 1 (highest) are pooled over all images and tried at 0.01..0.99.

    Args:
        probabilities: of class 1, one array an image, 0..1.
        labels: 0, 1 or IGNORE (not counted).
        metrics: which to tune for.

    Returns:
        For every metric its operating point; threshold 0.5 and score None when no pixel can be scored.

    Raises:
        ConfigError: an unknown metric.
        ValueError: lists of different length.
    """
    wanted = tuple(metrics)
    if len(probabilities) != len(labels):
        raise ValueError("tuning needs one label map for each probability map")
    for metric in wanted:
        if metric not in get_args(ThresholdMetric):
            raise ConfigError(f"unknown metric {metric!r}: choose from {', '.join(get_args(ThresholdMetric))}")
    points = _pixel_points(probabilities, labels)
    return {metric: points[metric] for metric in wanted}


def tune_cells(
    probabilities: Sequence[Probability],
    labels: Sequence[Labels],
    cell_class: int,
    *,
    start: CellParameters = CellParameters(),
    max_pixels: int = 2_000_000,
) -> tuple[CellParameters, float | None]:
    """Choose the parameters of `cell_regions` by the mean V_rand over images.

    Of what is as good as the best within one standard error, the parameters nearest to `start` are taken: a
    single gap in a membrane moves V_rand of an image by 0.05 and more, so that the best of a few images is luck.

    Args:
        probabilities: of class 1, one array an image, 0..1.
        labels: 0, 1 or IGNORE.
        cell_class: which class is the inside of cells (the other is the membrane), 0 or 1.
        start: kept where nothing can be tuned.
        max_pixels: cost bound: evenly spaced images are used until this many pixels (always one at least);
            about 8 seconds a million pixels.

    Returns:
        The parameters, and the mean V_rand there on the images tuned on; None when no image has a cell.

    Raises:
        ValueError: lists of different length, or `cell_class` is neither 0 nor 1.
    """
    if cell_class not in (0, 1) or len(probabilities) != len(labels):
        raise ValueError("tuning needs one label map for each probability map, and cell_class 0 or 1")
    start = replace(start, cell_class=cell_class)
    pairs = bounded(list(zip(probabilities, labels, strict=True)), [label.size for label in labels], max_pixels)
    seeds = sorted({*CELL_SEEDS, start.seed_threshold})
    merges = sorted({*CELL_MERGES, start.merge_threshold})
    candidates = [replace(start, seed_threshold=seed, merge_threshold=merge) for seed in seeds for merge in merges]
    rows: list[list[float | None]] = []
    for probability, label in pairs:
        cells = components(label == cell_class)
        if not cells.any():
            continue
        chance = probability if cell_class == 1 else 1 - probability
        rows.append([])
        for seed in seeds:
            joined = Agglomeration(thin(chance, seed), 1 - chance)
            rows[-1] += [count_regions(cells, joined.below(merge)).v_rand for merge in merges]
    if not rows:
        return start, None
    scores = np.asarray(rows, dtype=np.float64)
    apart = [
        abs(one.seed_threshold - start.seed_threshold) + abs(one.merge_threshold - start.merge_threshold)
        for one in candidates
    ]
    chosen = _as_good_as_the_best(scores, apart)
    return candidates[chosen], float(scores.mean(axis=0)[chosen])


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
