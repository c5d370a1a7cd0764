"""Weight maps for the loss: class balance, and the border term that keeps touching objects apart.

Both published border formulas need each pixel's distances to the nearest and to the second nearest object
(`two_nearest`).
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np

from useg.arrays import IGNORE, Instances, Labels, Weights
from useg.errors import InputError
from useg.segmentation.two_nearest import Squares, two_nearest

Border = Literal["none", "2015", "2019"]
_NEGLECTED = 5e-4
_NO_OBJECT = (1 << 16) - 1


def border_weights_2015(
    instances: Instances, *, w0: float = 10.0, sigma_px: float = 5.0, sampling: Sequence[float] | None = None
) -> Weights:
    """The border term of 2015: w0 exp(-(d1 + d2)^2 / (2 sigma^2)), without the class weight.

    d1 and d2 are a pixel's distances to the nearest pixel of the nearest and of the second nearest object. The term
    stands on background pixels, as in the paper, and also on the rims where two objects touch with no background
    between them: on the pixels of either that have a pixel of the other among their 8 (26) neighbours, with d1 = 0.
    It is 0 elsewhere, where fewer than two objects are near, and where it is less than w0 / 2000.

    Args:
        instances: object ids; 0 (or less) is background.
        w0: height; sigma_px: width, in pixels of the last axis.
        sampling: size of a pixel along each axis in pixels of the last axis; None for equal sizes.

    Raises:
        InputError: w0 or sigma_px or sampling is out of range.

    Source: Ronneberger, Fischer, Brox 2015, eq. 2. The paper leaves touching objects to a gap drawn beforehand.
    """
    steps = _steps(instances, sampling, w0, sigma_px)
    found = instances[instances > 0]
    if not len(found) or (found == found[0]).all():
        return np.zeros(instances.shape, dtype=np.float32)
    radius = sigma_px * math.sqrt(-2 * math.log(_NEGLECTED))
    squares = two_nearest(instances, radius, steps, near=radius / 2)
    weights = _border_term(squares, w0, sigma_px, radius)
    weights[(instances > 0) & ~_touching(instances, earlier=False)] = 0.0
    return weights


def border_weights_2019(
    instances: Instances,
    *,
    w0: float = 50.0,
    sigma_px: float = 6.0,
    ratio: float = 0.1,
    decay_px: float = 10.0,
    sampling: Sequence[float] | None = None,
) -> Weights:
    """The whole weight of 2019, class balance included: foreground 1, background by its distance to objects.

    Background: ratio + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) + (1 - ratio) exp(-d1^2 / (2 decay^2)), after a gap was
    opened between touching objects (`open_gaps`; train on labels with the same gap). Where no object is
    near it is `ratio`; terms less than 1/2000 of their height are left out.

    Args:
        instances: object ids; 0 (or less) is background. All objects count alike, whatever their class;
            the original sums one map a class.
        w0, sigma_px: height and width of the border term.
        ratio: weight of background far from everything; 0 to 1.
        decay_px: width of the belt of background weighted nearly like foreground.
        sampling: size of a pixel along each axis in pixels of the last axis; None for equal sizes.

    Raises:
        InputError: a number is out of range.

    Source: Falk et al. 2019 and the formula of its Fiji plug-in.
    """
    steps = _steps(instances, sampling, w0, sigma_px)
    if not (0 <= ratio <= 1 and decay_px > 0):
        raise InputError(f"border weights: ratio {ratio}, decay {decay_px} px; wanted 0 to 1, and above 0")
    gapped = open_gaps(instances)
    cut = math.sqrt(-2 * math.log(_NEGLECTED))
    squares = two_nearest(gapped, sigma_px * cut, steps)
    weights = _border_term(squares, w0, sigma_px, sigma_px * cut)
    weights += np.float32(ratio)
    if decay_px > sigma_px:
        squares = two_nearest(gapped, decay_px * cut, steps, only_first=True)
    belt, close = squares.within(squares.nearest, decay_px * cut)
    weights.reshape(-1)[belt] += np.float32(1 - ratio) * np.exp(close * close * np.float32(-0.5 / decay_px**2))
    weights[gapped > 0] = 1.0
    return weights


def open_gaps(instances: Instances) -> Instances:
    """Turn into background each object pixel that has an earlier neighbour in another object.

    Earlier: among the 4 of 8 (13 of 26) neighbours that come first in memory. Touching objects end up one pixel apart.
    """
    gapped = instances.copy()
    gapped[_touching(instances, earlier=True)] = 0
    return gapped


def class_weights(counts: Sequence[int] | np.ndarray, *, cap: float = 10.0) -> np.ndarray:
    """One weight a class: the inverse square root of its share of pixels, so that rare classes count more.

    The weights are scaled such that the mean over all counted pixels is 1. No weight exceeds `cap` times the smallest.
    A class without pixels has weight 1, as have all where nothing was counted.

    Args:
        counts: pixels of each class, ignored pixels left out.
        cap: largest ratio of two weights; at least 1.

    Returns:
        float32 (classes,).

    Raises:
        InputError: a negative count, no class, or a cap below 1.
    """
    pixels = np.asarray(counts, dtype=np.float64)
    if pixels.ndim != 1 or not len(pixels) or not (pixels >= 0).all() or cap < 1:
        raise InputError(f"class weights: counts {counts!r} and cap {cap}; wanted counts from 0 and a cap from 1")
    weights = np.ones(len(pixels))
    present = pixels > 0
    if present.any():
        shares = pixels[present] / pixels.sum()
        inverse = 1.0 / np.sqrt(shares)
        inverse = np.minimum(inverse, cap * inverse.min())
        weights[present] = inverse / (shares * inverse).sum()
    return weights.astype(np.float32)


def weight_map(
    classes: Labels,
    instances: Instances | None,
    *,
    class_weights: np.ndarray | None = None,
    border: Border = "2015",
    w0: float = 10.0,
    sigma_px: float = 5.0,
    sampling: Sequence[float] | None = None,
) -> Weights:
    """The weight of each pixel in the loss; 0 where the class is IGNORE.

    border "none": the class weight. "2015": class weight + border term. "2019": class weight times the
    weight of 2019 (which has its own balance: give no class weights to have it as published).

    Args:
        classes: label map.
        instances: objects; None: the connected parts of each class other than 0, as the paper does for membranes.
        class_weights: one a class; None for 1 each.
        border, w0, sigma_px, sampling: see `border_weights_2015` and `border_weights_2019`.

    Raises:
        InputError: a class without a weight, sizes that differ, or a number out of range.
    """
    if instances is not None and instances.shape != classes.shape:
        raise InputError(f"weight map: classes of {classes.shape} with instances of {instances.shape}")
    table = np.zeros(256, dtype=np.float32)
    table[:IGNORE] = 1.0
    if class_weights is not None:
        known = len(class_weights)
        table[:known], table[known:IGNORE] = class_weights, np.nan
    weights: np.ndarray = table[classes]
    if class_weights is not None and np.isnan(weights).any():
        found = int(classes[classes != IGNORE].max())
        raise InputError(f"weight map: class {found} in a label map, but weights for {known} classes only")
    if border == "none":
        return weights
    objects = components(classes) if instances is None else instances
    if border == "2019":
        weights *= border_weights_2019(objects, w0=w0, sigma_px=sigma_px, sampling=sampling)
    elif border == "2015":
        weights += border_weights_2015(objects, w0=w0, sigma_px=sigma_px, sampling=sampling)
        weights[classes == IGNORE] = 0.0
    else:
        raise InputError(f"weight map: border {border!r}; wanted none, 2015 or 2019")
    return weights


def components(classes: Labels) -> Instances:
    """The connected parts of each class other than 0 and IGNORE, as objects; pixels connect by their sides."""
    from scipy import ndimage

    objects = np.zeros(classes.shape, dtype=np.int32)
    count = 0
    present = np.flatnonzero(np.bincount(classes.ravel(), minlength=256))
    for label in present[(present > 0) & (present != IGNORE)]:
        parts, found = ndimage.label(classes == label)
        objects += np.where(parts > 0, parts + count, 0).astype(np.int32)
        count += found
    return objects


def _steps(instances: Instances, sampling: Sequence[float] | None, w0: float, sigma_px: float) -> tuple[float, ...]:
    steps = (1.0,) * instances.ndim if sampling is None else tuple(float(step) for step in sampling)
    if len(steps) != instances.ndim or min(steps) <= 0 or w0 < 0 or not 0.1 <= sigma_px <= 1000:
        raise InputError(
            f"border weights: w0 {w0}, sigma {sigma_px} px, sampling {sampling} for {instances.ndim} axes; "
            "wanted w0 from 0, sigma from 0.1 to 1000, and one sampling above 0 an axis"
        )
    return steps


def _border_term(squares: Squares, w0: float, sigma_px: float, radius: float) -> np.ndarray:
    weights = np.zeros(squares.nearest.shape, dtype=np.float32)
    # of two whose sum is within the radius, the lesser is within half of it
    close, first = squares.within(squares.nearest, radius / 2)
    second = squares.distances(squares.second.reshape(-1)[close])
    sums = first + second
    is_near = sums <= radius
    sums = sums[is_near]
    weights.reshape(-1)[close[is_near]] = np.float32(w0) * np.exp(sums * sums * np.float32(-0.5 / sigma_px**2))
    return weights


def _touching(instances: Instances, *, earlier: bool) -> np.ndarray:
    """Object pixels with a pixel of another object among their neighbours (or their earlier neighbours only)."""
    objects = np.maximum(instances, 0)
    if instances.ndim == 2 and not earlier and objects.max(initial=0) < _NO_OBJECT:
        return _touching_2d(objects)
    touching = np.zeros(instances.shape, dtype=bool)
    for offset in product((-1, 0, 1), repeat=instances.ndim):
        if offset >= (0,) * instances.ndim:
            break
        steps = list(zip(offset, instances.shape, strict=True))
        here = tuple(slice(max(-step, 0), side + min(-step, 0)) for step, side in steps)
        there = tuple(slice(max(step, 0), side + min(step, 0)) for step, side in steps)
        differ = objects[here] != objects[there]
        differ &= np.minimum(objects[here], objects[there]) > 0
        touching[here] |= differ
        if not earlier:
            touching[there] |= differ
    return touching


def _touching_2d(objects: np.ndarray) -> np.ndarray:
    """Object pixels whose neighbourhood of 3 x 3 has an object of a greater or of a lesser id: five times faster."""
    import cv2

    ids = objects.astype(np.uint16)
    inside, square = ids > 0, np.ones((3, 3), np.uint8)
    others = np.where(inside, ids, np.uint16(_NO_OBJECT))
    differs = cv2.dilate(ids, square) != ids
    differs |= cv2.erode(others, square) != ids
    differs &= inside
    return np.asarray(differs)
