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

MOST_PIXELS = 640
"""Pictures are made smaller until neither side is longer than this."""


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


def sample_pictures(pictures: Sequence[Picture], legend: Mapping[str, Sequence[int]]) -> Markup:
    """Put pictures side by side.

    Args:
        pictures: at least one.
        legend: the colour (three numbers 0..255) of each class.
    """
    shown = [_figure(picture) for picture in pictures]
    entries = [
        tag("li", tag("i", class_="swatch class", style=f"background:{_colour(colour)}"), name)
        for name, colour in legend.items()
    ]
    return tag(
        "div",
        tag("div", *shown, class_="samples"),
        tag("ul", *entries, class_="legend") if entries else None,
    )


def _figure(picture: Picture) -> Markup:
    panels = [
        tag("div", tag("img", src=_data_url(array), alt=f"{caption} of {picture.key}"), caption)
        for caption, array in picture.panels.items()
    ]
    caption = tag("figcaption", tag("span", picture.key), tag("b", picture.score))
    return tag("figure", caption, tag("div", *panels, class_="panels"), class_="card sample")


def _colour(colour: Sequence[int]) -> str:
    red, green, blue = (int(value) for value in colour)
    return f"rgb({red},{green},{blue})"


def _data_url(array: np.ndarray) -> str:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"a picture is (height, width, 3) uint8, not {array.shape} {array.dtype}")
    image = Image.fromarray(np.ascontiguousarray(array))
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    image.save(stored, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode('ascii')}"
