"""Objects cut by a block's edge come out as one; block by block equals all at once for components."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from useg.errors import ConfigError
from useg.segmentation.blocks import Joins, block_cuts, label_blocks
from useg.segmentation.instances import SeparationParameters, separate


def components(outputs: np.ndarray) -> np.ndarray:
    return ndimage.label(outputs[0] > 0.5)[0].astype(np.int32)


def by_blocks(
    outputs, separation, *, block=16, overlap=6, rows=5, agreement=0.0, min_size=0, min_score=0.0
) -> np.ndarray:
    joins = Joins(agreement)
    bands = ((row, outputs[:, row : row + rows]) for row in range(0, outputs.shape[1], rows))
    labelled = label_blocks(bands, outputs.shape[1:], separation, joins, block_px=block, overlap_px=overlap)
    pieces = []
    for first, part in labelled:
        assert first == sum(len(piece) for piece in pieces)
        pieces.append(part)
    return joins.lookup(min_size, min_score)[np.concatenate(pieces)]


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1]


@settings(max_examples=40)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 50), min_size=2, max_size=3),
    st.integers(9, 20),
    st.integers(2, 8),
    st.integers(1, 60),
)
def test_components_by_blocks_are_the_components(seed, space, block, overlap, rows):
    space = tuple(space) if len(space) == 2 else tuple(min(n, 25) for n in space)
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(space), 1.5)
    outputs = (noise > 0.03)[None].astype(np.float32)
    result = by_blocks(outputs, components, block=block, overlap=overlap, rows=rows)
    assert same_partition(result, components(outputs))


def test_an_object_that_closes_only_in_another_block_is_one():
    u_shape = np.zeros((1, 60, 40), np.float32)
    u_shape[0, 2:58, 5:9] = u_shape[0, 2:58, 30:34] = u_shape[0, 54:58, 5:34] = 1
    result = by_blocks(u_shape, components, agreement=0.5)
    assert result.max() == 1
    assert np.array_equal(result > 0, u_shape[0] > 0)


def discs(rng: np.random.Generator, size: int, count: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Touching discs, and what a network with a distance channel would give for them."""
    truth = np.zeros((size, size), np.int32)
    distance = np.zeros((size, size), np.float32)
    y, x = np.mgrid[:size, :size]
    for number in range(1, count + 1):
        cy, cx = rng.uniform(0, size, 2)
        depth = 1 - np.hypot(y - cy, x - cx) / radius
        inside = (depth > 0) & (depth > distance)
        truth[inside], distance[inside] = number, depth[inside]
    mask = (truth > 0).astype(np.float32)
    return truth, np.stack([1 - mask, mask, distance])


def test_touching_objects_stay_apart_and_whole_across_seams():
    rng = np.random.default_rng(3)
    _, outputs = discs(rng, 300, 220, 12)
    parameters = SeparationParameters(seed_threshold=0.6)

    def separation(part: np.ndarray) -> np.ndarray:
        return separate(part, 2, "distance", parameters=parameters)

    at_once = separation(outputs)
    result = by_blocks(outputs, separation, block=96, overlap=40, rows=50, agreement=0.5, min_size=4)
    assert at_once.max() > 100
    assert abs(int(result.max()) - int(at_once.max())) <= 2
    pairs, counts = np.unique(np.stack([result.ravel(), at_once.ravel()]), axis=1, return_counts=True)
    agreeing = sum(counts[pairs[1] == number].max() for number in np.unique(pairs[1]))
    assert agreeing > 0.995 * result.size


def test_small_objects_are_judged_by_all_their_pixels():
    outputs = np.zeros((1, 40, 20), np.float32)
    outputs[0, 4:36, 3] = 1
    outputs[0, 2, 10:14] = 1
    assert by_blocks(outputs, components, min_size=30).max() == 1
    assert by_blocks(outputs, components, min_size=33).max() == 0
    assert by_blocks(outputs, components, min_size=4).max() == 2
    assert by_blocks(np.zeros((1, 40, 20), np.float32), components).max() == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(9, 20), st.integers(1, 60), st.floats(0.5, 0.9))
def test_faint_objects_are_judged_by_all_their_pixels(seed, block, rows, least):
    foreground = np.random.default_rng(seed).random((50, 40), dtype=np.float32)
    foreground = (foreground + 4 * ndimage.gaussian_filter(foreground, 4)) / 5
    outputs = np.stack([1 - foreground, foreground]).astype(np.float32)
    parameters = SeparationParameters(mask_threshold=0.45, min_size_px=0, min_score=least)
    at_once = separate(outputs, 2, "none", parameters=parameters)
    every = replace(parameters, min_score=0.0)
    found = by_blocks(
        outputs, lambda part: separate(part, 2, "none", parameters=every), block=block, rows=rows, min_score=least
    )
    assert same_partition(found, at_once)


def test_ids_are_in_order_of_appearance():
    outputs = np.zeros((1, 64, 8), np.float32)
    outputs[0, ::8] = 1
    result = by_blocks(outputs, components)
    assert result[::8, 0].tolist() == list(range(1, 9))


def test_cuts_cover_and_overlap():
    cuts = block_cuts(100, 30, 10)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == 100
    assert all(before[1] - after[0] >= 10 for before, after in pairwise(cuts))
    assert block_cuts(30, 30, 10) == [(0, 30)]
    with pytest.raises(ConfigError, match="cannot overlap by 30"):
        block_cuts(100, 30, 30)
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        Joins(1.0)
