"""The records of all samples, pooled into one fingerprint."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from useg.arrays import IGNORE
from useg.data.annotations import encode_named
from useg.data.channels import ChannelPool, pool_channels
from useg.data.duplicates import Look, compare_neighbours, find_duplicates
from useg.data.fingerprint import ClassStatistics, Fingerprint, ObjectStatistics, Quantiles
from useg.data.labels import LabelMapping
from useg.data.measure import SampleRecord
from useg.data.objects import Objects, measure_objects
from useg.errors import DataError, Problem

DISPLAY_SCALES = 4.0
"""8-bit images are on different scales when their ranges (95 % over 5 % quantile) differ by more."""

MEASURED_SCALES = 10.0
"""The same for other dtypes, whose numbers may be measurements: a dark lake is not another scale."""


def summarise(
    records: Sequence[SampleRecord], mapping: LabelMapping | None, channel_names: Sequence[str] = ()
) -> Fingerprint:
    """Pool records that have no problems into a fingerprint.

    Args:
        records: in the order of the samples; at least one; all readable, of one number of axes.
        mapping: how label values become classes; None without labels.
        channel_names: names the data gives its channels.

    Raises:
        DataError: a label value is not in the mapping.
    """
    headers = [record.header for record in records]
    spaces = np.array([header.space for header in headers])
    pool = pool_channels(records, channel_names)
    classes, ignored, empty, labelled = _classes(records, mapping)
    looks = [record.look for record in records if record.look is not None]
    keys = [record.sample.key for record in records if record.look is not None]
    splits = [record.sample.split for record in records if record.look is not None]
    series = compare_neighbours(_series(records))
    return Fingerprint(
        samples=len(records),
        labelled=labelled,
        ndim=headers[0].ndim,
        channels=pool.channels,
        mixed_colour=pool.mixed,
        used_channels=tuple(i for i, c in enumerate(pool.statistics) if c.kind != "constant"),
        dtypes=count_names(str(h.dtype) for h in headers),
        formats=count_names(h.format for h in headers),
        shapes=count_names(" x ".join(map(str, h.space)) for h in headers),
        smallest=tuple(int(v) for v in spaces.min(0)),
        median_space=tuple(int(v) for v in np.median(spaces, axis=0)),
        largest=tuple(int(v) for v in spaces.max(0)),
        pixels=int(spaces.prod(axis=1).sum()),
        **_spacing(records),
        lossy=sum(any(h.lossy for h in record.headers) for record in records),
        intensity_scale_differs=_scale_differs(records, pool),
        channel_statistics=pool.statistics,
        num_classes=mapping.num_classes if mapping else 0,
        classes=classes,
        ignored_share=ignored,
        empty_samples=empty,
        objects=_objects(records, mapping),
        sequence=series.alike,
        neighbour_correlation=series.neighbours,
        distant_correlation=series.distant,
        duplicates=find_duplicates(keys, looks, splits),
        splits=count_names(record.sample.split for record in records if record.sample.split),
        groups=len({record.sample.group for record in records if record.sample.group is not None}),
    )


def count_names(names: "object") -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    counted = Counter(names)  # type: ignore[call-overload]
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _spacing(records: Sequence[SampleRecord]) -> dict[str, object]:
    known = [(r.header.spacing, r.header.spacing_unit) for r in records if r.header.spacing is not None]
    if len(known) < len(records) or len({unit for _, unit in known}) > 1:
        return {"spacing": None, "spacing_unit": None, "spacing_varies": bool(known)}
    table = np.array([spacing for spacing, _ in known], np.float64)
    median = np.median(table, axis=0)
    varies = bool((np.abs(table / median - 1.0) > 0.01).any()) if (median > 0).all() else True
    return {
        "spacing": tuple(round(float(v), 9) for v in median),
        "spacing_unit": known[0][1],
        "spacing_varies": varies,
    }


def _scale_differs(records: Sequence[SampleRecord], pool: ChannelPool) -> bool:
    if len({str(record.header.dtype) for record in records}) > 1:
        return True
    amounts = [c.scale_ratio for c in pool.statistics if c.kind == "continuous"]
    limit = DISPLAY_SCALES if records[0].header.dtype == np.uint8 else MEASURED_SCALES
    return bool(amounts) and float(np.median(amounts)) > limit


def count_classes(record: SampleRecord, mapping: LabelMapping) -> np.ndarray:
    """Pixels of each class id of one labelled sample, then the pixels that are not annotated: (K + 1,).

    Raises:
        DataError: a label value is not in the mapping; names the file.
    """
    counts = np.zeros(256, np.int64)
    if record.class_counts is not None:
        counts[: len(record.class_counts)] = record.class_counts
        counts[IGNORE] = record.outside
    elif record.census is not None:
        raw = record.census.as_raw()
        if raw.size:
            classes, _ = encode_distinct(mapping, record)
            np.add.at(counts, classes, record.census.counts)
        counts[IGNORE] += record.census.outside
    return np.append(counts[: mapping.num_classes], counts[IGNORE])


def encode_distinct(mapping: LabelMapping, record: SampleRecord) -> tuple[np.ndarray, np.ndarray | None]:
    """The class ids of the distinct values of one label file.

    Raises:
        DataError: a label value is not in the mapping; names the file.
    """
    if record.census is None:
        raise ValueError("the record has no census")
    try:
        raw = record.census.as_raw()
        return mapping.encode(raw, record.census.palette)
    except DataError as error:
        raise DataError(
            "labels do not fit the mapping",
            [
                Problem(
                    record.census.where,
                    error.summary,
                    "list the value in classes.toml, as a class or under ignore",
                )
            ],
        ) from None


def _classes(
    records: Sequence[SampleRecord], mapping: LabelMapping | None
) -> tuple[tuple[ClassStatistics, ...], float, tuple[str, ...], int]:
    """Class statistics, share of ignored pixels, samples without foreground, number of labelled samples."""
    labelled = [r for r in records if r.census is not None or r.class_counts is not None]
    if mapping is None or not labelled:
        return (), 0.0, (), 0
    table = np.stack([count_classes(record, mapping) for record in labelled])
    pixels = table.sum(0)
    annotated = max(1, int(pixels[:-1].sum()))
    classes = tuple(
        ClassStatistics(
            name=name,
            pixels=int(pixels[i]),
            share=round(int(pixels[i]) / annotated, 9),
            samples=int(np.count_nonzero(table[:, i])),
        )
        for i, name in enumerate(mapping.class_names)
    )
    bare = table[:, 1:-1].sum(1) == 0
    empty = tuple(record.sample.key for record, nothing in zip(labelled, bare, strict=True) if nothing)
    return classes, round(int(pixels[-1]) / max(1, int(pixels.sum())), 9), empty, len(labelled)


def _objects(records: Sequence[SampleRecord], mapping: LabelMapping | None) -> ObjectStatistics | None:
    if mapping is None:
        return None
    measured: list[Objects] = []
    for record in records:
        if record.objects is None and record.kept is not None:
            classes, instances = encode_named(mapping, record.kept.raw, record.kept.header)
            if record.region is not None:
                classes = np.where(record.region, classes, np.uint8(IGNORE))
            record.objects = measure_objects(classes, instances)
            record.kept = record.region = None  # label maps are large
        if record.objects is not None:
            measured.append(record.objects)
    if not measured:
        return None
    gaps = np.concatenate([o.gaps for o in measured])
    return ObjectStatistics(
        source="instances" if mapping.has_objects else "components",
        samples=len(measured),
        per_sample=Quantiles.of(np.array([len(o.sizes) for o in measured])),
        size_px=Quantiles.of(np.concatenate([o.sizes for o in measured])),
        extent_px=Quantiles.of(np.concatenate([o.extents for o in measured])),
        gap_px=Quantiles.of(gaps),
        touching_share=round(float((gaps == 0).mean()), 6) if gaps.size else 0.0,
    )


def _series(records: Sequence[SampleRecord]) -> list[list[Look]]:
    """Looks in natural order, a list for each given split and group."""
    series: dict[tuple[str | None, str | None], list[Look]] = {}
    for record in records:
        if record.look is not None:
            series.setdefault((record.sample.split, record.sample.group), []).append(record.look)
    return list(series.values())
