"""Objects of one label map: how many, how large, and how wide the gaps between neighbours are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from useg.arrays import IGNORE, Instances, Labels
from useg.data.forms import count_values

SPECK_PX = 4
"""Connected pieces smaller than this are no objects (objects that labels tell apart always are)."""


@dataclass(frozen=True)
class Objects:
    """Sizes and gaps of the objects of one map.

    Attributes:
        sizes: pixels of each object.
        extents: longest box edge of each object, in pixels.
        gaps: for each pair of neighbours of one class, the pixels between them; 0 where they touch.
    """

    sizes: np.ndarray
    extents: np.ndarray
    gaps: np.ndarray


def measure_objects(classes: Labels, instances: Instances | None) -> Objects:
    """Measure the objects of one map; without an instance map, connected pieces of equal class.

    Args:
        classes: class ids; 0 is background.
        instances: object ids, or None.
    """
    owner = _components(classes) if instances is None else _without_gaps(instances)
    number = int(owner.max(initial=0))
    if not number:
        return Objects(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    sizes = np.bincount(owner.ravel(), minlength=number + 1)[1:]
    class_of = np.zeros(number + 1, np.uint8)
    class_of[owner.ravel()] = np.where(classes == IGNORE, 1, classes).ravel()
    return Objects(sizes, _extents(owner, number), _gaps(owner, class_of))


def _components(classes: np.ndarray) -> np.ndarray:
    from skimage.measure import label

    known = np.where(classes == IGNORE, 0, classes)
    marked = label(known, background=0, connectivity=classes.ndim)
    kept = np.bincount(marked.ravel()) >= SPECK_PX
    kept[0] = False
    numbers: np.ndarray = (np.cumsum(kept) * kept).astype(np.int32)
    owner: np.ndarray = numbers[marked]
    return owner


def _without_gaps(instances: np.ndarray) -> np.ndarray:
    values, _ = count_values(instances)
    values = values[values > 0]
    if values.size and int(values[-1]) < 1 << 24:
        numbers = np.zeros(int(values[-1]) + 1, np.int32)
        numbers[values] = np.arange(1, len(values) + 1)
        owner: np.ndarray = numbers[instances]
        return owner
    found: np.ndarray = np.searchsorted(values, instances) + 1
    return np.where(instances > 0, found, 0).astype(np.int32)


def _extents(owner: Integer[np.ndarray, "*space"], number: int) -> np.ndarray:
    from scipy.ndimage import find_objects

    boxes = find_objects(owner, max_label=number)
    return np.array([max(s.stop - s.start for s in box) for box in boxes if box is not None], np.int64)


def nearest_objects(owner: Integer[np.ndarray, "*space"]) -> np.ndarray:
    """Flat index of the object pixel nearest to each pixel (2D: by a 5 x 5 chamfer distance)."""
    if owner.ndim == 2:
        import cv2

        _, place = cv2.distanceTransformWithLabels(
            (owner == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        on = np.flatnonzero(owner)
        table = np.zeros(int(place.max()) + 1, np.int64)
        table[place.ravel()[on]] = on
        found: np.ndarray = table[place]
        return found
    from scipy.ndimage import distance_transform_edt

    where = distance_transform_edt(owner == 0, return_distances=False, return_indices=True)
    place_in_flat: np.ndarray = np.ravel_multi_index(tuple(where), owner.shape)
    return place_in_flat


def _gaps(owner: np.ndarray, class_of: np.ndarray) -> np.ndarray:
    """Smallest gap of each pair of neighbours: objects whose zones of nearest pixels meet."""
    if int(owner.max()) < 2:
        return np.zeros(0)
    nearest = nearest_objects(owner)
    zone = owner.reshape(-1)[nearest]
    lows, highs, widths = [], [], []
    for axis in range(owner.ndim):
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(owner.ndim))
        after = tuple(slice(1, None) if a == axis else slice(None) for a in range(owner.ndim))
        meets = (zone[before] != zone[after]) & (class_of[zone[before]] == class_of[zone[after]])
        first, second = nearest[before][meets], nearest[after][meets]
        a, b = owner.reshape(-1)[first], owner.reshape(-1)[second]
        lows.append(np.minimum(a, b))
        highs.append(np.maximum(a, b))
        p = np.array(np.unravel_index(first, owner.shape), np.float64)
        q = np.array(np.unravel_index(second, owner.shape), np.float64)
        widths.append(np.sqrt(((p - q) ** 2).sum(0)) - 1.0)
    low, high, width = np.concatenate(lows), np.concatenate(highs), np.concatenate(widths)
    if not low.size:
        return np.zeros(0)
    pair = low.astype(np.int64) * (int(owner.max()) + 1) + high
    _, at = np.unique(pair, return_inverse=True)
    smallest = np.full(int(at.max()) + 1, np.inf)
    np.minimum.at(smallest, at, width)
    return np.where(smallest < 0.5, 0.0, smallest)
