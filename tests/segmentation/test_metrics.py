"""Pixel counts and their ratios: against torchmetrics, a twin, and the policy for what is empty."""

from inspect import unwrap

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
)

from useg.arrays import IGNORE
from useg.segmentation.metrics import class_counts, class_scores, confusion, dice, iou, mean, pixel_error


def maps(seed: int, classes: int, shape: tuple[int, ...] = (37, 41)) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, shape).astype(np.uint8)
    predicted = np.where(draw.random(shape) < 0.6, truth, draw.integers(0, classes, shape)).astype(np.uint8)
    truth[draw.random(shape) < 0.1] = IGNORE
    return truth, predicted


@pytest.mark.parametrize("classes", [2, 5])
def test_overlap_is_torchmetrics(classes: int) -> None:
    pairs = [maps(seed, classes) for seed in range(3)]
    tables = [confusion(truth, predicted, classes) for truth, predicted in pairs]
    truth, predicted = (torch.from_numpy(np.stack(part)).long() for part in zip(*pairs, strict=True))
    keys = {"num_classes": classes, "ignore_index": IGNORE}
    assert sum(tables)[:, :-1].tolist() == multiclass_confusion_matrix(predicted, truth, **keys).tolist()
    expected_dice = multiclass_f1_score(predicted, truth, average=None, **keys).tolist()
    expected_iou = multiclass_jaccard_index(predicted, truth, average=None, **keys).tolist()
    scores = [class_scores(tables, index) for index in range(classes)]
    assert [score["dice"] for score in scores] == pytest.approx(expected_dice, abs=1e-6)
    assert [score["iou"] for score in scores] == pytest.approx(expected_iou, abs=1e-6)
    each = multiclass_f1_score(
        predicted.flatten(1), truth.flatten(1), average=None, multidim_average="samplewise", **keys
    )
    assert [score["dice_mean"] for score in scores] == pytest.approx(each.mean(dim=0).tolist(), abs=1e-6)


def test_counts_are_those_of_a_loop() -> None:
    truth, predicted = maps(7, 3)
    table = confusion(truth, predicted, 3)
    counted = truth != IGNORE
    for index, counts in enumerate(class_counts(table)):
        assert counts["tp"] == ((truth == index) & (predicted == index)).sum()
        assert counts["fp"] == ((truth != index) & (predicted == index) & counted).sum()
        assert counts["fn"] == ((truth == index) & (predicted != index)).sum()
    assert pixel_error(table) == pytest.approx((truth != predicted)[counted].mean())


def test_big_maps_are_counted_in_blocks() -> None:
    truth, predicted = maps(1, 4, (1100, 1000))
    assert int(confusion(truth, predicted, 4).sum()) == int((truth != IGNORE).sum())


def test_a_withheld_answer_is_a_miss_and_no_false_positive() -> None:
    truth = np.array([[0, 1, 1, IGNORE]], dtype=np.uint8)
    predicted = np.array([[0, IGNORE, 1, IGNORE]], dtype=np.uint8)
    table = confusion(truth, predicted, 2)
    assert table.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert class_counts(table)[1] == {"tp": 1, "fp": 0, "fn": 1}
    assert pixel_error(table) == pytest.approx(1 / 3)


def test_empty_policy() -> None:
    nothing = np.zeros((2, 2), dtype=np.uint8)
    some = np.array([[0, 1], [0, 0]], dtype=np.uint8)
    pairs = [(nothing, nothing), (some, nothing), (nothing, some), (some, some)]
    scores = class_scores([confusion(truth, found, 2) for truth, found in pairs], 1)
    assert scores["dice_mean"] == pytest.approx(1 / 3)  # the image without the class is left out, the others count
    assert scores["dice"] == pytest.approx(0.5)
    assert [scores[f"images_{key}"] for key in ("with_class", "missed", "false", "absent")] == [2, 1, 1, 1]
    absent = class_scores([confusion(nothing, nothing, 2)], 1)
    assert [absent[key] for key in ("iou", "dice", "dice_mean", "precision", "recall")] == [None] * 5


def test_all_ignored_has_no_score() -> None:
    table = confusion(np.full((3, 3), IGNORE, dtype=np.uint8), np.zeros((3, 3), dtype=np.uint8), 2)
    assert pixel_error(table) is None
    assert mean([None, None]) is None
    assert mean([None, 0.5, 1.0]) == 0.75


@pytest.mark.parametrize(("tp", "fp", "fn"), [(3, 1, 2), (0, 0, 4), (5, 0, 0)])
def test_dice_is_a_function_of_iou(tp: int, fp: int, fn: int) -> None:
    assert dice(tp, fp, fn) == pytest.approx(2 * iou(tp, fp, fn) / (1 + iou(tp, fp, fn)))


def test_wrong_maps_are_refused() -> None:
    truth = np.zeros((2, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"same shape, got \(2, 2\) and \(2, 3\)"):
        unwrap(confusion)(truth, np.zeros((2, 3), dtype=np.uint8), 2)
    with pytest.raises(ValueError, match=r"prediction has class ids \[7\], wanted 0..1 or 255"):
        confusion(truth, truth + np.uint8(7), 2)
