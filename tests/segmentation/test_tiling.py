"""Tiled equals untiled: exactly for valid convolutions, up to rounding for pointwise padded networks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from useg.errors import ConfigError, ResourceError
from useg.segmentation.geometry import AxisTiles, Geometry, axis_tiles, mirror_index
from useg.segmentation.tiling import (
    TilePlan,
    averaged_over_symmetries,
    in_step,
    plan_tiles,
    predict_tiled,
)
from useg.segmentation.unet import UNet

# torch warns of an Intel GPU feature whenever oneDNN is switched
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")

AMPLE = 10**10


class Source:
    """An image that counts how often each row is read."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.reads = np.zeros(image.shape[1], int)
        self.largest = 0

    def __call__(self, window: tuple[slice, ...]) -> np.ndarray:
        self.reads[window[0]] += 1
        part = self.image[(slice(None), *window)]
        self.largest = max(self.largest, part.shape[1])
        return part


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).integers(0, 255, shape, dtype=np.uint8)


def joined(bands) -> np.ndarray:
    bands = list(bands)
    at = 0
    for start, band in bands:
        assert start == at
        at += band.shape[1]
    return np.concatenate([band for _, band in bands], axis=1)


def as_network(module: nn.Module):
    module.eval()

    def network(batch: np.ndarray) -> np.ndarray:
        # oneDNN sums in another order for small tiles than for large ones; the plain kernels do not.
        with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
            return module(torch.from_numpy(batch.astype(np.float32) / 255)).numpy()

    return network


@pytest.fixture(scope="module")
def valid_2d():
    torch.manual_seed(0)
    return as_network(UNet(channels=2, outputs=3, base=4, depth=2, valid=True, batch_norm=False))


@pytest.fixture(scope="module")
def valid_3d():
    torch.manual_seed(0)
    strides = [(1, 2, 2)]
    return as_network(
        UNet(dims=3, channels=1, outputs=2, base=2, depth=1, valid=True, batch_norm=False, strides=strides)
    )


def untiled(picture: np.ndarray, network, geometries) -> np.ndarray:
    """The whole image, mirrored by the margin and up to a valid size, through the network at once."""
    extended = picture
    for axis, (size, one) in enumerate(zip(picture.shape[1:], geometries, strict=True), start=1):
        margin = one.margin_px
        index = mirror_index(-margin, one.input_size(size) - margin, size)
        extended = extended.take(index, axis=axis)
    result = network(extended[None])[0]
    return result[(slice(None), *(slice(0, size) for size in picture.shape[1:]))]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 10), st.integers(1, 3), st.integers(1, 40))
def test_valid_network_tiled_is_untiled_bit_for_bit(valid_2d, height, width, larger, batch, read_rows):
    geometry = Geometry.halving(2, valid=True)
    picture = image(2, height, width)
    source = Source(picture)
    tile = geometry.input_size(4 * larger)
    axes = tuple(axis_tiles(size, tile, geometry) for size in (height, width))
    plan = TilePlan(axes, blended=False, batch=batch, read_rows=read_rows, peak_bytes=0)
    result = joined(predict_tiled(source, (height, width), valid_2d, plan))
    assert np.array_equal(result, untiled(picture, valid_2d, [geometry] * 2))
    assert (source.reads == 1).all()
    assert source.largest <= tile + read_rows


def test_valid_network_in_3d_with_planes_left_alone(valid_3d):
    geometries = (Geometry((1,), valid=True), Geometry((2,), valid=True), Geometry((2,), valid=True))
    volume = image(1, 13, 40, 31)
    plan = plan_tiles(volume.shape[1:], 1, 2, AMPLE, patch=(16, 34, 34), geometry=geometries)
    small = tuple(
        axis_tiles(size, one.input_size(length), one)
        for size, length, one in zip(volume.shape[1:], (5, 14, 20), geometries, strict=True)
    )
    expected = untiled(volume, valid_3d, geometries)
    for axes in (plan.axes, small):
        cut = TilePlan(axes, blended=False, batch=3, read_rows=2, peak_bytes=0)
        assert np.array_equal(joined(predict_tiled(Source(volume), volume.shape[1:], valid_3d, cut)), expected)


def test_offsets_that_are_no_multiples_of_the_factor_do_change_the_result(valid_2d):
    """Why exact tiles step by 2^depth."""
    geometry = Geometry.halving(2, valid=True)
    picture = image(2, 64, 60)
    right = axis_tiles(64, geometry.input_size(20), geometry)
    starts = (0, 19, 38, 57)
    wrong = AxisTiles(64, right.input_px, right.output_px, right.margin_px, starts, (*starts[1:], 77))
    plan = TilePlan((wrong, axis_tiles(60, geometry.input_size(60), geometry)), False, 1, 8, 0)
    result = joined(predict_tiled(Source(picture), (64, 60), valid_2d, plan))
    assert (result != untiled(picture, valid_2d, [geometry] * 2)).mean() > 0.1


def pointwise(batch: np.ndarray) -> np.ndarray:
    """A network that looks at one pixel only."""
    values = batch.astype(np.float32)
    return np.concatenate([np.sin(values), values[:, :1] / 255], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 130),
    st.integers(1, 130),
    st.integers(1, 5),
    st.floats(0, 0.8),
    st.integers(0, 9),
    st.integers(1, 5),
)
def test_pointwise_network_blended_is_untiled(height, width, tile, overlap, edge, batch):
    geometry = Geometry.halving(3, valid=False)
    picture = image(2, height, width)
    axes = tuple(axis_tiles(size, tile * 8, geometry, overlap=overlap, edge_px=edge) for size in (height, width))
    source = Source(picture)
    plan = TilePlan(axes, blended=True, batch=batch, read_rows=16, peak_bytes=0)
    result = joined(predict_tiled(source, (height, width), pointwise, plan))
    np.testing.assert_allclose(result, pointwise(picture[None])[0], atol=1e-6)
    assert (source.reads == 1).all()


def test_pointwise_network_blended_in_3d():
    volume = image(1, 20, 33, 41)
    geometry = Geometry.halving(2, valid=False)
    plan = plan_tiles(volume.shape[1:], 1, 2, AMPLE, patch=(8, 12, 16), geometry=geometry, overlap=0.5)
    assert plan.count == 8
    result = joined(predict_tiled(Source(volume), volume.shape[1:], pointwise, plan))
    np.testing.assert_allclose(result, pointwise(volume[None])[0], atol=1e-6)


def test_padded_network_differs_little_from_untiled_and_nowhere_at_a_seam():
    torch.manual_seed(0)
    network = as_network(UNet(channels=1, outputs=2, base=4, depth=2, batch_norm=False))
    picture = image(1, 192, 192)
    geometry = Geometry.halving(2, valid=False)
    axes = (axis_tiles(192, 96, geometry, overlap=0.6),) * 2
    result = joined(predict_tiled(Source(picture), (192, 192), network, TilePlan(axes, True, 4, 64, peak_bytes=0)))
    expected = network(picture[None])[0]
    assert np.abs(result - expected).max() < 0.02 * expected.std()


def test_bands_are_the_receivers_to_keep():
    picture = image(1, 96, 20)
    geometry = Geometry.halving(2, valid=False)
    plan = TilePlan((axis_tiles(96, 16, geometry, overlap=0.5), axis_tiles(20, 16, geometry)), True, 2, 4, peak_bytes=0)
    kept, copies = [], []
    for _, band in predict_tiled(Source(picture), (96, 20), pointwise, plan):
        kept.append(band)
        copies.append(band.copy())
    assert len(kept) > 5
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_progress_counts_every_tile():
    picture = image(1, 50, 70)
    plan = plan_tiles((50, 70), 1, 2, AMPLE, patch=(16, 16), geometry=Geometry.halving(2, valid=False))
    done = []
    list(predict_tiled(Source(picture), (50, 70), pointwise, plan, advance=done.append))
    assert sum(done) == plan.count > 4


def test_symmetries_leave_a_symmetric_network_alone_and_average_any_other():
    batch = image(2, 1, 12, 8).astype(np.float32)
    for rotations in (False, True):
        np.testing.assert_allclose(
            averaged_over_symmetries(lambda b: b * 2, rotations=rotations)(batch), batch * 2, rtol=1e-6
        )
    seen = []

    def spy(part: np.ndarray) -> np.ndarray:
        seen.append(part[0, 0])
        return np.zeros_like(part) + part[..., :1, :1]

    result = averaged_over_symmetries(spy, rotations=True)(batch)
    assert len({part.tobytes() + bytes(part.shape) for part in seen}) == 8
    corners = batch[..., [0, 0, -1, -1], [0, -1, 0, -1]].mean(-1)
    np.testing.assert_allclose(result[..., 3, 3], corners, rtol=1e-6)
    averaged_over_symmetries(spy, rotations=False)(image(1, 1, 4, 4, 4).astype(np.float32))
    assert len(seen) == 8 + 8
    averaged_over_symmetries(spy, rotations=False, flips=(True, False))(batch)
    assert len(seen) == 8 + 8 + 2
    assert np.array_equal(seen[-1], batch[0, 0, ::-1])


def test_a_limit_makes_plans_smaller_until_it_says_what_is_least():
    geometry = Geometry.halving(4, valid=True)

    def plan(limit: float) -> TilePlan:
        return plan_tiles(
            (20_000, 20_000),
            3,
            2,
            int(limit),
            patch=(572, 572),
            geometry=geometry,
            network_bytes_per_pixel=2000.0,
        )

    previous = plan(1e10)
    assert previous.tile[0] >= 1144
    for limit in (2e9, 1e9, 7e8, 5e8):
        smaller = plan(limit)
        assert smaller.peak_bytes <= limit
        assert smaller.tile <= previous.tile
        previous = smaller
    with pytest.raises(ResourceError, match=r"20000 x 20000 .* limit leaves 1 MB\. Raise it by (\d+) MB") as caught:
        plan(1e6)
    more = int(str(caught.value).split("Raise it by ")[1].split()[0])
    assert plan((more + 2) * 1e6).peak_bytes <= (more + 2) * 1e6
    blended = plan_tiles((999, 999), 1, 2, AMPLE, patch=(256, 256), geometry=Geometry.halving(4, valid=False))
    assert blended.tile == (512, 512)
    gpu = plan_tiles(
        (999, 999),
        1,
        2,
        AMPLE,
        patch=(256, 256),
        geometry=Geometry.halving(4, valid=False),
        most_batch_pixels=256 * 256 * 3,
    )
    assert (gpu.tile, gpu.batch) == ((384, 384), 1)
    with pytest.raises(ConfigError, match="2 axes need 2 geometries"):
        plan_tiles((9, 9), 1, 2, AMPLE, patch=(16, 16), geometry=[geometry] * 3)


def test_small_images_get_one_small_tile():
    plan = plan_tiles((100, 40), 1, 2, AMPLE, patch=(256, 256), geometry=Geometry.halving(4, valid=False))
    assert plan.tile == (112, 48)
    assert plan.count == 1
    wide = plan_tiles((4000, 96), 1, 2, AMPLE, patch=(256, 256), geometry=Geometry.halving(4, valid=False))
    steps = np.diff(wide.axes[0].starts)
    assert wide.tile == (512, 96)
    assert steps.max() == 448
    exact = plan_tiles((100, 4), 1, 2, AMPLE, patch=(572, 572), geometry=Geometry.halving(4, valid=True))
    assert exact.tile == (284, 188)


def test_streams_are_cut_to_the_same_rows():
    data = image(2, 30, 4)

    def stream(*cuts: int):
        edges = [0, *cuts, 30]
        for start, stop in pairwise(edges):
            yield start, data[:, start:stop]

    pieces = list(in_step([stream(7, 20), stream(), stream(3, 7, 29)]))
    assert [row for row, _ in pieces] == [0, 3, 7, 20, 29]
    for number in range(3):
        whole = np.concatenate([bands[number] for _, bands in pieces], axis=1)
        assert np.array_equal(whole, data)
