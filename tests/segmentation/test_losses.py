"""The loss against slow twins, and what must have no part in it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from useg.arrays import IGNORE
from useg.segmentation.losses import (
    activate,
    segmentation_loss,
    soft_dice_loss,
    supervise,
    weighted_cross_entropy,
)


def value(scalar: torch.Tensor) -> float:
    return scalar.detach().item()


def problem(seed: int = 0, classes: int = 3, space: tuple[int, ...] = (5, 6)):
    """Random logits, targets (some ignored) and weights."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *space, generator=random, requires_grad=True)
    targets = torch.randint(0, classes, (2, *space), generator=random, dtype=torch.uint8)
    targets[torch.rand(targets.shape, generator=random) < 0.2] = IGNORE
    return logits, targets, 3 * torch.rand(targets.shape, generator=random)


def cross_entropy_twin(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    total = count = 0.0
    for n, *place in np.ndindex(targets.shape):
        target = int(targets[n, *place])
        if target == IGNORE:
            continue
        scores = logits[(n, slice(None), *place)].astype(np.float64)
        total -= weights[n, *place] * (scores[target] - math.log(np.exp(scores).sum()))
        count += 1
    return total / max(1, count)


def dice_twin(probabilities: np.ndarray, targets: np.ndarray, smooth: float = 1.0) -> float:
    losses = []
    annotated = targets != IGNORE
    for k in range(probabilities.shape[1]):
        truth = (targets == k) & annotated
        if truth.any():
            p = probabilities[:, k][annotated].astype(np.float64)
            overlap = probabilities[:, k][truth].astype(np.float64).sum()
            losses.append(1 - (2 * overlap + smooth) / (p.sum() + truth.sum() + smooth))
    return float(np.mean(losses)) if losses else 0.0


@pytest.mark.parametrize("space", [(5, 6), (3, 4, 5)])
def test_against_twins(space: tuple[int, ...]) -> None:
    for seed in range(3):
        logits, targets, weights = problem(seed, space=space)
        arrays = logits.detach().numpy(), targets.numpy(), weights.numpy()
        entropy = value(weighted_cross_entropy(logits, targets, weights))
        assert entropy == pytest.approx(cross_entropy_twin(*arrays), rel=1e-5)
        probabilities = torch.softmax(logits, 1)
        dice = value(soft_dice_loss(probabilities, targets))
        assert dice == pytest.approx(dice_twin(probabilities.detach().numpy(), arrays[1]), rel=1e-5)
        both = segmentation_loss(logits, targets, weights, softmax_channels=3, dice_share=0.5)
        assert value(both) == pytest.approx(entropy + 0.5 * dice, rel=1e-6)


def test_with_weights_of_one_it_is_the_cross_entropy_of_torch() -> None:
    logits, targets, weights = problem(4)
    mine = weighted_cross_entropy(logits, targets, torch.ones_like(weights))
    theirs = F.cross_entropy(logits, targets.long(), ignore_index=IGNORE)
    torch.testing.assert_close(mine, theirs)


def test_ignored_pixels_have_no_part() -> None:
    logits, targets, weights = problem(1)
    ignored = targets == IGNORE
    changed = torch.where(ignored.unsqueeze(1), torch.full_like(logits, 40.0), logits)
    heavier = torch.where(ignored, torch.full_like(weights, 1e6), weights)
    loss = segmentation_loss(logits, targets, weights, softmax_channels=3)
    torch.testing.assert_close(segmentation_loss(changed, targets, heavier, softmax_channels=3), loss)
    loss.backward()
    assert (logits.grad.abs().sum(1)[ignored] == 0).all()
    assert (logits.grad.abs().sum(1)[~ignored] > 0).all()


def test_an_absent_class_has_no_dice() -> None:
    logits, targets, _ = problem(2)
    targets[targets == 2] = 1
    probabilities = torch.softmax(logits, 1)
    loss = value(soft_dice_loss(probabilities, targets))
    assert loss == pytest.approx(dice_twin(probabilities.detach().numpy(), targets.numpy()), rel=1e-5)
    # of the classes that are there, only two count
    one_hot = F.one_hot(targets.long().clamp(max=2), 3).movedim(-1, 1).float()
    assert value(soft_dice_loss(one_hot, targets)) == pytest.approx(0, abs=1e-6)


def test_nothing_annotated_costs_nothing_and_has_gradients() -> None:
    logits, targets, weights = problem(3)
    nothing = torch.full_like(targets, IGNORE)
    loss = segmentation_loss(logits, nothing, weights, softmax_channels=3)
    loss.backward()
    assert value(loss) == 0
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad.any()


def test_extreme_logits_stay_finite() -> None:
    logits, targets, weights = problem(5)
    large = (logits.detach() * 1e4).requires_grad_()
    loss = segmentation_loss(large, targets, weights, softmax_channels=3)
    loss.backward()
    assert math.isfinite(value(loss))
    assert torch.isfinite(large.grad).all()


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits, targets, weights = problem(6)
    loss = segmentation_loss(logits.bfloat16(), targets, weights, softmax_channels=3)
    assert loss.dtype == torch.float32
    assert value(loss) == pytest.approx(
        value(segmentation_loss(logits, targets, weights, softmax_channels=3)), rel=0.02
    )


def test_the_distance_cue_is_the_channel_after_the_classes() -> None:
    logits, targets, weights = problem(7, classes=3)
    targets[targets == 2] = 1
    wanted = torch.rand(targets.shape)
    plain = segmentation_loss(logits[:, :2], targets, weights, softmax_channels=2)
    perfect = logits.detach().clone()
    perfect[:, 2] = torch.logit(wanted, eps=1e-6)
    with_cue = segmentation_loss(perfect, targets, weights, softmax_channels=2, distance=wanted)
    assert value(with_cue) == pytest.approx(value(plain), abs=1e-4)
    worse = segmentation_loss(logits, targets, weights, softmax_channels=2, distance=wanted)
    annotated = targets != IGNORE
    error = (torch.sigmoid(logits[:, 2]) - wanted)[annotated].abs()
    naive = torch.where(error < 0.1, error**2 / 0.2, error - 0.05).mean()
    assert value(worse - plain) == pytest.approx(2 * value(naive), rel=1e-4)


def test_activation() -> None:
    logits = torch.randn(2, 4, 3, 3) * 50
    outputs = activate(logits.bfloat16(), 3)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs[:, :3].sum(1), torch.ones(2, 3, 3))
    torch.testing.assert_close(outputs[:, 3], torch.sigmoid(logits[:, 3].bfloat16().float()))
    torch.testing.assert_close(activate(logits, 4).sum(1), torch.ones(2, 3, 3))


def test_levels_of_deep_supervision_count_half_as_much_each() -> None:
    _, targets, weights = problem(8, space=(8, 12))
    levels = [torch.randn(2, 3, 8 // n, 12 // n) for n in (1, 2, 4)]
    each = [
        value(segmentation_loss(l, targets[:, ::n, ::n], weights[:, ::n, ::n], softmax_channels=3))
        for l, n in zip(levels, (1, 2, 4), strict=True)  # noqa: E741
    ]
    wanted = (each[0] + each[1] / 2 + each[2] / 4) / 1.75
    assert value(supervise(levels, targets, weights, softmax_channels=3)) == pytest.approx(wanted, rel=1e-5)
    assert value(supervise(levels[0], targets, weights, softmax_channels=3)) == pytest.approx(each[0], rel=1e-6)
