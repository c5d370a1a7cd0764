"""Samples to look at, as pictures inside the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from useg.experiments.report.markup import Markup, tag

__all__ = ["Picture", "sample_pictures"]

MOST_BYTES = 2_000_000
"""All pictures of a page together, before they are written as text."""

_EXACT_PX = 256 * 256
"""Pictures up to this size are stored without loss, where there is room."""

_WAYS = ((640, 90), (640, 80), (480, 80), (360, 75), (240, 70), (160, 60))
"""Longest side and quality of WebP, the first that fits is taken."""

_ENLARGED_PX = 200
"""Pictures smaller than this are shown larger than they are, with pixels to be seen."""


@dataclass(frozen=True)
class Picture:
    """One sample to look at.

    Attributes:
        key: of the sample.
        rank: why it is shown.
        score: what it got, in words.
        panels: (height, width, 3) uint8 by caption, in order, all of one sample: say the image, the true
            label map on it, the predicted one.
    """

    key: str
    rank: Literal["worst", "best", "sample"]
    score: str
    panels: Mapping[str, np.ndarray]


def sample_pictures(
    pictures: Sequence[Picture], legend: Mapping[str, Sequence[int]], *, most_bytes: int = MOST_BYTES
) -> Markup:
    """Put pictures side by side.

    Args:
        pictures: at least one.
        legend: the colour (three numbers 0..255) of each class.
        most_bytes: of all of them together; they are made smaller and coarser until they have no more.
    """
    share = most_bytes // sum(len(picture.panels) for picture in pictures)
    shown = [_figure(picture, share) for picture in pictures]
    entries = [
        tag("li", tag("i", class_="swatch class", style=f"background:{_colour(colour)}"), name)
        for name, colour in legend.items()
    ]
    return tag(
        "div",
        tag("div", *shown, class_="samples narrow" if all(map(_is_narrow, pictures)) else "samples"),
        tag("ul", *entries, class_="legend") if entries else None,
    )


def _is_narrow(picture: Picture) -> bool:
    return all(array.shape[0] > 2 * array.shape[1] for array in picture.panels.values())


def _figure(picture: Picture, most_bytes: int) -> Markup:
    panels = [
        tag("div", _image(array, f"{caption} of {picture.key}", most_bytes), caption)
        for caption, array in picture.panels.items()
    ]
    caption = tag("figcaption", tag("span", picture.key), tag("b", picture.score))
    return tag("figure", caption, tag("div", *panels, class_="panels"), class_="card sample")


def _image(array: np.ndarray, alt: str, most_bytes: int) -> Markup:
    stored = base64.b64encode(_webp(array, most_bytes)).decode("ascii")
    enlarged = max(array.shape[:2]) < _ENLARGED_PX
    return tag("img", src=f"data:image/webp;base64,{stored}", alt=alt, class_="enlarged" if enlarged else None)


def _colour(colour: Sequence[int]) -> str:
    red, green, blue = (int(value) for value in colour)
    return f"rgb({red},{green},{blue})"


def _webp(array: np.ndarray, most_bytes: int) -> bytes:
    """The picture in `most_bytes`, as large and fine as that allows; or the smallest that there is."""
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"a picture is (height, width, 3) uint8, not {array.shape} {array.dtype}")
    image = Image.fromarray(np.ascontiguousarray(array))
    found = b""
    if image.width * image.height <= _EXACT_PX:
        found = _encoded(image, lossless=True)
        if len(found) <= most_bytes:
            return found
    for side, quality in _WAYS:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        found = _encoded(image, quality=quality)
        if len(found) <= most_bytes:
            break
    return found


def _encoded(image: Image.Image, **how: int | bool) -> bytes:
    stored = io.BytesIO()
    image.save(stored, "WEBP", **how)
    return stored.getvalue()
