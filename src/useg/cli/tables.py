"""Tables for people: columns as wide as their cells, and no wider in all than the terminal."""

import shutil
import sys
from collections.abc import Collection, Sequence

_GAP = "  "
_LEAST = 12


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none, so that nothing is cut in files and pipes."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def laid_out(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), width: int | None = None) -> list[str]:
    """The lines of a table.

    Where `width` is not enough, empty columns go first; then the widest columns of text lose the beginning of their
    longest cells, but for the first one; then columns are left out from the last on, which a line below says.

    Args:
        rows: cells; the first row is the heading.
        right: columns of numbers, which are aligned to the right and never cut.
        width: of the terminal; None for as much as it takes.
    """
    cells, kept = [list(row) for row in rows], list(range(len(rows[0])))

    def needed(column: int) -> int:
        return max(len(row[column]) for row in cells)

    def excess() -> int:
        return 0 if width is None else sum(map(needed, kept)) + len(_GAP) * (len(kept) - 1) - width

    while (over := excess()) > 0 and len(kept) > 1:
        if empty := [column for column in kept[1:] if not any(row[column] for row in cells[1:])]:
            kept.remove(empty[-1])
            continue
        texts = [column for column in kept[1:] if column not in right and needed(column) > _LEAST]
        if not texts:
            kept.pop()
            continue
        widest = max(texts, key=needed)
        most = max(_LEAST, needed(widest) - over)
        for row in cells:
            row[widest] = row[widest] if len(row[widest]) <= most else f"…{row[widest][1 - most :]}"
    sizes = {column: needed(column) for column in kept}
    lines = [
        _GAP.join(
            row[column].rjust(size) if column in right else row[column].ljust(size) for column, size in sizes.items()
        ).rstrip()
        for row in cells
    ]
    gone = [rows[0][i] for i in range(len(rows[0])) if i not in kept and any(row[i] for row in cells[1:])]
    return [*lines, *([f"too narrow for: {', '.join(gone)}"] if gone else [])]


__all__ = ["laid_out", "terminal_width"]
