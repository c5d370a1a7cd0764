import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from useg.arrays import IGNORE
from useg.data.objects import measure_objects


def smallest_gaps(instances):
    """Slow twin: for every pair of objects the smallest distance of their pixels, less one."""
    gaps = {}
    ids = [i for i in np.unique(instances) if i]
    for a in ids:
        for b in ids:
            if a < b:
                p, q = np.argwhere(instances == a), np.argwhere(instances == b)
                gaps[(a, b)] = np.sqrt(((p[:, None] - q[None]) ** 2).sum(-1)).min() - 1
    return gaps


def two_squares(gap, shape=(40, 60)):
    instances = np.zeros(shape, np.int32)
    instances[10:20, 5:15] = 3
    instances[10:20, 15 + gap : 25 + gap] = 7
    return instances


@pytest.mark.parametrize("gap", [0, 1, 2, 5, 20])
def test_sizes_extents_and_the_gap_of_two_squares(gap):
    instances = two_squares(gap)
    found = measure_objects((instances > 0).astype(np.uint8), instances)
    assert found.sizes.tolist() == [100, 100]
    assert found.extents.tolist() == [10, 10]
    assert found.gaps.tolist() == [gap]


@pytest.mark.parametrize("gap", [1, 4])
def test_volumes(gap):
    instances = np.zeros((12, 12, 30), np.int32)
    instances[3:9, 3:9, 2:8] = 1
    instances[3:9, 3:9, 8 + gap : 14 + gap] = 2
    found = measure_objects((instances > 0).astype(np.uint8), instances)
    assert found.gaps.tolist() == [gap]
    assert found.sizes.tolist() == [216, 216]


@settings(max_examples=30)
@given(hnp.arrays(np.int32, (9, 11), elements={"min_value": 0, "max_value": 30}))
def test_gaps_are_about_the_smallest_distances(noise):
    instances = np.where(noise <= 4, noise, 0).astype(np.int32)
    found = measure_objects((instances > 0).astype(np.uint8), instances)
    wanted = smallest_gaps(instances)
    assert len(found.gaps) <= len(wanted)
    # Every neighbour's gap is the smallest distance, up to the chamfer distance's choice of nearest pixel.
    if len(found.gaps):
        assert found.gaps.min() == pytest.approx(min(max(v, 0) for v in wanted.values()), abs=0.5)
        assert found.gaps.max() <= max(wanted.values()) + 1.5


def test_components_of_one_class_are_objects_and_specks_are_not():
    classes = np.zeros((30, 40), np.uint8)
    classes[2:8, 2:8] = 1
    classes[2:8, 10:16] = 1
    classes[20:26, 2:8] = 2
    classes[29, 39] = 1
    classes[15, :] = IGNORE
    found = measure_objects(classes, None)
    assert sorted(found.sizes.tolist()) == [36, 36, 36]
    assert found.gaps.tolist() == [2.0]


def test_nothing_there():
    found = measure_objects(np.zeros((5, 5), np.uint8), None)
    assert found.sizes.size == found.gaps.size == found.extents.size == 0
    one = measure_objects(np.ones((5, 5), np.uint8), None)
    assert one.sizes.tolist() == [25]
    assert one.gaps.size == 0
