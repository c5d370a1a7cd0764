"""Sizes and tile positions of a U-Net, against the network of 2015 and against naive recursion."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.errors import ConfigError
from useg.segmentation.geometry import (
    Geometry,
    axis_tiles,
    margin_px,
    mirror_index,
    output_size,
    per_axis,
    valid_input_sizes,
)


def walk(size: int, strides: tuple[int, ...]) -> int | None:
    """Length after two valid 3-wide convolutions a level; None where the network would fail."""
    if not strides:
        return size - 4 if size > 4 else None
    down = size - 4
    if down <= 0 or down % strides[0]:
        return None
    inner = walk(down // strides[0], strides[1:])
    if inner is None or inner * strides[0] <= 4:
        return None
    return inner * strides[0] - 4


def test_the_network_of_2015():
    assert output_size(572, 4, valid=True) == 388
    assert margin_px(4, valid=True) == 92
    assert valid_input_sizes(4, 4) == [188, 204, 220, 236]
    assert Geometry.halving(4, valid=True).output_size(188) == 4


@given(st.integers(1, 400), st.lists(st.sampled_from([1, 2]), max_size=5))
def test_sizes_are_those_of_the_recursion(size, strides):
    geometry = Geometry(tuple(strides), valid=True)
    expected = walk(size, tuple(strides))
    assert geometry.accepts(size) == (expected is not None)
    if expected is not None:
        assert geometry.output_size(size) == expected == size - 2 * geometry.margin_px


@given(st.integers(1, 300), st.lists(st.sampled_from([1, 2]), max_size=5), st.booleans())
def test_input_size_is_the_least_that_gives_the_output(output, strides, valid):
    geometry = Geometry(tuple(strides), valid)
    size = geometry.input_size(output)
    assert geometry.output_size(size) >= output
    smaller = size - geometry.factor
    assert not geometry.accepts(smaller) or geometry.output_size(smaller) < output


def test_a_size_the_network_cannot_take_names_the_next_that_it_can():
    with pytest.raises(ConfigError, match=r"188 \+ 16k pixels, not 500; the nearest larger one is 508"):
        output_size(500, 4, valid=True)
    with pytest.raises(ConfigError, match="even loss per block"):
        Geometry((2,), valid=True, loss_px=3)


@given(st.integers(1, 40), st.integers(-100, 100), st.integers(0, 120))
def test_mirror_is_numpys_reflection(size, start, length):
    index = mirror_index(start, start + length, size)
    padded = np.pad(np.arange(size), (200, 300), mode="reflect" if size > 1 else "edge")
    assert np.array_equal(index, padded[200 + start : 200 + start + length])


@given(st.integers(1, 2000), st.integers(0, 20), st.integers(0, 4))
def test_exact_tiles_cover_each_pixel_once_at_multiples_of_the_factor(size, larger, depth):
    geometry = Geometry.halving(depth, valid=True)
    tiles = axis_tiles(size, geometry.input_size(geometry.factor) + larger * geometry.factor, geometry)
    assert tiles.starts[0] == 0
    assert tiles.ends[-1] >= size
    assert all(start % geometry.factor == 0 for start in tiles.starts)
    assert all(end == following for end, following in zip(tiles.ends, tiles.starts[1:], strict=False))
    lengths = np.subtract(tiles.ends, tiles.starts)
    assert lengths.min() > 0
    assert lengths.max() <= tiles.output_px
    assert tiles.starts[-1] < size
    assert len(tiles.source(0)) == tiles.input_px == tiles.output_px + 2 * tiles.margin_px


@given(st.integers(1, 2000), st.integers(1, 20), st.integers(0, 4), st.floats(0, 0.9), st.integers(0, 40))
def test_blended_tiles_overlap_as_asked(size, tile, depth, overlap, edge):
    geometry = Geometry.halving(depth, valid=False)
    tiles = axis_tiles(size, tile * geometry.factor, geometry, overlap=overlap, edge_px=edge)
    assert tiles.starts[0] <= -edge
    assert tiles.ends[-1] >= size + edge
    assert geometry.accepts(tiles.input_px)
    least = int(tiles.input_px * overlap)
    for first, second in pairwise(tiles.starts):
        assert (second - first) % geometry.factor == 0
        assert second - first > 0
        assert first + tiles.input_px - second >= min(least, tiles.input_px - geometry.factor)


def test_impossible_tiles_are_refused():
    with pytest.raises(ConfigError, match="overlap of tiles must be between"):
        axis_tiles(100, 64, Geometry.halving(4, valid=False), overlap=0.95)
    with pytest.raises(ConfigError, match="takes inputs of 16"):
        axis_tiles(100, 50, Geometry.halving(4, valid=False))
    with pytest.raises(ConfigError, match="take 204 or more"):
        axis_tiles(100, 188, Geometry.halving(4, valid=True))
    with pytest.raises(ConfigError, match="3 axes need 3 geometries"):
        per_axis([Geometry.halving(2, valid=False)] * 2, 3)
