"""A page that shows how label maps differ between two versions of a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from useg.arrays import Raw
from useg.data.images import read_image
from useg.data.reading import Sample
from useg.data.views import View
from useg.errors import UsegError
from useg.experiments.overlay import error_map, label_overlay, picture_of
from useg.experiments.report.markup import tag
from useg.experiments.report.pictures import Picture, sample_pictures
from useg.experiments.report.whole import write_page

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
            with before.files.local(first[key]) as was, after.files.local(second[key]) as now:
                pictures.append(_drawn(was, now))
        except (UsegError, ValueError) as error:
            notes.append(f"{key}: {error}")
    left = len(changed) - MOST_PICTURES
    notes += [f"{left} more samples have changed"] if left > 0 else []
    drawn = sample_pictures(pictures, LEGEND) if pictures else None
    said = tag("p", f"{len(changed)} samples have other labels.")
    write_page(path, title, tag("h1", title), said, drawn, *[tag("p", note) for note in notes])
    return len(pictures)


def _drawn(before: Sample, after: Sample) -> Picture:
    old, new = _stored(before), _stored(after)
    if old.shape != new.shape:
        raise ValueError(f"its label map had {old.shape} pixels, and has {new.shape} now")
    changed = old != new
    old, new = _numbered(old, new)
    image = np.concatenate([read_image(ref) for ref in after.images])
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
            "difference": _difference(below, new, changed),
        },
    )


def _difference(below: np.ndarray, new: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """What is there as before, what was added (or is something else now), and what was taken away."""
    marked = new > 0
    return error_map(below, marked.astype(np.uint8), (marked ^ changed).astype(np.uint8))


def _stored(sample: Sample) -> np.ndarray:
    """The values of a label map, or the numbers of single masks; 0 is the background."""
    found: np.ndarray | None = None
    for number, ref in enumerate(sample.labels, start=1):
        mask = _packed(read_image(ref))
        if not sample.masks_are_objects:
            return mask
        found = np.zeros(mask.shape, np.int64) if found is None else found
        found[mask > 0] = number
    if found is None:
        raise ValueError("it has no labels")
    return found


def _numbered(*maps: np.ndarray) -> list[np.ndarray]:
    """Label maps with numbers from 1 to 254 for their values, the same value alike in all, and 0 for the background:
    that is value 0, or where it does not occur the most frequent one.
    """
    values, counts = np.unique(np.concatenate([each.reshape(-1) for each in maps]), return_counts=True)
    background = 0 if 0 in values else values[counts.argmax()]
    values = values[values != background]
    return [np.where(each == background, 0, np.searchsorted(values, each) % 254 + 1).astype(np.uint8) for each in maps]


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
