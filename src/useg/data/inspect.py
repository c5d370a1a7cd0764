"""What is in a data folder, what is wrong with it, and the label mapping that repairs it."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from useg.data.census import Census
from useg.data.channels import POOLED_VALUES, channel_problems
from useg.data.fingerprint import Fingerprint
from useg.data.infer import Inference, complete, infer_mapping
from useg.data.labels import LabelMapping
from useg.data.layouts import read_layout
from useg.data.mapping_file import MAPPING_FILE, parse_keys, read_keys
from useg.data.measure import OBJECT_MASKS, SampleRecord, measure_sample, problems_of
from useg.data.reading import Reading, Sample
from useg.data.renaming import renamed, unread
from useg.data.samples import Plain, Source
from useg.data.summarise import encode_distinct, summarise
from useg.data.warn import warnings_about
from useg.errors import DataError, Problem, UsegError

THREADS = 2
"""Files are read by this many threads; more do not help on the machines that were measured."""

OBJECT_SAMPLES = 500
"""Objects and their gaps are measured on at most this many samples, evenly spread."""

PIECES_SAMPLES = 200
"""Connected pieces of label values are counted on at most this many samples, evenly spread."""

Progress = Callable[[int, int], None]
"""Called with the number of samples done and of all."""


@dataclass
class Inspection:
    """What is known of a data folder.

    Attributes:
        reading: which files make which samples, and how that was found.
        mapping: how label values become classes; None without labels, or where none is safe.
        fingerprint: the measurements; None while there are problems.
        problems: what must be changed before training; nothing may be trained while there are any.
        warnings: what the user should know or check.
        repairs: what is done to the data on reading, recorded in the mapping or following from the files.
        records: of each readable sample, what was measured.
    """

    reading: Reading
    mapping: LabelMapping | None = None
    fingerprint: Fingerprint | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    records: list[SampleRecord] = field(default_factory=list, repr=False)

    def fingerprint_without(self, keys: Collection[str]) -> Fingerprint:
        """The measurements of all other samples than these, e.g. of what a training may know.

        Raises:
            ValueError: nothing was measured, or nothing would be left.
        """
        rest = [record for record in self.records if record.sample.key not in keys]
        if not rest:
            raise ValueError("no measured sample is left")
        return summarise(rest, self.mapping, self.channel_names)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names the data gives its channels."""
        names = self.reading.hints.get("channel_names")
        return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

    def usable(self) -> "Inspection":
        """The inspection itself, when there are no problems.

        Raises:
            DataError: with all problems.
        """
        if self.problems:
            number = len(self.problems)
            raise DataError(
                f"{self.reading.root} cannot be used yet: {number} problem{'s' if number > 1 else ''}",
                self.problems,
            )
        return self


def inspect(
    root: Path,
    *,
    classes: Path | None = None,
    labels_needed: bool = True,
    progress: Progress | None = None,
    threads: int = THREADS,
) -> Inspection:
    """Read, measure and understand a data folder.

    Args:
        root: a folder, a pairs.csv, or one file.
        classes: a label mapping, complete or partial; None takes the folder's `classes.toml` if there is one.
        labels_needed: whether samples without labels are a problem.
        progress: told about every sample.
        threads: that read files.

    Raises:
        DataError: the folder cannot be used; with every problem found.
    """
    return examine(root, classes=classes, labels_needed=labels_needed, progress=progress, threads=threads).usable()


def examine(
    root: Path,
    *,
    classes: Path | None = None,
    labels_needed: bool = True,
    progress: Progress | None = None,
    threads: int = THREADS,
) -> Inspection:
    """Like `inspect`, but problems of files are told in the result instead of raised.

    Raises:
        DataError: there is nothing to read at `root`, or the given mapping is no mapping.
    """
    reading = read_layout(root, labels_needed=labels_needed)
    return examine_reading(reading, classes=classes, progress=progress, threads=threads)


def find_mapping_file(root: Path, classes: Path | None) -> Path | None:
    """The mapping file to use: the given one, else `classes.toml` in the data folder, else none."""
    if classes is not None or not root.exists():
        return classes
    folder = root if root.is_dir() else root.parent
    beside = folder / MAPPING_FILE
    return beside if beside.is_file() else None


def examine_reading(
    reading: Reading,
    *,
    classes: Path | None = None,
    progress: Progress | None = None,
    threads: int = THREADS,
    source: Source | None = None,
) -> Inspection:
    """Measure and understand the samples of a reading.

    Args:
        reading: which files make which samples.
        classes: a label mapping, complete or partial.
        progress: told about every sample.
        threads: that read files.
        source: where the files are had from; None: where the refs say.

    Raises:
        DataError: the given mapping is no mapping.
    """
    found = Inspection(reading, problems=list(reading.problems))
    path = find_mapping_file(Path(reading.root), classes)
    told = reading.hints.get("mapping")
    keys = read_keys(path) if path is not None else parse_keys(str(told), reading.root) if told else {}
    given = complete(keys, ()) if "classes" in keys else None
    if path is not None:
        found.repairs.append(f"label mapping taken from {path}")
    if not reading.samples:
        return found
    records = _measure_all(reading.samples, given, progress, threads, source or Plain())
    found.repairs += _channels_from_planes(records, found)
    records = _of_one_dimension(records, found)
    for record in records:
        found.problems += record.problems
    found.records = readable = [r for r in records if r.headers and not r.problems]
    found.problems += channel_problems(readable)
    inference = _mapping(records, reading, keys, found)
    if inference is not None:
        found.mapping = inference.mapping
        found.repairs += inference.repairs
        found.warnings += inference.warnings
    if found.problems or not readable:
        return found
    found.fingerprint = summarise(readable, found.mapping, found.channel_names)
    found.problems += _class_problems(found.fingerprint, found.mapping, readable)
    found.repairs += _turned(readable)
    found.warnings += warnings_about(found.fingerprint, found.mapping, readable)
    return found


def _measure_all(
    samples: Sequence[Sample], given: LabelMapping | None, progress: Progress | None, threads: int, source: Source
) -> list[SampleRecord]:
    number = len(samples)
    kept = int(np.clip(POOLED_VALUES // number, 200, 50_000))
    objects = _spread(number, OBJECT_SAMPLES)
    pieces = _spread(number, PIECES_SAMPLES)

    def measure(position: int) -> SampleRecord:
        sample = samples[position]
        try:
            with source.local(sample) as here:
                record = measure_sample(
                    here,
                    values_kept=kept,
                    objects_wanted=position in objects,
                    with_pieces=position in pieces and given is None,
                    given=given,
                )
        except DataError as error:
            return unread(sample, problems_of(error, sample.key))
        return record if here is sample else renamed(record, sample, here)

    records: list[SampleRecord] = []
    with source.following(samples), ThreadPoolExecutor(max(1, threads)) as workers:
        for record in workers.map(measure, range(number)):
            records.append(record)
            if progress is not None:
                progress(len(records), number)
    return records


def _spread(number: int, most: int) -> frozenset[int]:
    return frozenset(int(i) for i in np.linspace(0, number - 1, min(number, most)))


def _channels_from_planes(records: list[SampleRecord], found: Inspection) -> list[str]:
    """Put the samples whose planes turned out to be channels into the reading."""
    changed = {r.sample.key: r.sample for r in records if r.sample.images[0].endswith("#channels")}
    before = {s.key for s in found.reading.samples if s.images[0].endswith("#channels")}
    changed = {key: sample for key, sample in changed.items() if key not in before}
    if not changed:
        return []
    samples = tuple(changed.get(sample.key, sample) for sample in found.reading.samples)
    found.reading = replace(found.reading, samples=samples)
    return [f"{len(changed)} stacks have a label map of one plane: their planes are read as channels"]


def _of_one_dimension(records: list[SampleRecord], found: Inspection) -> list[SampleRecord]:
    """The records without those of the rarer kind, where planes and volumes are mixed; says so."""
    deep = [r for r in records if r.headers and r.header.ndim == 3]
    flat = [r for r in records if r.headers and r.header.ndim == 2]
    if not flat or not deep:
        return records
    fewer, what = (deep, "volumes among planes") if len(deep) <= len(flat) else (flat, "planes among volumes")
    left = {r.sample.key for r in fewer}
    names = tuple(ref for r in fewer for ref in (*r.sample.images, *r.sample.labels))
    found.warnings.append(
        f"{len(fewer)} {what} are left out (one training takes either): {', '.join(names[:6])}"
        + ("; put them into a folder of their own" if len(names) <= 6 else f" and {len(names) - 6} more")
    )
    found.reading = replace(
        found.reading,
        samples=tuple(s for s in found.reading.samples if s.key not in left),
        leftovers=(*found.reading.leftovers, *names),
    )
    return [r for r in records if r.sample.key not in left]


def _mapping(
    records: Sequence[SampleRecord], reading: Reading, keys: dict[str, Any], found: Inspection
) -> Inference | None:
    """The mapping of the set; problems go into `found`."""
    labelled = [r for r in records if r.sample.labels]
    if not labelled:
        return None
    kinds = {r.sample.masks_are_objects for r in labelled}
    if kinds == {True}:
        return Inference(
            complete({**keys, "kind": "objects"}, ()) if "classes" in keys else OBJECT_MASKS,
            ["one mask per object -> two classes (background, object) and an object map"],
        )
    if len(kinds) > 1:
        found.problems += [
            Problem(
                r.sample.key,
                "one mask per object, other samples have label maps",
                "keep the two in folders of their own",
            )
            for r in labelled
            if r.sample.masks_are_objects
        ]
        return None
    census: list[Census] = [r.census for r in labelled if r.census is not None]
    if not census:
        return None
    try:
        inference = infer_mapping(census, hints=reading.hints, keys=keys)
    except UsegError as error:
        found.problems += _told(error, census)
        return None
    for record in labelled:
        if inference.mapping.alpha and record.census is not None:
            where = record.census.where
            record.census = replace(record.census.alpha or record.census, where=where)
        if record.census is not None and record.census.values.size:
            try:
                encode_distinct(inference.mapping, record)
            except DataError as error:
                found.problems += problems_of(error, record.census.where)
    return inference


def _told(error: UsegError, census: Sequence[Census]) -> list[Problem]:
    problems = problems_of(error, census[0].where)
    if isinstance(error, DataError) and error.problems:
        return [Problem("labels", error.summary), *problems]
    return problems


def _class_problems(
    fingerprint: Fingerprint, mapping: LabelMapping | None, records: Sequence[SampleRecord]
) -> list[Problem]:
    """A whole set with nothing to learn: one class only, or every mask empty."""
    if mapping is None or not fingerprint.labelled:
        return []
    present = [c for c in fingerprint.classes if c.pixels]
    if len(present) >= 2 or (mapping.has_objects and fingerprint.objects and _several(fingerprint)):
        return []
    labels = [
        (r.sample.labels or (r.sample.key,))[0] for r in records if r.census is not None or r.class_counts is not None
    ]
    if not present:
        what, remedy = (
            "every pixel is outside of what is annotated",
            "check the ignore values in classes.toml",
        )
    elif len(mapping.classes) > 1 or present[0].name == "background":
        what = f"only class '{present[0].name}' occurs" + (
            ": the mask is empty" if present[0].name == mapping.class_names[0] else ""
        )
        remedy = "add samples that show what is to be found, or check that these are the right label files"
    else:
        what = f"only one value occurs ({present[0].name})"
        remedy = "a training needs at least two classes: add samples that show another, or check that these are masks"
    return [Problem(label, what, remedy) for label in labels]


def _several(fingerprint: Fingerprint) -> bool:
    objects = fingerprint.objects
    return objects is not None and objects.per_sample is not None and objects.per_sample.maximum >= 2


def _turned(records: Sequence[SampleRecord]) -> list[str]:
    turned = [r.sample.key for r in records if r.turned]
    if not turned:
        return []
    shown = ", ".join(turned[:5]) + (f" and {len(turned) - 5} more" if len(turned) > 5 else "")
    return [f"{len(turned)} masks fit their image only before its EXIF rotation, and are rotated with it: {shown}"]
