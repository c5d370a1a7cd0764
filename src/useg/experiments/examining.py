"""What is in the data that a training is given, a folder or a view, with the changes that a view declares."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from useg.data.duplicates import compare_neighbours
from useg.data.fingerprint import Fingerprint
from useg.data.inherited import known_of_version, same_pictures
from useg.data.inspect import Inspection, Progress, examine_reading
from useg.data.kept_inspections import KeptInspection, KeptInspections, to_keep
from useg.data.labels import LabelMapping
from useg.data.layouts import read_layout
from useg.data.measure import SampleRecord
from useg.data.query import view_digest
from useg.data.reading import Reading, Sample
from useg.data.samples import Source
from useg.data.spread import SPREAD, Spread, spread_over
from useg.data.transforming import class_factors, geometric, merge_classes, space_after
from useg.data.transforms import Transform, parse_transforms
from useg.data.views import View
from useg.data.warn import about_duplicates
from useg.train.plan import Plan


@dataclass(frozen=True)
class Examined:
    """What is in the data.

    Attributes:
        found: reading, mapping, fingerprint, and what the user should know.
        source: where the files are had from; None: where they lie.
        factors: how much each class counts beyond its usual weight; () for as usual.
        kept: the inspections of the view that its home keeps.
        view: that was examined; None of a folder.
        measured: keys of the samples that stand for all; () where all were measured.
    """

    found: Inspection
    source: Source | None = None
    factors: tuple[float, ...] = ()
    kept: KeptInspections | None = None
    view: View | None = None
    measured: tuple[str, ...] = ()

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
        rest = [record for record in found.records if record.sample.key not in keys]
        if rest and (not self.measured or 2 * len(rest) >= len(self.measured)):
            return found.fingerprint_without(keys)
        samples = tuple(sample for sample in found.reading.samples if sample.key not in keys)
        spread = None if self.view is None else _spread(self.view, samples)
        again = examine_reading(
            _with_mapping(found.reading, found.mapping, _those(samples, spread)), source=self.source
        ).usable()
        if again.fingerprint is None:
            raise ValueError("no measured sample is left")
        return again.fingerprint


def examined(data: Path | View, classes: Path | None, progress: Progress | None) -> Examined:
    """What is in the data; of a view, what an earlier inspection found where its home keeps one.

    Of a view whose files are far away a spread of samples is measured, where the home knows enough of the others; what
    is wrong with these is told when they are read.

    Raises:
        DataError: it cannot be trained on.
    """
    if isinstance(data, Path):
        reading = read_layout(data, labels_needed=True)
        return Examined(examine_reading(reading, classes=classes, progress=progress).usable())
    told = _told(data, classes)
    kept = KeptInspections(data.files.fetcher.objects, data.origin.view, told)
    known = kept.find()
    if known is None and data.origin.view == view_digest(data.origin.version, "true", ()):
        known = known_of_version(data.dataset, data.dataset.version(data.origin.commit), told)
    if known is not None:
        found = _recalled(data, known)
    else:
        found, known = _inspected(data, classes, told, progress)
        if known is not None:
            kept.keep(known)
            found = _recalled(data, known, found.records)
    if known is not None:
        data.files.know(known.spaces)
    changes = parse_transforms(data.origin.transforms)
    factors = () if found.mapping is None else class_factors(found.mapping, changes)
    return Examined(found, data.files, factors, kept, data, () if known is None else known.measured)


def _told(view: View, classes: Path | None) -> str | None:
    """The text of the label mapping: as given by the user, else with the version."""
    if classes is not None:
        return classes.read_text("utf-8", "surrogateescape")
    mapping = view.reading.hints.get("mapping")
    return None if mapping is None else str(mapping)


def _inspected(
    view: View, classes: Path | None, told: str | None, progress: Progress | None
) -> tuple[Inspection, KeptInspection | None]:
    """What is in a view, and what is to be kept of it."""
    changes = parse_transforms(view.origin.transforms)
    labelled = tuple(sample for sample in view.reading.samples if sample.labels)
    spread = _spread(view, labelled)
    if spread is not None and (done := _inspected_in_part(view, spread, classes, told, progress)) is not None:
        return done
    found = _merged(view.reading, changes, classes, progress, view.files)
    spaces = {record.sample.key: record.header.space for record in found.records}
    return found, to_keep(view.reading, found, spaces)


def _spread(view: View, samples: Sequence[Sample]) -> Spread | None:
    """The samples that stand for these; None where all are to be measured."""
    if len(samples) <= SPREAD or not view.files.are_far:
        return None
    spread = spread_over(view.manifest, [sample.key for sample in samples], SPREAD)
    changes = geometric(parse_transforms(view.origin.transforms))
    if spread is None or not changes:
        return spread
    spaces = {key: after for key, space in spread.spaces.items() if (after := space_after(changes, space))}
    return replace(spread, spaces=spaces) if len(spaces) == len(spread.spaces) else None


def _inspected_in_part(
    view: View, spread: Spread, classes: Path | None, told: str | None, progress: Progress | None
) -> tuple[Inspection, KeptInspection] | None:
    """What is in a view by its spread of samples, and by what is known of the whole version."""
    changes = parse_transforms(view.origin.transforms)
    is_changed = bool(geometric(changes))
    version = known_of_version(view.dataset, view.dataset.version(view.origin.commit), told)
    if version is not None and (not spread.spaces.keys() <= version.spaces.keys() or (is_changed and version.images)):
        version = None
    samples = tuple(sample for sample in view.reading.samples if sample.key in spread.spaces)
    if version is None:
        part = replace(view.reading, samples=_those(samples, spread))
        found = _merged(part, changes, classes, progress, view.files)
        if found.reading.samples != part.samples:
            return None  # files are read in another way than others of their kind, which only all of them can tell
    else:
        samples = tuple(replace(s, images=version.images.get(s.key, s.images)) for s in samples)
        mapping = merge_classes(version.mapping, changes)
        part = _with_mapping(view.reading, mapping, _those(samples, spread))
        found = examine_reading(part, progress=progress, source=view.files).usable()
        found.repairs = list(version.repairs)
    if found.fingerprint is None:
        return None
    known = () if version is None else version.fingerprint.duplicates
    looks = {record.sample.key: record.look for record in found.records}
    series = compare_neighbours([[look for key in spread.neighbours if (look := looks.get(key)) is not None]])
    keys, splits = zip(*((sample.key, sample.split) for sample in samples), strict=True)
    pairs = same_pictures(keys, splits, (*known, *found.fingerprint.duplicates), spread.same)
    told_of = about_duplicates(found.fingerprint.duplicates)
    found.warnings = [*about_duplicates(pairs), *(line for line in found.warnings if line not in told_of)]
    changed = {
        "duplicates": pairs,
        "sequence": series.alike,
        "neighbour_correlation": series.neighbours,
        "distant_correlation": series.distant,
    }
    found.fingerprint = found.fingerprint.model_copy(update=changed)
    found.reading = replace(view.reading, samples=samples)
    found.repairs.append(
        f"{len(spread.keys)} of {len(samples)} samples were measured, spread over all; "
        "the others are checked when they are read"
    )
    spaces = spread.spaces if version is None or is_changed else {key: version.spaces[key] for key in spread.spaces}
    to_be_kept = to_keep(view.reading, found, spaces, spread.keys)
    return None if to_be_kept is None else (found, to_be_kept)


def _those(samples: tuple[Sample, ...], spread: Spread | None) -> tuple[Sample, ...]:
    if spread is None:
        return samples
    wanted = set(spread.keys)
    return tuple(sample for sample in samples if sample.key in wanted)


def _merged(
    reading: Reading, changes: Sequence[Transform], classes: Path | None, progress: Progress | None, source: Source
) -> Inspection:
    """What is in a reading, once classes were merged as declared."""
    found = examine_reading(reading, classes=classes, progress=progress, source=source).usable()
    if found.mapping is None:
        return found
    mapping = merge_classes(found.mapping, changes)
    if mapping == found.mapping:
        return found
    again = _with_mapping(found.reading, mapping, found.reading.samples)
    return examine_reading(again, progress=progress, source=source).usable()


def _with_mapping(reading: Reading, mapping: LabelMapping | None, samples: tuple[Sample, ...]) -> Reading:
    """A reading of some of the samples, whose mapping is known."""
    told = {} if mapping is None else {"mapping": mapping.to_toml()}
    return replace(reading, samples=samples, hints=reading.hints | told)


def _recalled(view: View, known: KeptInspection, records: Sequence[SampleRecord] = ()) -> Inspection:
    """What was found, as it is kept; with the records, where it was found just now."""
    samples = tuple(
        replace(sample, images=known.images.get(sample.key, sample.images))
        for sample in view.reading.samples
        if sample.key in known.spaces
    )
    reading = replace(view.reading, samples=samples)
    warnings, repairs = list(known.warnings), list(known.repairs)
    return Inspection(reading, known.mapping, known.fingerprint, [], warnings, repairs, list(records))


def weighted(plan: Plan, factors: tuple[float, ...]) -> Plan:
    """The plan with classes counting as a view declares."""
    if all(factor == 1 for factor in factors):
        return plan
    weights = [weight * factor for weight, factor in zip(plan.class_weights, factors, strict=False)]
    return plan.model_copy(update={"class_weights": (*weights, *plan.class_weights[len(weights) :])})
