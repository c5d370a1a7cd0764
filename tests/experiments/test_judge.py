"""Operating points and decisions, on outputs made by hand instead of by a network."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from weakref import finalize

import numpy as np
import pytest

from useg.data.samples import Loaded
from useg.experiments import judge
from useg.experiments.judge import Predicted, Predictions, decide, score, task_of, tune
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


class Many:
    """Samples that are made when they are asked for, and remember which of them still live."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.alive = self.most_alive = 0

    def __getitem__(self, index: int) -> Loaded:
        truth = np.zeros((30, 30), np.uint8)
        truth[5 + index : 15 + index, 8:20] = 1
        found = Loaded(str(index), truth[None] * 100, truth, None)
        self.read.append(index)
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        finalize(found, self._gone)
        return found

    def _gone(self) -> None:
        self.alive -= 1

    def space(self, index: int) -> tuple[int, ...]:
        return (30, 30)

    def following(self, indices: object) -> Any:
        return nullcontext()


@pytest.mark.parametrize(("kept", "alive"), [(0, 3), (4 * 900, 6), (40_000_000, 12)])
def test_few_outputs_are_in_memory_and_the_scores_are_the_same(monkeypatch, kept: int, alive: int) -> None:
    monkeypatch.setattr(judge, "_KEPT_PIXELS", kept)
    monkeypatch.setattr(
        judge,
        "outputs_of",
        lambda one, loaded, *, with_symmetries: np.stack([1 - loaded.image[0] / 250, loaded.image[0] / 250]),
    )
    samples = Many()
    held_out = Predictions([([member()], index) for index in range(12)], samples)  # type: ignore[arg-type]
    tuning = tune(member(), held_out.kept(), PLAIN)
    assert samples.read == list(range(max(1, min(12, kept // 900))))
    scores = score(member(), held_out, tuning, PLAIN)
    assert samples.most_alive <= alive
    whole = [Predicted(each.loaded, each.outputs.copy()) for each in held_out]
    assert scores == score(member(), whole, tuning, PLAIN)
    assert list(scores["samples"]) == [str(index) for index in range(12)]
    assert scores["mean_dice"] == 1.0


def test_outputs_are_averaged_over_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Callable[[], np.ndarray]] = {
        "a": lambda: np.full((2, 4, 4), 0.25, np.float32),
        "b": lambda: np.full((2, 4, 4), 0.75, np.float32),
    }
    monkeypatch.setattr(judge, "outputs_of", lambda one, loaded, *, with_symmetries: fields[one]())
    samples = Many()
    (found,) = Predictions([(["a", "b"], 0)], samples)  # type: ignore[arg-type, list-item]
    assert found.outputs.dtype == np.float16
    assert (found.outputs == 0.5).all()
