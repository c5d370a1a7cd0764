"""Gives samples fields, groups and splits in the home: by a query, or by the lines of a CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from useg.data.commits import Version
from useg.data.csv_tables import read_table
from useg.data.fields import Value, shown, typed_column, why_unsayable
from useg.data.manifest import Manifest, Row
from useg.data.manifest_rows import RESERVED, TYPES
from useg.data.statistics import rows_where
from useg.data.versions import MAIN, Dataset
from useg.errors import DataError, Problem

_KEY = "key"
_SPLITS = ("train", "val", "test")

Texts = Mapping[str, Mapping[str, str | None]]
"""For each key, fields and their texts; None takes a field away."""


@dataclass(frozen=True)
class Annotated:
    """What came of it.

    Attributes:
        version: the version; the one that was there where nothing changed.
        changed: how many samples changed.
    """

    version: Version
    changed: int


def set_fields(
    dataset: Dataset,
    assignments: Mapping[str, str],
    *,
    where: str | None = None,
    message: str | None = None,
    branch: str = MAIN,
) -> Annotated:
    """Give fields to all samples that a query chooses.

    Args:
        dataset: the data set.
        assignments: fields and their values; an empty value takes the field away. `group` and `split` are two
            that every sample has.
        where: which samples; by default all.
        message: why.
        branch: the branch that moves.

    Raises:
        DataError: a field or value cannot be kept.
        Moved: somebody else changed the same fields of the same samples meanwhile.
    """
    base = _head(dataset, branch)
    rows = rows_where(dataset, dataset.contents(base), where)
    values = {name: text or None for name, text in assignments.items()}
    said = ", ".join(f"{name}={text}" for name, text in assignments.items())
    message = message or f"set {said}" + (f" where {where}" if where else "")
    return _commit(dataset, base, rows, {row.key: values for row in rows}, message, branch)


def annotate(dataset: Dataset, path: Path, *, message: str | None = None, branch: str = MAIN) -> Annotated:
    """Give samples the fields of a CSV: the column `key` says whose, every other column is a field.

    Empty cells change nothing.

    Raises:
        DataError: lines name no sample, or cannot be kept; all are listed.
        Moved: somebody else changed the same fields of the same samples meanwhile.
    """
    base = _head(dataset, branch)
    texts = _read_csv(path)
    rows = list(dataset.contents(base).manifest.rows(sorted(texts)))
    unknown = sorted(texts.keys() - {row.key for row in rows})
    if unknown:
        problems = [Problem(shown(key), "no sample has this key") for key in unknown]
        raise DataError(f"{path}: {len(unknown)} lines name no sample of {dataset.name}@{branch}", problems)
    return _commit(dataset, base, rows, texts, message or f"annotate by {path.name}", branch)


def _head(dataset: Dataset, branch: str) -> Version:
    base = dataset.head(branch)
    return dataset.resolve(branch) if base is None else base


def _commit(dataset: Dataset, base: Version, rows: Sequence[Row], texts: Texts, message: str, branch: str) -> Annotated:
    contents = dataset.contents(base)
    values = _typed(contents.manifest, rows, texts)
    changed = []
    for row in rows:
        after = _with(row, values[row.key])
        if after != row:
            changed.append(after)
    if not changed:
        return Annotated(base, 0)
    manifest = contents.manifest.changed(changed, [])
    version = dataset.commit(replace(contents, manifest=manifest), message, base=base, branch=branch)
    return Annotated(version, len(changed))


def _with(row: Row, values: Mapping[str, Value]) -> Row:
    metadata = {**row.metadata, **{name: value for name, value in values.items() if name not in ("group", "split")}}
    kept = {name: value for name, value in metadata.items() if value is not None}
    group, split = (
        row_value if name not in values else None if values[name] is None else str(values[name])
        for name, row_value in (("group", row.group), ("split", row.split))
    )
    return replace(row, metadata=kept, group=group, split=split)


def _typed(manifest: Manifest, rows: Sequence[Row], texts: Texts) -> dict[str, dict[str, Value]]:
    """The values to give to each key: of the type that the field has, or that all its values together have.

    Raises:
        DataError: names or values cannot be kept; all are listed.
    """
    names = sorted({name for fields in texts.values() for name in fields})
    problems = [Problem(shown(name), why) for name in names if (why := _why_not(name))]
    for key, fields in texts.items():
        problems += [
            Problem(shown(key), f"{name}={shown(text)}: {why}")
            for name, text in fields.items()
            if text is not None and (why := _why_not_value(name, text))
        ]
    if problems:
        raise DataError(f"{len(problems)} fields cannot be given like this", list(dict.fromkeys(problems)))
    keys = [row.key for row in rows]
    values: dict[str, dict[str, Value]] = {key: {} for key in keys}
    for name in names:
        column = [texts[key].get(name) for key in keys]
        typed = list(column) if name in ("group", "split") else _like(manifest, name, column, set(keys))
        for key, value in zip(keys, typed, strict=True):
            if name in texts[key]:
                values[key][name] = value
    return values


def _why_not(name: str) -> str:
    if name in RESERVED - {"group", "split"}:
        return "is not a field, but what a sample is made of"
    why = why_unsayable(name, name=True)
    return f"cannot be the name of a field: {why}" if why or not name else ""


def _why_not_value(name: str, text: str) -> str:
    if name == "split" and text not in _SPLITS:
        return f"a split is {', '.join(_SPLITS)}"
    return why_unsayable(text)


def _like(manifest: Manifest, name: str, texts: Sequence[str | None], keys: set[str]) -> list[Value]:
    """Values of the type that the field's other values have.

    Raises:
        DataError: they are of another type.
    """
    typed = typed_column(texts)
    there = _types_of_others(manifest, name, keys)
    given = {type(value) for value in typed if value is not None}
    if not there or not given or there == given:
        return typed
    if there == {str}:
        return list(texts)
    if there == {float} and given == {int}:
        return [None if value is None else float(value) for value in typed]
    kinds = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts"}
    example = next(text for text in texts if text is not None)
    have = " and ".join(kinds[kind] for kind in there)
    raise DataError(f"{name}={shown(example)}: the samples that keep their value have {have} in this field")


def _types_of_others(manifest: Manifest, name: str, keys: set[str]) -> set[type]:
    """The type of a field's values in all other samples; empty if they have none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name not in manifest.field_types:
        return set()
    table = manifest.columns(["key", name])
    others = pc.invert(pc.is_in(table["key"], value_set=pa.array(sorted(keys), pa.string())))
    if not pc.any(pc.and_(others, pc.is_valid(table[name]))).as_py():
        return set()
    return {kind for kind, stored in TYPES.items() if stored == manifest.field_types[name]}


def _read_csv(path: Path) -> dict[str, dict[str, str | None]]:
    """Fields by key; empty cells are left out.

    Raises:
        DataError: it cannot be read, lacks the column `key`, or says something twice; all lines are listed.
    """
    found: dict[str, dict[str, str | None]] = {}
    table = read_table(path, _KEY)
    problems = list(table.problems)
    for line, fields in table.lines:
        key = fields.pop(_KEY)
        if key in found:
            problems.append(Problem(f"{path}, line {line}", f"the key {key!r} stands in an earlier line already"))
        found[key] = {name: cell for name, cell in fields.items() if cell}
    if problems:
        raise DataError(f"{path}: {len(problems)} problems in this file", problems)
    return found
