"""Tuning finds what a search over everything finds, and an operating point for each metric."""

from inspect import unwrap

import numpy as np
import pytest
from scipy import ndimage

from useg.arrays import IGNORE
from useg.errors import ConfigError
from useg.segmentation.flooding import components
from useg.segmentation.instances import SeparationParameters, separate
from useg.segmentation.matching import count_objects, mean_average_precision, overlaps, sum_counts
from useg.segmentation.membranes import CellParameters, cell_regions, count_regions, thin
from useg.segmentation.tuning import (
    CELL_MERGES,
    CELL_SEEDS,
    OperatingPoint,
    _as_good_as_the_best,
    bounded,
    tune_cells,
    tune_separation,
    tune_threshold,
)


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of mode `border` and true objects; the network is unsure of the borders."""
    draw = np.random.default_rng(seed)
    points = np.zeros((64, 64), dtype=bool)
    points.reshape(-1)[draw.choice(64 * 64, 20, replace=False)] = True
    distance, nearest = ndimage.distance_transform_edt(~points, return_indices=True)
    truth = np.where(distance < 7, components(points)[tuple(nearest)], 0).astype(np.int32)
    inner = ndimage.distance_transform_edt(~(truth != ndimage.grey_erosion(truth, 3))) > 1.5
    sure = np.stack([truth == 0, (truth > 0) & inner, (truth > 0) & ~inner]).astype(np.float32)
    soft = ndimage.gaussian_filter(sure, (0, 1.2, 1.2)) + 0.1 * draw.random(sure.shape)
    return (soft / soft.sum(axis=0)).astype(np.float32), truth


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    return [blobs(seed) for seed in range(3)]


def test_tuning_is_the_best_of_all_combinations(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    start = SeparationParameters()
    best, table = tune_separation(samples, 2, "border", start=start)
    assert len(table) >= 60
    for row in table[:: len(table) // 6]:
        parameters = SeparationParameters(**{key: row[key] for key in start.to_json()})
        found = [overlaps(truth, separate(outputs, 2, "border", parameters=parameters)) for outputs, truth in samples]
        means = [mean_average_precision(sum_counts([count_objects(table)])) for table in found]
        assert row["ap_mean"] == pytest.approx(np.mean(means))
    highest = max(row["ap_mean"] for row in table)
    chosen = next(row for row in table if row.items() >= best.to_json().items())["ap_mean"]
    before = next(row for row in table if row.items() >= start.to_json().items())["ap_mean"]
    assert highest >= chosen >= before
    assert chosen > highest - 0.1


def test_of_what_is_as_good_the_nearest_is_taken() -> None:
    """Candidate 1 is best by luck of one image; 2 is nearer to the start; 0 and 3 are clearly worse."""
    scores = np.array([[0.5, 0.9, 0.9, 0.5], [0.5, 0.8, 0.9, 0.5], [0.5, 0.9, 0.7, 0.4], [np.nan] * 4])
    assert _as_good_as_the_best(scores, [0.0, 2.0, 1.0, 0.0]) == 2
    assert _as_good_as_the_best(scores, [0.0, 1.0, 2.0, 0.0]) == 1
    assert _as_good_as_the_best(scores[:1], [0.0, 1.0, 2.0, 0.0]) == 1
    assert _as_good_as_the_best(scores[3:], [3.0, 1.0, 2.0, 4.0]) == 1


def test_ties_go_to_the_start() -> None:
    truth = np.zeros((20, 20), dtype=np.int32)
    truth[2:9, 2:9], truth[12:19, 12:19] = 1, 2
    outputs = np.stack([truth == 0, truth > 0]).astype(np.float32)
    start = SeparationParameters(mask_threshold=0.45, min_size_px=7)
    assert tune_separation([(outputs, truth)], 2, "weights", start=start)[0] == start


def test_without_objects_the_start_stays() -> None:
    nothing = np.zeros((8, 8), dtype=np.int32)
    outputs = np.stack([nothing + 1, nothing, nothing]).astype(np.float32)
    start = SeparationParameters(seed_threshold=0.4)
    assert tune_separation([(outputs, nothing)], 2, "distance", start=start) == (start, [])
    assert tune_separation([], 2, "distance", start=start) == (start, [])


def test_cost_is_bounded(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert bounded("abcdefg", [1] * 7, 3) == ["a", "d", "g"]
    assert bounded("ab", [9, 9], 3) == ["a"]
    assert bounded("", [], 3) == []
    few = tune_separation(samples, 2, "border", max_pixels=64 * 64)[1]
    assert few == tune_separation(samples[:1], 2, "border")[1]


def binary(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(draw.normal(size=(50, 60)), 3)
    label = (field > 0.05).astype(np.uint8)
    label[:4] = IGNORE
    chance = 1 / (1 + np.exp(-(field * 12 + draw.normal(size=field.shape))))
    return (chance**2).astype(np.float32), label


def test_each_metric_has_its_own_best_threshold() -> None:
    pairs = [binary(seed) for seed in range(2)]
    chances, labels = zip(*pairs, strict=True)
    points = tune_threshold(chances, labels, ("pixel_error", "dice"))
    counted = np.concatenate([label[label != IGNORE] for label in labels])
    chance = np.concatenate([c[label != IGNORE] for c, label in pairs]).astype(float)
    steps = [round(0.01 * k, 2) for k in range(1, 100)]
    errors = [((chance >= step) != counted).mean() for step in steps]
    dices = [2 * ((chance >= s) & (counted == 1)).sum() / ((chance >= s).sum() + counted.sum()) for s in steps]
    assert points["pixel_error"].score == pytest.approx(min(errors))
    assert errors[steps.index(points["pixel_error"].threshold)] == min(errors)
    assert points["dice"].score == pytest.approx(max(dices))
    assert points["dice"].threshold < points["pixel_error"].threshold


def membranes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells with membranes of which a part is faint."""
    draw = np.random.default_rng(seed)
    points = np.zeros((64, 64), dtype=bool)
    points.reshape(-1)[draw.choice(64 * 64, 12, replace=False)] = True
    nearest = ndimage.distance_transform_edt(~points, return_indices=True)[1]
    cells = components(points)[tuple(nearest)]
    line = (cells != ndimage.grey_erosion(cells, 3)) | (cells != ndimage.grey_dilation(cells, 3))
    strength = ndimage.gaussian_filter(line.astype(float), 1.0)
    faint = ndimage.gaussian_filter(draw.random(line.shape), 4)
    strength *= 0.3 + 0.7 * (faint - faint.min()) / np.ptp(faint)
    chance = 1 - strength / strength.max() + 0.05 * draw.normal(size=line.shape)
    return np.clip(chance, 0, 1).astype(np.float32), (~line).astype(np.uint8)


@pytest.mark.parametrize("cell_class", [0, 1])
def test_cells_are_tuned_by_v_rand(cell_class: int) -> None:
    pairs = [membranes(seed) for seed in range(3)]
    chances = [chance if cell_class else 1 - chance for chance, _ in pairs]
    labels = [label if cell_class else 1 - label for _, label in pairs]
    parameters, score = tune_cells(chances, labels, cell_class)

    def v_rand(seed: float, merge: float) -> np.ndarray:
        found = [cell_regions(chance, CellParameters(cell_class, seed, merge)) for chance in chances]
        truths = [components(label == cell_class) for label in labels]
        return np.array([count_regions(*both).v_rand for both in zip(truths, found, strict=True)])

    here = v_rand(parameters.seed_threshold, parameters.merge_threshold)
    assert score == pytest.approx(here.mean())
    every = {(seed, merge): v_rand(seed, merge) for seed in CELL_SEEDS for merge in CELL_MERGES}
    best = max(every.values(), key=np.mean)
    assert (best - here).mean() <= (best - here).std(ddof=1) / np.sqrt(3) + 1e-9
    assert best.mean() > np.mean([count_regions(components(label == 1), thin(c, 0.5)).v_rand for c, label in pairs])


def test_equal_candidates_stay_with_the_start() -> None:
    perfect = np.where(np.arange(400).reshape(20, 20) % 20 == 9, 0.0, 1.0).astype(np.float32)
    parameters, score = tune_cells([perfect] * 3, [perfect.astype(np.uint8)] * 3, 1)
    assert (parameters, score) == (CellParameters(), 1.0)
    start = CellParameters(seed_threshold=0.7, merge_threshold=0.4)
    assert tune_cells([perfect] * 3, [perfect.astype(np.uint8)] * 3, 1, start=start)[0] == start


def test_nothing_to_score_gives_one_half() -> None:
    chance = np.zeros((5, 5), dtype=np.float32)
    ignored = np.full((5, 5), IGNORE, dtype=np.uint8)
    points = tune_threshold([chance], [ignored], ("pixel_error", "dice"))
    assert set(points.values()) == {OperatingPoint(0.5, None)}
    assert tune_cells([chance], [ignored], 0) == (CellParameters(cell_class=0), None)


def test_wrong_input_is_refused() -> None:
    chance, label = binary(0)
    with pytest.raises(ConfigError, match=r"unknown metric 'rand': choose from pixel_error, dice"):
        unwrap(tune_threshold)([chance], [label], ["rand"])
    with pytest.raises(ValueError, match=r"one label map for each probability map"):
        tune_threshold([chance], [label, label])
    with pytest.raises(ValueError, match=r"one label map for each probability map, and cell_class 0 or 1"):
        tune_cells([chance], [label], 2)
