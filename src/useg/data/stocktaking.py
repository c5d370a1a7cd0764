"""What was just added, measured while its files are at hand: statistics for queries, and what a training asks first."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from useg.data.commits import Version
from useg.data.images import read_header
from useg.data.inspect import THREADS, Inspection, examine_reading
from useg.data.kept_inspections import KeptInspections, to_keep
from useg.data.layouts import read_layout
from useg.data.progress import Progress
from useg.data.query import view_digest
from useg.data.reading import Sample, natural_order
from useg.data.samples import Plain
from useg.data.statistics import count, uncounted
from useg.data.versions import Dataset
from useg.data.views import reading_of
from useg.errors import DataError, Problem

MOST_INSPECTED = 20_000
"""Of more samples than these, a training measures a spread; to compare each with each would take long."""


def take_stock(
    dataset: Dataset,
    version: Version,
    data: Path,
    *,
    progress: Progress | None = None,
    threads: int = THREADS,
) -> tuple[Problem, ...]:
    """Count what was not counted yet; of a version all of whose files are new, keep the inspection, too.

    Each file is read once. Whoever trains on the whole version then plans without reading any of it.

    Args:
        dataset: where both are kept.
        version: that was made of `data`.
        data: as it was added.
        progress: told how many samples are done.
        threads: that read files.

    Returns:
        What would keep the version from being trained on, as far as it was inspected.
    """
    contents = dataset.contents(version)
    missing = uncounted(dataset, contents.manifest)
    if not missing:
        return ()
    samples = {sample.key: sample for sample in read_layout(data).samples}
    found = None
    if len(missing) == version.samples <= MOST_INSPECTED and missing.keys() <= samples.keys():
        found = _inspected(dataset, version, samples, progress, threads)
    records = {}
    if found is not None and (found.mapping is None or found.mapping.kind != "threshold"):
        records = {record.sample.key: record for record in found.records}
    count(dataset, contents.manifest, samples, records=records, progress=None if records else progress, threads=threads)
    return () if found is None else tuple(found.problems)


def _inspected(
    dataset: Dataset, version: Version, samples: Mapping[str, Sample], progress: Progress | None, threads: int
) -> Inspection | None:
    contents = dataset.contents(version)
    rows = sorted(contents.manifest.rows(), key=lambda row: natural_order(row.key))
    reading = reading_of(dataset, version, contents, rows)
    try:
        found = examine_reading(
            reading,
            progress=None if progress is None else lambda done, number: progress(done, total=number),
            threads=threads,
            source=_Here(samples),
        )
    except DataError:
        return None  # the mapping that came with the data is none; inspection and training say so
    spaces = {record.sample.key: record.header.space for record in found.records}
    kept = to_keep(reading, found, spaces)
    if kept is not None:
        view = view_digest(version.digest, "true", ())
        KeptInspections(dataset.objects, view, contents.mapping).keep(kept)
    return found


class _Here(Plain):
    """The files of samples where they lie on this machine, by key."""

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        self._samples = samples

    def space(self, sample: Sample) -> tuple[int, ...]:
        return read_header(self._samples[sample.key].images[0]).space

    def local(self, sample: Sample) -> AbstractContextManager[Sample]:
        return nullcontext(self._samples[sample.key])
