"""How many bytes of data came to this machine, counted in its cache: from homes, and from other machines' caches."""

from pathlib import Path

from useg.home.folder import writing
from useg.home.locks import locked

_NAME = ".moved"


def count_moved(folder: Path, *, home: int = 0, nodes: int = 0) -> None:
    """Add to what `moved` tells.

    Raises:
        ResourceError: it cannot be written.
    """
    if home or nodes:
        with locked(folder / _NAME), writing(folder):
            before = moved(folder)
            (folder / _NAME).write_text(f"{before[0] + home} {before[1] + nodes}\n")


def moved(folder: Path) -> tuple[int, int]:
    """Bytes that came so far from homes, and from other machines' caches."""
    try:
        home, nodes = map(int, (folder / _NAME).read_text().split())
    except (OSError, ValueError):
        return 0, 0
    return home, nodes


__all__ = ["count_moved", "moved"]
