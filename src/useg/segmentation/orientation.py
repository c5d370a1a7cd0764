"""Which axes of label maps have a direction: sky above road, one organ always left of another."""

from collections.abc import Sequence

import numpy as np

from useg.arrays import IGNORE, Labels

_LEAST_IMAGES = 5
_FAR = 0.2
_SURE = 4.0


def directed_axes(labels: Sequence[Labels], num_classes: int) -> tuple[bool, ...]:
    """Whether some class lies mostly in one half of the images, along each axis of space.

    For each class, its share of pixels in the first half is taken per image that has it. The axis has a
    direction when the mean of a class's shares is more than 0.2 away from one half, by more than 4 standard
    errors, over at least 5 images. Flipping such an axis, or turning by 180 degrees, would show a network what
    never occurs.

    Args:
        labels: label maps, all with as many axes; sizes may differ.
        num_classes: classes including background.

    Returns:
        One truth value an axis; all False for fewer than 5 label maps.
    """
    axes = labels[0].ndim if labels else 0
    return tuple(
        any(
            _one_sided(np.array([_first_half(one, index, axis) for one in labels if (one == index).any()]))
            for index in range(num_classes)
        )
        for axis in range(axes)
    )


def _first_half(labels: Labels, index: int, axis: int) -> float:
    """The share of a class's pixels that lie in the first half of an axis, relative to the annotated pixels there."""
    others = tuple(other for other in range(labels.ndim) if other != axis)
    along = (labels == index).sum(axis=others)
    known = np.maximum((labels != IGNORE).sum(axis=others), 1)
    density = along / known
    half = len(density) // 2
    first, second = density[:half].sum(), density[len(density) - half :].sum()
    return float(first / (first + second)) if first + second else 0.5


def _one_sided(shares: np.ndarray) -> bool:
    if len(shares) < _LEAST_IMAGES:
        return False
    distance = abs(float(shares.mean()) - 0.5)
    error = float(shares.std(ddof=1)) / len(shares) ** 0.5
    return distance > _FAR and distance > _SURE * error
