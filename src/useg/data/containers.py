"""Images and labels inside HDF5 files: each data set counts as a file in a folder named like its file."""

from pathlib import Path
from typing import Any

from useg.data.roles import File, as_file
from useg.errors import MissingExtra, Problem

HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".he5"})
_FEWEST_AXES = 2
_SMALLEST_SIDE = 4


def files_inside(root: Path, path: str) -> tuple[list[File], Problem | None]:
    """The data sets of an HDF5 file that can be images: numbers, two axes or more, no axis pair below 4 px.

    Raises:
        MissingExtra: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("hdf5", f"reading {path}") from error
    found: list[str] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "buif" and len(node.shape) >= _FEWEST_AXES:
            large = [side for side in node.shape if side >= _SMALLEST_SIDE]
            if len(large) >= _FEWEST_AXES:
                found.append(name)

    try:
        with h5py.File(root / path, "r") as opened:
            opened.visititems(visit)
    except OSError as error:
        return [], Problem(str(root / path), f"not a readable HDF5 file: {error}", "copy it again")
    if not found:
        return [], Problem(str(root / path), "no data set in this HDF5 file has the shape of an image")
    return [as_file(path, name) for name in sorted(found)], None
