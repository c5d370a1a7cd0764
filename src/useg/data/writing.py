"""Maps to files, block by block: what belongs to the source is kept, nothing half-written is left."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from useg.data.headers import Header, split_ref
from useg.data.images import SUFFIXES, suffix_of
from useg.data.map_form import Encoder, MapForm
from useg.data.orientation import exchanges_axes, stored_from_upright, stored_shape
from useg.data.png_encoder import PngEncoder, png_can_hold
from useg.data.tiff_encoder import TiffEncoder
from useg.data.volume_encoder import GzippedNiftiEncoder, NiftiEncoder, NpyEncoder
from useg.errors import ConfigError, ResourceError

__all__ = ["MapWriter", "map_suffix", "open_map"]

_ENCODERS: dict[str, type[Encoder]] = {
    ".png": PngEncoder,
    ".tif": TiffEncoder,
    ".tiff": TiffEncoder,
    ".npy": NpyEncoder,
    ".nii": NiftiEncoder,
    ".nii.gz": GzippedNiftiEncoder,
}
_TURNED = (PngEncoder, TiffEncoder)  # formats with a tag for the orientation
_TAGGED_SOURCES = ("jpeg", "png", "tiff", "webp")
_PNG_LARGEST_PX = 50_000_000
_TIFF_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
_NIFTI_DTYPES = tuple(name for name in _TIFF_DTYPES if name != "float16")
_PIECE_BYTES = 2**24


def map_suffix(source: Header, dtype: DTypeLike, channels: int = 1) -> str:
    """The suffix of the format that fits a map of this source.

    NIfTI, TIFF and `.npy` sources keep their format. Other pictures up to 50 megapixels get `.png` if
    it can hold the values, and all else (stacks, float16 probabilities, larger pictures) `.tif`.
    """
    path, inside = split_ref(source.ref)
    suffix = suffix_of(path)
    shape = (channels, *source.space)
    if source.format == "nifti" and not inside:
        return suffix
    if source.format == "npy":
        return ".npy"
    if source.format == "tiff":
        return suffix if suffix in (".tif", ".tiff") else ".tif"
    small = prod(source.space) <= _PNG_LARGEST_PX
    return ".png" if small and png_can_hold(shape, np.dtype(dtype)) else ".tif"


def _with_suffix(path: Path, suffix: str) -> Path:
    """The path if its suffix can be written; else with `suffix`, in place of another image suffix."""
    own = suffix_of(path)
    if own in _ENCODERS:
        return path
    stem = path.name[: -len(own)] if own in SUFFIXES else path.name
    return path.with_name(stem + suffix)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(f"cannot write {path}: {reason}; nothing of this file is left") from error


class MapWriter:
    """Writes one map in blocks; a context manager, which puts the file in place at its end.

    The bytes go to a temporary file in the same folder; it is renamed when the `with` block ends with
    all rows written, and removed when it ends by an exception.

    Attributes:
        path: where the file will be, with the suffix that was chosen.
        shape: (C, *space) of the map, upright.
        dtype: of the values as stored; NIfTI has no float16, so float32 is stored there.
    """

    def __init__(self, path: Path, source: Header, dtype: DTypeLike, channels: int, palette: np.ndarray | None) -> None:
        self.path = _with_suffix(path, map_suffix(source, dtype, channels))
        self.shape = (channels, *source.space)
        self.dtype = np.dtype(dtype)
        suffix = suffix_of(self.path)
        self._encoder_type = _ENCODERS[suffix]
        if suffix.startswith(".nii") and self.dtype == np.float16:
            self.dtype = np.dtype(np.float32)
        _check_fits(self.path, suffix, self.shape, self.dtype)
        tagged = self._encoder_type in _TURNED and source.format in _TAGGED_SOURCES
        turn = source.orientation if tagged else 1
        spacing = source.spacing
        if spacing is not None and exchanges_axes(turn):
            spacing = (*spacing[:-2], spacing[-1], spacing[-2])
        self._form = MapForm(
            shape=stored_shape(self.shape, turn),
            dtype=self.dtype,
            palette=palette,
            orientation=turn,
            spacing=spacing,
            spacing_unit=source.spacing_unit,
            affine=source.affine,
            source=split_ref(source.ref)[0],
            source_format=source.format,
        )
        self._done = 0
        self._stream: BinaryIO | None = None
        self._temporary: Path | None = None
        self._encoder: Encoder | None = None
        self._turning: BinaryIO | None = None

    def __enter__(self) -> "MapWriter":
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f".{self.path.name[:100]}.{secrets.token_hex(4)}.part")
            self._stream = temporary.open("x+b")
            self._temporary = temporary
            try:
                self._encoder = self._encoder_type(self._stream, self._form)
                if self._form.orientation != 1:
                    # Upright rows are not stored rows: they wait in a file until all are there.
                    self._turning = tempfile.TemporaryFile(dir=self.path.parent)
            except BaseException:
                self._discard()
                raise
        return self

    def write(self, block: np.ndarray) -> None:
        """Write the next rows (C, h, W) of a picture, or planes (C, d, H, W) of a volume, upright.

        Raises:
            ValueError: the block does not continue the map, or has values that its dtype cannot hold.
            ResourceError: the disk is full or refuses.
        """
        if self._encoder is None:
            raise ValueError("a map is written inside its with block")
        wanted = (self.shape[0], block.shape[1] if block.ndim > 1 else 0, *self.shape[2:])
        if block.shape != wanted or self._done + block.shape[1] > self.shape[1]:
            raise ValueError(
                f"{self.path.name}: a block of shape {block.shape} does not continue a map of {self.shape} "
                f"after {self._done} of {self.shape[1]}"
            )
        values = self._converted(block)
        with _writing(self.path):
            if self._turning is None:
                self._encoder.write(values)
            else:
                step = prod(self.shape[2:]) * self.dtype.itemsize
                for channel, part in enumerate(values):
                    self._turning.seek((channel * self.shape[1] + self._done) * step)
                    self._turning.write(np.ascontiguousarray(part).data)
        self._done += block.shape[1]

    def _converted(self, block: np.ndarray) -> np.ndarray:
        if block.dtype == self.dtype:
            return block
        values = block.astype(self.dtype)
        if block.dtype.kind in "biu" and not np.array_equal(values, block):
            raise ValueError(f"{self.path.name}: {block.dtype} values do not fit in {self.dtype}")
        if block.dtype.kind == "f" and self.dtype.kind != "f":
            raise ValueError(f"{self.path.name}: {block.dtype} values cannot be written as {self.dtype}")
        return values

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._stream is None or self._encoder is None or self._temporary is None:
            self._discard()
            return
        try:
            if self._done != self.shape[1]:
                wanted = f"{self._done} of {self.shape[1]} rows or planes were written"
                raise ValueError(f"{self.path.name}: {wanted}")
            with _writing(self.path):
                self._turn()
                self._encoder.finish()
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._stream.close()
                os.replace(self._temporary, self.path)
        except BaseException:
            self._discard()
            raise
        self._close()

    def _turn(self) -> None:
        """Give the encoder the upright rows that waited, in the order in which they are stored."""
        if self._turning is None or self._encoder is None:
            return
        self._turning.flush()
        whole = np.memmap(self._turning, self.dtype, "r", shape=self.shape)
        stored = stored_from_upright(whole, self._form.orientation)
        step = max(1, _PIECE_BYTES * stored.shape[1] // max(1, stored.nbytes))
        for start in range(0, stored.shape[1], step):
            self._encoder.write(np.ascontiguousarray(stored[:, start : start + step]))

    def _close(self) -> None:
        for stream in (self._encoder, self._stream, self._turning):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._encoder = None

    def _discard(self) -> None:
        self._close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


def _check_fits(path: Path, suffix: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    wanted = f"{path.name}: {suffix} cannot hold {shape[0]} channels of {dtype} over {len(shape) - 1} axes"
    if suffix == ".png" and not png_can_hold(shape, dtype):
        raise ConfigError(f"{wanted}; name the file .tif")
    if suffix in (".tif", ".tiff") and dtype.name not in _TIFF_DTYPES:
        raise ConfigError(f"{wanted}; use one of {', '.join(_TIFF_DTYPES)}")
    if suffix.startswith(".nii") and dtype.name not in _NIFTI_DTYPES:
        raise ConfigError(f"{wanted}; use one of {', '.join(_NIFTI_DTYPES)}")


def open_map(
    path: Path,
    *,
    source: Header,
    dtype: DTypeLike,
    channels: int = 1,
    palette: np.ndarray | None = None,
) -> MapWriter:
    """A writer for a map over the space of `source`: `with open_map(...) as writer: writer.write(block)`.

    The suffix of `path` chooses the format (`.png .tif .tiff .npy .nii .nii.gz`); without one of
    these, `map_suffix` does, and `writer.path` tells the result.

    What belongs to the source is kept: spacing, affine, geo-reference (the tags are copied), and
    orientation: the map of a picture with an orientation tag is stored turned like the picture, with the
    same tag. So map and picture lie on each other both in programs that follow the tag and in those
    that do not. Files without such a tag (`.npy`, NIfTI) are upright.

    Raises:
        ConfigError: the format of this suffix cannot hold such a map.
    """
    return MapWriter(Path(path), source, dtype, channels, palette)
