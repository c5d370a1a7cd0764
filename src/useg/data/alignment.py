"""Whether masks lie on their images, or would lie better if they were turned or mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

EDGE = 64
"""Edge of the thumbnails that are compared."""

WINS = 0.8
"""A turn is suspected when it fits better than no turn on at least this share of the samples."""

MARGIN = 0.05
"""And explains at least this much more of the variance of intensity, on average."""

FEW = 3
"""With fewer samples than this the margin must be twice as large."""

TURNS = (
    "as it is",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "with rows and columns exchanged",
    "turned by 90 degrees to the left",
    "turned by 90 degrees to the right",
    "with rows and columns exchanged from the far corner",
)


def turned(plane: Shaped[np.ndarray, "height width"]) -> list[np.ndarray]:
    """The plane in all eight positions, in the order of `TURNS`."""
    other = plane.T
    return [
        plane, plane[:, ::-1], plane[::-1], plane[::-1, ::-1],
        other, other[::-1], other[:, ::-1], other[::-1, ::-1],
    ]  # fmt: skip


def turn_scores(
    image: Shaped[np.ndarray, "height width"], labels: Shaped[np.ndarray, "height width"]
) -> Float[np.ndarray, "turns"] | None:
    """How much of the variance of intensity the labels explain (0 to 1), for each turn of the labels.

    Turns that exchange rows and columns are NaN where the picture is not square. None when the picture or the
    labels have one value, or more than 64 label values.

    Args:
        image: one plane of intensities.
        labels: label values of the same plane.
    """
    import cv2

    picture = np.nan_to_num(image.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
    small = cv2.resize(picture, (EDGE, EDGE), interpolation=cv2.INTER_AREA).astype(np.float64)
    rows = ((np.arange(EDGE) + 0.5) * labels.shape[0] / EDGE).astype(np.int64)
    columns = ((np.arange(EDGE) + 0.5) * labels.shape[1] / EDGE).astype(np.int64)
    values, codes = np.unique(labels[np.ix_(rows, columns)], return_inverse=True)
    spread = float(((small - small.mean()) ** 2).sum())
    if not 2 <= len(values) <= 64 or spread <= 1e-9 * max(1.0, float((small**2).sum())):
        return None
    scores = np.full(len(TURNS), np.nan)
    square = labels.shape[0] == labels.shape[1]
    for position, plane in enumerate(turned(codes.reshape(EDGE, EDGE))):
        if position < 4 or square:
            at = plane.ravel()
            times = np.bincount(at, minlength=len(values))
            means = np.bincount(at, weights=small.ravel(), minlength=len(values)) / np.maximum(times, 1)
            scores[position] = float((times * (means - small.mean()) ** 2).sum()) / spread
    return scores


@dataclass(frozen=True)
class Misfit:
    """A turn of the masks that fits the images better.

    Attributes:
        turn: in words, from `TURNS`.
        samples: indices (into the scores) where it fits better.
    """

    turn: str
    samples: tuple[int, ...]


def find_misfit(scores: Sequence[np.ndarray]) -> Misfit | None:
    """The turn that fits clearly better than none on most samples, if there is one."""
    if not scores:
        return None
    table = np.stack(scores)
    gain = table - table[:, :1]
    known = np.isfinite(gain)
    wins = ((gain > 0) & known).sum(0) / len(table)
    average = np.where(known.all(0), np.where(known, gain, 0.0).sum(0) / len(table), -1.0)
    best = int(average.argmax())
    margin = MARGIN if len(table) >= FEW else 2 * MARGIN
    if best == 0 or wins[best] < WINS or average[best] < margin:
        return None
    return Misfit(TURNS[best], tuple(int(i) for i in np.flatnonzero(gain[:, best] > 0)))
