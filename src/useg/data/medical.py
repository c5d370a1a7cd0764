"""NIfTI volumes, with spacing and affine: our (planes, rows, columns) are NIfTI's (z, y, x)."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from useg.data.headers import Header, Opened, Window, unreadable

_RGB_FIELDS = ("R", "G", "B", "A")


def _scaled_dtype(image: Any) -> np.dtype[Any]:
    """The stored dtype, or float where a slope and an offset turn stored numbers into values."""
    stored: np.dtype[Any] = np.dtype(image.get_data_dtype()).newbyteorder("=")
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    if (slope, intercept) == (1.0, 0.0):
        return stored
    return np.dtype(np.float64 if stored.itemsize > 2 and stored != np.float32 else np.float32)


def _spacing(image: Any, ndim: int) -> tuple[tuple[float, ...] | None, str | None]:
    zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
    zooms += [1.0] * (3 - len(zooms))
    spacing = tuple(reversed(zooms))[-ndim:]
    if not all(np.isfinite(spacing)) or min(spacing) <= 0:
        return None, None
    unit = {"mm": "mm", "micron": "um", "meter": "m"}.get(image.header.get_xyzt_units()[0])
    return spacing, unit


@contextmanager
def open_nifti(path: Path) -> Iterator[Opened]:
    """Open a NIfTI file (`.nii`, `.nii.gz`).

    A volume of one slice is a picture (C, H, W). Times, modalities and vectors (axes beyond the third)
    and RGB voxels become channels. Windows of a compressed file decompress it up to their last plane.
    """
    import nibabel

    kind = nibabel.Nifti1Image if _version(path) == 1 else nibabel.Nifti2Image
    image = kind.from_filename(path)
    shape = tuple(int(n) for n in image.shape)
    x, y, z, *rest = (*shape, 1, 1, 1)[: max(3, len(shape))]
    fields = np.dtype(image.get_data_dtype()).names
    if fields is not None and tuple(fields) not in (_RGB_FIELDS[:3], _RGB_FIELDS):
        raise unreadable(str(path), f"its voxels are records of {fields}, numbers were wanted")
    dtype = np.dtype(np.uint8) if fields else _scaled_dtype(image)
    if dtype.kind not in "uif":
        raise unreadable(str(path), f"its voxels are {dtype}, real numbers were wanted")
    channels = prod(rest) * (len(fields) if fields else 1)
    space = (y, x) if z == 1 else (z, y, x)
    spacing, unit = _spacing(image, len(space))
    colour = "grey" if channels == 1 else "bands"
    if fields and channels == len(fields):
        colour = "rgb" if channels == 3 else "rgba"
    header = Header(
        ref=str(path),
        format="nifti",
        shape=(channels, *space),
        dtype=dtype,
        colour=colour,
        spacing=spacing,
        spacing_unit=unit,
        affine=np.array(image.affine, np.float64),
        file_bytes=path.stat().st_size,
    )

    def read(window: Window) -> np.ndarray:
        planes = window[0] if len(window) == 3 else slice(0, 1)
        wanted = (window[-1], window[-2], planes)[: len(shape)]
        part = image.dataobj[(*wanted, *(slice(None),) * (len(shape) - 3))]
        part = np.stack([part[name] for name in fields], axis=-1) if fields else np.asarray(part)
        sizes = [axis.stop - axis.start for axis in (window[-1], window[-2], planes)]
        # NIfTI's first axis is its fastest one, so channels are counted in Fortran order.
        part = part.reshape((*sizes, channels), order="F")
        volume = np.ascontiguousarray(part.transpose(3, 2, 1, 0), dtype)
        return volume if len(window) == 3 else volume[:, 0]

    yield Opened(header, read, streamable=True, random_access=not path.name.lower().endswith(".gz"))


def _version(path: Path) -> int:
    import gzip

    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        start = stream.read(4)
    return 2 if start in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") else 1
