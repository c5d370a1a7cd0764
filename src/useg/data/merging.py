"""Two versions that grew from one, put together sample by sample; what both changed in different ways is named."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from useg.data.manifest import Manifest, Row
from useg.data.manifest_rows import ROLES
from useg.errors import DataError, Problem

Side = Literal["ours", "theirs"]

_GONE = object()


@dataclass(frozen=True)
class Merged:
    """What came of a merge.

    Attributes:
        manifest: ours with what they changed; where both changed the same, ours (or the preferred side).
        conflicts: one for each sample that both changed in different ways.
    """

    manifest: Manifest
    conflicts: tuple[Problem, ...]


def merge_manifests(base: Manifest, ours: Manifest, theirs: Manifest, *, prefer: Side | None = None) -> Merged:
    """Three-way merge by sample key.

    A sample's files count as one thing, its group, its split and each field of its metadata as one each: two
    people may give one sample different fields, but not different labels.

    Args:
        base: what both grew from; an empty manifest if nothing is common.
        ours: the version that is merged into.
        theirs: the version that is merged.
        prefer: whose side is taken in conflicts, which are then none.
    """
    theirs_changed = changed_keys(base, theirs)
    if not theirs_changed:
        return Merged(ours, ())
    ours_changed = changed_keys(base, ours)
    if not ours_changed:
        return Merged(theirs, ())
    both = theirs_changed & ours_changed
    before, our_rows = _by_key(base, both), _by_key(ours, both)
    conflicts = []
    upsert: list[Row] = []
    removed: list[str] = []
    their_rows = _by_key(theirs, theirs_changed)
    for key in sorted(theirs_changed):
        row = their_rows.get(key)
        if key in both:
            row, fields = merge_row(before.get(key), our_rows.get(key), row, prefer=prefer)
            if fields:
                conflicts.append(Problem(key, f"both changed {', '.join(fields)}"))
                continue
        if row is None:
            removed.append(key)
        else:
            upsert.append(row)
    return Merged(ours.changed(upsert, removed), tuple(conflicts))


def merge_row(
    base: Row | None, ours: Row | None, theirs: Row | None, *, prefer: Side | None = None
) -> tuple[Row | None, list[str]]:
    """One sample's row from three, and the fields that both changed in different ways.

    Returns:
        The row (None: removed) and no fields; or ours and the names of the fields in conflict.
    """
    if ours is None or theirs is None:
        if _same(ours, theirs) or _same(theirs, base):
            return ours, []
        if _same(ours, base):
            return theirs, []
        return (theirs if prefer == "theirs" else ours), [] if prefer else ["it (one side removed it)"]
    before = {} if base is None else _fields(base)
    mine, other = _fields(ours), _fields(theirs)
    merged: dict[str, Any] = {}
    conflicts: list[str] = []
    for name in sorted({*before, *mine, *other}):
        was, here, there = (fields.get(name, _GONE) for fields in (before, mine, other))
        if here == there or there == was:
            merged[name] = here
        elif here == was or prefer == "theirs":
            merged[name] = there
        else:
            merged[name] = here
            conflicts.append(name)
    return _row(ours, theirs, merged), [] if prefer else conflicts


def _fields(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = {"files": {role: files for role, files in row.files.items() if files}}
    fields |= {"group": row.group, "split": row.split}
    # A number and a truth value of the same size differ, 1 and True.
    known = {name: value for name, value in row.metadata.items() if value is not None}
    return fields | {f"the field {name}": (type(value), value) for name, value in known.items()}


def _row(ours: Row, theirs: Row, merged: Mapping[str, Any]) -> Row:
    files = merged["files"]
    source = ours if files == _fields(ours)["files"] else theirs
    metadata = {
        name.removeprefix("the field "): value[1]
        for name, value in merged.items()
        if name.startswith("the field ") and value is not _GONE
    }
    return replace(source, group=merged["group"], split=merged["split"], metadata=metadata)


def _same(a: Row | None, b: Row | None) -> bool:
    if a is None or b is None:
        return a is b
    return _fields(a) == _fields(b)


def changed_keys(before: Manifest, after: Manifest) -> set[str]:
    """The keys of all samples that are not the same in both."""
    found = before.diff(after)
    return {*found.added, *found.removed, *found.relabelled, *found.changed, *found.metadata}


def _by_key(manifest: Manifest, keys: set[str]) -> dict[str, Row]:
    return {row.key: row for row in manifest.rows(sorted(keys))}


def check_paths(manifest: Manifest) -> None:
    """See that no path stands for two contents.

    Raises:
        DataError: some do; all are listed.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    files = [chunk.flatten() for role in ROLES for chunk in manifest.columns([role])[role].chunks]
    table = pa.table(
        {name: pa.chunked_array([part.field(name) for part in files]) for name in ("path", "digest")}
        if files
        else {"path": pa.array([], pa.string()), "digest": pa.array([], pa.binary(32))}
    )
    counts = table.group_by("path").aggregate([("digest", "count_distinct")])
    wrong = counts.filter(pc.greater(counts["digest_count_distinct"], 1))["path"].to_pylist()
    if wrong:
        problems = [Problem(path, "would have two contents, of different samples") for path in sorted(wrong)]
        raise DataError(f"{len(wrong)} files would have two contents", problems)


def merge_texts(base: str | None, ours: str | None, theirs: str | None, *, prefer: Side | None = None) -> str | None:
    """One text from three, taken whole.

    Raises:
        ValueError: both changed it, in different ways.
    """
    if ours == theirs or theirs == base:
        return ours
    if ours == base or prefer == "theirs":
        return theirs
    if prefer is None:
        raise ValueError("both changed it")
    return ours
