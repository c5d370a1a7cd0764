"""A page that shows how label maps differ between two versions of a data set."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from useg.arrays import Raw
from useg.data.images import read_image
from useg.data.reading import Sample
from useg.data.views import View
from useg.errors import UsegError
from useg.experiments.overlay import error_map, label_overlay, picture_of
from useg.experiments.report.markup import Markup, joined, tag
from useg.experiments.report.pictures import Picture, sample_pictures

MOST_PICTURES = 60
LEGEND = {"as before": (70, 160, 90), "added": (214, 90, 30), "taken away": (60, 110, 220)}


def write_difference_page(path: Path, before: View, after: View, changed: Sequence[str], title: str) -> int:
    """Draw the label maps of changed samples, before and after; returns how many could be drawn.

    Args:
        path: of the HTML file, which is there whole or not at all.
        before, after: the two versions.
        changed: keys of the samples whose labels differ; the first 60 are drawn.
        title: of the page.
    """
    pictures, notes = [], []
    first, second = ({sample.key: sample for sample in view.reading.samples} for view in (before, after))
    for key in changed[:MOST_PICTURES]:
        try:
            pictures.append(_drawn(before.files.local(first[key]), after.files.local(second[key])))
        except (UsegError, ValueError) as error:
            notes.append(f"{key}: {error}")
    left = len(changed) - MOST_PICTURES
    notes += [f"{left} more samples have changed"] if left > 0 else []
    style = Markup(files("useg.experiments.report").joinpath("style.css").read_text(encoding="utf-8"))
    page = tag(
        "html",
        tag("head", tag("meta", charset="utf-8"), tag("title", title), tag("style", style)),
        tag(
            "body",
            tag(
                "main",
                tag("h1", title),
                tag("p", f"{len(changed)} samples have other labels."),
                sample_pictures(pictures, LEGEND) if pictures else None,
                *[tag("p", note) for note in notes],
            ),
        ),
        lang="en",
    )
    part = path.with_name(path.name + ".part")
    part.write_bytes(joined(Markup("<!doctype html>\n"), page).encode("utf-8", "replace"))
    os.replace(part, path)
    return len(pictures)


def _drawn(before: Sample, after: Sample) -> Picture:
    old, new = _stored(before), _stored(after)
    if old.shape != new.shape:
        raise ValueError(f"its label map had {old.shape} pixels, and has {new.shape} now")
    image = np.concatenate([read_image(ref) for ref in after.images])
    changed = old != new
    if old.ndim == 3:
        plane = int(changed.sum(axis=(1, 2)).argmax())
        old, new, image, changed = old[plane], new[plane], image[:, plane], changed[plane]
    below = picture_of(image)
    palette = _palette()
    return Picture(
        key=after.key,
        rank="sample",
        score=f"{int(changed.sum())} pixels",
        panels={
            "before": label_overlay(below, old, palette),
            "after": label_overlay(below, new, palette),
            "difference": error_map(below, np.minimum(new, 1), np.minimum(old, 1)),
        },
    )


def _stored(sample: Sample) -> np.ndarray:
    """The values of a label map as small numbers, equal values alike; the rarest value of a border is background."""
    found: np.ndarray | None = None
    for number, ref in enumerate(sample.labels, start=1):
        mask = _packed(read_image(ref))
        if not sample.masks_are_objects:
            return np.asarray(mask % 255, dtype=np.uint8)
        found = np.zeros(mask.shape, np.uint8) if found is None else found
        found[mask > 0] = (number - 1) % 254 + 1
    if found is None:
        raise ValueError("it has no labels")
    return found


def _packed(stored: Raw) -> np.ndarray:
    """One number a pixel: the value, or the colour."""
    values = np.nan_to_num(stored).astype(np.int64)
    packed: np.ndarray = values[0]
    for channel in values[1:3]:
        packed = packed * 256 + channel
    return packed


def _palette() -> np.ndarray:
    draw = np.random.default_rng(3)
    return np.asarray(draw.integers(60, 256, (256, 3)), dtype=np.uint8)
