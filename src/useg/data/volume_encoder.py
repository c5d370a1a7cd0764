"""Writes `.npy` and NIfTI files: a header and then the plain values, each block at its place."""

import gzip
import shutil
import tempfile
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from useg.data.headers import quiet
from useg.data.map_form import MapForm

_UNITS = {"mm": "mm", "um": "micron", "m": "meter"}
_NIFTI1_LARGEST_AXIS = 32767
_COPY_BYTES = 2**22


class _Values:
    """Values of (C, *space) in C order from the current position of a stream on."""

    def __init__(self, stream: BinaryIO, form: MapForm) -> None:
        self._stream, self._form = stream, form
        self._base = stream.tell()
        self._next = 0

    def write(self, block: np.ndarray) -> None:
        shape = self._form.shape
        step = prod(shape[2:]) * self._form.dtype.itemsize
        for channel, part in enumerate(block):
            self._stream.seek(self._base + (channel * shape[1] + self._next) * step)
            self._stream.write(np.ascontiguousarray(part).data)
        self._next += block.shape[1]

    def finish(self) -> None:
        """Nothing is left to write: every value is at its place."""

    def close(self) -> None:
        """Nothing is held."""


class NpyEncoder(_Values):
    """An `Encoder` for `.npy`: (C, *space), or without the first axis if there is one channel."""

    def __init__(self, stream: BinaryIO, form: MapForm) -> None:
        shape = form.shape[1:] if form.shape[0] == 1 else form.shape
        description = np.lib.format.dtype_to_descr(form.dtype)
        header = {"descr": description, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        super().__init__(stream, form)


class NiftiEncoder(_Values):
    """An `Encoder` for `.nii`, with the source's own header where it had one."""

    def __init__(self, stream: BinaryIO, form: MapForm) -> None:
        with quiet():
            header = _nifti_header(form)
        stream.write(header.binaryblock + bytes(int(header["vox_offset"]) - len(header.binaryblock)))
        super().__init__(stream, form)


class GzippedNiftiEncoder:
    """An `Encoder` for `.nii.gz`; values wait in a temporary file beside it, as channels come in turn."""

    def __init__(self, stream: BinaryIO, form: MapForm) -> None:
        self._stream = stream
        name = getattr(stream, "name", None)
        folder = Path(name).parent if isinstance(name, str) else None
        self._waiting = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed in close()
        self._plain = NiftiEncoder(self._waiting, form)

    def write(self, block: np.ndarray) -> None:
        """Take the next planes (C, d, H, W) or rows (C, h, W)."""
        self._plain.write(block)

    def finish(self) -> None:
        """Compress what waited."""
        self._waiting.seek(0)
        # Without name and time, so that the same map is always the same file.
        with gzip.GzipFile("", "wb", 6, self._stream, mtime=0) as packed:
            shutil.copyfileobj(self._waiting, packed, _COPY_BYTES)

    def close(self) -> None:
        """Remove the temporary file."""
        self._waiting.close()


def _source_header(form: MapForm) -> Any:
    """The source's NIfTI header, or None."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if form.source_format != "nifti":
        return None
    try:
        return nibabel.load(form.source).header.as_byteswapped("<")
    except (OSError, ValueError, ImageFileError):
        return None


def _nifti_header(form: MapForm) -> Any:
    import nibabel

    across = tuple(reversed(form.shape[1:]))
    if form.shape[0] > 1:
        across = (*across, *(1,) * (3 - len(across)), form.shape[0])
    header = _source_header(form)
    if header is None:
        large = max(across) > _NIFTI1_LARGEST_AXIS
        header = (nibabel.Nifti2Header if large else nibabel.Nifti1Header)(endianness="<")
        spacing = tuple(reversed(form.spacing or (1.0,) * (len(form.shape) - 1)))
        affine = np.diag([*spacing, *(1.0,) * (4 - len(spacing))]) if form.affine is None else form.affine
        header.set_data_shape(across)
        header.set_sform(affine, 2)
        header.set_qform(affine, 2)
        header.set_xyzt_units(_UNITS.get(form.spacing_unit or "", "unknown"))
    else:
        zooms = header.get_zooms()[:3]
        flat = len(header.get_data_shape()) >= 3 and len(across) == 2
        across = (*across, 1) if flat else across
        header.set_data_shape(across)
        header.set_zooms((*zooms, *(1.0,) * 3)[: len(across)])
    header.set_data_dtype(form.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    return header
