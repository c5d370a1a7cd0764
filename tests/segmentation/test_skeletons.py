"""clDice: near MONAI's soft one on thin lines, exact on pictures checked by eye."""

import numpy as np
import pytest
import torch
from monai.losses.cldice import SoftclDiceLoss
from scipy import ndimage

from useg.segmentation.skeletons import LineCounts, count_lines, skeleton


def vessels(seed: int, shape: tuple[int, ...] = (96, 96)) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 8)
    return np.abs(field) < 0.12 * np.abs(field).max()


@pytest.mark.parametrize("seed", range(3))
def test_near_the_soft_cldice_of_monai(seed: int) -> None:
    truth = vessels(seed)
    predicted = truth.copy()
    predicted[:, 30:40] = False  # gaps in every vessel there
    predicted[60:, 60:] |= vessels(seed + 10)[60:, 60:]
    pair = [torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (truth, predicted)]
    loss = SoftclDiceLoss(iter_=12, smooth=1e-6)(*pair)
    assert count_lines(truth, predicted).cldice == pytest.approx(1 - float(loss), abs=0.05)


def test_a_thicker_line_has_the_same_centre_and_a_gap_costs() -> None:
    truth = np.zeros((11, 40), dtype=bool)
    truth[4:7, 2:38] = True
    thicker = ndimage.binary_dilation(truth)
    assert count_lines(truth, thicker).cldice == 1.0
    gap = truth.copy()
    gap[:, 20:30] = False
    counts = count_lines(truth, gap)
    assert counts.predicted_right == counts.predicted
    assert counts.truth - counts.truth_found == 10


def test_empty_masks_and_sums() -> None:
    nothing, line = np.zeros((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    line[4, 1:8] = True
    assert count_lines(nothing, nothing).cldice is None
    assert count_lines(line, nothing).cldice == 0.0
    assert count_lines(nothing, line).cldice == 0.0
    assert (count_lines(line, line) + count_lines(line, nothing)).cldice == pytest.approx(2 / 3)
    assert LineCounts().cldice is None


@pytest.mark.parametrize("shape", [(9, 14), (6, 9, 14)])
def test_skeletons_lie_inside_and_are_never_lost(shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, dtype=bool)
    mask[..., 2:8, 1:12] = True
    line = skeleton(mask)
    assert line.any()
    assert not (line & ~mask).any()
    assert line.sum() < mask.sum() / 3
    assert skeleton(np.ones(shape, dtype=bool)).any()


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_compact_part_keeps_a_pixel(ndim: int) -> None:
    mask = np.zeros((12,) * ndim, dtype=bool)
    for start, size in ((0, 1), (2, 2), (5, 4)):
        mask[(slice(start, start + size),) * ndim] = True
    parts = ndimage.label(mask)[0]
    assert set(parts[skeleton(mask)]) == {1, 2, 3}
