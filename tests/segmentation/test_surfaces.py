"""Outline distances: against MONAI, a twin over all pairs of pixels, and what a missed class costs."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from scipy.spatial.distance import cdist

from useg.segmentation.surfaces import default_tolerance, image_diagonal, outline, surface_scores

CASES = [
    ((45, 52), (1.0, 1.0)),
    ((45, 52), (0.5, 2.0)),
    ((14, 20, 23), (1.0, 1.0, 1.0)),
    ((14, 20, 23), (3.0, 0.7, 0.7)),
]


def blob(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return field > np.quantile(field, 0.7)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")  # MONAI warns about itself
def test_distances_are_those_of_monai(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    truth = blob(seed, shape)
    predicted = ndimage.binary_opening(truth) | blob(seed + 50, shape) & blob(seed, shape)[::-1]
    scores = surface_scores(truth, predicted, spacing, tolerance=1.5)
    pair = {
        "y_pred": torch.from_numpy(predicted)[None, None].float(),
        "y": torch.from_numpy(truth)[None, None].float(),
        "include_background": True,
        "spacing": list(spacing),
    }
    assert scores.hd95 == pytest.approx(float(compute_hausdorff_distance(**pair, percentile=95)), rel=1e-5)
    assert scores.assd == pytest.approx(float(compute_average_surface_distance(**pair, symmetric=True)), rel=1e-5)
    assert scores.nsd == pytest.approx(float(compute_surface_dice(**pair, class_thresholds=[1.5])), rel=1e-6)
    assert not scores.missed
    assert 0 < scores.nsd < 1


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_distances_are_those_between_all_pairs_of_pixels(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    truth, predicted = blob(3, shape), blob(4, shape)
    first, second = (np.argwhere(outline(mask)) * spacing for mask in (truth, predicted))
    matrix = cdist(first, second)
    there, back = matrix.min(axis=1), matrix.min(axis=0)
    scores = surface_scores(truth, predicted, spacing, tolerance=2.0)
    assert scores.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-6)
    assert scores.assd == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-6)
    assert scores.within == (there <= 2.0).sum() + (back <= 2.0).sum()


@pytest.mark.parametrize("shape", [(9, 12), (5, 9, 12)])
def test_few_points_in_much_room_and_many_in_little_agree(shape: tuple[int, ...]) -> None:
    spacing = (1.0,) * (len(shape) - 1) + (1.5,)
    truth, predicted = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    truth[(0,) * len(shape)] = predicted[(-1,) * len(shape)] = True
    reach = image_diagonal(tuple(size - 1 for size in shape), spacing)
    scores = surface_scores(truth, predicted, spacing)
    assert (scores.hd95, scores.assd, scores.nsd) == (pytest.approx(reach), pytest.approx(reach), 0.0)


def test_outline_of_a_square_and_of_a_full_image() -> None:
    square = np.zeros((5, 5), dtype=bool)
    square[1:4, 1:4] = True
    assert outline(square).sum() == 8
    assert outline(np.ones((4, 4), dtype=bool)).sum() == 12


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_identical_masks_have_distance_zero(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    scores = surface_scores(blob(0, shape), blob(0, shape), spacing)
    assert (scores.hd95, scores.assd, scores.nsd) == (0.0, 0.0, 1.0)


def test_a_missed_class_costs_the_diagonal() -> None:
    truth = np.zeros((30, 40), dtype=bool)
    truth[5:8, 5:8] = True
    nothing = np.zeros_like(truth)
    missed = surface_scores(truth, nothing, (2.0, 2.0))
    assert (missed.hd95, missed.assd, missed.nsd) == (100.0, 100.0, 0.0)
    assert (missed.missed, missed.false) == (True, False)
    false = surface_scores(nothing, truth, (2.0, 2.0))
    assert (false.hd95, false.missed, false.false) == (100.0, False, True)
    assert surface_scores(nothing, nothing, (2.0, 2.0)) is None


def test_distances_grow_with_the_spacing() -> None:
    truth, predicted = blob(1, (40, 40)), blob(2, (40, 40))
    one = surface_scores(truth, predicted, (1.0, 1.0))
    three = surface_scores(truth, predicted, (3.0, 3.0))
    assert three.hd95 == pytest.approx(3 * one.hd95)
    assert three.nsd == one.nsd  # the default tolerance is one pixel
    assert default_tolerance((3.0, 0.5, 0.5)) == 0.5


def test_wrong_input_is_refused() -> None:
    mask = np.ones((3, 3), dtype=bool)
    with pytest.raises(ValueError, match=r"same shape, got \(3, 3\) and \(3, 4\)"):
        unwrap(surface_scores)(mask, np.ones((3, 4), dtype=bool), (1.0, 1.0))
    for spacing in ((1.0,), (1.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match=r"spacing must be 2 numbers above 0"):
            surface_scores(mask, mask, spacing)


def test_distances_are_exact_and_the_same_each_time():
    """OpenCV's distances differ in their last bit from call to call."""
    random = np.random.default_rng(5)
    truth, predicted = (ndimage.gaussian_filter(random.random((301, 223)), 4) > 0.5 for _ in range(2))
    mine, other = outline(truth), outline(predicted)
    there = ndimage.distance_transform_edt(~other)[mine]
    back = ndimage.distance_transform_edt(~mine)[other]
    for _ in range(50):
        found = surface_scores(truth, predicted, (1.0, 1.0))
        assert found.assd == float(np.concatenate([there, back]).mean())
        assert found.hd95 == float(max(np.percentile(there, 95), np.percentile(back, 95)))
