"""Plain arrays as images: `.npy` files and datasets of HDF5 files; objects in them are never unpickled."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from useg.data.axes import Role, guess_roles
from useg.data.headers import Header, Opened, Window, unreadable
from useg.errors import MissingExtra


def _header(path: Path, name: str, shape: Sequence[int], dtype: np.dtype[Any], format_name: str) -> Header:
    """The header of an array; its roles by `guess_roles`."""
    if dtype.kind not in "buif":
        raise unreadable(name, f"it holds {dtype}, an array of real numbers was wanted")
    try:
        roles = guess_roles(tuple(shape))
    except ValueError as error:
        raise unreadable(name, str(error), "save it with these axes") from None
    named = list(zip(roles, shape, strict=True))
    size = {role: prod(n for r, n in named if r == role) for role in roles}
    space = tuple(size[role] for role in ("plane", "row", "column") if role in size)
    channels = size.get("channel", 1)
    colour = "grey" if channels == 1 else "bands"
    if dtype == np.uint8 and channels in (3, 4) and roles[-1] == "channel":
        colour = "rgb" if channels == 3 else "rgba"
    return Header(
        ref=name,
        format=format_name,
        shape=(channels, *space),
        dtype=np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("="),
        colour="binary" if dtype.kind == "b" and channels == 1 else colour,
        file_bytes=path.stat().st_size,
    )


def _read(array: Any, roles: Sequence[Role], window: Window) -> np.ndarray:
    """A window of anything that is sliced like an array, as (C, *window)."""
    names = ("plane", "row", "column")[-len(window) :]
    wanted: dict[str, slice] = dict(zip(names, window, strict=True))
    at = tuple(wanted.get(role, slice(0, size)) for size, role in zip(array.shape, roles, strict=True))
    order = sorted(range(len(roles)), key=lambda i: ("channel", "single", *names).index(roles[i]))
    part = np.asarray(array[at]).transpose(order)
    part = part.reshape(-1, *part.shape[len(roles) - len(window) :])
    dtype = np.dtype(np.uint8) if part.dtype.kind == "b" else part.dtype.newbyteorder("=")
    return np.array(part, dtype, order="C")


def is_pickled(path: Path) -> bool:
    """Whether a `.npy` file holds Python objects instead of numbers, by its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(128)
    except OSError:
        return False  # whoever opens it for its pixels says why it cannot be read
    return start.startswith(b"\x93NUMPY") and b"'descr': '|O'" in start


@contextmanager
def open_npy(path: Path) -> Iterator[Opened]:
    """Open a `.npy` file without reading it into memory."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        if "Python objects" in str(error):
            raise unreadable(str(path), "it holds pickled objects, which are never loaded") from None
        raise
    header = _header(path, str(path), array.shape, array.dtype, "npy")
    roles = guess_roles(array.shape)
    yield Opened(header, lambda window: _read(array, roles, window), streamable=True, random_access=True)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtra("hdf5", "reading HDF5 files") from None
    return h5py


def _named_datasets(file: Any) -> list[str]:
    names: list[str] = []

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "dtype") and item.dtype.kind in "buif" and len(item.shape) >= 2:
            names.append(name)

    file.visititems(visit)
    return sorted(names)


def list_datasets(path: Path) -> list[str]:
    """Names of the numeric datasets with two axes or more in an HDF5 file, sorted.

    Raises:
        DataError: the file cannot be read.
        MissingExtra: h5py is not installed.
    """
    from useg.data.headers import decoding

    h5py = _h5py()
    with decoding(str(path)), h5py.File(path, "r") as file:
        return _named_datasets(file)


@contextmanager
def open_hdf5(path: Path, dataset: str) -> Iterator[Opened]:
    """Open one dataset of an HDF5 file; without a name, the only one there is.

    `element_size_um` among its attributes is taken as the spacing.
    """
    h5py = _h5py()
    with h5py.File(path, "r") as file:
        names = _named_datasets(file)
        if not dataset and len(names) == 1:
            dataset = names[0]
        ref = f"{path}#{dataset}" if dataset else str(path)
        if dataset.strip("/") not in names:
            remedy = "name one as FILE#DATASET: " + ", ".join(names[:20]) if names else ""
            what = "it holds no dataset of numbers with two axes or more"
            if names:
                what = f"it has no dataset of numbers {dataset!r}" if dataset else "it holds several datasets"
            raise unreadable(ref, what, remedy)
        array = file[dataset]
        header = _header(path, ref, array.shape, array.dtype, "hdf5")
        sizes = np.ravel(array.attrs.get("element_size_um", ()))
        if sizes.dtype.kind in "uif" and len(sizes) >= header.ndim and np.all(sizes > 0):
            values = {**vars(header), "spacing": tuple(float(s) for s in sizes[-header.ndim :])}
            header = Header(**{**values, "spacing_unit": "um"})
        roles = guess_roles(array.shape)
        yield Opened(header, lambda window: _read(array, roles, window), streamable=True, random_access=True)
