"""What training minimises: weighted cross-entropy plus soft Dice, and the distance cue's regression."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from useg.arrays import IGNORE

Logits = Float[Tensor, "batch outputs *space"]
Targets = Integer[Tensor, "batch *space"]
Map = Float[Tensor, "batch *space"]


def activate(logits: Logits, softmax_channels: int) -> Logits:
    """Logits to outputs: softmax over the first channels, sigmoid of each one after them. float32."""
    logits = logits.float()
    probabilities = torch.softmax(logits[:, :softmax_channels], dim=1)
    if logits.shape[1] == softmax_channels:
        return probabilities
    return torch.cat([probabilities, torch.sigmoid(logits[:, softmax_channels:])], dim=1)


def weighted_cross_entropy(logits: Logits, targets: Targets, weights: Map) -> Float[Tensor, ""]:
    """Mean over annotated pixels of w(x) * -log p(x); 0 where no pixel is annotated.

    Args:
        logits: softmax channels only.
        targets: class per pixel; `IGNORE` has no part.
        weights: w(x), 0 or more.

    Source: Ronneberger et al. 2015, equation 1 (there as a sum; the mean makes the learning rate
    independent of the patch).
    """
    annotated = targets != IGNORE
    loss = F.cross_entropy(logits.float(), targets.long(), ignore_index=IGNORE, reduction="none")
    return (loss * weights).sum() / annotated.sum().clamp(min=1)


def soft_dice_loss(probabilities: Logits, targets: Targets, *, smooth_px: float = 1.0) -> Float[Tensor, ""]:
    """1 - Dice, mean over the classes present in the batch; counts are summed over the batch first.

    A class absent from the batch's annotated pixels has no Dice and no part; cross-entropy teaches
    its absence. A batch without any annotated pixel gives 0.

    Source: Milletari et al. 2016 in the squared-free form, pooled over the batch.
    """
    axes = [0, *range(2, probabilities.ndim)]
    annotated = (targets != IGNORE).unsqueeze(1)
    truth = torch.zeros_like(probabilities)
    truth.scatter_(1, targets.long().masked_fill(~annotated[:, 0], 0).unsqueeze(1), 1.0)
    truth = truth * annotated
    predicted = probabilities * annotated
    overlap = (predicted * truth).sum(axes)
    size = predicted.sum(axes) + truth.sum(axes)
    present = truth.sum(axes) > 0
    dice = (2 * overlap + smooth_px) / (size + smooth_px)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def segmentation_loss(
    logits: Logits,
    targets: Targets,
    weights: Map,
    *,
    softmax_channels: int,
    distance: Map | None = None,
    dice_share: float = 1.0,
) -> Float[Tensor, ""]:
    """Weighted cross-entropy + `dice_share` x soft Dice (+ smooth L1 of the distance cue).

    Args:
        logits: all output channels; those after `softmax_channels` predict the distance cue.
        targets: class per pixel, `IGNORE` where not annotated.
        weights: weight per pixel.
        softmax_channels: how many of the outputs are classes.
        distance: wanted distance cue, 0..1.
        dice_share: 0 is the cross-entropy of the paper alone.
    """
    scores = logits[:, :softmax_channels].float()
    loss = weighted_cross_entropy(scores, targets, weights)
    if dice_share:
        loss = loss + dice_share * soft_dice_loss(torch.softmax(scores, dim=1), targets)
    if distance is not None:
        predicted = torch.sigmoid(logits[:, softmax_channels].float())
        annotated = targets != IGNORE
        error = F.smooth_l1_loss(predicted, distance, reduction="none", beta=0.1) * annotated
        loss = loss + 2.0 * error.sum() / annotated.sum().clamp(min=1)
    return loss


def supervise(
    logits: Logits | Sequence[Tensor],
    targets: Targets,
    weights: Map,
    *,
    softmax_channels: int,
    distance: Map | None = None,
    dice_share: float = 1.0,
) -> Float[Tensor, ""]:
    """`segmentation_loss`, or its sum over levels weighted 1, 1/2, 1/4 (to 1) when there are several."""
    levels = [logits] if isinstance(logits, Tensor) else list(logits)
    total, share = torch.zeros((), device=targets.device), 0.0
    for level, level_logits in enumerate(levels):
        # Strided label maps: nearest neighbours, so that no class is invented.
        stride = tuple(
            slice(None, None, full // small)
            for full, small in zip(targets.shape[1:], level_logits.shape[2:], strict=True)
        )
        window = (slice(None), *stride)
        total = total + 0.5**level * segmentation_loss(
            level_logits,
            targets[window],
            weights[window],
            softmax_channels=softmax_channels,
            distance=None if distance is None else distance[window],
            dice_share=dice_share,
        )
        share += 0.5**level
    return total / share
