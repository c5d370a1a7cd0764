"""Trained networks scored on a data set with labels, at the operating points they carry."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from useg.data.headers import Header
from useg.data.images import read_header
from useg.data.labels import load_mapping
from useg.data.layouts import read_layout
from useg.data.samples import Samples
from useg.errors import DataError, InputError
from useg.experiments.ensemble import load_ensemble
from useg.experiments.judge import predict_all, score, task_of


def evaluate_model(
    bundles: Sequence[Path],
    data: Path,
    *,
    classes: Path | None = None,
    split: str | None = None,
    tta: bool = False,
    surface: bool = True,
    lines: bool = True,
    device: str = "cpu",
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predict the labelled samples of a data set in memory and score them.

    Args:
        bundles: one model, or several that are averaged.
        data: anything that `useg inspect` reads.
        classes: how its label values are understood; by default as the model's own.
        split: only samples given as "train", "val" or "test".
        tta: average over symmetries, with the operating points that were tuned for that where there are some.
        surface, lines: measure outlines and centre lines.

    Returns:
        As `segmentation.scoring.pool`, with "operating_points", "task", "notes", "left_out".

    Raises:
        InputError: no labelled sample, or none of that split. DataError: labels that the mapping does not know.
    """
    ensemble = load_ensemble(bundles, device)
    member = ensemble.members[0]
    mapping = member.mapping if classes is None else load_mapping(classes)
    if mapping.num_classes != member.plan.num_classes:
        raise DataError(f"{classes}: {mapping.num_classes} classes, the model has {member.plan.num_classes}")
    reading = read_layout(data, labels_needed=True)
    labelled = [sample for sample in reading.samples if sample.labels and split in (None, sample.split)]
    labelled = [sample for sample in labelled if read_header(sample.images[0]).ndim >= member.plan.dims]
    if not labelled:
        raise InputError(f"{data}: no labelled sample" + (f" of split {split!r}" if split else ""))
    samples = Samples(labelled, mapping, member.plan.stored_channels, planes=member.plan.planes)
    first: Header = read_header(labelled[0].images[0])
    tuning = ensemble.tuning
    if tta and tuning.get("tta"):
        tuning = {**tuning, **tuning["tta"]}
    predicted = []
    for index in range(len(samples)):
        predicted += predict_all(ensemble.members, samples, [index], with_symmetries=tta)
        if advance is not None:
            advance(index + 1, len(samples))
    task = replace(task_of(member, predicted, first.spacing_unit), surface=surface, lines=lines)
    names = task.class_names
    return {
        **score(member, predicted, tuning, task),
        "task": {
            "classes": list(names),
            "membrane": None if task.membrane_class is None else names[task.membrane_class],
            "unit": task.unit,
        },
        "notes": [reading.rule],
        "left_out": [],
    }
