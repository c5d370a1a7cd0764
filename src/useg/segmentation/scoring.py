"""All scores of a task: each image is counted by itself, counts are pooled, and every ratio is made once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from useg.arrays import IGNORE, Instances, Labels
from useg.segmentation.flooding import components
from useg.segmentation.matching import ObjectCounts, count_objects, object_scores, overlaps, sum_counts
from useg.segmentation.membranes import RegionCounts, count_regions, thin_mask
from useg.segmentation.metrics import Confusion, class_scores, confusion, mean, pixel_error
from useg.segmentation.skeletons import LineCounts, count_lines
from useg.segmentation.surfaces import SurfaceScores, default_tolerance, image_diagonal, surface_scores


@dataclass(frozen=True)
class Task:
    """What is scored.

    Attributes:
        class_names: in the order of class ids.
        background: class 0 is background: it has scores of its own but stays out of the means over classes,
            and has no outline and no centre line.
        membrane_class: the class that separates cells, 0 or 1 of two; None when the task is another.
        surface: whether outline distances are measured (the slowest part in 3D).
        lines: whether clDice is measured.
        tolerance: of NSD, physical units; None means one step along the finest axis of each image.
        unit: the unit of spacings and distances.
    """

    class_names: tuple[str, ...]
    background: bool = True
    membrane_class: int | None = None
    surface: bool = True
    lines: bool = True
    tolerance: float | None = None
    unit: str = "px"

    @property
    def foreground(self) -> range:
        """The class ids that count in means."""
        return range(int(self.background and len(self.class_names) > 1), len(self.class_names))


@dataclass(frozen=True)
class SampleCounts:
    """What was counted on one image.

    Attributes:
        key: the sample's key.
        table: pixels by true and predicted class.
        ignored: pixels that did not count.
        diagonal: the image's diagonal, physical units: the cost of a missed class.
        tolerance: of NSD, physical units.
        surfaces: outline distances by class id; None where neither map has the class.
        lines: centre lines by class id.
        objects: matched objects; None when there is no instance map.
        regions: thinned regions against true cells; None when the task is another.
    """

    key: str
    table: Confusion
    ignored: int
    diagonal: float
    tolerance: float
    surfaces: dict[int, SurfaceScores | None] = field(default_factory=dict)
    lines: dict[int, LineCounts] = field(default_factory=dict)
    objects: ObjectCounts | None = None
    regions: RegionCounts | None = None


def score_sample(
    key: str,
    truth: Labels,
    predicted: Labels,
    *,
    task: Task,
    true_objects: Instances | None = None,
    predicted_objects: Instances | None = None,
    regions: Instances | None = None,
    spacing: tuple[float, ...] | None = None,
) -> SampleCounts:
    """Count everything that the task asks for on one image; pixels whose truth is IGNORE never count.

    Args:
        key: the sample's key.
        truth: true class ids.
        predicted: predicted class ids.
        task: what to measure.
        true_objects: true object ids; objects are scored where both this and `predicted_objects` are given.
        predicted_objects: predicted object ids.
        regions: for a membrane task: regions from `thin` at the threshold tuned for V_rand; None thins
            `predicted`.
        spacing: size of a pixel along each axis; None is 1.

    Raises:
        ValueError: shapes differ, or a class id is out of range.
    """
    steps = (1.0,) * truth.ndim if spacing is None else spacing
    ignored = truth == IGNORE
    surfaces: dict[int, SurfaceScores | None] = {}
    lines: dict[int, LineCounts] = {}
    table = confusion(truth, predicted, len(task.class_names))
    tolerance = default_tolerance(steps) if task.tolerance is None else task.tolerance
    for index in task.foreground if task.surface or task.lines else ():
        true_mask, predicted_mask = truth == index, (predicted == index) & ~ignored
        if task.surface:
            surfaces[index] = surface_scores(true_mask, predicted_mask, steps, tolerance=tolerance)
        if task.lines:
            lines[index] = count_lines(true_mask, predicted_mask)
    objects = None
    if true_objects is not None and predicted_objects is not None:
        objects = count_objects(overlaps(true_objects, predicted_objects, ignored))
    return SampleCounts(
        key=key,
        table=table,
        ignored=int(ignored.sum()),
        diagonal=image_diagonal(truth.shape, steps),
        tolerance=tolerance,
        surfaces=surfaces,
        lines=lines,
        objects=objects,
        regions=_count_membranes(truth, predicted, task, regions),
    )


def _count_membranes(truth: Labels, predicted: Labels, task: Task, regions: Instances | None) -> RegionCounts | None:
    if task.membrane_class is None:
        return None
    cell_class = 1 - task.membrane_class
    found = thin_mask(predicted == cell_class) if regions is None else regions
    return count_regions(components(truth == cell_class), found)


def pool(samples: Sequence[SampleCounts], task: Task) -> dict[str, Any]:
    """Return all scores as one JSON-able object; a score that has nothing to be made of is None.

    Schema::

        {"images": n, "ignored_pixels": n, "pixel_error": x,
         "mean_dice": x, "mean_iou": x,            over the pooled scores of the classes in "mean_over"
         "mean_over": [name, ...],
         "confusion": [[n, ...], ...],             rows true, columns predicted, last column "no class"
         "classes": {name: {                       see metrics.class_scores, and
             "iou", "dice", "precision", "recall", "iou_mean", "dice_mean", "images", "images_with_class",
             "images_missed", "images_false", "images_absent", "truth_pixels", "predicted_pixels",
             "cldice", "cldice_mean"}},            pooled, and mean over images; foreground only
         "surface": None or {                      mean over images that have the class in truth or prediction
             "unit": "px", "tolerance": [low, high],
             "missed_value": "image diagonal", "missed_values": [low, high],
             "classes": {name: {"hd95", "assd", "nsd", "images", "missed", "false"}}},
         "instances": None or object_scores,       pooled over images, see matching.object_scores
         "membranes": None or {"v_rand", "v_info", (mean over images) "v_rand_pooled", "v_info_pooled",
             "v_rand_split", "v_rand_merge", "variation_of_information", "images"},
         "samples": {key: {the same of one image: "dice" and "iou" by class, "mean_dice", "pixel_error",
             "ignored_pixels", "hd95", "assd", "nsd" and "cldice" by class, "missed" (class names),
             "instances", "membranes"}}}

    Args:
        samples: one or more; keys are unique.
        task: as given to `score_sample`.
    """
    tables = [sample.table for sample in samples]
    total = np.sum(tables, axis=0) if tables else np.zeros((len(task.class_names), len(task.class_names) + 1), np.int64)
    classes: dict[str, Any] = {}
    for index, name in enumerate(task.class_names):
        classes[name] = class_scores(tables, index)
        if task.lines and index in task.foreground:
            counted = [sample.lines[index] for sample in samples]
            classes[name]["cldice"] = sum(counted, start=LineCounts()).cldice
            classes[name]["cldice_mean"] = mean([count.cldice for count in counted])
    names = [task.class_names[index] for index in task.foreground]
    counted_objects = [sample.objects for sample in samples if sample.objects is not None]
    return {
        "images": len(samples),
        "ignored_pixels": sum(sample.ignored for sample in samples),
        "pixel_error": pixel_error(total),
        "mean_dice": mean([classes[name]["dice"] for name in names]),
        "mean_iou": mean([classes[name]["iou"] for name in names]),
        "mean_over": names,
        "confusion": total.tolist(),
        "classes": classes,
        "surface": _pool_surfaces(samples, task) if task.surface and samples else None,
        "instances": object_scores(sum_counts(counted_objects)) if counted_objects else None,
        "membranes": _pool_regions(samples),
        "samples": {sample.key: _one(sample, task) for sample in samples},
    }


def _pool_surfaces(samples: Sequence[SampleCounts], task: Task) -> dict[str, Any]:
    classes = {}
    for index in task.foreground:
        found = [scores for sample in samples if (scores := sample.surfaces[index]) is not None]
        classes[task.class_names[index]] = {
            "hd95": mean([scores.hd95 for scores in found]),
            "assd": mean([scores.assd for scores in found]),
            "nsd": mean([scores.nsd for scores in found]),
            "images": len(found),
            "missed": sum(scores.missed for scores in found),
            "false": sum(scores.false for scores in found),
        }
    tolerances, diagonals = ([*(getattr(s, key) for s in samples)] for key in ("tolerance", "diagonal"))
    return {
        "unit": task.unit,
        "tolerance": [min(tolerances), max(tolerances)],
        "missed_value": "image diagonal",
        "missed_values": [min(diagonals), max(diagonals)],
        "classes": classes,
    }


def _pool_regions(samples: Sequence[SampleCounts]) -> dict[str, Any] | None:
    found = [sample.regions for sample in samples if sample.regions is not None]
    if not found:
        return None
    total = sum(found, start=RegionCounts())
    return {
        "v_rand": mean([counts.v_rand for counts in found]),
        "v_info": mean([counts.v_info for counts in found]),
        "v_rand_pooled": total.v_rand,
        "v_info_pooled": total.v_info,
        "v_rand_split": total.v_rand_split,
        "v_rand_merge": total.v_rand_merge,
        "variation_of_information": total.variation_of_information,
        "images": len(found),
    }


def _one(sample: SampleCounts, task: Task) -> dict[str, Any]:
    scores = [class_scores([sample.table], index) for index in range(len(task.class_names))]
    names = task.class_names
    row: dict[str, Any] = {
        "dice": {name: score["dice"] for name, score in zip(names, scores, strict=True)},
        "iou": {name: score["iou"] for name, score in zip(names, scores, strict=True)},
        "mean_dice": mean([scores[index]["dice"] for index in task.foreground]),
        "pixel_error": pixel_error(sample.table),
        "ignored_pixels": sample.ignored,
        "missed": [names[index] for index in task.foreground if scores[index]["images_missed"]],
    }
    there = {names[index]: found for index, found in sample.surfaces.items() if found is not None}
    if sample.surfaces:
        row |= {key: {name: getattr(found, key) for name, found in there.items()} for key in ("hd95", "assd", "nsd")}
    if sample.lines:
        row["cldice"] = {names[index]: counts.cldice for index, counts in sample.lines.items()}
    if sample.objects is not None:
        row["instances"] = object_scores(sample.objects)
    if sample.regions is not None:
        row["membranes"] = {"v_rand": sample.regions.v_rand, "v_info": sample.regions.v_info}
    return row
