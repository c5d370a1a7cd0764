"""Overlays as files: a PNG of a picture or volume, a clip of a clip, drawn while the pixels pass by."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from useg.data.headers import Header
from useg.data.labels import LabelMapping
from useg.errors import MissingExtra
from useg.experiments.overlay import (
    Picture,
    Sampler,
    instance_overlay,
    label_overlay,
    picture_of,
    save_png,
    side_by_side,
    with_legend,
)

__all__ = ["OverlayClip", "OverlayFile", "OverlayPicture"]


class OverlayFile(Protocol):
    """Sees bands (channels, rows or planes, ...) in order; image first, then classes, then instances."""

    def __enter__(self) -> "OverlayFile": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def image(self, first: int, band: np.ndarray) -> None:
        """Pixels of the image."""

    def classes(self, first: int, band: np.ndarray) -> None:
        """Class ids, one channel."""

    def instances(self, first: int, band: np.ndarray) -> None:
        """Object ids, one channel."""


class OverlayPicture:
    """A PNG, thinned to at most 2000 pixels a side; of a volume, its three middle planes in a row."""

    def __init__(self, path: Path, space: tuple[int, ...], mapping: LabelMapping, *, objects: bool) -> None:
        """With `objects`, each object in its own colour instead of each class."""
        self._path, self._mapping, self._objects = path, mapping, objects
        self._image, self._labels = Sampler(space), Sampler(space)

    def __enter__(self) -> "OverlayPicture":
        return self

    def image(self, first: int, band: np.ndarray) -> None:
        """Pixels of the image."""
        self._image.take(first, band)

    def classes(self, first: int, band: np.ndarray) -> None:
        """Class ids, one channel."""
        if not self._objects:
            self._labels.take(first, band)

    def instances(self, first: int, band: np.ndarray) -> None:
        """Object ids, one channel."""
        if self._objects:
            self._labels.take(first, band)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        pairs = zip(self._image.planes, self._labels.planes, strict=True)
        drawn = [_drawn(picture_of(view), ids[0], self._mapping, objects=self._objects) for view, ids in pairs]
        picture = side_by_side(drawn)
        if not self._objects:
            names = zip(self._mapping.class_names, self._mapping.palette.tolist(), strict=False)
            picture = with_legend(picture, list(names)[1:])
        save_png(self._path, picture)


class OverlayClip:
    """An MP4 with every frame of a clip."""

    def __init__(self, path: Path, source: Header, mapping: LabelMapping, *, objects: bool) -> None:
        """With `objects`, each object in its own colour instead of each class."""
        self._path, self._source, self._mapping, self._objects = path, source, mapping, objects
        self._part = path.with_name(f".{path.name}.part.mp4")
        self._frame: Picture | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "OverlayClip":
        try:
            import av
        except ImportError:
            raise MissingExtra("video", "writing an overlay clip") from None
        with av.open(str(self._source.path)) as source:
            rate = source.streams.video[0].average_rate or Fraction(25)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._part), mode="w", format="mp4")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=Fraction(rate).limit_denominator(65535))
        height, width = self._source.space[1:]
        # The codecs store colour at half the resolution, so sides are even.
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "18"} if codec == "libx264" else {"qscale": "3"}
        return self

    def image(self, first: int, band: np.ndarray) -> None:
        """One frame, (channels, 1, H, W)."""
        self._frame = picture_of(band[:, 0])

    def classes(self, first: int, band: np.ndarray) -> None:
        """Class ids of the frame."""
        if not self._objects:
            self._encode(band[0, 0])

    def instances(self, first: int, band: np.ndarray) -> None:
        """Object ids of the frame."""
        if self._objects:
            self._encode(band[0, 0])

    def _encode(self, labels: np.ndarray) -> None:
        import av

        if self._frame is None:
            return
        drawn = _drawn(self._frame, labels, self._mapping, objects=self._objects)
        height, width = drawn.shape[:2]
        even = np.pad(drawn, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
            if kind is None:
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)


def _drawn(picture: Picture, labels: np.ndarray, mapping: LabelMapping, *, objects: bool) -> Picture:
    if objects:
        return instance_overlay(picture, labels.astype(np.int32, copy=False))
    return label_overlay(picture, labels.astype(np.uint8, copy=False), mapping.palette)
