"""What is in the data that a training is given, a folder or a view, with the changes that a view declares."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from useg.data.fingerprint import Fingerprint
from useg.data.inspect import Inspection, Progress, examine_reading
from useg.data.kept_inspections import KeptInspection, KeptInspections
from useg.data.labels import LabelMapping
from useg.data.layouts import read_layout
from useg.data.reading import Reading, Sample
from useg.data.samples import Source
from useg.data.transforming import class_factors, merge_classes
from useg.data.transforms import parse_transforms
from useg.data.views import View
from useg.train.plan import Plan


@dataclass(frozen=True)
class Examined:
    """What is in the data.

    Attributes:
        found: reading, mapping, fingerprint, and what the user should know.
        source: where the files are had from; None: where they lie.
        factors: how much each class counts beyond its usual weight; () for as usual.
        kept: the inspections of the view that its home keeps.
    """

    found: Inspection
    source: Source | None = None
    factors: tuple[float, ...] = ()
    kept: KeptInspections | None = None

    def fingerprint_without(self, keys: Collection[str]) -> Fingerprint:
        """The measurements of all other samples than these: what a training may know, when these are for testing."""
        found = self.found
        if found.fingerprint is None:
            raise ValueError("nothing was measured")
        if not keys:
            return found.fingerprint
        known = self.kept.find_without(keys) if self.kept is not None else None
        if known is None:
            known = self._measured_without(keys)
            if self.kept is not None:
                self.kept.keep_without(keys, known)
        # a test part with more channels than the rest decides how all are read
        return known if known.channels == found.fingerprint.channels else found.fingerprint

    def _measured_without(self, keys: Collection[str]) -> Fingerprint:
        found = self.found
        if found.records:
            return found.fingerprint_without(keys)
        rest = tuple(sample for sample in found.reading.samples if sample.key not in keys)
        again = examine_reading(_with_mapping(found, rest), source=self.source).usable()
        if again.fingerprint is None:
            raise ValueError("no measured sample is left")
        return again.fingerprint


def examined(data: Path | View, classes: Path | None, progress: Progress | None) -> Examined:
    """What is in the data; of a view, what an earlier inspection found where its home keeps one.

    Raises:
        DataError: it cannot be trained on.
    """
    if isinstance(data, Path):
        reading = read_layout(data, labels_needed=True)
        return Examined(examine_reading(reading, classes=classes, progress=progress).usable())
    told = None if classes is None else classes.read_text("utf-8", "surrogateescape")
    kept = KeptInspections(data.files.fetcher.objects, data.origin.view, told)
    known = kept.find()
    if known is not None:
        found = _recalled(data, known)
        data.files.know(known.spaces)
    else:
        found = _inspected(data, classes, progress)
        spaces = {record.sample.key: record.header.space for record in found.records}
        data.files.know(spaces)
        if found.mapping is not None and found.fingerprint is not None:
            kept.keep(_to_keep(data, found, found.mapping, found.fingerprint, spaces))
    changes = parse_transforms(data.origin.transforms)
    factors = () if found.mapping is None else class_factors(found.mapping, changes)
    return Examined(found, data.files, factors, kept)


def _inspected(view: View, classes: Path | None, progress: Progress | None) -> Inspection:
    found = examine_reading(view.reading, classes=classes, progress=progress, source=view.files).usable()
    if found.mapping is None:
        return found
    mapping = merge_classes(found.mapping, parse_transforms(view.origin.transforms))
    if mapping == found.mapping:
        return found
    merged = replace(found, mapping=mapping)
    return examine_reading(_with_mapping(merged, found.reading.samples), progress=progress, source=view.files).usable()


def _with_mapping(found: Inspection, samples: tuple[Sample, ...]) -> Reading:
    """A reading of some of the samples, whose mapping is known."""
    told = {} if found.mapping is None else {"mapping": found.mapping.to_toml()}
    return replace(found.reading, samples=samples, hints=found.reading.hints | told)


def _to_keep(
    view: View, found: Inspection, mapping: LabelMapping, fingerprint: Fingerprint, spaces: dict[str, tuple[int, ...]]
) -> KeptInspection:
    before = {sample.key: sample.images for sample in view.reading.samples}
    samples = found.reading.samples
    images = {sample.key: sample.images for sample in samples if sample.images != before[sample.key]}
    repairs, warnings = tuple(found.repairs), tuple(found.warnings)
    return KeptInspection(mapping, fingerprint, repairs, warnings, spaces, images)


def _recalled(view: View, known: KeptInspection) -> Inspection:
    samples = tuple(
        replace(sample, images=known.images.get(sample.key, sample.images))
        for sample in view.reading.samples
        if sample.key in known.spaces
    )
    reading = replace(view.reading, samples=samples)
    return Inspection(reading, known.mapping, known.fingerprint, [], list(known.warnings), list(known.repairs))


def weighted(plan: Plan, factors: tuple[float, ...]) -> Plan:
    """The plan with classes counting as a view declares."""
    if all(factor == 1 for factor in factors):
        return plan
    weights = [weight * factor for weight, factor in zip(plan.class_weights, factors, strict=False)]
    return plan.model_copy(update={"class_weights": (*weights, *plan.class_weights[len(weights) :])})
