"""pairs.csv: the user says line by line which image goes with which label."""

from pathlib import Path

from useg.data.csv_tables import read_table
from useg.data.reading import Reading, Sample, natural_order
from useg.errors import DataError, Problem

PAIRS_FILE = "pairs.csv"
"""Name of the file that, where it exists in a data folder, decides alone."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_COLUMNS = ("image", "label", "objects", "region", "group", "split", "key")


def read_pairs(path: Path) -> Reading:
    """Read a pairs.csv.

    Columns: `image` (required), `label` or `objects` (one mask per object), `region`, `group`, `split`
    (train, val or test), `key`; every other column is metadata. Paths are relative to the file; several refs
    in one cell are separated by `;` (images: channels). An empty label cell is a sample without a label.
    Comma, semicolon and tab are understood as separators of columns.

    Raises:
        DataError: the file cannot be read, lacks `image`, names files that are not there, an unknown split,
            or the same key twice; all lines are reported together.
    """
    rows, wrong = _rows(path)
    problems: list[Problem] = list(wrong)
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        sample = _sample(path.parent, row, where, problems)
        if sample is None:
            continue
        if sample.key in seen:
            what = f"the key {sample.key!r} stands already in line {seen[sample.key]}"
            problems.append(Problem(where, what, "give each sample its own `key`"))
        seen.setdefault(sample.key, line)
        samples.append(sample)
    if problems:
        raise DataError(f"{path}: {len(problems)} problems in this file", problems)
    if not samples:
        raise DataError(f"{path}: no line names an image below the heading")
    samples.sort(key=lambda sample: natural_order(sample.key))
    labelled = sum(bool(sample.labels) for sample in samples)
    rule = f"{path.name} names {len(samples)} samples, {labelled} of them with labels; nothing else is read."
    return Reading(str(path), tuple(samples), rule)


def _rows(path: Path) -> tuple[list[tuple[int, dict[str, str]]], tuple[Problem, ...]]:
    table = read_table(path, "image")
    own = {name: name.casefold() if name.casefold() in _COLUMNS else name for name in table.names}
    twice = sorted({name for name in own.values() if [*own.values()].count(name) > 1})
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} stands twice in the first line")
    if {"label", "objects"} <= {*own.values()}:
        raise DataError(f"{path}: give either `label` (one map) or `objects` (one mask per object), not both")
    return [(line, {own[name]: cell for name, cell in cells.items()}) for line, cells in table.lines], table.problems


def _sample(folder: Path, row: dict[str, str], where: str, problems: list[Problem]) -> Sample | None:
    objects = "objects" in row
    images, labels, region = (
        _refs(row.get(name, "")) for name in ("image", "objects" if objects else "label", "region")
    )
    if not images:
        problems.append(Problem(where, "the `image` cell is empty"))
        return None
    if len(labels) > 1 and not objects:
        what = f"{len(labels)} files in `label`, which holds one label map"
        problems.append(Problem(where, what, "call the column `objects` if each file is the mask of one object"))
    if len(region) > 1:
        problems.append(Problem(where, f"{len(region)} files in `region`, which holds one mask"))
    for ref in (*images, *labels, *region):
        if not (folder / _file_of(ref, folder)).is_file():
            problems.append(
                Problem(where, f"{ref}: there is no such file in {folder}", "paths are relative to the csv")
            )
    said = row.get("split", "")
    split = _SPLITS.get(said.casefold()) if said else None
    if said and split is None:
        problems.append(Problem(where, f"the split {said!r} is unknown", "write train, val or test, or leave it empty"))
    return Sample(
        key=row.get("key") or _key(images[0], folder),
        images=tuple(str(folder / ref) for ref in images),
        labels=tuple(str(folder / ref) for ref in labels),
        masks_are_objects=objects and bool(labels),
        region=str(folder / region[0]) if region else None,
        group=row.get("group") or None,
        split=split,
        metadata={name: cell for name, cell in row.items() if name not in _COLUMNS and name and cell},
    )


def _refs(cell: str) -> tuple[str, ...]:
    return tuple(part.strip().replace("\\", "/") for part in cell.split(";") if part.strip())


def _file_of(ref: str, folder: Path) -> str:
    """The file part of a ref; a `#` that belongs to the file name stays."""
    return ref if (folder / ref).exists() or "#" not in ref else ref.rpartition("#")[0]


def _key(ref: str, folder: Path) -> str:
    """The image's path without suffix; of a part of a file, with what names the part."""
    path = _file_of(ref, folder)
    inner = ref[len(path) + 1 :]
    stem = path
    above, _, name = path.rpartition("/")
    for suffix in (".nii.gz", ".ome.tif", ".ome.tiff"):
        if name.casefold().endswith(suffix):
            stem = path[: -len(suffix)]
            break
    else:
        stem = (f"{above}/" if above else "") + (name.rpartition(".")[0] or name)
    return f"{stem}#{inner}" if inner else stem
