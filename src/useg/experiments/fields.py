"""What the network sees of a file: windows of its pixels, in the stored dtype, with the model's channels."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

from useg.data.images import OpenImage, open_image
from useg.data.samples import match_channels
from useg.errors import DataError, Problem, ResourceError
from useg.segmentation.normalise import ChannelNorm, sample_strides

__all__ = ["Field", "Frames", "open_field", "open_frames"]

_SAMPLE_ROWS = 512


class Field:
    """One image for the network: a picture, a plane of a stack, or a volume."""

    def __init__(
        self,
        image: OpenImage,
        space: tuple[int, ...],
        channels: int,
        held: np.ndarray | None = None,
    ) -> None:
        """The open image itself, or with `held` what was read from it, (channels, *space)."""
        self.space, self.channels, self.dtype = space, channels, image.header.dtype
        self._image, self._held = image, held

    @property
    def held_bytes(self) -> int:
        """What is held decoded."""
        return 0 if self._held is None else self._held.nbytes

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        """(channels, *window) in the stored dtype.

        Raises:
            DataError: the file cannot be read, or its channels are not the model's.
        """
        if self._held is not None:
            return self._held[(slice(None), *window)]
        return match_channels(self._image.read(window), self._image.header, self.channels)

    def sample(self, norms: tuple[ChannelNorm, ...]) -> np.ndarray:
        """The strided sample that statistics are taken from; without pixels where no channel needs one."""
        if all(norm.kind != "image" for norm in norms):
            return np.zeros((self.channels, *(0,) * len(self.space)), self.dtype)
        steps = sample_strides(self.space)
        whole = tuple(slice(0, size) for size in self.space[1:])
        block = max(1, _SAMPLE_ROWS if len(self.space) == 2 else 8)
        parts = []
        for start in range(0, self.space[0], block):
            band = self.read((slice(start, min(start + block, self.space[0])), *whole))
            every = (
                slice(-start % steps[0], None, steps[0]),
                *(slice(None, None, step) for step in steps[1:]),
            )
            parts.append(band[(slice(None), *every)].copy())
        return np.concatenate(parts, axis=1)


def _check_fits(image: OpenImage, nbytes: int, budget_bytes: int, what: str) -> None:
    # Decoding holds the coded and the decoded image, and a copy with channels first.
    if 3 * nbytes > budget_bytes:
        raise ResourceError(
            f"{image.header.ref}: {what} has to be decoded as a whole, which takes "
            f"{3 * nbytes / 1e6:.0f} MB; the memory limit leaves {max(budget_bytes, 0) / 1e6:.0f} MB. Raise it, or save the image as a "
            "tiled TIFF, which is read piece by piece"
        )


@contextmanager
def open_field(ref: str, channels: int, budget_bytes: int) -> Iterator[Field]:
    """A file as one field. Small ones are decoded once and held, large ones read window by window.

    Raises:
        DataError: it cannot be read, or its channels are not the model's.
        ResourceError: the format can only be decoded as a whole, and that exceeds the budget.
    """
    with open_image(ref) as image:
        nbytes = prod(image.header.space) * channels * image.header.dtype.itemsize
        held = None
        if 12 * nbytes <= budget_bytes or not image.streamable:
            _check_fits(image, nbytes, budget_bytes, "this format")
            held = match_channels(image.read(), image.header, channels)
        yield Field(image, image.header.space, channels, held)


class Frames:
    """A stack or clip plane by plane, decoded several planes at a time."""

    def __init__(self, image: OpenImage, channels: int, budget_bytes: int) -> None:
        """Raises ResourceError where not even one plane (or, if needed, the whole file) can be decoded."""
        depth, *plane = image.header.space
        nbytes = prod(plane) * channels * image.header.dtype.itemsize
        at_once = depth if not image.streamable else 1
        _check_fits(image, at_once * nbytes, budget_bytes, "this format" if at_once > 1 else "one plane")
        self._block = max(at_once, min(depth, budget_bytes // (12 * nbytes), 64))
        self._image, self._channels = image, channels
        self.count = depth

    def __iter__(self) -> Iterator[Field]:
        image = self._image
        whole = tuple(slice(0, size) for size in image.header.space[1:])
        for start in range(0, self.count, self._block):
            planes = image.read((slice(start, min(start + self._block, self.count)), *whole))
            for index in range(planes.shape[1]):
                held = match_channels(planes[:, index], image.header, self._channels)
                yield Field(image, image.header.space[1:], self._channels, held)


@contextmanager
def open_frames(ref: str, channels: int, budget_bytes: int) -> Iterator[Frames]:
    """A stack or clip for a model of planes.

    Raises:
        DataError: it cannot be read, or its channels are not the model's.
        ResourceError: not even one plane fits the budget.
    """
    with open_image(ref) as image:
        if image.header.ndim != 3:
            raise DataError(f"{ref} is no stack", [Problem(ref, "a stack of planes was wanted")])
        yield Frames(image, channels, budget_bytes)
