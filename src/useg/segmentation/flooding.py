"""Components, and watershed from markers that visits only the pixels still to be decided."""

import numpy as np
from jaxtyping import Bool, Num
from scipy import ndimage
from skimage.segmentation import watershed

from useg.arrays import AnyLabels, Instances

Mask = Bool[np.ndarray, "*space"]
Height = Num[np.ndarray, "*space"]


def components(mask: Mask) -> Instances:
    """Number the face-connected components of a mask from 1 in raster order (int32, 0 outside)."""
    found = np.empty(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=found)
    return found


def touching(mask: Mask) -> Mask:
    """Return the pixels, in or outside `mask`, that share a face with a pixel of `mask`."""
    found = np.zeros_like(mask)
    for axis in range(mask.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        found[after] |= mask[before]
        found[before] |= mask[after]
    return found


def flood(height: Height, markers: Instances, mask: Mask) -> Instances:
    """Grow markers over `mask`, lowest `height` first, until they meet (no line is left between them).

    Equal to `skimage.segmentation.watershed(height, markers * mask, mask=mask)`, but the inside of markers,
    where nothing is left to decide, never enters the queue: 2 to 4 times faster on usual pictures.

    Args:
        height: what the water climbs; small inside objects.
        markers: seeds, int32, 0 where undecided. Seeds outside `mask` are dropped.
        mask: where regions may grow. Parts of it that hold no marker stay 0.

    Returns:
        int32 map with the ids of `markers`.

    Source:
        Beucher and Meyer 1993, priority flood.
    """
    kept = np.where(mask, markers, np.int32(0)).astype(np.int32, copy=False)
    undecided = mask & (kept == 0)
    if not undecided.any() or not kept.any():
        return kept
    front = touching(undecided) & (kept > 0)
    seeds = np.where(front, kept, np.int32(0))
    box = bounding_box(undecided | front)
    grown = watershed(height[box], seeds[box], mask=(undecided | front)[box])
    result = kept.copy()
    result[box] = np.where(kept[box] > 0, kept[box], grown)
    return result


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box around the true pixels of `mask`; empty slices when there are none."""
    slices = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        slices.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
    return tuple(slices)


def compact(labels: AnyLabels) -> tuple[Instances, np.ndarray]:
    """Renumber ids to 1..n without gaps, in their order; 0 stays 0.

    Returns:
        The renumbered map (int32), and the old ids: `ids[k - 1]` is the old id of the new id k.

    Raises:
        ValueError: an id is negative.
    """
    if labels.size == 0:
        return labels.astype(np.int32), np.zeros(0, dtype=np.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise ValueError(f"object ids must be 0 (background) or more, got {low}")
    if high <= 4 * labels.size + 65536:
        present = np.zeros(high + 1, dtype=bool)
        present[labels.reshape(-1)] = True
        present[0] = False
        ids = np.flatnonzero(present)
        lookup = np.zeros(high + 1, dtype=np.int32)
        lookup[ids] = np.arange(1, ids.size + 1, dtype=np.int32)
        return lookup[labels], ids
    ids, inverse = np.unique(labels, return_inverse=True)
    offset = 0 if ids[0] == 0 else 1
    return (inverse.reshape(labels.shape) + offset).astype(np.int32), ids[1 - offset :].astype(np.int64)
