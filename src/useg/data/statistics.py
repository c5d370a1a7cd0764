"""What is counted in the files of samples, once for each content, and kept in the home beside the versions."""

import io
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from useg.data.forms import pack_colours
from useg.data.images import read_header, read_image
from useg.data.labels import parse_colour
from useg.data.manifest import Manifest, Row
from useg.data.mapping_file import parse_keys
from useg.data.reading import Sample
from useg.data.statistics_join import content_digests
from useg.errors import UsegError
from useg.home import refs

if TYPE_CHECKING:
    from useg.data.measure import SampleRecord
    from useg.data.versions import Contents, Dataset

MOST_VALUES = 32
"""A label map with more values than these is taken to number objects, and its values are not counted one by one."""

_PIXELS = "pixels."

Counts = dict[str, int | str | bytes | None]


def known_statistics(dataset: "Dataset") -> pa.Table | None:
    """The statistics that a home has for a data set, None without any."""
    entry = refs.read_ref(dataset.store, _name(dataset))
    if entry is None or entry.record["to"] is None:
        return None
    return pq.read_table(io.BytesIO(dataset.objects.get(entry.record["to"])))


def with_known_statistics(dataset: "Dataset", contents: "Contents") -> Manifest:
    """The manifest with what was counted in its files as further columns for queries.

    Where the version says which values are which class, there is a column `pixels.<class>` for each, too.
    """
    table = known_statistics(dataset)
    if table is None:
        return contents.manifest
    return contents.manifest.with_statistics(by_class(table, contents.mapping))


def rows_where(dataset: "Dataset", contents: "Contents", where: str | None) -> list[Row]:
    """The samples of a version for which a query holds; None takes all."""
    from useg.data.query import query

    keys = None if where is None else query(with_known_statistics(dataset, contents), where).keys
    return list(contents.manifest.rows(keys))


def by_class(table: pa.Table, mapping: str | None) -> pa.Table:
    """Statistics with the pixels of each class that a label mapping names; one called like another value has none."""
    counted = [name for name in table.column_names if name.startswith(_PIXELS)]
    if mapping is None or not counted:
        return table
    is_counted = np.logical_or.reduce([table[name].is_valid().to_numpy() for name in counted])
    for class_name, own in _values_of_classes(mapping).items():
        name = f"{_PIXELS}{class_name}"
        if name in counted:
            continue
        numbers = [pc.fill_null(table[column], 0).to_numpy() for column in counted if column in own]
        total = np.sum(numbers, axis=0) if numbers else np.zeros(len(table), np.int64)
        table = table.append_column(name, pa.array(total, pa.int64(), mask=~is_counted))
    return table


def _values_of_classes(mapping: str) -> dict[str, set[str]]:
    """The columns that count the values of each class; none where the mapping is not as it should be."""
    found = {}
    try:
        for each in parse_keys(mapping, "the label mapping").get("classes", ()):
            colours = [np.array(parse_colour(colour), np.uint8)[:, None] for colour in each.get("colours", ())]
            packed = [int(pack_colours(colour[:3])[0]) for colour in colours]
            found[str(each["name"])] = {f"{_PIXELS}{value}" for value in (*each.get("values", ()), *packed)}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}  # inspection and training say what is wrong with it
    return found


def uncounted(dataset: "Dataset", manifest: Manifest) -> dict[str, tuple[bytes, bytes]]:
    """The samples whose contents were not counted yet, by key, with their content digests."""
    known = known_statistics(dataset)
    contents = content_digests(manifest)
    have = set(zip(known["image"].to_pylist(), known["label"].to_pylist(), strict=True)) if known is not None else set()
    rows = zip(*(contents[name].to_pylist() for name in ("key", "image", "label")), strict=True)
    return {key: (image, label) for key, image, label in rows if (image, label) not in have}


def count(
    dataset: "Dataset",
    manifest: Manifest,
    samples: Mapping[str, Sample],
    *,
    records: "Mapping[str, SampleRecord] | None" = None,
    progress: Callable[..., None] | None = None,
    threads: int = 2,
) -> int:
    """Count what was not counted yet, and keep it in the home; returns how many samples were read.

    Columns: `height`, `width`, `depth` (null in 2D), `channels`, `dtype`, `objects` (masks of single objects, or
    numbers in a label map), and pixels by value of the label files, `pixels.<value>`. A file that cannot be read has
    none of them.

    Args:
        dataset: where they are kept.
        manifest: of the version.
        samples: by key, with refs to files of this machine. Others are left out.
        records: what was measured in the same files already, by key; they are not read again for what it says.
        progress: told how many samples are done.
        threads: that read files.
    """
    missing: dict[tuple[bytes, bytes], Sample] = {}
    for key, content in uncounted(dataset, manifest).items():
        if key in samples:
            missing.setdefault(content, samples[key])
    if not missing:
        return 0
    rows: list[Counts] = []
    measured = records or {}

    def counted(sample: Sample) -> Counts:
        return _counted(sample, measured.get(sample.key))

    with ThreadPoolExecutor(threads) as workers:
        for (image, label), found in zip(missing, workers.map(counted, missing.values()), strict=True):
            rows.append({"image": image, "label": label, **found})
            if progress is not None:
                progress(len(rows), total=len(missing))
    keep_counts(dataset, rows)
    return len(missing)


def bring_counts(source: "Dataset", target: "Dataset", manifest: Manifest) -> None:
    """Add what one home has counted in the files of a version to what another has."""
    known, missing = known_statistics(source), set(uncounted(target, manifest).values())
    if known is None or not missing:
        return
    pairs = zip(known["image"].to_pylist(), known["label"].to_pylist(), strict=True)
    rows = known.filter(pa.array([pair in missing for pair in pairs], pa.bool_())).to_pylist()
    if rows:
        keep_counts(target, rows)


def keep_counts(dataset: "Dataset", rows: list[Counts]) -> None:
    """Add counts; of two who count at the same time, the loser's are counted again next time."""
    table = _joined(known_statistics(dataset), rows)
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    with dataset.objects.writer() as writer:
        digest = writer.put(content.getvalue())
        writer.commit()
    entry = refs.read_ref(dataset.store, _name(dataset))
    record = {"to": digest, "names": [digest]}
    try:
        refs.move_ref(dataset.store, _name(dataset), record, expected=entry.number if entry else 0)
    except refs.Moved:
        return


def _name(dataset: "Dataset") -> str:
    return f"statistics/{dataset.name}"


def _joined(known: pa.Table | None, rows: list[Counts]) -> pa.Table:
    names = sorted({name for row in rows for name in row} - {"image", "label"})
    digests = {name: pa.array([row[name] for row in rows], pa.binary(32)) for name in ("image", "label")}
    kinds = {name: pa.string() if name == "dtype" else pa.int64() for name in names}
    columns = {name: pa.array([row.get(name) for row in rows], kinds[name]) for name in names}
    new = pa.table(digests | columns)
    return new if known is None else pa.concat_tables([known, new], promote_options="default")


def _counted(sample: Sample, record: "SampleRecord | None" = None) -> Counts:
    try:
        as_stored = record is not None and record.headers and not record.sample.images[0].endswith("#channels")
        header = record.header if record is not None and as_stored else read_header(sample.images[0])
        *deep, height, width = header.space
        found: Counts = {
            "height": height,
            "width": width,
            "depth": deep[0] if deep else None,
            "channels": header.channels if len(sample.images) == 1 else len(sample.images),
            "dtype": str(header.dtype),
        }
        if sample.masks_are_objects:
            return found | {"objects": len(sample.labels)}
        known = _known_pixels(sample, record)
        return found | _by_value(_pixels(sample.labels) if known is None else known)
    except (UsegError, OSError, ValueError):
        return {}  # inspection and training say what is wrong with it


def _known_pixels(sample: Sample, record: "SampleRecord | None") -> dict[int, int] | None:
    """Pixels by value as a census has them; None where it counted something else."""
    census = None if record is None else record.census
    if census is None or census.lossy or sample.region is not None or census.of_alpha:
        return None
    values: np.ndarray = census.values
    if census.channels >= 3:
        if np.dtype(census.dtype).kind != "u":
            return None
        colours = values[:, :3].T if census.coloured else np.repeat(values[None], 3, 0)
        values = pack_colours(colours.astype(census.dtype))
    counts: dict[int, int] = {}
    for value, number in zip(values.tolist(), census.counts.tolist(), strict=True):
        counts[value] = counts.get(value, 0) + number
    return counts


def _pixels(labels: Iterable[str]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for ref in labels:
        stored = read_image(ref)
        packed = stored[0] if len(stored) <= 2 else pack_colours(stored[:3])
        if packed.dtype.kind == "f":
            packed = np.nan_to_num(packed).round().astype(np.int64)
        values, numbers = np.unique(packed, return_counts=True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + number
    return counts


def _by_value(counts: dict[int, int]) -> Counts:
    if len(counts) > MOST_VALUES:
        return {"objects": len(counts) - (0 in counts)}
    return {f"{_PIXELS}{value}": number for value, number in counts.items()}
