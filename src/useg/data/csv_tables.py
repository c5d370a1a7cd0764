"""Tables that people write: CSV in UTF-8, with commas, semicolons or tabs between its columns."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from useg.errors import DataError, Problem

LONGEST_CELL = 2**27
"""Characters; an image with thousands of masks names all of them in one cell."""


@dataclass(frozen=True)
class CsvTable:
    """A heading and lines.

    Attributes:
        names: of the columns, without blanks around them.
        lines: the number of each line in the file, and its cells by column; empty lines are left out.
        problems: lines with too many or too few cells, which are left out, too.
    """

    names: tuple[str, ...]
    lines: tuple[tuple[int, dict[str, str]], ...]
    problems: tuple[Problem, ...] = ()


def read_table(path: Path, wanted: str) -> CsvTable:
    """Read a table whose heading names each column once.

    Args:
        path: of the file.
        wanted: a column that must be there.

    Raises:
        DataError: it is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    heading = text.split("\n", 1)[0]
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count))
    try:
        names = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a line of CSV: {error}") from error
    names = [name.casefold() if name.casefold() == wanted else name for name in names]
    if wanted not in names:
        have = ", ".join(names) or "nothing"
        raise DataError(f"{path}: the first line must name the columns, `{wanted}` among them; it has: {have}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} stands twice in the first line")
    told = [(line, cells) for line, cells in lines if any(cells)]
    problems = tuple(
        Problem(f"{path}, line {line}", f"has {len(cells)} cells, wanted {len(names)} as in the first line")
        for line, cells in told
        if len(cells) != len(names)
    )
    whole = ((line, cells) for line, cells in told if len(cells) == len(names))
    return CsvTable(
        tuple(names), tuple((line, dict(zip(names, cells, strict=True))) for line, cells in whole), problems
    )
