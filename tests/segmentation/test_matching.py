"""Matching objects: against a search over all assignments, torchmetrics (PQ) and py-ctcmetrics (SEG)."""

from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from ctc_metrics.metrics.technical.seg import seg as ctc_seg
from ctc_metrics.utils.representations import match as ctc_match
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from torchmetrics.detection import PanopticQuality

from useg.segmentation.matching import (
    AP_THRESHOLDS,
    ObjectCounts,
    average_precision,
    count_objects,
    mean_average_precision,
    object_scores,
    overlaps,
    sum_counts,
)


def cells(seed: int, shape: tuple[int, ...] = (48, 56), count: int = 25) -> np.ndarray:
    """Random touching objects with gaps in their ids."""
    draw = np.random.default_rng(seed)
    markers = np.zeros(shape, dtype=np.int32)
    places = draw.choice(markers.size, count, replace=False)
    markers.reshape(-1)[places] = 3 * np.arange(1, count + 1)
    distance, nearest = ndimage.distance_transform_edt(markers == 0, return_indices=True)
    return np.where(distance < 5, markers[tuple(nearest)], 0).astype(np.int32)


def perturbed(truth: np.ndarray, seed: int) -> np.ndarray:
    """Shift the objects, merge some, cut some, drop some and invent one."""
    draw = np.random.default_rng(seed)
    found = np.roll(truth, draw.integers(0, 2, size=truth.ndim), axis=tuple(range(truth.ndim)))
    ids = np.unique(found)[1:]
    first, second, third, fourth, fifth = draw.permutation(ids)[:5]
    found[found == first] = second
    found[found == third] = 0
    for cut in (fourth, fifth):
        rows = np.nonzero(found == cut)[-1]
        if rows.size:
            half = (np.arange(found.shape[-1]) >= np.median(rows)) & (found == cut)
            found[half] = found.max() + 1
    found[..., :3, :3] = found.max() + 1
    return found.astype(np.int32)


def iou_matrix(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The slow twin: every object against every other."""
    return np.array(
        [
            [((truth == t) & (found == f)).sum() / ((truth == t) | (found == f)).sum() for f in ids(found)]
            for t in ids(truth)
        ]
    ).reshape(len(ids(truth)), len(ids(found)))


def ids(labels: np.ndarray) -> list[int]:
    return [int(value) for value in np.unique(labels) if value]


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_the_best_assignment(seed: int) -> None:
    truth = cells(seed)
    found = perturbed(truth, seed)
    matrix = iou_matrix(truth, found)
    scores = average_precision(count_objects(overlaps(truth, found)))
    for threshold in AP_THRESHOLDS:
        rows, columns = linear_sum_assignment(-(matrix >= threshold).astype(float))
        hits = (matrix[rows, columns] >= threshold).sum()
        assert scores[threshold] == hits / (sum(matrix.shape) - hits)
    assert 0 < scores[0.5] < 1
    assert scores[0.95] <= scores[0.75] <= scores[0.5]


def test_an_object_in_two_equal_halves_is_one_match_at_one_half() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 2]], dtype=np.int32)
    found = np.array([[1, 1, 2, 2, 0, 3]], dtype=np.int32)
    counts = count_objects(overlaps(truth, found))
    assert (counts.truths, counts.predictions, counts.hits[0], counts.hits[1]) == (2, 3, 2, 1)
    assert average_precision(counts)[0.5] == 2 / 3
    assert counts.pairs == 1  # the panoptic rule wants more than one half


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_is_torchmetrics(seed: int) -> None:
    counts = ObjectCounts()
    oracle = PanopticQuality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    for number in range(3):
        truth = cells(10 * seed + number)
        found = perturbed(truth, seed)
        counts += count_objects(overlaps(truth, found))
        pair = [torch.from_numpy(np.stack([labels > 0, labels], axis=-1))[None].long() for labels in (found, truth)]
        oracle.update(*pair)
    expected = oracle.compute()[0]  # things come first
    scores = object_scores(counts)
    assert [scores["pq"], scores["sq"], scores["rq"]] == pytest.approx(expected.tolist(), abs=1e-6)
    assert scores["pq"] == pytest.approx(scores["sq"] * scores["rq"])


@pytest.mark.parametrize("shape", [(48, 56), (10, 24, 24)])
def test_seg_is_the_cell_tracking_challenge(tmp_path: Path, shape: tuple[int, ...]) -> None:
    counts, labels, ious = [], [], []
    for seed in range(3):
        truth = cells(seed, shape)
        found = perturbed(truth, seed)
        counts.append(count_objects(overlaps(truth, found)))
        for name, picture in (("truth", truth), ("found", found)):
            tifffile.imwrite(tmp_path / f"{name}.tif", picture.astype(np.uint16))
        true_ids, _, _, _, iou = ctc_match(str(tmp_path / "truth.tif"), str(tmp_path / "found.tif"))
        labels.append(true_ids)
        ious.append(iou)
    assert object_scores(sum_counts(counts))["seg"] == pytest.approx(ctc_seg(labels, ious))


def test_merges_and_splits() -> None:
    truth = np.array([[1, 1, 1, 2, 2, 2, 0, 3, 3, 3, 3, 0, 4, 4]], dtype=np.int32)
    found = np.array([[9, 9, 9, 9, 9, 9, 0, 5, 5, 6, 6, 6, 0, 0]], dtype=np.int32)
    counts = count_objects(overlaps(truth, found))
    assert (counts.merges, counts.merged) == (1, 2)
    assert (counts.splits, counts.fragments) == (1, 2)
    same = count_objects(overlaps(truth, truth))
    assert (same.merges, same.splits) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_map_against_itself_is_perfect(seed: int) -> None:
    truth = cells(seed)
    scores = object_scores(count_objects(overlaps(truth, 1000 - np.where(truth, truth, 1000).astype(np.int32))))
    assert [scores[key] for key in ("ap_mean", "pq", "seg", "precision50", "recall50")] == [1.0] * 5


def test_without_objects_there_is_no_ratio() -> None:
    nothing = np.zeros((4, 4), dtype=np.int32)
    one = nothing.copy()
    one[0, 0] = 1
    empty = object_scores(count_objects(overlaps(nothing, nothing)))
    assert [empty[key] for key in ("ap50", "ap_mean", "pq", "sq", "rq", "seg")] == [None] * 6
    missed = object_scores(count_objects(overlaps(one, nothing)))
    assert (missed["ap50"], missed["pq"], missed["seg"], missed["missed50"]) == (0.0, 0.0, 0.0, 1)
    assert missed["precision50"] is None
    false = object_scores(count_objects(overlaps(nothing, one)))
    assert (false["ap50"], false["seg"], false["false50"]) == (0.0, None, 1)


def test_images_are_pooled_not_averaged() -> None:
    few, many = cells(1, count=5), cells(2, count=30)
    counts = [count_objects(overlaps(few, np.zeros_like(few))), count_objects(overlaps(many, many))]
    truths = counts[0].truths + counts[1].truths
    assert average_precision(sum_counts(counts))[0.5] == counts[1].truths / truths


def test_ignored_pixels_hide_objects() -> None:
    truth = np.array([[1, 1, 0, 0, 2, 2, 0, 0]], dtype=np.int32)
    found = np.array([[1, 1, 0, 3, 2, 2, 4, 4]], dtype=np.int32)
    ignored = np.array([[0, 0, 0, 0, 0, 1, 1, 1]], dtype=bool)
    table = overlaps(truth, found, ignored)
    counts = count_objects(table)
    # object 4 lies in what is ignored; the false object 3 does not; of object 2 what is left is compared
    assert (counts.truths, counts.predictions, counts.hits[-1]) == (2, 3, 2)
    assert overlaps(truth, found, np.ones_like(ignored)).truth_sizes.size == 0


@pytest.mark.parametrize("size", [1, 12, 40])
def test_leaving_out_small_predictions_equals_removing_them(size: int) -> None:
    truth = cells(3)
    found = perturbed(truth, 3)
    sizes = np.bincount(found.reshape(-1))
    removed = np.where(sizes[found] >= size, found, 0).astype(np.int32)
    table = overlaps(truth, found)
    assert count_objects(table.only(table.predicted_sizes >= size)) == count_objects(overlaps(truth, removed))


def test_huge_ids_and_many_objects_need_no_dense_table() -> None:
    draw = np.random.default_rng(0)
    truth = draw.permutation(np.arange(3000, dtype=np.int32)).reshape(50, 60) * 700_000
    table = overlaps(truth, truth)
    assert count_objects(table).hits[-1] == 2999
    assert mean_average_precision(count_objects(table)) == 1.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"same shape, got \(2, 2\) and \(2, 3\)"):
        unwrap(overlaps)(np.zeros((2, 2), dtype=np.int32), np.zeros((2, 3), dtype=np.int32))
