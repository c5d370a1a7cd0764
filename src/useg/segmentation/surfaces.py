"""Distances between the outlines of two masks: HD95, ASSD, NSD in physical units, also when one is empty."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import cKDTree

from useg.segmentation.flooding import bounding_box

Mask = Bool[np.ndarray, "*space"]

_LARGEST_EXACT = 1000.0
"""Pixels; up to here the square of a distance in single precision rounds to the right whole number."""


@dataclass(frozen=True)
class SurfaceScores:
    """The outlines of one class in one image, compared.

    Attributes:
        hd95: larger of the two directed 95th percentiles of the distance, physical units.
        assd: mean distance over the outline pixels of both, physical units.
        within: outline pixels (of both) no farther than the tolerance from the other outline.
        outline: outline pixels of both.
        missed: the class is in the truth and not in the prediction.
        false: the class is in the prediction and not in the truth.
    """

    hd95: float
    assd: float
    within: int
    outline: int
    missed: bool = False
    false: bool = False

    @property
    def nsd(self) -> float:
        """Normalised surface Dice, 0..1: the share of both outlines that lies within the tolerance."""
        return self.within / self.outline


def image_diagonal(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """Return the length of the image's diagonal in physical units: what a missed class costs."""
    return math.sqrt(sum((size * step) ** 2 for size, step in zip(shape, spacing, strict=True)))


def outline(mask: Mask) -> Mask:
    """Return the pixels of `mask` that share a face with a pixel outside it, or lie at the image's edge."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        inside[after] &= mask[before]
        inside[before] &= mask[after]
        for end in (0, -1):
            inside[(slice(None),) * axis + (end,)] = False
    return np.asarray(mask & ~inside)


def surface_scores(
    truth: Mask,
    predicted: Mask,
    spacing: tuple[float, ...],
    *,
    tolerance: float | None = None,
) -> SurfaceScores | None:
    """Compare the outlines of one class in one image.

    Outlines are pixels (`outline`), distances run between pixel centres. When only one of the masks is empty
    the class was missed (or invented): `hd95` and `assd` are then the image's diagonal and `nsd` is 0, never
    left out.

    Args:
        truth: the true mask; leave pixels to ignore out of both.
        predicted: the predicted mask, of the same shape.
        spacing: size of a pixel along each axis, above 0.
        tolerance: for `nsd`, physical units; None means `default_tolerance(spacing)`.

    Returns:
        None when both masks are empty: there is nothing to measure.

    Raises:
        ValueError: shapes differ, or the spacing does not fit them.

    Source:
        Definitions as in MONAI (HausdorffDistanceMetric with percentile 95, SurfaceDistanceMetric symmetric,
        SurfaceDiceMetric without subvoxels), which gives NaN where we give the diagonal.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"masks must have the same shape, got {truth.shape} and {predicted.shape}")
    if len(spacing) != truth.ndim or not all(step > 0 and math.isfinite(step) for step in spacing):
        raise ValueError(f"spacing must be {truth.ndim} numbers above 0, got {spacing}")
    limit = default_tolerance(spacing) if tolerance is None else tolerance
    box = bounding_box(truth | predicted)
    if any(part.stop == part.start for part in box):
        return None
    true_outline, predicted_outline = outline(truth[box]), outline(predicted[box])
    true_count, predicted_count = int(true_outline.sum()), int(predicted_outline.sum())
    if not true_count or not predicted_count:
        cost = image_diagonal(truth.shape, spacing)
        return SurfaceScores(
            cost, cost, 0, true_count + predicted_count, missed=not predicted_count, false=not true_count
        )
    there = _distances(true_outline, predicted_outline, spacing)
    back = _distances(predicted_outline, true_outline, spacing)
    both = np.concatenate([there, back])
    return SurfaceScores(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(both.mean()),
        within=int((both <= limit).sum()),
        outline=true_count + predicted_count,
    )


def default_tolerance(spacing: tuple[float, ...]) -> float:
    """Return the tolerance of `nsd` when none is given: one step along the finest axis, physical units."""
    return float(min(spacing))


def _distances(start: Mask, goal: Mask, spacing: tuple[float, ...]) -> Float[np.ndarray, " pixels"]:
    """From every pixel of `start` to the nearest pixel of `goal`."""
    points, targets = int(start.sum()), int(goal.sum())
    if start.ndim == 2 and spacing[0] == spacing[1]:
        import cv2

        away = cv2.distanceTransform((~goal).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[start]
        if away.max() < _LARGEST_EXACT:
            # its last bit is another one from call to call, and squares of distances between pixels are whole
            return np.asarray(np.sqrt(np.rint(np.square(away, dtype=np.float64))) * spacing[0])
    if start.size < 8 * (points + targets):
        return np.asarray(ndimage.distance_transform_edt(~goal, sampling=spacing)[start], dtype=np.float64)
    distances = np.zeros(points)
    apart = ~goal[start]
    if apart.any():
        tree = cKDTree(np.argwhere(goal) * np.asarray(spacing))
        distances[apart] = tree.query(np.argwhere(start)[apart] * np.asarray(spacing))[0]
    return distances
