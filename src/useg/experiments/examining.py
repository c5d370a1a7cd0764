"""What is in the data that a training is given, a folder or a view, with the changes that a view declares."""

from dataclasses import replace
from pathlib import Path

from useg.data.inspect import Inspection, Progress, examine_reading
from useg.data.layouts import read_layout
from useg.data.samples import Source
from useg.data.transforming import class_factors, merge_classes
from useg.data.transforms import parse_transforms
from useg.data.views import View
from useg.train.plan import Plan


def examined(
    data: Path | View, classes: Path | None, progress: Progress | None
) -> tuple[Inspection, Source | None, tuple[float, ...]]:
    """What is in the data, where its files are had from (None: where they lie), and factors of class weights."""
    if isinstance(data, Path):
        return (
            examine_reading(read_layout(data, labels_needed=True), classes=classes, progress=progress).usable(),
            None,
            (),
        )
    reading, changes = data.local(), parse_transforms(data.origin.transforms)
    found = examine_reading(reading, classes=classes, progress=progress).usable()
    factors: tuple[float, ...] = ()
    if found.mapping is not None:
        mapping = merge_classes(found.mapping, changes)
        if mapping != found.mapping:
            reading = replace(reading, hints=reading.hints | {"mapping": mapping.to_toml()})
            found = examine_reading(reading, progress=progress).usable()
        factors = class_factors(mapping, changes)
    found.reading = data.named(found.reading)
    return found, data.files, factors


def weighted(plan: Plan, factors: tuple[float, ...]) -> Plan:
    """The plan with classes counting as a view declares."""
    if all(factor == 1 for factor in factors):
        return plan
    weights = [weight * factor for weight, factor in zip(plan.class_weights, factors, strict=False)]
    return plan.model_copy(update={"class_weights": (*weights, *plan.class_weights[len(weights) :])})
