"""Live scores of a network in training, by networks whose answers are known."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from useg.data.labels import LabelClass, LabelMapping
from useg.data.samples import Loaded
from useg.experiments import validation
from useg.experiments.ensemble import Member
from useg.experiments.validation import live_scores, member_of, outputs_of
from useg.segmentation.normalise import ChannelNorm
from useg.train.loop import Trainer
from useg.train.plan import Plan


@pytest.fixture
def mapping() -> LabelMapping:
    return LabelMapping(
        kind="values",
        classes=(LabelClass(name="ground", values=(0,)), LabelClass(name="disc", values=(200,))),
    )


@pytest.fixture
def plan() -> Plan:
    return Plan(
        stored_channels=1,
        num_classes=2,
        class_names=("ground", "disc"),
        patch=(16, 16),
        strides=((2, 2),),
        base=2,
        normalisation=(ChannelNorm("dataset", low=0.0, high=255.0, mean=80.0, std=50.0),),
        steps=12,
    )


@pytest.fixture
def member(plan: Plan, mapping: LabelMapping) -> Member:
    return member_of(Trainer(plan), plan, mapping)


class Items(list[Loaded]):
    def each(self, indices: list[int]) -> Iterator[Loaded]:
        return (self[index] for index in indices)


def samples(count: int, side: int = 20) -> Items:
    truth = np.zeros((side, side), np.uint8)
    truth[4:12, 5:15] = 1
    image = (50 + 100 * truth)[None].astype(np.uint8)
    return Items(Loaded(str(k), image, truth, None) for k in range(count))


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Loaded], np.ndarray]) -> None:
    def outputs(member: Member, loaded: Loaded, *, with_symmetries: bool = False) -> np.ndarray:
        chosen = answer(loaded)
        return np.stack([chosen == 0, chosen == 1]).astype(np.float32)

    monkeypatch.setattr(validation, "outputs_of", outputs)


def test_the_truth_has_dice_1(member: Member, monkeypatch) -> None:
    answering(monkeypatch, lambda loaded: loaded.classes)
    live = live_scores(member, samples(3), [0, 2])
    assert live.scores == {"mean_dice": 1.0, "pixel_error": 0.0, "dice": {"ground": 1.0, "disc": 1.0}}
    assert live.constant is None


def test_one_class_everywhere_is_told(member: Member, monkeypatch) -> None:
    answering(monkeypatch, lambda loaded: np.zeros_like(loaded.classes))
    live = live_scores(member, samples(2), [0, 1])
    assert live.constant == "ground"
    assert live.scores["mean_dice"] == 0.0
    assert live.scores["pixel_error"] == pytest.approx(80 / 400)


def test_samples_without_labels_or_none_at_all(member: Member, monkeypatch) -> None:
    answering(monkeypatch, lambda loaded: loaded.image[0] > 100)
    bare = Items([Loaded("bare", samples(1)[0].image, None, None), *samples(1)])
    assert live_scores(member, bare, [0, 1]).scores["mean_dice"] == 1.0
    empty = live_scores(member, bare, [0])
    assert (empty.scores["mean_dice"], empty.constant) == (None, None)


@pytest.mark.parametrize("space", [(5, 7), (16, 16), (61, 33)])
def test_outputs_cover_the_image_and_sum_to_1(member: Member, space: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, *space)).astype(np.uint8)
    outputs = outputs_of(member, Loaded("x", image, None, None))
    assert outputs.shape == (2, *space)
    assert np.abs(outputs.sum(0) - 1).max() < 1e-5


def test_with_symmetries_a_mirrored_image_has_mirrored_outputs(member: Member) -> None:
    image = np.random.default_rng(1).integers(0, 255, (1, 16, 16)).astype(np.uint8)
    for turned in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: np.rot90(a, 1, (1, 2))):
        straight = outputs_of(member, Loaded("x", image, None, None), with_symmetries=True)
        other = Loaded("x", np.ascontiguousarray(turned(image)), None, None)
        mirrored = outputs_of(member, other, with_symmetries=True)
        assert np.abs(turned(straight) - mirrored).max() < 1e-4


def test_a_member_does_not_follow_the_training(plan: Plan, mapping: LabelMapping) -> None:
    trainer = Trainer(plan)
    loaded = samples(1)[0]
    member = member_of(trainer, plan, mapping)
    before = outputs_of(member, loaded)
    for tensor in trainer.average.values():
        tensor.zero_()
    assert (outputs_of(member, loaded) == before).all()
    assert not np.allclose(outputs_of(member_of(trainer, plan, mapping), loaded), before)
