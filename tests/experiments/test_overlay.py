"""Overlay pictures, on images small enough to check by eye."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from useg.arrays import IGNORE
from useg.experiments.overlay import (
    ERROR_COLOURS,
    Sampler,
    error_map,
    instance_overlay,
    label_overlay,
    picture_of,
    save_png,
    side_by_side,
    with_legend,
)

PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[1], PALETTE[2], PALETTE[IGNORE] = (255, 0, 0), (0, 0, 255), 255
GREY = np.full((9, 12, 3), 100, np.uint8)


def square() -> np.ndarray:
    classes = np.zeros((9, 12), np.uint8)
    classes[2:7, 3:8] = 1
    return classes


def test_labels_are_outlined_and_transparent_inside_and_background_is_clear():
    drawn = label_overlay(GREY, square(), PALETTE, opacity=0.5)
    assert (drawn[2, 3:8] == (255, 0, 0)).all()
    assert tuple(drawn[4, 5]) == (178, 50, 50)
    assert (drawn[square() == 0] == 100).all()


def test_a_black_class_is_drawn_in_white_and_ignored_pixels_are_hatched():
    drawn = label_overlay(GREY, square() * 3, PALETTE)
    assert (drawn[2, 3:8] == 255).all()
    ignored = label_overlay(GREY, np.full((9, 12), IGNORE, np.uint8), PALETTE)
    assert {tuple(colour) for colour in ignored.reshape(-1, 3)} == {(100, 100, 100), (255, 255, 255)}


def test_neighbouring_objects_have_different_colours():
    ids = np.repeat(np.arange(12, dtype=np.int32)[None], 9, axis=0)
    drawn = instance_overlay(GREY, ids, opacity=1.0)
    colours = {tuple(colour) for colour in drawn[4, 1:]}
    assert len(colours) == 11
    assert tuple(drawn[4, 0]) == (100, 100, 100)


def test_errors_have_the_three_colours_where_they_belong():
    truth, predicted = square(), np.roll(square(), 2, axis=1)
    truth[0, 0] = IGNORE
    drawn = error_map(GREY, predicted, truth, opacity=1.0)
    assert tuple(drawn[4, 3]) == ERROR_COLOURS["missed"]
    assert tuple(drawn[4, 9]) == ERROR_COLOURS["too much"]
    right = (np.array(ERROR_COLOURS["right"]) * 0.5 + 50 + 0.5).astype(np.uint8)
    assert (drawn[4, 6] == right).all()
    assert tuple(drawn[4, 1]) == (100, 100, 100)
    wrong = error_map(GREY, square() * 2, square(), opacity=1.0)[3:6, 4:7].reshape(-1, 3)
    assert {tuple(c) for c in wrong} == {ERROR_COLOURS["missed"], ERROR_COLOURS["too much"]}


def test_any_image_becomes_a_picture():
    assert picture_of(np.full((1, 4, 5), 77, np.uint8))[0, 0].tolist() == [77, 77, 77]
    bands = picture_of(np.random.default_rng(0).normal(size=(12, 20, 30)).astype(np.float32))
    assert bands.shape == (20, 30, 3)
    assert bands.min() == 0
    assert bands.max() == 255
    odd = np.array([[[np.nan, 1.0], [2.0, np.inf]]], np.float32)
    assert picture_of(odd)[..., 0].tolist() == [[0, 0], [254, 0]] or picture_of(odd)[0, 0, 0] == 0
    assert picture_of(np.full((1, 3, 3), np.nan, np.float32)).max() == 0
    assert picture_of(np.full((1, 3, 3), 5, np.int16)).max() == 0
    assert set(np.unique(picture_of(np.eye(4, dtype=np.uint8)[None]))) == {0, 255}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 25), st.integers(1, 30))
def test_a_picture_sampled_from_bands_is_the_thinned_picture(height, width, longest, rows):
    image = np.arange(2 * height * width).reshape(2, height, width)
    sampler = Sampler((height, width), longest)
    for start in range(0, height, rows):
        sampler.take(start, image[:, start : start + rows])
    step = -(-max(height, width) // longest)
    assert np.array_equal(sampler.planes[0], image[:, ::step, ::step])
    assert max(sampler.planes[0].shape[1:]) <= longest


def test_a_volume_is_sampled_at_its_middle_planes():
    volume = np.arange(8 * 6 * 4).reshape(1, 8, 6, 4)
    sampler = Sampler((8, 6, 4))
    for start in range(0, 8, 3):
        sampler.take(start, volume[:, start : start + 3])
    for view, expected in zip(sampler.planes, (volume[:, 4], volume[:, :, 3], volume[:, :, :, 2]), strict=True):
        assert np.array_equal(view, expected)


def test_pictures_stand_side_by_side_with_a_legend(tmp_path):
    both = side_by_side([GREY, GREY[:5, :4]])
    assert both.shape == (9, 12 + 4 + 4, 3)
    wide = np.zeros((10, 300, 3), np.uint8)
    assert with_legend(wide, []) is wide
    one_line = with_legend(wide, [("cell", (255, 0, 0))])
    many = with_legend(wide, [(f"class number {n}", (255, 0, 0)) for n in range(8)])
    assert one_line.shape[0] < many.shape[0]
    assert ((one_line[10:] == (255, 0, 0)).all(axis=-1)).sum() > 50
    save_png(tmp_path / "deep" / "a.png", one_line)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "deep" / "a.png")), one_line)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        save_png(tmp_path / "a.png", np.zeros((4, 4, 7), np.uint8))
    assert list(tmp_path.iterdir()) == []
