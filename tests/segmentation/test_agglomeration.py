"""Regions are joined weakest contact first, as by a slow twin that looks at all contacts after every join."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from useg.segmentation.agglomeration import Agglomeration, contacts
from useg.segmentation.flooding import compact


def joined_slowly(regions: np.ndarray, line: np.ndarray, threshold: float) -> np.ndarray:
    regions = regions.copy()
    while True:
        found = contacts(regions, line)
        if not found.length.size:
            return regions
        means = found.strength / found.length
        weakest = int(means.argmin())
        if means[weakest] >= threshold:
            return regions
        kept, gone = found.pairs[weakest]
        regions[regions == gone] = kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(9, 11), (4, 5, 6)]), st.floats(0.1, 0.9))
def test_equals_the_slow_twin(seed: int, space: tuple[int, ...], threshold: float) -> None:
    draw = np.random.default_rng(seed)
    regions = draw.integers(0, 12, space).astype(np.int32)
    line = draw.random(space)
    fast = Agglomeration(regions, line).below(threshold)
    assert np.array_equal(compact(fast)[0], compact(joined_slowly(regions, line, threshold))[0])


def test_rising_thresholds_give_what_each_gives_alone() -> None:
    draw = np.random.default_rng(0)
    regions, line = draw.integers(1, 40, (30, 30)).astype(np.int32), draw.random((30, 30))
    steps = Agglomeration(regions, line)
    for threshold in (0.0, 0.3, 0.6, 0.62, 0.7, 1.1):
        alone = Agglomeration(regions, line).below(threshold)
        assert np.array_equal(steps.below(threshold), alone)
    assert np.array_equal(Agglomeration(regions, line).below(0.0), regions)
    assert np.unique(alone).tolist() == [1]


def test_contacts_are_counted_once_and_by_the_stronger_pixel() -> None:
    regions = np.array([[1, 1, 2], [1, 3, 2], [0, 3, 3]], dtype=np.int32)
    line = np.array([[0.1, 0.2, 0.5], [0.3, 0.6, 0.4], [1.0, 0.0, 0.1]])
    found = contacts(regions, line)
    assert found.pairs.tolist() == [[1, 2], [1, 3], [2, 3]]
    assert found.length.tolist() == [1, 2, 2]
    assert found.strength == pytest.approx([0.5, 1.2, 1.0])


def test_nothing_touches_nothing() -> None:
    empty = np.zeros((4, 4), dtype=np.int32)
    assert Agglomeration(empty, np.ones((4, 4))).below(2.0).tolist() == empty.tolist()
