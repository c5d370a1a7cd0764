import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import ndimage, stats

from useg.errors import ConfigError
from useg.segmentation.augment import AugmentSettings, Change, draw, recolour

ALWAYS = AugmentSettings(
    gamma_probability=1.0, contrast_probability=1.0, brightness_probability=1.0, tint_probability=1.0,
    noise_probability=1.0, blur_probability=1.0, shear=0.2,
)  # fmt: skip


def many(settings: AugmentSettings = ALWAYS, ndim: int = 2, count: int = 2000) -> list[Change]:
    return [draw(5, 0, index, settings=settings, ndim=ndim) for index in range(count)]


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_change_does_not_depend_on_what_was_drawn_before_or_on_the_global_state():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    forwards = [draw(3, 1, index, settings=ALWAYS, ndim=2) for index in range(5)]
    np.random.seed(2)
    backwards = [draw(3, 1, index, settings=ALWAYS, ndim=2) for index in reversed(range(5))]
    assert forwards == backwards[::-1]
    np.random.seed(1)
    assert np.array_equal(before, np.random.get_state()[1])


def test_another_process_draws_the_same():
    script = (
        "import json; from useg.segmentation.augment import AugmentSettings, draw;"
        "print(json.dumps(draw(2**63, 7, 9, settings=AugmentSettings(), ndim=3).to_json()))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert Change.from_json(json.loads(told)) == draw(2**63, 7, 9, settings=AugmentSettings(), ndim=3)


def test_a_change_is_the_same_for_ever():
    # python -c "from useg.segmentation.augment import *; print(draw(7, 3, 11, settings=AugmentSettings(), ndim=2))"
    change = draw(7, 3, 11, settings=AugmentSettings(), ndim=2)
    assert change.position == (0.32466220732059536, 0.39483853637151667)
    assert change.angles_deg == pytest.approx((69.9857009557148,), rel=1e-12)
    assert change.scale == pytest.approx(0.9313795496409569, rel=1e-12)
    assert change.flip == (False, False)
    assert change.elastic[1][2] == pytest.approx((0.1681227359959263, -0.1744612701635073, 10.761997429232927))


def test_seed_epoch_and_index_all_matter_and_are_not_mixed_up():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (2, 1, 0), (1, 2, 0), (0, 1, 2)]
    angles = {draw(*key, settings=ALWAYS, ndim=2).angles_deg for key in keys}
    assert len(angles) == len(keys)


@pytest.mark.parametrize("ndim", [2, 3])
def test_text_and_back(ndim):
    settings = AugmentSettings(anisotropy=2.5, flip=(False, True, False))
    assert AugmentSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    change = draw(1, 2, 3, settings=replace(ALWAYS, anisotropy=2.5), ndim=ndim)
    assert Change.from_json(json.loads(json.dumps(change.to_json()))) == change
    assert np.shape(change.elastic) == (ndim, *(3,) * ndim)


def test_switching_one_thing_off_leaves_the_rest_as_it_was():
    off = {"elastic": (), "noise_std": 0.0, "gamma": 1.0, "blur_px": 0.0}
    settings = replace(ALWAYS, elastic=False, noise_probability=0.0, gamma_probability=0.0, blur_probability=0.0)
    for index in range(20):
        whole, less = draw(0, 0, index, settings=ALWAYS, ndim=2), draw(0, 0, index, settings=settings, ndim=2)
        assert asdict(less) == asdict(whole) | off


def test_displacements_have_the_standard_deviation_asked_for():
    grids = np.array([change.elastic for change in many(replace(ALWAYS, elastic_std_px=10.0))])
    assert grids.std() == pytest.approx(10.0, rel=0.02)
    assert abs(grids.mean()) < 0.2
    assert stats.kstest(grids.ravel() / 10, "norm").pvalue > 1e-3
    nodes = np.corrcoef(grids.reshape(len(grids), -1), rowvar=False)
    assert np.abs(nodes - np.eye(len(nodes))).max() < 0.1


def test_ranges_are_used_evenly_and_kept():
    changes = many(replace(ALWAYS, rotation_deg=90.0, scale=(0.5, 2.0), shift=0.1, brightness=0.4))
    angles = np.array([change.angles_deg[0] for change in changes])
    assert stats.kstest(angles, "uniform", args=(-90, 180)).pvalue > 1e-3
    logs = np.log2([change.scale for change in changes])
    assert stats.kstest(logs, "uniform", args=(-1, 2)).pvalue > 1e-3
    assert np.abs([change.shift for change in changes]).max() <= 0.1
    assert 0.35 < np.abs([change.brightness for change in changes]).max() <= 0.4
    assert np.mean([change.flip for change in changes], axis=0) == pytest.approx([0.5, 0.5], abs=0.05)


def test_probabilities_are_shares_of_samples():
    changes = many(AugmentSettings(noise_probability=0.25, gamma_probability=0.5, warp_probability=0.7))
    assert np.mean([change.noise_std > 0 for change in changes]) == pytest.approx(0.25, abs=0.04)
    assert np.mean([change.gamma != 1 for change in changes]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([change.rigid for change in changes]) == pytest.approx(0.3, abs=0.04)


def test_thick_planes_are_not_mixed():
    change = draw(0, 0, 0, settings=AugmentSettings(anisotropy=5.0), ndim=3)
    assert change.in_plane
    assert change.angles_deg[1:] == (0, 0)
    assert not np.any(change.elastic[0])
    assert np.all(np.array(change.elastic[1:]) != 0)
    assert any(draw(0, 0, 0, settings=AugmentSettings(anisotropy=2.0), ndim=3).angles_deg[1:])


def test_no_augmentation_is_the_identity():
    change = draw(1, 2, 3, settings=AugmentSettings.none(), ndim=2)
    assert change.rigid
    assert replace(change, key=(0, 0, 0)) == Change.identity(2)
    image = picture(2, 9, 9)
    assert np.array_equal(recolour(image, change), image)


@pytest.mark.parametrize(
    ("values", "told"),
    [({"rotation_deg": 181.0}, "rotation_deg = 181"), ({"scale": (1.2, 0.8)}, "scale"), ({"gamma": (0.0, 1.0)}, "gamma"),
     ({"noise_probability": 1.5}, "noise_probability = 1.5"), ({"elastic_nodes": 1}, "elastic_nodes"),
     ({"elastic_std_px": float("nan")}, "elastic_std_px = nan")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        AugmentSettings(**values)


def test_unknown_names_and_impossible_keys_are_refused():
    with pytest.raises(ConfigError, match="unknown elastik"):
        AugmentSettings.from_json({"elastik": True})
    with pytest.raises(ConfigError, match=r"wanted each from 0 to 2\*\*64 - 1"):
        draw(-1, 0, 0, settings=ALWAYS, ndim=2)
    with pytest.raises(ConfigError, match="4 spatial axes"):
        draw(0, 0, 0, settings=ALWAYS, ndim=4)


STILL = Change.identity(2)


def test_recolouring_follows_its_formulas():
    image = picture(1, 20, 30)
    keep = image.copy()
    low, high = image.min(), image.max()
    gamma = recolour(image, replace(STILL, gamma=1.4))
    assert np.allclose(gamma, ((image - low) / (high - low)) ** 1.4 * (high - low) + low, atol=1e-5)
    contrast = recolour(image, replace(STILL, contrast=0.5, brightness=0.25))
    assert np.allclose(contrast, (image - image.mean()) * 0.5 + image.mean() + 0.25, atol=1e-5)
    assert np.array_equal(image, keep)


def test_a_constant_channel_keeps_its_value_under_gamma_and_contrast():
    image = np.full((1, 8, 8), 3.0, np.float32)
    assert np.allclose(recolour(image, replace(STILL, gamma=0.7, contrast=1.2)), 3.0, atol=1e-6)


def test_noise_is_normal_differs_by_channel_and_is_replayed():
    image = np.zeros((2, 200, 200), np.float32)
    change = replace(STILL, noise_std=0.3, key=(1, 2, 3))
    noise = recolour(image, change)
    assert np.array_equal(noise, recolour(image, change))
    assert not np.array_equal(noise, recolour(image, replace(change, key=(1, 2, 4))))
    assert stats.kstest(noise.ravel() / 0.3, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[0, :, :-1].ravel(), noise[0, :, 1:].ravel())[0, 1]) < 0.02


def test_tint_moves_each_channel_by_its_own_constant():
    image = picture(3, 8, 8)
    moved = recolour(image, replace(STILL, tint=0.5, key=(1, 2, 3))) - image
    assert np.allclose(moved, moved[:, :1, :1], atol=1e-6)
    assert len(set(np.round(moved[:, 0, 0], 4))) == 3


def test_blur_is_the_gaussian_of_scipy():
    image = picture(1, 40, 40)
    blurred = recolour(image, replace(STILL, blur_px=0.9))
    assert np.allclose(blurred[0], ndimage.gaussian_filter(image[0], 0.9, mode="mirror", truncate=4), atol=0.02)
    volume = picture(1, 12, 20, 20)
    change = replace(Change.identity(3), blur_px=1.0, anisotropy=2.0)
    twin = ndimage.gaussian_filter(volume[0], (0.5, 1.0, 1.0), mode="mirror", truncate=4)
    assert np.allclose(recolour(volume, change)[0], twin, atol=0.02)


def test_codes_are_not_recoloured():
    image = np.concatenate([picture(1, 16, 16), np.full((1, 16, 16), 4, np.float32), picture(1, 16, 16)])
    change = draw(0, 0, 1, settings=replace(ALWAYS, noise_std=1.0), ndim=2)
    done = recolour(image, change, categorical=(1,))
    assert np.array_equal(done[1], image[1])
    assert not np.allclose(done[0], image[0])
    assert np.isfinite(done).all()
