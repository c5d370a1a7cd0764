from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from useg.arrays import IGNORE
from useg.errors import InputError
from useg.experiments import contact_sheet
from useg.experiments.contact_sheet import write_contact_sheet
from useg.segmentation.augment import AugmentSettings

SETTINGS = AugmentSettings(elastic_std_px=3.0)


@dataclass
class Sample:
    image: np.ndarray
    classes: np.ndarray | None = None
    instances: np.ndarray | None = None


def sample(space=(80, 90), channels=1, *, ignored=False, seed=0):
    rng = np.random.default_rng(seed)
    instances = np.zeros(space, np.int32)
    for number in range(1, 13):
        distance = sum((a - rng.integers(0, side)) ** 2 for a, side in zip(np.indices(space), space, strict=True))
        instances[distance < 49] = number
    classes = (instances > 0).astype(np.uint8)
    if ignored:
        classes[..., : space[-1] // 2] = IGNORE
    noise = rng.normal(0, 5, (channels, *space))
    return Sample((100 + 80 * classes * (classes != IGNORE) + noise).astype(np.uint8), classes, instances)


def sheet(samples, path, **values):
    write_contact_sheet(samples, path, **{"patch": (64, 64), "settings": SETTINGS, **values})
    return cv2.imread(str(path))


def test_a_sheet_has_two_rows_a_sample_and_a_column_a_copy(tmp_path):
    one = sheet([sample()], tmp_path / "a.png", copies=2)
    two = sheet([sample(), sample(seed=1)], tmp_path / "b.png", copies=2)
    wide = sheet([sample()], tmp_path / "c.png", copies=5)
    assert two.shape[0] == 2 * one.shape[0]
    assert two.shape[1] == one.shape[1]
    assert wide.shape[1] == 2 * one.shape[1]  # 6 columns and 3
    assert np.array_equal(two[: one.shape[0]], one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_sheet_is_the_same_every_time_and_follows_seed_epoch_and_index(tmp_path):
    first = sheet([sample()], tmp_path / "a.png", copies=2)
    assert np.array_equal(first, sheet([sample()], tmp_path / "a.png", copies=2))
    others = [{"seed": 1}, {"epoch": 7}, {"indices": [5]}]
    width = first.shape[1] // 3
    for number, values in enumerate(others):
        other = sheet([sample()], tmp_path / f"{number}.png", copies=2, **values)
        assert np.array_equal(first[:, :width], other[:, :width])  # the first column is the middle unchanged
        assert not np.array_equal(first[:, width:], other[:, width:])
    later = sheet([sample()], tmp_path / "later.png", copies=1, epoch=1)
    caption = slice(None, 18)
    assert np.array_equal(first[caption, 2 * width : 3 * width], later[caption, width : 2 * width])


def test_objects_are_outlined_and_ignored_pixels_hatched(tmp_path):
    plain = sheet([Sample(sample().image)], tmp_path / "plain.png", copies=0)
    assert (plain[..., 0] == plain[..., 1]).all()  # grey, without labels, and no weights below
    outlined = sheet([sample()], tmp_path / "a.png", copies=0)
    top = outlined[: plain.shape[0] - 6]
    coloured = np.ptp(top.astype(int), axis=2) > 50
    assert 0.01 < coloured.mean() < 0.3
    assert outlined.shape[0] == 2 * plain.shape[0]
    hatched = sheet([sample(ignored=True)], tmp_path / "b.png", copies=0)
    left = slice(18, 180), slice(0, 80)
    white = (hatched[left] == 255).all(axis=2)
    assert 0.08 < white.mean() < 0.2
    weights = hatched[plain.shape[0] + 18 : -12, :80]
    dark = cv2.applyColorMap(np.zeros((1, 1), np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0]
    assert (weights == dark).all()  # nothing to learn there


def test_weights_are_brightest_between_objects(tmp_path):
    instances = np.zeros((64, 64), np.int32)
    instances[8:56, 8:30], instances[8:56, 33:56] = 1, 2
    pair = Sample(np.zeros((1, 64, 64), np.float32), (instances > 0).astype(np.uint8), instances)
    picture = sheet([pair], tmp_path / "a.png", copies=0)
    weights = picture[picture.shape[0] // 2 + 18 :]
    bright = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0]
    rows, columns = np.nonzero((weights == bright).all(axis=2))
    assert len(rows)
    assert 30 * 3 <= columns.min() <= columns.max() < 33 * 3  # one pixel is shown as 3


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_and_large_patches_are_shown(tmp_path, channels):
    assert sheet([sample(channels=channels)], tmp_path / "a.png", copies=1).size
    large = sheet([sample((500, 600), channels)], tmp_path / "b.png", copies=1, patch=(480, 512))
    assert large.shape == (2 * (375 + 18 + 6), 2 * (400 + 6), 3)


def test_of_a_volume_the_middle_plane_is_shown(tmp_path):
    volume = sample((9, 64, 64))
    volume.image[0, :, :4, :4] = np.arange(9)[:, None, None] * 25
    picture = sheet([volume], tmp_path / "a.png", patch=(9, 64, 64), copies=0)
    flat = Sample(volume.image[:, 4], volume.classes[4], volume.instances[4])
    same = sheet([flat], tmp_path / "b.png", copies=0)
    assert np.abs(picture[:200].astype(int) - same[:200]).mean() < 20
    assert picture.shape == same.shape


def test_constant_images_and_a_normalisation_of_ones_own(tmp_path):
    constant = Sample(np.full((1, 64, 64), 9, np.uint16), np.zeros((64, 64), np.uint8))
    assert sheet([constant], tmp_path / "a.png").size
    seen = []

    def normalise(raw):
        seen.append(raw)
        return raw.astype(np.float32) / 100

    given = sample()
    sheet([given], tmp_path / "b.png", normalise=normalise)
    assert seen[0] is given.image


def test_what_cannot_be_shown_is_refused_and_leaves_no_file(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="contact sheet: no samples to show"):
        sheet([], tmp_path / "a.png")
    with pytest.raises(InputError, match=r"image of \(1, 80, 90\) for patches of \(4, 8, 8\)"):
        sheet([sample()], tmp_path / "a.png", patch=(4, 8, 8))
    monkeypatch.setattr(contact_sheet.cv2, "imencode", lambda *values: (False, None))
    with pytest.raises(InputError, match=r"a\.png: the contact sheet could not be encoded as PNG"):
        sheet([sample()], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
