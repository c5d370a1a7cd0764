"""All scores together: what is pooled, what is averaged, and what never counts."""

import json

import numpy as np
import pytest
from scipy import ndimage

from useg.arrays import IGNORE
from useg.segmentation.membranes import count_regions
from useg.segmentation.scoring import SampleCounts, Task, pool, score_sample

TASK = Task(class_names=("background", "one", "two"))


def picture(seed: int) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 50)), 4)
    return np.digitize(field, np.quantile(field, [0.5, 0.8])).astype(np.uint8)


def test_a_perfect_prediction_scores_perfectly_and_is_json() -> None:
    objects = ndimage.label(picture(0) == 2)[0].astype(np.int32)
    counts = score_sample("a/0", picture(0), picture(0), task=TASK, true_objects=objects, predicted_objects=objects)
    scores = json.loads(json.dumps(pool([counts], TASK)))
    assert (scores["mean_dice"], scores["mean_iou"], scores["pixel_error"]) == (1.0, 1.0, 0.0)
    assert scores["mean_over"] == ["one", "two"]
    for name in ("one", "two"):
        assert (scores["classes"][name]["dice_mean"], scores["classes"][name]["cldice"]) == (1.0, 1.0)
        surface = scores["surface"]["classes"][name]
        assert (surface["hd95"], surface["nsd"], surface["images"]) == (0.0, 1.0, 1)
    assert scores["instances"]["ap_mean"] == 1.0
    assert scores["membranes"] is None
    assert scores["samples"]["a/0"]["dice"] == {"background": 1.0, "one": 1.0, "two": 1.0}
    assert scores["samples"]["a/0"]["instances"]["pq"] == 1.0


def test_a_missed_class_costs_the_diagonal_and_is_counted() -> None:
    truth, found = picture(1), picture(1)
    found[found == 2] = 1
    counts = [
        score_sample("missed", truth, found, task=TASK, spacing=(3.0, 4.0)),
        score_sample("right", truth, truth, task=TASK, spacing=(3.0, 4.0)),
    ]
    scores = pool(counts, TASK)
    diagonal = np.hypot(40 * 3, 50 * 4)
    surface = scores["surface"]["classes"]["two"]
    assert surface["hd95"] == pytest.approx(diagonal / 2)
    assert (surface["nsd"], surface["missed"], surface["images"]) == (0.5, 1, 2)
    assert scores["surface"]["missed_values"] == pytest.approx([diagonal, diagonal])
    assert scores["surface"]["tolerance"] == [3.0, 3.0]
    two = scores["classes"]["two"]
    assert (two["dice_mean"], two["images_missed"], two["images_with_class"]) == (0.5, 1, 2)
    assert scores["samples"]["missed"]["missed"] == ["two"]
    assert scores["samples"]["right"]["missed"] == []


def test_ignored_pixels_change_nothing() -> None:
    truth, found = picture(2), picture(3)
    truth[:, 30:] = IGNORE
    objects = ndimage.label(picture(2) > 0)[0].astype(np.int32)
    objects[:, 30:] = 0
    rows = []
    for other in (4, 5):
        changed = np.where(truth == IGNORE, picture(other), found)
        predicted = ndimage.label(found > 0)[0].astype(np.int32)
        predicted[:, 30:] = np.where(picture(other)[:, 30:] == 2, 500 + other, 0)
        counts = score_sample("x", truth, changed, task=TASK, true_objects=objects, predicted_objects=predicted)
        rows.append(pool([counts], TASK))
    assert rows[0] == rows[1]
    assert rows[0]["ignored_pixels"] == 40 * 20
    assert rows[0]["classes"]["one"]["dice"] < 0.9


def test_pooled_is_not_the_mean_over_images() -> None:
    small, large = np.zeros((40, 50), dtype=np.uint8), np.zeros((40, 50), dtype=np.uint8)
    small[:2, :2] = 1
    large[10:, 10:] = 1
    task = Task(class_names=("background", "one"), surface=False, lines=False)
    counts = [
        score_sample("small", small, np.zeros_like(small), task=task),
        score_sample("large", large, large, task=task),
    ]
    scores = pool(counts, task)
    assert scores["classes"]["one"]["dice"] == pytest.approx(2400 / 2404, abs=1e-3)
    assert scores["classes"]["one"]["dice_mean"] == 0.5
    assert scores["surface"] is None
    assert "cldice" not in scores["classes"]["one"]


def test_membranes_are_scored_on_given_regions_or_on_the_prediction() -> None:
    truth = np.ones((12, 12), dtype=np.uint8)
    truth[:, 6] = truth[6] = 0
    task = Task(class_names=("membrane", "cell"), background=False, membrane_class=0)
    perfect = pool([score_sample("a", truth, truth, task=task)], task)
    assert (perfect["membranes"]["v_rand"], perfect["membranes"]["v_info"]) == (1.0, 1.0)
    assert perfect["mean_over"] == ["membrane", "cell"]
    one_region = np.ones((12, 12), dtype=np.int32)
    counts = score_sample("a", truth, truth, task=task, regions=one_region)
    cells = ndimage.label(truth)[0].astype(np.int32)
    assert pool([counts], task)["membranes"]["v_rand"] == count_regions(cells, one_region).v_rand
    assert pool([counts], task)["samples"]["a"]["membranes"]["v_rand"] < 1


def test_without_samples_there_are_no_scores() -> None:
    scores = pool([], TASK)
    assert (scores["images"], scores["mean_dice"], scores["pixel_error"], scores["surface"]) == (
        0,
        None,
        None,
        None,
    )


def test_volumes_are_scored_in_their_spacing() -> None:
    truth = np.zeros((8, 10, 12), dtype=np.uint8)
    truth[2:6, 2:8, 2:8] = 1
    found = np.roll(truth, 1, axis=0)
    counts = score_sample("v", truth, found, task=Task(class_names=("background", "organ")), spacing=(5.0, 1.0, 1.0))
    assert isinstance(counts, SampleCounts)
    assert counts.surfaces[1].hd95 == 5.0
