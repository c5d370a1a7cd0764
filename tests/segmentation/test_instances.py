"""Targets that teach separation, and separation of what a good network would say about them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from useg.arrays import IGNORE
from useg.errors import ConfigError
from useg.segmentation.instances import (
    FOREGROUND_STEPS,
    MODES,
    SeparationParameters,
    checked_mode,
    class_probabilities,
    object_distance,
    object_scores,
    output_channels,
    separate,
    targets,
)
from useg.segmentation.matching import average_precision, count_objects, overlaps

ANY_SIZE = SeparationParameters(min_seed_px=1, min_size_px=1)


def touching_discs(shape: tuple[int, ...] = (64, 64), spacing: int = 12) -> np.ndarray:
    """Cells of a grid, rounded off, that touch their neighbours; all of one size."""
    grid = np.indices(shape)
    cell = np.ravel_multi_index(tuple(grid // spacing), tuple(-(-size // spacing) for size in shape))
    middle = (grid // spacing) * spacing + (spacing - 1) / 2
    radius = np.sqrt(((grid - middle) ** 2).sum(axis=0))
    return np.where(radius < spacing * 0.58, cell + 1, 0).astype(np.int32)


def one_hot(labels: np.ndarray, channels: int) -> np.ndarray:
    return (labels[None] == np.arange(channels).reshape(-1, *(1,) * labels.ndim)).astype(np.float32)


def perfect_outputs(instances: np.ndarray, mode: str) -> np.ndarray:
    """What a network would give that has learned its targets by heart, a little blurred."""
    classes = (instances > 0).astype(np.uint8)
    labels, distance = targets(classes, instances, mode, 2)
    outputs = one_hot(labels, output_channels(2, mode) if mode == "border" else 2)
    if distance is not None:
        outputs = np.concatenate([outputs, distance[None]])
    return np.stack([ndimage.gaussian_filter(channel, 0.4) for channel in outputs])


@pytest.mark.parametrize("mode", ["border", "distance"])
@pytest.mark.parametrize("shape", [(64, 64), (24, 36, 36)])
def test_touching_objects_come_apart(mode: str, shape: tuple[int, ...]) -> None:
    truth = touching_discs(shape)
    found = separate(perfect_outputs(truth, mode), 2, mode, parameters=ANY_SIZE)
    scores = average_precision(count_objects(overlaps(truth, found)))
    assert scores[0.5] == 1.0
    assert scores[0.75] == 1.0
    merged = separate(perfect_outputs(truth, "none"), 2, "none")
    assert merged.max() < found.max() / 4


@pytest.mark.parametrize("mode", MODES)
def test_separate_objects_come_back_as_they_were(mode: str) -> None:
    truth = np.zeros((40, 40), dtype=np.int32)
    truth[3:12, 4:15] = 1
    truth[20:38, 2:9] = 2
    truth[20:28, 20:39] = 3
    labels, distance = targets((truth > 0).astype(np.uint8), truth, mode, 2)
    outputs = one_hot(labels, 3 if mode == "border" else 2)
    if distance is not None:
        outputs = np.concatenate([outputs, distance[None]])
    found = separate(outputs, 2, mode)
    assert average_precision(count_objects(overlaps(truth, found)))[0.95] == 1.0
    assert found.dtype == np.int32
    assert np.array_equal(found, separate(outputs.copy(), 2, mode))


def test_border_is_one_pixel_to_background_and_two_where_objects_touch() -> None:
    truth = np.zeros((7, 12), dtype=np.int32)
    truth[1:6, 1:6] = 4
    truth[1:6, 6:11] = 9
    labels, distance = targets((truth > 0).astype(np.uint8), truth, "border", 2)
    assert distance is None
    picture = ["".join(".#b"[value] for value in row) for row in labels]
    assert picture == [
        "............",
        ".bbbbbbbbbb.",
        ".b##bbbb##b.",
        ".b##bbbb##b.",
        ".b##bbbb##b.",
        ".bbbbbbbbbb.",
        "............",
    ]


def test_the_picture_edge_is_no_border() -> None:
    truth = np.ones((5, 5), dtype=np.int32)
    classes = np.ones((5, 5), dtype=np.uint8)
    assert np.array_equal(targets(classes, truth, "border", 2)[0], classes)
    assert (object_distance(truth) == 1.0).all()


def test_small_objects_keep_an_inside() -> None:
    truth = np.zeros((9, 30), dtype=np.int32)
    for index, size in enumerate((1, 2, 3, 4), start=1):
        truth[2 : 2 + size, 5 * index : 5 * index + size] = index
    truth[2:6, 25] = 5  # touches nothing, one pixel wide
    truth[2:5, 23:25] = 6  # touches 5
    labels, _ = targets((truth > 0).astype(np.uint8), truth, "border", 2)
    assert set(truth[labels == 1]) == {1, 2, 3, 4, 5, 6}


def test_ignored_pixels_stay_ignored_and_classes_stay_theirs() -> None:
    truth = np.zeros((8, 8), dtype=np.int32)
    truth[1:7, 1:7] = 1
    classes = np.where(truth > 0, 2, 0).astype(np.uint8)
    classes[:3] = IGNORE
    labels, _ = targets(classes, truth, "border", 3)
    assert (labels[:3] == IGNORE).all()
    assert set(np.unique(labels[3:])) == {0, 2, 3}
    for mode in ("none", "weights"):
        assert targets(classes, truth, mode, 3)[0] is classes


def test_distance_is_the_one_of_each_object_alone() -> None:
    truth = touching_discs((30, 30), 10)
    distance = object_distance(truth)
    for index in np.unique(truth)[1:]:
        alone = np.pad(truth == index, 1, mode="edge")
        expected = ndimage.distance_transform_edt(alone)[1:-1, 1:-1]
        inside = truth == index
        assert distance[inside] == pytest.approx((expected / expected[inside].max())[inside], abs=1e-6)
    assert not distance[truth == 0].any()


def test_folding_the_border_keeps_probability() -> None:
    draw = np.random.default_rng(0)
    outputs = draw.dirichlet(np.ones(4), size=(6, 7)).transpose(2, 0, 1).astype(np.float32)
    outputs[:, 0, 0] = [0, 0, 0, 1]
    folded = class_probabilities(outputs, 3, "border")
    assert folded.shape == (3, 6, 7)
    assert folded.sum(axis=0) == pytest.approx(1.0, abs=1e-6)
    assert folded[0] == pytest.approx(outputs[0])
    assert folded[1, 1:] / folded[2, 1:] == pytest.approx(outputs[1, 1:] / outputs[2, 1:], rel=1e-3)
    assert folded[:, 0, 0].tolist() == [0, 0.5, 0.5]
    assert np.array_equal(class_probabilities(outputs, 3, "distance"), outputs[:3])


def test_an_object_lies_within_one_class() -> None:
    labels = np.zeros((6, 10), dtype=np.uint8)
    labels[1:5, 1:5] = 1
    labels[1:5, 5:9] = 2
    found = separate(one_hot(labels, 3), 3, "none")
    assert found.max() == 2
    assert {tuple(np.unique(labels[found == index])) for index in (1, 2)} == {(1,), (2,)}


def test_parameters_do_what_they_say() -> None:
    outputs = np.zeros((2, 12, 24), dtype=np.float32)
    outputs[1, 2:10, 2:10] = outputs[1, 2:10, 12:20] = 0.9
    outputs[1, 5, 10:12] = 0.9  # a bridge
    outputs[1, 2, 22] = 0.9  # a speck
    outputs[1, 2:10, 10:12] += np.where(outputs[1, 2:10, 10:12] > 0, 0, 0.4)
    outputs[0] = 1 - outputs[1]

    def count(**changes: float) -> int:
        return int(separate(outputs, 2, "weights", parameters=replace(ANY_SIZE, **changes)).max())

    assert count() == 2  # joined by the bridge, and the speck
    assert count(min_size_px=4) == 1
    assert count(erosion_px=1, min_size_px=4) == 2
    assert count(mask_threshold=0.95) == 0
    assert count(min_score=0.89) == 2
    assert count(min_score=0.91) == 0
    assert count(erosion_px=1, min_seed_px=100, min_size_px=4) == 1  # no seed is left, so the mask itself is


def test_smoothing_closes_a_cut_of_one_uncertain_pixel_row() -> None:
    outputs = np.zeros((3, 20, 20), dtype=np.float32)
    outputs[1, 4:16, 4:16] = 0.98
    outputs[1, 10, 4:16] = 0.7  # a row that is not sure
    outputs[2] = np.where(outputs[1] == np.float32(0.7), 0.3, 0)
    outputs[0] = 1 - outputs[1] - outputs[2]

    def count(smoothing: float) -> int:
        parameters = replace(ANY_SIZE, seed_threshold=0.8, merge_threshold=0.0, smoothing_px=smoothing)
        return int(separate(outputs, 2, "border", parameters=parameters).max())

    assert count(0.0) == 2
    assert count(1.0) == 1


def test_the_score_is_the_mean_over_an_object() -> None:
    draw = np.random.default_rng(4)
    instances = draw.integers(0, 7, (30, 20), dtype=np.int32)
    instances[instances == 5] = 0
    background = draw.random((30, 20), dtype=np.float32)
    scores = object_scores(instances, background)
    naive = [(1 - background[instances == number]).mean() if number in (1, 2, 3, 4, 6) else 0.0 for number in range(7)]
    assert scores == pytest.approx(naive, abs=1 / FOREGROUND_STEPS)


def test_every_part_of_the_mask_is_some_object() -> None:
    outputs = np.zeros((3, 10, 10), dtype=np.float32)
    outputs[2, 1:3, 1:3] = 1.0  # nothing but border
    outputs[1, 5:9, 5:9] = 1.0
    outputs[0] = 1 - outputs[1:].sum(axis=0)
    found = separate(outputs, 2, "border")
    assert np.array_equal(found > 0, outputs[0] < 0.5)
    assert found.max() == 2


def test_nothing_there_gives_nothing() -> None:
    outputs = np.zeros((3, 8, 8), dtype=np.float32)
    outputs[0] = 1
    for mode in ("border", "distance"):
        assert not separate(outputs, 2, mode).any()


def test_wrong_input_is_refused() -> None:
    outputs = np.zeros((2, 4, 4), dtype=np.float32)
    with pytest.raises(ConfigError, match=r"'border' with 2 classes .* needs 3 output channels, got 2"):
        separate(outputs, 2, "border")
    with pytest.raises(ConfigError, match=r"unknown instance mode 'watershed': choose one of none, border, weights"):
        checked_mode("watershed")
    with pytest.raises(ConfigError, match=r"mask_threshold must lie in 0..1, got 1.5"):
        SeparationParameters(mask_threshold=1.5)
    with pytest.raises(ConfigError, match=r"min_score must lie in 0..1, got -0.1"):
        SeparationParameters(min_score=-0.1)
    with pytest.raises(ConfigError, match=r"min_size_px must be 0 or more, got -1"):
        SeparationParameters(min_size_px=-1)
    assert SeparationParameters(**ANY_SIZE.to_json()) == ANY_SIZE
