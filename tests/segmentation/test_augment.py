import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from useg.errors import ConfigError
from useg.segmentation.augment import AugmentSettings, Change, draw, recolour

DEFAULT = AugmentSettings()
EVERYTHING = replace(
    DEFAULT,
    **{name: 1.0 for name in DEFAULT.to_json() if name.endswith("_probability")},
    shear=0.2,
)

# what draw(1, 2, 3, settings=EVERYTHING, ndim=2) and its noise gave when they were pinned
GOLDEN = {
    "position": (0.15921954829684504, 0.010858943335213644),
    "shift": (0.009851171548815263, 0.008577885138257274),
    "angles_deg": (-33.00816104620123,),
    "scale": 1.138041813433363,
    "shear": 0.1298826823874714,
    "flip": (False, False),
    "gamma": 1.1692483220737133,
    "contrast": 0.8830424403360664,
    "brightness": -0.02289065544730884,
    "tint": 0.1,
    "noise_std": 0.061242016585753595,
    "blur_px": 0.7318557233844689,
}
GOLDEN_ELASTIC = (-18.510873806716322, 5.510031718193556, 8.234085691276029)
GOLDEN_NOISE = [1.684333086013794, 0.4014415144920349, -0.0650101825594902, -0.7438198328018188]


def drawn(count, *, settings=EVERYTHING, ndim=2, seed=0):
    return [draw(seed, 0, index, settings=settings, ndim=ndim) for index in range(count)]


def image(channels=2, space=(40, 50), seed=0):
    return np.random.default_rng(seed).normal(size=(channels, *space)).astype(np.float32)


def neutral(ndim=2, **values):
    return replace(Change.identity(ndim), **values)


# --- drawing


def test_a_change_is_the_same_in_any_order_and_in_another_process():
    keys = [(seed, epoch, index) for seed in (0, 7) for epoch in (0, 3) for index in (0, 11)]
    forward = {key: draw(*key, settings=EVERYTHING, ndim=3) for key in keys}
    backward = {key: draw(*key, settings=EVERYTHING, ndim=3) for key in reversed(keys)}
    assert forward == backward
    assert len(set(forward.values())) == len(keys)
    script = (
        "import json; from useg.segmentation.augment import AugmentSettings, draw\n"
        f"settings = AugmentSettings.from_json(json.loads({json.dumps(EVERYTHING.to_json())!r}))\n"
        "print(json.dumps(draw(7, 3, 11, settings=settings, ndim=3).to_json()))"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert Change.from_json(json.loads(there)) == forward[7, 3, 11]


def test_what_is_drawn_does_not_change_between_versions():
    change = draw(1, 2, 3, settings=EVERYTHING, ndim=2)
    assert GOLDEN.keys() <= change.to_json().keys()
    for name, value in GOLDEN.items():
        assert getattr(change, name) == pytest.approx(value, rel=1e-12), name
    assert change.elastic[0][0] == pytest.approx(GOLDEN_ELASTIC, rel=1e-12)
    noise = recolour(np.zeros((1, 2, 2), np.float32), neutral(key=(1, 2, 3), noise_std=1.0))
    assert noise.ravel().tolist() == pytest.approx(GOLDEN_NOISE, rel=1e-6)


def test_switching_a_part_off_leaves_the_others_as_they_were():
    whole = draw(1, 2, 3, settings=EVERYTHING, ndim=2)
    without = draw(1, 2, 3, settings=replace(EVERYTHING, elastic=False, noise_probability=0.0), ndim=2)
    assert without == replace(whole, elastic=(), noise_std=0.0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_json_brings_changes_and_settings_back_exactly(ndim):
    for change in drawn(5, ndim=ndim):
        assert Change.from_json(json.loads(json.dumps(change.to_json()))) == change
    assert AugmentSettings.from_json(json.loads(json.dumps(EVERYTHING.to_json()))) == EVERYTHING


def test_numbers_stay_within_their_limits_and_fill_them():
    changes = drawn(300, ndim=3)
    for values, low, high in (
        ([change.scale for change in changes], 0.8, 1.25),
        ([change.angles_deg[0] for change in changes], -180, 180),
        ([change.angles_deg[1] for change in changes], -15, 15),
        ([change.shear for change in changes], -0.2, 0.2),
        ([change.shift[2] for change in changes], -0.125, 0.125),
        ([change.position[0] for change in changes], 0, 1),
        ([change.gamma for change in changes], 0.7, 1.5),
        ([change.contrast for change in changes], 0.75, 1.25),
        ([change.brightness for change in changes], -0.3, 0.3),
        ([change.noise_std for change in changes], 0, 0.2),
        ([change.blur_px for change in changes], 0.5, 1.0),
    ):
        assert low <= min(values) < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < max(values) <= high
    assert np.mean([change.flip for change in changes]) == pytest.approx(0.5, abs=0.05)
    assert np.mean(np.log([change.scale for change in changes])) == pytest.approx(0, abs=0.02)


def test_a_probability_is_the_share_of_samples_changed():
    changes = drawn(1000, settings=replace(DEFAULT, elastic=False, warp_probability=0.4))
    assert np.mean([change.scale != 1.0 for change in changes]) == pytest.approx(0.4, abs=0.05)
    assert np.mean([any(change.flip) for change in changes]) == pytest.approx(0.4 * 0.75, abs=0.05)
    assert all(change.rigid and not any(change.flip) for change in changes if change.scale == 1.0)
    assert np.mean([change.noise_std > 0 for change in changes]) == pytest.approx(0.15, abs=0.04)
    assert np.mean([change.gamma != 1.0 for change in changes]) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("ndim", [2, 3])
def test_elastic_displacements_have_the_deviation_asked_for(ndim):
    values = np.array(
        [change.elastic for change in drawn(400, settings=replace(DEFAULT, elastic_std_px=7.0), ndim=ndim)]
    )
    assert values.shape[1:] == (ndim, *(3,) * ndim)
    assert values.std() == pytest.approx(7, rel=0.03)
    assert values.mean() == pytest.approx(0, abs=0.2)
    flat = values.reshape(len(values), -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(flat.shape[1])).max() < 0.25


def test_planes_far_apart_are_not_mixed():
    for change in drawn(5, settings=replace(EVERYTHING, anisotropy=4.0), ndim=3):
        assert change.in_plane
        assert change.angles_deg[1:] == (0.0, 0.0)
        assert not np.any(change.elastic[0])
    assert not drawn(1, settings=replace(EVERYTHING, anisotropy=3.0), ndim=3)[0].in_plane


def test_axes_that_may_not_be_flipped_are_not():
    flips = [change.flip for change in drawn(40, settings=replace(DEFAULT, flip=(True, False, True)))]
    assert {flip[0] for flip in flips} == {False}
    assert {flip[1] for flip in flips} == {False, True}


def test_settings_of_none_give_the_identity():
    for ndim in (2, 3):
        for change in drawn(5, settings=AugmentSettings.none(), ndim=ndim):
            assert replace(change, key=(0, 0, 0)) == Change.identity(ndim)
            assert change.rigid
            assert change.ndim == ndim


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rotation_deg": 181.0}, "rotation_deg = 181.0, wanted 0 to 180"),
        ({"noise_probability": -0.1}, "noise_probability = -0.1, wanted 0 to 1"),
        ({"elastic_nodes": 1}, "elastic_nodes = 1, wanted 2 to 16"),
        ({"shift": float("nan")}, "shift = nan, wanted 0 to 1"),
        ({"scale": (1.2, 0.8)}, r"scale = \(1.2, 0.8\), wanted \(smallest, largest\) from 0.05 to 100"),
        ({"gamma": (0.0, 1.0)}, r"gamma = \(0.0, 1.0\), wanted"),
    ],
)
def test_settings_out_of_range_are_refused(values, text):
    with pytest.raises(ConfigError, match=text):
        AugmentSettings(**values)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="4 spatial axes, wanted 2 or 3"):
        draw(0, 0, 0, settings=DEFAULT, ndim=4)
    with pytest.raises(ConfigError, match=r"flip = \(True, True\), wanted one truth value for each of 3 axes"):
        draw(0, 0, 0, settings=replace(DEFAULT, flip=(True, True)), ndim=3)
    with pytest.raises(ConfigError, match=r"seed, epoch, index = \(-1, 0, 0\), wanted each from 0 to"):
        draw(-1, 0, 0, settings=DEFAULT, ndim=2)
    with pytest.raises(ConfigError, match="AugmentSettings: unknown rotatoin; known are anisotropy, "):
        AugmentSettings.from_json({"rotatoin": 3})
    with pytest.raises(ConfigError, match="Change: unknown zoom; known are angles_deg, "):
        Change.from_json({**Change.identity(2).to_json(), "zoom": 2})


# --- intensities


def test_nothing_to_recolour_gives_an_equal_copy():
    given = image()
    found = recolour(given, neutral())
    assert np.array_equal(found, given)
    assert not np.shares_memory(found, given)


def test_recolouring_never_writes_to_its_input_and_is_repeatable():
    given = image()
    kept = given.copy()
    for change in drawn(5):
        first, second = recolour(given, change), recolour(given, change)
        assert np.array_equal(first, second)
        assert first.dtype == np.float32
        assert np.isfinite(first).all()
        assert not np.array_equal(first, kept)
    assert np.array_equal(given, kept)


def test_gamma_keeps_the_ends_and_the_order():
    given = image(1)
    for gamma in (0.5, 2.0):
        found = recolour(given, neutral(gamma=gamma))
        assert (found.min(), found.max()) == pytest.approx((given.min(), given.max()), abs=1e-5)
        assert (np.diff(found.ravel()[np.argsort(given.ravel())]) >= 0).all()
        assert (found.mean() > given.mean()) == (gamma < 1)
    share = (given - given.min()) / (given.max() - given.min())
    assert np.allclose(found, given.min() + share**2 * (given.max() - given.min()), atol=1e-5)


def test_gamma_leaves_a_constant_channel_alone():
    given = image()
    given[1] = 3.0
    assert np.array_equal(recolour(given, neutral(gamma=0.5))[1], given[1])


def test_contrast_keeps_the_mean_and_scales_the_deviation_of_each_channel():
    given = image() + np.float32([[[5.0]], [[-2.0]]])
    found = recolour(given, neutral(contrast=1.25))
    assert found.mean(axis=(1, 2)) == pytest.approx(given.mean(axis=(1, 2)), abs=1e-5)
    assert found.std(axis=(1, 2)) == pytest.approx(1.25 * given.std(axis=(1, 2)), rel=1e-5)


def test_brightness_is_one_offset_and_tint_one_a_channel():
    given = image(3)
    assert np.allclose(recolour(given, neutral(brightness=0.3)) - given, 0.3, atol=1e-6)
    offsets = recolour(given, neutral(tint=0.1)) - given
    assert np.ptp(offsets, axis=(1, 2)).max() < 1e-6
    assert len(np.unique(offsets[:, 0, 0])) == 3
    many = np.array([recolour(given[:, :1, :1], neutral(key=(0, 0, key), tint=0.1)) for key in range(500)])
    assert (many - given[:, :1, :1]).std() == pytest.approx(0.1, rel=0.06)


def test_noise_has_the_deviation_asked_for_and_is_another_in_each_channel():
    given = np.zeros((2, 200, 201), np.float32)
    noise = recolour(given, neutral(noise_std=0.2))
    assert noise.std(axis=(1, 2)) == pytest.approx(0.2, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.003)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.03
    assert not np.array_equal(noise, recolour(given, neutral(key=(0, 0, 1), noise_std=0.2)))


def test_blur_keeps_the_sum_and_spreads_a_point_as_wide_as_asked():
    point = np.zeros((1, 31, 31), np.float32)
    point[0, 15, 15] = 1.0
    found = recolour(point, neutral(blur_px=1.5))[0]
    places = np.arange(31) - 15
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert (found.sum(axis=0) * places**2).sum() == pytest.approx(1.5**2, rel=0.05)
    assert np.allclose(found, found.T, atol=1e-7)


def test_blur_across_planes_counts_in_pixels_of_the_plane():
    point = np.zeros((1, 21, 21, 21), np.float32)
    point[0, 10, 10, 10] = 1.0
    widths = {}
    for anisotropy in (1.0, 2.0, 10.0):
        found = recolour(point, neutral(3, blur_px=1.6, anisotropy=anisotropy))[0]
        widths[anisotropy] = (found.sum(axis=(1, 2)) * (np.arange(21) - 10) ** 2).sum()
        assert found.sum() == pytest.approx(1, abs=1e-5)
    assert widths[1.0] == pytest.approx(1.6**2, rel=0.05)
    assert widths[2.0] == pytest.approx(0.8**2, rel=0.05)
    assert widths[10.0] == 0.0


def test_codes_are_left_alone_and_do_not_move_the_others():
    given = image(3)
    for change in drawn(5):
        found = recolour(given, change, categorical=(1,))
        assert np.array_equal(found[1], given[1])
        assert not np.array_equal(found[[0, 2]], given[[0, 2]])
    assert np.array_equal(recolour(given, change, categorical=(0, 1, 2)), given)
