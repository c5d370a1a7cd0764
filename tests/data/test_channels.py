import numpy as np
import pytest

from useg.data.channels import pool_channels
from useg.data.headers import Header
from useg.data.measure import ChannelRecord, SampleRecord, _measure_channel
from useg.data.reading import Sample

RANDOM = np.random.default_rng(5)


def record(raw, colour="bands", key="s"):
    channels = tuple(_measure_channel([channel], 5000) for channel in raw)
    header = Header(key, "tiff", raw.shape, raw.dtype, colour)
    return SampleRecord(Sample(key, (key,)), headers=(header,), channels=channels)


def patches(values, shape=(64, 64)):
    return np.array(values)[RANDOM.integers(0, len(values), (shape[0] // 8, shape[1] // 8))].repeat(8, 0).repeat(8, 1)


def bands(i):
    amounts = RANDOM.normal(800, 200, (64, 64))
    height = np.full((64, 64), -9999.0) if i == 1 else RANDOM.normal(300, 30, (64, 64))
    codes = patches([10, 20, 30, 50, 90])
    flags = patches([0, 64, 66, 68, 72, 80, 96, 128, 130, 136, 160, 192, 224, 240, 244])
    score = patches(range(100))
    return np.stack([amounts, height, codes, flags, score, np.full((64, 64), 7)]).astype(np.int16)


def test_kinds_of_bands_and_nodata():
    pool = pool_channels([record(bands(i), key=str(i)) for i in range(4)], ["red", "height"])
    assert [c.kind for c in pool.statistics] == [
        "continuous", "continuous", "categorical", "categorical", "continuous", "constant",
    ]  # fmt: skip
    assert [c.name for c in pool.statistics][:3] == ["red", "height", "2"]
    height = pool.statistics[1]
    assert height.nodata == (-9999.0,)
    assert height.nodata_share == pytest.approx(0.25)
    assert 150 < height.minimum < height.mean < height.maximum < 450
    assert pool.statistics[2].distinct == 5
    assert not pool.mixed


def test_one_channel_is_never_codes():
    pool = pool_channels([record(patches([0, 40, 200])[None].astype(np.uint8), "grey")])
    assert pool.statistics[0].kind == "continuous"


def test_a_signal_that_uses_its_whole_range_has_no_nodata():
    raw = RANDOM.integers(-32768, 32767, (1, 200, 200)).astype(np.int16)
    raw[0, 0, :3] = -32768
    assert pool_channels([record(raw)]).statistics[0].nodata == ()


def test_nan_is_left_out_and_told():
    raw = RANDOM.normal(0, 1, (1, 50, 50)).astype(np.float32)
    raw[0, :10] = np.nan
    found = pool_channels([record(raw)]).statistics[0]
    assert found.nonfinite
    assert found.nodata_share == pytest.approx(0.2, abs=0.01)
    assert np.isfinite([found.mean, found.std, found.minimum, found.maximum]).all()
    empty = pool_channels([record(np.full((1, 5, 5), np.nan, np.float32))]).statistics[0]
    assert empty.kind == "constant"


def test_scales_that_differ():
    alike = [record(RANDOM.normal(100, 10, (1, 50, 50)), key=str(i)) for i in range(5)]
    apart = [record(RANDOM.normal(100, 10, (1, 50, 50)) * 8.0**i, key=str(i)) for i in range(5)]
    assert pool_channels(alike).statistics[0].scale_ratio < 1.5
    assert pool_channels(apart).statistics[0].scale_ratio > 100


def test_each_sample_weighs_the_same():
    small = record(np.zeros((1, 10, 10)))
    large = record(np.full((1, 200, 200), 10.0))
    assert pool_channels([small, large]).statistics[0].mean == pytest.approx(5.0)


def test_grey_and_colour_go_together_as_three_channels():
    grey = record(np.full((1, 8, 8), 50, np.uint8), "grey")
    rgb = record(np.stack([np.full((8, 8), v, np.uint8) for v in (0, 100, 200)]), "rgb")
    rgba = record(np.stack([np.full((8, 8), v, np.uint8) for v in (0, 100, 200, 255)]), "rgba")
    pool = pool_channels([grey, rgb, rgba])
    assert pool.mixed
    assert pool.channels == 3
    assert [c.maximum for c in pool.statistics] == [50, 100, 200]


def test_channel_record():
    found = _measure_channel([np.array([[1, 1, 2, 5]]), np.array([[9, 9, 9, 9]])], 100)
    assert isinstance(found, ChannelRecord)
    assert (found.minimum, found.maximum) == (1, 9)
    assert found.repeats == pytest.approx(4 / 6)
    assert sorted(found.some.tolist()) == [1, 1, 2, 5, 9, 9, 9, 9]
