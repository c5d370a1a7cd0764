"""Trained networks scored on a data set with labels, at the operating points they carry."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from useg.data.headers import Header
from useg.data.images import read_header
from useg.data.labels import load_mapping
from useg.data.layouts import read_layout
from useg.data.reading import Sample
from useg.data.samples import Samples
from useg.errors import DataError, InputError, Problem, problems_of
from useg.experiments.ensemble import load_ensemble
from useg.experiments.judge import Predicted, Predictions, score, task_of


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
    if not labelled:
        raise InputError(f"{data}: no labelled sample" + (f" of split {split!r}" if split else ""))
    problems: list[Problem] = []
    headers = _headers(labelled, problems)
    flat = [key for key, header in headers.items() if header.ndim < member.plan.dims]
    labelled = [sample for sample in labelled if sample.key in headers and sample.key not in flat]
    samples = Samples(labelled, mapping, member.plan.stored_channels, planes=member.plan.planes)
    _decode(samples, problems)
    if problems:
        raise DataError(f"{data} cannot be scored: {len(problems)} of its files are wrong", problems)
    if not labelled:
        raise InputError(f"{data}: its images are 2D, the model is for volumes")
    tuning = ensemble.tuning
    if tta and tuning.get("tta"):
        tuning = {**tuning, **tuning["tta"]}
    asked = [(ensemble.members, index) for index in range(len(samples))]

    def told() -> Iterator[Predicted]:
        for done, each in enumerate(Predictions(asked, samples, with_symmetries=tta), 1):
            if advance is not None:
                advance(done, len(samples))
            yield each

    task = replace(
        task_of(
            member,
            [samples.glimpse(index) for index in range(min(8, len(samples)))],
            headers[labelled[0].key].spacing_unit,
        ),
        surface=surface,
        lines=lines,
    )
    names = task.class_names
    return {
        **score(member, told(), tuning, task),
        "task": {
            "classes": list(names),
            "membrane": None if task.membrane_class is None else names[task.membrane_class],
            "unit": task.unit,
        },
        "notes": [reading.rule, *ensemble.symmetries(wanted=tta)],
        "left_out": flat,
    }


def _headers(samples: Sequence[Sample], problems: list[Problem]) -> dict[str, Header]:
    """The header of each sample's image that can be read, by key; what cannot is added to the problems."""
    found = {}
    for sample in samples:
        try:
            found[sample.key] = read_header(sample.images[0])
        except DataError as error:
            problems += problems_of(error, sample.images[0])
    return found


def _decode(samples: Samples, problems: list[Problem]) -> None:
    """Reads every sample before the first is predicted, so that all problems are found at once."""
    for index in range(len(samples)):
        try:
            samples[index]
        except DataError as error:
            problems += problems_of(error, samples.sample(index).labels[0])
