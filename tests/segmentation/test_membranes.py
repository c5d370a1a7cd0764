"""Thinned regions and their scores: against scikit-image, a twin, and pictures checked by eye."""

from inspect import unwrap

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import watershed

from useg.segmentation.flooding import components
from useg.segmentation.membranes import (
    CellParameters,
    RegionCounts,
    cell_regions,
    count_regions,
    membrane_class,
    thin,
    thin_mask,
)


def tissue(seed: int, shape: tuple[int, ...] = (60, 64)) -> tuple[np.ndarray, np.ndarray]:
    """True cells (0 on membranes) and a blurred, noisy probability of cell."""
    draw = np.random.default_rng(seed)
    points = np.zeros(shape, dtype=np.int32)
    points.reshape(-1)[draw.choice(points.size, 12, replace=False)] = np.arange(1, 13)
    cells = watershed(ndimage.distance_transform_edt(points == 0), points, watershed_line=True)
    inside = ndimage.binary_erosion(cells > 0, border_value=1)
    probability = ndimage.gaussian_filter(inside.astype(float), 1.5)
    probability += 0.15 * ndimage.gaussian_filter(draw.normal(size=shape), 1)
    return components(inside), np.clip(probability, 0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.4, 0.6, 0.8])
def test_scores_are_those_of_scikit_image(seed: int, threshold: float) -> None:
    cells, probability = tissue(seed)
    regions = thin(probability, threshold)
    counts = count_regions(cells, regions)
    # scikit-image draws two different pixels, the challenge two pixels: n pairs apart, and exactly so
    pairs = counts.truth_squares + counts.predicted_squares - 2 * counts.pixels
    without = 2 * (counts.shared_squares - counts.pixels) / pairs
    error, over_true_pairs, over_predicted_pairs = adapted_rand_error(cells, regions, ignore_labels=(0,))
    assert without == pytest.approx(1 - error, abs=1e-12)
    assert counts.v_rand == pytest.approx(1 - error, abs=counts.pixels / counts.truth_squares)
    assert counts.v_rand_merge == pytest.approx(over_predicted_pairs, abs=0.01)
    assert counts.v_rand_split == pytest.approx(over_true_pairs, abs=0.01)
    halves = variation_of_information(cells, regions, ignore_labels=(0,))
    assert counts.variation_of_information == pytest.approx(sum(halves), abs=1e-9)


def test_scores_are_those_of_a_loop() -> None:
    cells, probability = tissue(9)
    regions = thin(probability, 0.7)
    inside = cells > 0
    total = inside.sum()
    chances = np.array(
        [
            [((cells == cell) & (regions == region)).sum() / total for region in np.unique(regions)]
            for cell in np.unique(cells)[1:]
        ]
    )
    true_chances, predicted_chances = chances.sum(axis=1), chances.sum(axis=0)
    squares = (true_chances**2).sum(), (predicted_chances**2).sum()
    counts = count_regions(cells, regions)
    assert counts.v_rand == pytest.approx(2 * (chances**2).sum() / sum(squares))

    def bits(values: np.ndarray) -> float:
        return -sum(value * np.log2(value) for value in values.reshape(-1) if value > 0)

    shared = bits(true_chances) + bits(predicted_chances) - bits(chances)
    assert counts.v_info == pytest.approx(2 * shared / (bits(true_chances) + bits(predicted_chances)))


def test_the_width_of_a_membrane_does_not_matter_but_a_gap_does() -> None:
    probability = np.ones((9, 21), dtype=np.float32)
    probability[:, 8:13] = 0.2
    probability[:, 10] = 0.1
    truth = np.ones((9, 21), dtype=np.int32)
    truth[:, 10] = 0
    truth[:, 11:] = 2
    closed = count_regions(truth, thin(probability, 0.5))
    assert (closed.v_rand, closed.v_info) == (1.0, 1.0)
    probability[4, 8:13] = 0.9
    leaking = count_regions(truth, thin(probability, 0.5))
    assert (leaking.v_rand_split, leaking.v_rand_merge) == (1.0, 0.5)
    assert leaking.v_info == 0.0


def test_regions_fill_the_image() -> None:
    _, probability = tissue(0)
    assert thin(probability, 0.6).min() >= 1
    assert np.array_equal(thin(probability, 1.1), np.ones(probability.shape))
    assert thin(np.ones((4, 5, 6), dtype=np.float32), 0.5).tolist() == np.ones((4, 5, 6)).tolist()


def test_a_short_gap_joins_by_a_threshold_but_not_on_average() -> None:
    probability = np.full((20, 21), 0.99, dtype=np.float32)
    probability[:, 10] = 0.05
    probability[7, 10] = 0.9
    assert thin(probability, 0.5).max() == 1
    parted = cell_regions(probability, CellParameters(1, seed_threshold=0.95, merge_threshold=0.6))
    assert np.unique(parted).size == 2
    assert np.unique(parted[:, :10]).size == 1


def test_a_faint_line_inside_a_cell_goes() -> None:
    probability = np.full((20, 21), 0.99, dtype=np.float32)
    probability[:, 10] = 0.7
    assert thin(probability, 0.9).max() == 2
    assert np.unique(cell_regions(probability, CellParameters(1, 0.9, 0.6))).size == 1
    assert np.unique(cell_regions(1 - probability, CellParameters(0, 0.9, 0.6))).size == 1


def test_counts_add_and_a_picture_without_cells_has_no_score() -> None:
    first, second = (count_regions(cells, thin(chance, 0.6)) for cells, chance in (tissue(1), tissue(2)))
    both = first + second
    assert both.pixels == first.pixels + second.pixels
    assert min(first.v_rand, second.v_rand) <= both.v_rand <= max(first.v_rand, second.v_rand)
    nothing = count_regions(np.zeros((4, 4), dtype=np.int32), np.ones((4, 4), dtype=np.int32))
    assert nothing == RegionCounts()
    assert (nothing.v_rand, nothing.v_info, nothing.variation_of_information) == (None, None, None)
    assert (nothing.v_rand_split, nothing.v_rand_merge) == (None, None)


def test_one_region_against_one_cell_is_perfect() -> None:
    one = np.ones((4, 4), dtype=np.int32)
    counts = count_regions(one, one)
    assert (counts.v_rand, counts.v_info, counts.variation_of_information) == (1.0, 1.0, 0.0)


def test_many_huge_ids_need_no_dense_table() -> None:
    ids = (np.arange(1, 3001, dtype=np.int32) * 700_000).reshape(50, 60)
    assert count_regions(ids, ids).v_rand == 1.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"same shape, got \(2, 2\) and \(2, 3\)"):
        unwrap(count_regions)(np.zeros((2, 2), dtype=np.int32), np.zeros((2, 3), dtype=np.int32))


def test_a_mask_of_cells_is_thinned_to_what_is_nearest() -> None:
    cells = np.zeros((5, 11), dtype=bool)
    cells[:, :3] = cells[:, 8:] = True
    regions = thin_mask(cells)
    assert np.array_equal(
        regions > 1, np.broadcast_to(np.arange(11) > 5, (5, 11)) | (regions > 1) & (np.arange(11) == 5)
    )
    assert np.array_equal(thin_mask(~cells & False), np.ones((5, 11)))


@pytest.mark.parametrize("membrane", [0, 1])
def test_membranes_are_recognised(membrane: int) -> None:
    grid = np.indices((90, 90))
    cells = ((grid % 15) > 2).all(axis=0)
    labels = np.where(cells, 1 - membrane, membrane).astype(np.uint8)
    assert membrane_class([labels, labels]) == membrane


def test_other_pictures_are_no_membranes() -> None:
    disc = (np.hypot(*(np.indices((60, 60)) - 30)) < 12).astype(np.uint8)
    assert membrane_class([disc]) is None
    lines = np.zeros((60, 60), dtype=np.uint8)
    lines[::20] = 1  # three bands: too few parts
    assert membrane_class([lines]) is None
    nothing = np.zeros((60, 60), dtype=np.uint8)
    assert membrane_class([nothing]) is None
    assert membrane_class([]) is None
    assert membrane_class([disc + disc]) is None
