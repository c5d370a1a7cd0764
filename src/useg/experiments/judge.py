"""How good a trained network is: operating points tuned on validation samples, scores on those held out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from useg.arrays import Instances, Labels
from useg.data.samples import Loaded, Samples
from useg.experiments.ensemble import Member
from useg.experiments.results import class_map
from useg.experiments.validation import outputs_of
from useg.segmentation.instances import SeparationParameters, class_probabilities, separate
from useg.segmentation.membranes import CellParameters, cell_regions, membrane_class
from useg.segmentation.metrics import confusion, pixel_error
from useg.segmentation.scoring import SampleCounts, Task, pool, score_sample
from useg.segmentation.tuning import tune_cells, tune_separation, tune_threshold

_KEPT_PIXELS = 40_000_000
PRIMARY = "dice"
"""The operating point of label maps that are written, where the task has two classes."""


@dataclass(frozen=True)
class Predicted:
    """One sample with a network's outputs for it."""

    loaded: Loaded
    outputs: np.ndarray


class Predictions(Sequence[Predicted]):
    """Outputs of samples, averaged over networks, as float16; made when they are asked for.

    As many as have `_KEPT_PIXELS` together (the first one at least) stay in memory once they are made.
    """

    def __init__(
        self, asked: Sequence[tuple[Sequence[Member], int]], samples: Samples, *, with_symmetries: bool = False
    ) -> None:
        """Each of `asked` is the networks to predict with, and the index of the sample."""
        self._asked, self._samples, self._with_symmetries = asked, samples, with_symmetries
        self._made: dict[int, Predicted] = {}
        self._kept: list[int] = []
        pixels = 0
        for position, (_, index) in enumerate(asked):
            size = prod(samples.space(index))
            if not self._kept or pixels + size <= _KEPT_PIXELS:
                self._kept.append(position)
                pixels += size

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, position: Any) -> Any:
        if position not in self._made:
            members, index = self._asked[position]
            loaded = self._samples[index]
            outputs = [outputs_of(member, loaded, with_symmetries=self._with_symmetries) for member in members]
            found = Predicted(loaded, (np.sum(outputs, axis=0) / len(members)).astype(np.float16))
            if position not in self._kept:
                return found
            self._made[position] = found
        return self._made[position]

    def __iter__(self) -> Iterator[Predicted]:
        return self._each(range(len(self)))

    def kept(self) -> Iterator[Predicted]:
        """Those that stay in memory."""
        return self._each(self._kept)

    def _each(self, positions: Iterable[int]) -> Iterator[Predicted]:
        wanted = [position for position in positions if position not in self._made]
        with self._samples.following([self._asked[position][1] for position in wanted]):
            for position in positions:
                yield self[position]


def task_of(member: Member, samples: Sequence[Loaded], unit: str | None) -> Task:
    """What is scored: membranes where the labels look like them, distances in the data's unit.

    Args:
        member: the network.
        samples: some of the task, whole or large parts: what is held out may be too narrow to look like anything.
        unit: of the spacing.
    """
    labels = [sample.classes for sample in samples if sample.classes is not None]
    two = member.plan.num_classes == 2 and member.plan.instance_mode == "none"
    return Task(
        class_names=member.mapping.class_names,
        membrane_class=membrane_class(labels) if two and labels else None,
        unit=unit or "px",
    )


def tune(member: Member, predicted: Iterable[Predicted], task: Task, *, whole: bool = True) -> dict[str, Any]:
    """Operating points by the metrics of the task: "thresholds" {metric: threshold}, "separation" {...} of
    objects or "cells" {...} between membranes, and "tuned_scores" {metric: score} on the samples tuned on.
    Empty where nothing is to be tuned.

    Args:
        member: the network. predicted: samples to tune on. task: what is scored.
        whole: the samples are whole images. Parts of images hide what two merged cells cost, since V_rand counts the
            squares of their sizes: on bands of a stack all parameters look alike, so that the defaults are kept.
    """
    plan = member.plan
    kept = [each for each in predicted if each.loaded.classes is not None]
    if not kept:
        return {}
    tuning: dict[str, Any]
    if plan.instance_mode != "none":
        pairs = [
            (each.outputs.astype(np.float32), each.loaded.instances)
            for each in kept
            if each.loaded.instances is not None
        ]
        chosen, table = tune_separation(pairs, plan.num_classes, plan.instance_mode)
        best = next((row["ap_mean"] for row in table if row.items() >= asdict(chosen).items()), None)
        tuning = {"separation": asdict(chosen), "tuned_scores": {"ap_mean": best}}
        if plan.num_classes == 2:
            tuning["thresholds"] = {PRIMARY: chosen.mask_threshold}
        return tuning
    if plan.num_classes != 2:
        return {}
    probabilities, labels = [each.outputs[1].astype(np.float32) for each in kept], [_labels(each) for each in kept]
    points = tune_threshold(probabilities, labels)
    tuning = {
        "thresholds": {metric: point.threshold for metric, point in points.items()},
        "tuned_scores": {metric: point.score for metric, point in points.items()},
    }
    if task.membrane_class is not None:
        cells, v_rand = CellParameters(cell_class=1 - task.membrane_class), None
        if whole:
            cells, v_rand = tune_cells(probabilities, labels, cells.cell_class)
        tuning["cells"] = asdict(cells)
        tuning["tuned_scores"]["v_rand"] = v_rand
    return tuning


def decide(member: Member, outputs: np.ndarray, tuning: dict[str, Any]) -> tuple[Labels, Instances | None]:
    """Label map and, for a network that tells objects apart, instance map, at the operating points."""
    plan = member.plan
    full = outputs.astype(np.float32)
    probabilities = class_probabilities(full, plan.num_classes, plan.instance_mode)
    threshold = tuning.get("thresholds", {}).get(PRIMARY) if plan.num_classes == 2 else None
    objects = None
    if plan.instance_mode != "none":
        parameters = SeparationParameters(**tuning.get("separation", {}))
        objects = separate(full, plan.num_classes, plan.instance_mode, parameters=parameters)
    return class_map(probabilities, threshold), objects


def score(member: Member, predicted: Iterable[Predicted], tuning: dict[str, Any], task: Task) -> dict[str, Any]:
    """All scores (see `segmentation.scoring.pool`), plus "operating_points": for a task with two classes each
    metric's tuned parameters with what it is there on these samples. They are looked at once, one after another.
    """
    thresholds = tuning.get("thresholds", {})
    counts, table = [], np.zeros((2, 3), np.int64)
    for each in predicted:
        counts.append(count_one(member, each, tuning, task))
        if "pixel_error" in thresholds:
            table += confusion(_labels(each), class_map(each.outputs.astype(np.float32), thresholds["pixel_error"]), 2)
    result = pool(counts, task)
    result["operating_points"] = {metric: {"threshold": threshold} for metric, threshold in thresholds.items()}
    if "pixel_error" in thresholds:
        result["operating_points"]["pixel_error"]["pixel_error"] = pixel_error(table)
    if PRIMARY in thresholds:
        result["operating_points"][PRIMARY]["dice"] = result["classes"][task.class_names[1]]["dice"]
    if "cells" in tuning and result["membranes"]:
        found = {key: result["membranes"][key] for key in ("v_rand", "v_info")}
        result["operating_points"]["v_rand"] = tuning["cells"] | found
    return result


def count_one(member: Member, each: Predicted, tuning: dict[str, Any], task: Task) -> SampleCounts:
    """The counts of one sample at the tuned operating points."""
    classes, objects = decide(member, each.outputs, tuning)
    regions = None
    if task.membrane_class is not None and "cells" in tuning:
        regions = cell_regions(each.outputs[1].astype(np.float32), CellParameters(**tuning["cells"]))
    return score_sample(
        each.loaded.key,
        _labels(each),
        classes,
        task=task,
        true_objects=each.loaded.instances,
        predicted_objects=objects,
        regions=regions,
        spacing=each.loaded.spacing,
    )


def _labels(each: Predicted) -> Labels:
    if each.loaded.classes is None:
        raise ValueError(f"{each.loaded.key} has no labels")
    return each.loaded.classes
