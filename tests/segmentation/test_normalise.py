"""Intensities to network input: fixed and own statistics, codes, what is missing, what is constant."""

import numpy as np
import pytest

from useg.segmentation.normalise import (
    ChannelNorm,
    Statistics,
    input_channels,
    normalise,
    sample_strides,
    statistics,
)

NONE = Statistics((0.0,), (0.0,), (0.0,), (1.0,))


def noise(*shape: int, dtype=np.uint16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 4000, shape).astype(dtype)


def test_the_numbers_of_the_data_set() -> None:
    raw = np.array([[[0, 50, 100, 200, 250]]], np.uint8)
    norm = ChannelNorm("dataset", low=50.0, high=200.0, mean=100.0, std=50.0)
    assert normalise(raw, [norm], NONE)[0, 0].tolist() == [-1, -1, 0, 2, 2]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_own_statistics_give_mean_0_and_deviation_1(dtype) -> None:
    raw = (noise(1, 64, 80) / 20).astype(dtype)
    norms = [ChannelNorm("image")]
    result = normalise(raw, norms, statistics(raw, norms))
    assert result.dtype == np.float32
    assert result.mean() == pytest.approx(0, abs=1e-3)
    assert result.std() == pytest.approx(1, abs=1e-3)


def test_own_statistics_know_no_scale() -> None:
    raw = noise(1, 40, 40, dtype=np.float64)
    norms = [ChannelNorm("image")]
    one = normalise(raw, norms, statistics(raw, norms))
    other = normalise(raw * 7.5 - 300, norms, statistics(raw * 7.5 - 300, norms))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_one_bright_speck_moves_nothing() -> None:
    raw = noise(1, 100, 100)
    speck = raw.copy()
    speck[0, 0, 0] = 65535
    norms = [ChannelNorm("image")]
    one, other = (normalise(r, norms, statistics(r, norms)) for r in (raw, speck))
    np.testing.assert_allclose(one[0].ravel()[1:], other[0].ravel()[1:], atol=1e-2)
    assert other.max() < 3


@pytest.mark.parametrize("kind", ["image", "dataset"])
def test_missing_values_become_the_mean_and_have_no_part(kind) -> None:
    raw = noise(1, 50, 50, dtype=np.float32)
    holes = raw.copy()
    holes[0, :10] = -9999
    holes[0, 20, 20:23] = np.nan, np.inf, -np.inf
    norms = [ChannelNorm(kind, low=100.0, high=4000.0, mean=2000.0, std=1000.0, nodata=-9999.0)]
    stats = statistics(holes, norms)
    result = normalise(holes, norms, stats)
    assert not result[0, :10].any()
    assert result[0, 20, 20:23].tolist() == [0, 0, 0]
    assert np.isfinite(result).all()
    kept = np.isfinite(holes) & (holes != -9999)
    if kind == "image":
        values = holes[kept]
        low, high = np.percentile(values, (0.5, 99.5))
        clipped = np.clip(values.astype(np.float64), low, high)
        found = (*stats.low, *stats.high, *stats.mean, *stats.std)
        assert found == pytest.approx((low, high, clipped.mean(), clipped.std()))
    assert result[kept].std() > 0.9


def test_a_constant_image_becomes_0() -> None:
    norms = [ChannelNorm("image")]
    for value in (0, 7, 65535):
        raw = np.full((1, 8, 8), value, np.uint16)
        assert not normalise(raw, norms, statistics(raw, norms)).any()
    nothing = np.full((1, 8, 8), np.nan, np.float32)
    assert not normalise(nothing, norms, statistics(nothing, norms)).any()


def test_codes_become_a_channel_each_and_dropped_channels_none() -> None:
    raw = np.stack([noise(6, 6) % 3, noise(6, 6), np.full((6, 6), 255, np.uint16)])
    norms = [
        ChannelNorm("onehot", values=(0.0, 2.0)),
        ChannelNorm("dataset", low=0.0, high=5000.0, mean=0.0, std=1000.0),
        ChannelNorm("drop"),
    ]
    assert input_channels(norms) == 3
    result = normalise(raw, norms, statistics(raw, norms))
    assert result.shape == (3, 6, 6)
    assert np.array_equal(result[0], raw[0] == 0)
    assert np.array_equal(result[1], raw[0] == 2)
    np.testing.assert_allclose(result[2], raw[1] / 1000, rtol=1e-6)


def test_each_channel_for_itself() -> None:
    raw = np.stack([noise(30, 30), noise(30, 30, seed=1) * 9])
    norms = [ChannelNorm("image"), ChannelNorm("dataset", low=0.0, high=1.0, mean=0.0, std=1.0)]
    both = normalise(raw, norms, statistics(raw, norms))
    for index in range(2):
        alone = [norms[index]]
        part = raw[index : index + 1]
        assert np.array_equal(both[index], normalise(part, alone, statistics(part, alone))[0])


def test_the_input_is_left_alone_and_a_window_gives_the_same() -> None:
    raw = noise(2, 40, 40)
    before = raw.copy()
    norms = [ChannelNorm("image"), ChannelNorm("image")]
    stats = statistics(raw, norms)
    whole = normalise(raw, norms, stats)
    assert np.array_equal(raw, before)
    assert np.array_equal(normalise(raw[:, 5:20, 7:9], norms, stats), whole[:, 5:20, 7:9])


def test_the_strided_sample() -> None:
    assert sample_strides((512, 512)) == (1, 1)
    for space in ((20_000, 20_000), (40, 3000, 3000), (100_000, 50), (500, 500, 500)):
        steps = sample_strides(space)
        left = np.prod([-(-n // step) for n, step in zip(space, steps, strict=True)])
        assert left < 3_000_000
        assert left > 250_000
        assert all(step == 1 for n, step in zip(space, steps, strict=True) if n <= 64)


def test_a_strided_sample_has_nearly_the_statistics_of_the_whole() -> None:
    raw = noise(1, 1500, 1500)
    norms = [ChannelNorm("image")]
    steps = tuple(slice(None, None, step) for step in sample_strides((1500, 1500), 10_000))
    sample = raw[(slice(None), *steps)]
    assert sample.size < 20_000
    one, other = statistics(raw, norms), statistics(sample, norms)
    assert other.mean[0] == pytest.approx(one.mean[0], rel=0.03)
    assert other.std[0] == pytest.approx(one.std[0], rel=0.03)
