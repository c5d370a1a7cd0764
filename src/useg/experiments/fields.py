"""What the network sees of a file: windows of its pixels, in the stored dtype, with the model's channels."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod

import numpy as np

from useg.data.images import OpenImage, open_image
from useg.data.samples import match_channels
from useg.errors import DataError, Problem, ResourceError
from useg.segmentation.normalise import ChannelNorm, sample_strides

__all__ = ["Field", "Frames", "open_field", "open_frames"]

_SAMPLE_ROWS = {2: 512, 3: 8}
_MOST_FRAMES = 64


class Source:
    """One image in one file, or its channels in several."""

    def __init__(self, images: Sequence[OpenImage], channels: int) -> None:
        """For a model of `channels` channels.

        Raises:
            DataError: several files have another number of channels together.
        """
        header = images[0].header
        have = sum(image.header.channels for image in images)
        if len(images) > 1 and have != channels:
            what = f"has {have} channels with {', '.join(image.header.ref for image in images[1:])}"
            raise DataError(f"{header.ref}: wrong channels", [Problem(header.ref, f"{what}; the model {channels}")])
        self._images, self._channels = images, channels
        self.space, self.ref = header.space, header.ref
        self.dtype = np.result_type(*(image.header.dtype for image in images))
        self.streamable = all(image.streamable for image in images)
        self.bytes_per_pixel = channels * self.dtype.itemsize

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        """(channels, *window) in the stored dtype."""
        if len(self._images) > 1:
            return np.concatenate([image.read(window) for image in self._images])
        image = self._images[0]
        return match_channels(image.read(window), image.header, self._channels)

    def check_fits(self, nbytes: int, budget_bytes: int, what: str) -> None:
        """Raises ResourceError where `nbytes` cannot be decoded at once within the budget."""
        # Decoding holds the coded and the decoded image, and a copy with channels first.
        need_mb, have_mb = 3 * nbytes / 1e6, max(budget_bytes, 0) / 1e6
        if need_mb > have_mb:
            raise ResourceError(
                f"{self.ref}: {what} has to be decoded as a whole, which takes {need_mb:.0f} MB; the memory "
                f"limit leaves {have_mb:.0f} MB. Raise it, or save the image as a tiled TIFF, which is read "
                "piece by piece"
            )


class Field:
    """One image for the network: a picture, a plane of a stack, or a volume."""

    def __init__(self, source: Source, channels: int, held: np.ndarray | None = None) -> None:
        """The source as it is, or with `held` an array (channels, *space) that was read from it."""
        self.space = source.space if held is None else held.shape[1:]
        self.channels, self.dtype = channels, source.dtype
        self._source, self._held = source, held

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
        return self._source.read(window)

    def sample(self, norms: Sequence[ChannelNorm]) -> np.ndarray:
        """The strided sample that statistics are taken from; without pixels where no channel needs one."""
        if all(norm.kind != "image" for norm in norms):
            return np.zeros((self.channels, *(0,) * len(self.space)), self.dtype)
        steps = sample_strides(self.space)
        whole = tuple(slice(0, size) for size in self.space[1:])
        block = _SAMPLE_ROWS[len(self.space)]
        parts = []
        for start in range(0, self.space[0], block):
            band = self.read((slice(start, min(start + block, self.space[0])), *whole))
            others = tuple(slice(None, None, step) for step in steps[1:])
            parts.append(band[(slice(None), slice(-start % steps[0], None, steps[0]), *others)].copy())
        return np.concatenate(parts, axis=1)


@contextmanager
def _open(refs: Sequence[str], channels: int) -> Iterator[Source]:
    with ExitStack() as files:
        yield Source([files.enter_context(open_image(ref)) for ref in refs], channels)


@contextmanager
def open_field(refs: Sequence[str], channels: int, budget_bytes: int) -> Iterator[Field]:
    """An image as one field. Small ones are decoded once and held, large ones read window by window.

    Raises:
        DataError: it cannot be read, or its channels are not the model's.
        ResourceError: the format can only be decoded as a whole, and that exceeds the budget.
    """
    with _open(refs, channels) as source:
        nbytes = prod(source.space) * source.bytes_per_pixel
        held = None
        if 12 * nbytes <= budget_bytes or not source.streamable:
            source.check_fits(nbytes, budget_bytes, "this format")
            held = source.read(tuple(slice(0, size) for size in source.space))
        yield Field(source, channels, held)


class Frames:
    """A stack or clip plane by plane, decoded several planes at a time."""

    def __init__(self, source: Source, channels: int, budget_bytes: int) -> None:
        """Raises ResourceError where not even one plane (or, if needed, the whole file) can be decoded."""
        depth, *plane = source.space
        nbytes = prod(plane) * source.bytes_per_pixel
        at_once = 1 if source.streamable else depth
        source.check_fits(at_once * nbytes, budget_bytes, "this format" if at_once > 1 else "a plane")
        self._block = max(at_once, min(depth, budget_bytes // (40 * nbytes), _MOST_FRAMES))
        self._source, self._channels = source, channels

    def __iter__(self) -> Iterator[Field]:
        depth, *plane = self._source.space
        whole = tuple(slice(0, size) for size in plane)
        for start in range(0, depth, self._block):
            planes = self._source.read((slice(start, min(start + self._block, depth)), *whole))
            for index in range(planes.shape[1]):
                yield Field(self._source, self._channels, planes[:, index])


@contextmanager
def open_frames(refs: Sequence[str], channels: int, budget_bytes: int) -> Iterator[Frames]:
    """A stack or clip for a model of planes.

    Raises:
        DataError: it cannot be read, or its channels are not the model's.
        ResourceError: not even one plane fits the budget.
    """
    with _open(refs, channels) as source:
        yield Frames(source, channels, budget_bytes)
