"""clDice: how much of each mask's centre line lies in the other mask; for vessels, membranes, roads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import ndimage
from skimage.morphology import skeletonize

from useg.segmentation.flooding import bounding_box, components
from useg.segmentation.metrics import ratio

Mask = Bool[np.ndarray, "*space"]


@dataclass(frozen=True)
class LineCounts:
    """Centre-line pixels of one class, of one image or of many by adding.

    Attributes:
        truth: pixels of the true mask's centre line.
        truth_found: of these, inside the predicted mask.
        predicted: pixels of the predicted mask's centre line.
        predicted_right: of these, inside the true mask.
    """

    truth: int = 0
    truth_found: int = 0
    predicted: int = 0
    predicted_right: int = 0

    def __add__(self, other: "LineCounts") -> "LineCounts":
        return LineCounts(
            self.truth + other.truth,
            self.truth_found + other.truth_found,
            self.predicted + other.predicted,
            self.predicted_right + other.predicted_right,
        )

    @property
    def cldice(self) -> float | None:
        """Harmonic mean of the two shares, 0..1; 0 when one mask is empty, None when both are."""
        sensitivity = ratio(self.truth_found, self.truth)
        precision = ratio(self.predicted_right, self.predicted)
        if sensitivity is None and precision is None:
            return None
        if not sensitivity or not precision:
            return 0.0
        return 2 * sensitivity * precision / (sensitivity + precision)


def skeleton(mask: Mask) -> Mask:
    """Return the centre line of a mask, one pixel wide (2D: Zhang and Suen; 3D: Lee).

    Both methods wear some compact parts down to nothing (a 2x2 square, a block); such a part keeps one of its
    deepest pixels, so that every part of the mask counts. An empty mask has an empty centre line.
    """
    found = np.zeros_like(mask)
    box = bounding_box(mask)
    inside = mask[box]
    if not inside.size:
        return found
    line = skeletonize(np.pad(inside, 1))[(slice(1, -1),) * mask.ndim]
    parts = components(inside)
    lost = np.bincount(parts[line], minlength=int(parts.max()) + 1) == 0
    lost[0] = False
    if lost.any():
        depth = ndimage.distance_transform_edt(np.pad(lost[parts], 1))[(slice(1, -1),) * mask.ndim]
        places = ndimage.maximum_position(depth, parts, np.flatnonzero(lost))
        line[tuple(np.transpose(places))] = True
    found[box] = line
    return found


def count_lines(truth: Mask, predicted: Mask) -> LineCounts:
    """Count the centre-line pixels of two masks of one shape; leave pixels to ignore out of both masks.

    Source: Shit et al. 2021, clDice, equations 1 and 2 (topology precision and sensitivity).
    """
    true_line, predicted_line = skeleton(truth), skeleton(predicted)
    return LineCounts(
        truth=int(true_line.sum()),
        truth_found=int((true_line & predicted).sum()),
        predicted=int(predicted_line.sum()),
        predicted_right=int((predicted_line & truth).sum()),
    )
