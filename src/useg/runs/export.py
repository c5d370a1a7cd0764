"""Rows with any fields as one table in a file: CSV, Parquet or JSON, written whole or not at all.

The rows are gone through twice, first for their fields, so that they need not fit into memory. Lists are JSON texts in
CSV and Parquet. A column of Parquet is of whole numbers, numbers, or truth values where all its values are, else of
texts. NaN and infinities are kept, but for JSON, which has none and gets null.
"""

import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from useg.errors import InputError
from useg.home.folder import writing

Format = Literal["csv", "parquet", "json"]
Row = Mapping[str, Any]
_AT_ONCE = 5_000


def write_rows(
    path: Path, form: Format, rows: Callable[[], Iterable[Row]], first: Sequence[str] = ()
) -> tuple[int, list[str]]:
    """Write rows to a file.

    Args:
        path: of the file; one that is there is replaced.
        form: of the file.
        rows: gives the rows, the same each time.
        first: names of the columns that come first, if there are such; the others follow by name.

    Returns:
        How many rows, and the columns.

    Raises:
        InputError: the path is a folder, or in none. ResourceError: the disk is full, or may not be written.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: wanted a file, in a folder that is there")
    count, kinds = 0, dict[str, type]()
    for row in rows():
        count += 1
        for name, value in row.items():
            kinds[name] = _kind(kinds.get(name), value)
    columns = [name for name in first if name in kinds] + sorted(kinds.keys() - set(first))
    part = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with writing(path):
            if form == "parquet":
                _write_parquet(part, rows(), columns, kinds)
            else:
                with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                    (_write_csv if form == "csv" else _write_json)(file, rows(), columns)
            os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return count, columns


def _kind(before: type | None, value: Any) -> type:
    """The kind of a column with one more value; `type(None)` as long as there is none."""
    if value is None:
        return before or type(None)
    kind = type(value) if isinstance(value, bool | int | float) else str
    if kind is int and abs(value) >= 2**63:
        kind = str
    if before in (None, type(None), kind):
        return kind
    return float if {before, kind} == {int, float} else str


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)


def _write_csv(file: IO[str], rows: Iterable[Row], columns: Sequence[str]) -> None:
    import csv

    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_text(row.get(name)) for name in columns])


def _write_json(file: IO[str], rows: Iterable[Row], columns: Sequence[str]) -> None:
    separator = "[\n"
    for row in rows:
        file.write(separator + json.dumps({name: _finite(row.get(name)) for name in columns}, default=str))
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_finite(each) for each in value] if isinstance(value, list) else value


def _write_parquet(part: Path, rows: Iterable[Row], columns: Sequence[str], kinds: Mapping[str, type]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types.get(kinds[name], pa.string())) for name in columns])
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for some in _batches(rows):
            arrays = []
            for name, field in zip(columns, schema, strict=True):
                values = [row.get(name) for row in some]
                if pa.types.is_string(field.type):
                    values = [None if value is None else _utf8(str(_text(value))) for value in values]
                arrays.append(pa.array(values, field.type))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


__all__ = ["Format", "write_rows"]
