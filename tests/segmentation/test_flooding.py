"""Flooding equals the plain watershed; compacting loses no object."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import watershed

from useg.segmentation.flooding import bounding_box, compact, components, flood, touching


def landscape(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    height = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return (height - height.min()) / np.ptp(height)


@pytest.mark.parametrize("shape", [(40, 61), (12, 20, 17)])
@pytest.mark.parametrize("seed", range(4))
def test_flood_is_the_plain_watershed(seed: int, shape: tuple[int, ...]) -> None:
    height = landscape(seed, shape)
    mask = height < 0.6
    markers = components(height < 0.4)
    expected = watershed(height, markers * mask, mask=mask)
    assert np.array_equal(flood(height, markers, mask), expected)
    assert expected.max() > 2
    everywhere = np.ones(shape, dtype=bool)
    assert np.array_equal(flood(height, markers, everywhere), watershed(height, markers))


def test_flood_without_markers_or_without_room() -> None:
    height = landscape(0, (10, 10))
    nothing = np.zeros((10, 10), dtype=np.int32)
    everywhere = np.ones((10, 10), dtype=bool)
    assert not flood(height, nothing, everywhere).any()
    full = np.full((10, 10), 3, dtype=np.int32)
    assert np.array_equal(flood(height, full, everywhere), full)
    assert not flood(height, full, ~everywhere).any()


def test_components_join_by_faces_only() -> None:
    assert components(np.array([[1, 0], [0, 1]], dtype=bool)).tolist() == [[1, 0], [0, 2]]


def test_touching_pixels_share_a_face() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 1] = mask[1, 2] = True
    assert touching(mask).astype(int).tolist() == [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0]]


def test_bounding_box() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    assert mask[bounding_box(mask)].size == 0
    mask[1, 2] = mask[3, 4] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 5))


@pytest.mark.parametrize("big", [0, 10**9])
def test_compact_keeps_the_order_of_ids(big: int) -> None:
    labels = np.array([[0, 7, 7], [big + 90, 0, 12]], dtype=np.int32)
    renumbered, ids = compact(labels)
    assert renumbered.tolist() == [[0, 1, 1], [3, 0, 2]]
    assert ids.tolist() == [7, 12, big + 90]
    assert compact(labels[:, 1:2])[1].tolist() == [7]
    assert compact(np.zeros((0,), dtype=np.int32))[1].size == 0


@pytest.mark.parametrize("big", [0, 10**9])
def test_compact_without_background(big: int) -> None:
    renumbered, ids = compact(np.array([5, big + 6], dtype=np.int32))
    assert renumbered.tolist() == [1, 2]
    assert ids.tolist() == [5, big + 6]


def test_compact_refuses_negative_ids() -> None:
    with pytest.raises(ValueError, match=r"must be 0 .background. or more, got -1"):
        compact(np.array([-1, 2], dtype=np.int32))
