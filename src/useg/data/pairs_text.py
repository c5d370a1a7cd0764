"""The text of a pairs.csv from which exactly the same samples are read again."""

import csv
import io
from collections.abc import Sequence

from useg.data.csv_tables import LONGEST_CELL
from useg.data.fields import text_of
from useg.data.manifest import FileRef, Row
from useg.errors import DataError, Problem

_COLUMNS = ("key", "image", "label", "objects", "region", "group", "split")


def pairs_text(rows: Sequence[Row]) -> str:
    """The lines of a pairs.csv that names these samples by their paths; a field of numbers may say 5 as 5.0.

    Raises:
        DataError: the format cannot say them: label maps beside masks of single objects, or very long cells.
    """
    kinds = {role: [row.key for row in rows if row.files.get(role)] for role in ("label", "objects")}
    if all(kinds.values()):
        problems = [Problem(keys[0], f"one of {len(keys)} samples with `{kind}`") for kind, keys in kinds.items()]
        raise DataError("a pairs.csv has label maps or masks of single objects, not both; choose by a query", problems)
    labels = "objects" if kinds["objects"] else "label"
    names = sorted({name for row in rows for name in row.metadata})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for name in _COLUMNS if name not in {"label", "objects"} - {labels}] + names)
    long = []
    for row in rows:
        files = [_refs(row.files.get(role, ())) for role in ("image", labels, "region")]
        cells = [row.key, *files, row.group or "", row.split or ""]
        cells += [text_of(row.metadata.get(name)) for name in names]
        if max(map(len, cells)) > LONGEST_CELL:
            long.append(Problem(row.key, f"{max(map(len, cells))} characters in one cell"))
        writer.writerow(cells)
    if long:
        raise DataError(f"a cell of a pairs.csv holds at most {LONGEST_CELL} characters", long)
    return text.getvalue()


def _refs(files: Sequence[FileRef]) -> str:
    return ";".join(f"{file.path}#{file.part}" if file.part else file.path for file in files)
