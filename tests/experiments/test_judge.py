"""Operating points and decisions, on outputs made by hand instead of by a network."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from useg.data.samples import Loaded
from useg.experiments import judge
from useg.experiments.judge import Predicted, decide, predict_all, score, task_of, tune
from useg.segmentation.scoring import Task


def member(num_classes: int = 2, mode: str = "none") -> Any:
    """What judging asks of a network: its plan and its classes."""
    names = ("ground", "disc", "ring")[:num_classes]
    return SimpleNamespace(
        plan=SimpleNamespace(num_classes=num_classes, instance_mode=mode),
        mapping=SimpleNamespace(class_names=names),
    )


def sample(key: str, probability: np.ndarray, truth: np.ndarray) -> Predicted:
    outputs = np.stack([1 - probability, probability]).astype(np.float16)
    return Predicted(Loaded(key, np.zeros((1, *truth.shape), np.uint8), truth.astype(np.uint8), None), outputs)


@pytest.fixture
def shy() -> list[Predicted]:
    """A network that is right, but gives discs only 0.3."""
    found = []
    for number in range(3):
        truth = np.zeros((30, 30), bool)
        truth[5 + number : 15 + number, 8:20] = True
        found.append(sample(str(number), np.where(truth, 0.3, 0.1), truth))
    return found


PLAIN = Task(class_names=("ground", "disc"), membrane_class=None, unit="px", surface=False, lines=False)


def test_a_threshold_makes_a_shy_network_right(shy: list[Predicted]) -> None:
    tuning = tune(member(), shy, PLAIN)
    assert 0.1 < tuning["thresholds"]["dice"] <= 0.3
    assert tuning["tuned_scores"] == {"pixel_error": 0.0, "dice": 1.0}
    assert "cells" not in tuning
    scores = score(member(), shy, tuning, PLAIN)
    assert scores["mean_dice"] == 1.0
    assert scores["operating_points"]["pixel_error"]["pixel_error"] == 0.0
    assert score(member(), shy, {}, PLAIN)["mean_dice"] == 0.0


def test_nothing_to_tune() -> None:
    assert tune(member(), [], PLAIN) == {}
    three = np.zeros((3, 8, 8), np.float16)
    loaded = Loaded("a", np.zeros((1, 8, 8), np.uint8), np.zeros((8, 8), np.uint8), None)
    assert tune(member(3), [Predicted(loaded, three)], PLAIN) == {}
    unlabelled = Predicted(Loaded("b", loaded.image, None, None), three[:2])
    assert tune(member(), [unlabelled], PLAIN) == {}


def test_ignored_pixels_do_not_move_a_threshold(shy: list[Predicted]) -> None:
    spoiled = []
    for each in shy:
        truth, outputs = each.loaded.classes.copy(), each.outputs.copy()
        truth[:4], outputs[0, :4], outputs[1, :4] = 255, 0.0, 1.0
        spoiled.append(Predicted(Loaded(each.loaded.key, each.loaded.image, truth, None), outputs))
    assert tune(member(), spoiled, PLAIN) == tune(member(), shy, PLAIN)


def test_membranes_have_an_operating_point_of_their_own() -> None:
    truth = np.ones((60, 60), bool)
    truth[::12] = truth[:, ::12] = False  # class 0: thin lines around cells
    predicted = [sample(str(k), np.where(truth, 0.8, 0.6), truth) for k in range(2)]
    task = task_of(member(), [each.loaded for each in predicted], None)
    assert (task.membrane_class, task.unit) == (0, "px")
    tuning = tune(member(), predicted, task)
    kept = tune(member(), predicted, task, whole=False)
    assert kept["cells"] == {"cell_class": 1 - task.membrane_class, "seed_threshold": 0.99, "merge_threshold": 0.6}
    assert kept["tuned_scores"]["v_rand"] is None
    assert kept["thresholds"] == tuning["thresholds"]
    assert set(tuning["thresholds"]) == {"pixel_error", "dice"}
    assert tuning["cells"]["cell_class"] == 1
    assert tuning["tuned_scores"]["v_rand"] > 0.95
    points = score(member(), predicted, tuning, task)["operating_points"]
    assert points["v_rand"]["v_rand"] > 0.95
    assert task_of(member(3), [each.loaded for each in predicted], "um").membrane_class is None


def test_objects_are_told_apart_where_the_network_does() -> None:
    """Two touching squares, with a border between them."""
    ids = np.zeros((24, 40), np.int32)
    ids[6:18, 6:19], ids[6:18, 19:32] = 1, 2
    border = np.zeros(ids.shape, bool)
    border[6:18, 18:20] = True
    inside = (ids > 0) & ~border
    outputs = np.stack([ids == 0, inside, border]).astype(np.float16)
    loaded = Loaded("a", np.zeros((1, *ids.shape), np.uint8), (ids > 0).astype(np.uint8), ids)
    predicted = [Predicted(loaded, outputs)]
    tuning = tune(member(mode="border"), predicted, PLAIN)
    assert tuning["tuned_scores"]["ap_mean"] > 0.9
    classes, objects = decide(member(mode="border"), outputs, tuning)
    assert len(np.unique(objects)) == 3
    assert classes[12, 18] == 1  # the border belongs to the objects
    assert score(member(mode="border"), predicted, tuning, PLAIN)["instances"]["ap50"] == 1.0


def test_outputs_are_averaged_over_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Callable[[], np.ndarray]] = {
        "a": lambda: np.full((2, 4, 4), 0.25, np.float32),
        "b": lambda: np.full((2, 4, 4), 0.75, np.float32),
    }
    monkeypatch.setattr(judge, "outputs_of", lambda one, loaded, *, with_symmetries: fields[one]())
    loaded = Loaded("x", np.zeros((1, 4, 4), np.uint8), None, None)
    samples = SimpleNamespace(each=lambda indices: iter([loaded]))
    (found,) = predict_all(["a", "b"], samples, [0], with_symmetries=False)  # type: ignore[arg-type, list-item]
    assert found.outputs.dtype == np.float16
    assert (found.outputs == 0.5).all()
