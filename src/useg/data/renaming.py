"""What was measured on files that stand in for others, told by the names that the user knows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from useg.data.headers import Header, split_ref
from useg.data.measure import SampleRecord
from useg.data.reading import Sample
from useg.errors import DataError, Problem


def renamed(record: SampleRecord, sample: Sample, here: Sample) -> SampleRecord:
    """The record of `here`, as one of `sample`.

    Args:
        record: of `here`; what measuring added to its images' refs, such as `#channels`, stays.
        sample: whose refs are to be told.
        here: the same sample with refs to the files that were read.
    """
    name = _names(sample, here)
    record.sample = replace(
        sample,
        images=tuple(
            known + now.removeprefix(read)
            for known, now, read in zip(sample.images, record.sample.images, here.images, strict=True)
        ),
    )
    record.headers = tuple(_header(header, name) for header in record.headers)
    record.problems = [replace(p, where=name(p.where), what=name(p.what)) for p in record.problems]
    if record.census is not None:
        record.census = replace(record.census, where=name(record.census.where))
    if record.kept is not None:
        record.kept = replace(record.kept, header=_header(record.kept.header, name))
    return record


def unread(sample: Sample, problems: Sequence[Problem]) -> SampleRecord:
    """The record of a sample whose files could not be had."""
    return SampleRecord(sample, problems=list(problems))


@contextmanager
def told_by_name(sample: Sample, here: Sample) -> Iterator[None]:
    """Meanwhile, problems of files that stand in for those of `sample` are told by the names of these.

    Raises:
        DataError: one was raised, and now names the files of `sample`.
    """
    try:
        yield
    except DataError as error:
        name = _names(sample, here)
        told = [replace(p, where=name(p.where), what=name(p.what)) for p in error.problems]
        raise DataError(name(error.summary), told) from error.__cause__


def _header(header: Header, name: Callable[[str], str]) -> Header:
    return replace(header, ref=name(header.ref))


def _names(sample: Sample, here: Sample) -> Callable[[str], str]:
    known = [*sample.images, *sample.labels, *filter(None, [sample.region])]
    read = [*here.images, *here.labels, *filter(None, [here.region])]
    paths = {
        str(split_ref(file)[0]): str(split_ref(ref)[0])
        for file, ref in zip(reversed(read), reversed(known), strict=True)
    }

    def name(text: str) -> str:
        for path, ref in paths.items():
            text = text.replace(path, ref)
        return text

    return name
