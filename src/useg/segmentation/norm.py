"""BatchNorm that is fast on a CPU where channels are few, as at a U-Net's full resolution."""

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BATCH_NORM"]

_LANES = 32
"""Numbers of 16 bits in the longest vector of a processor; half as many of 32 bits."""

_backward = torch.ops.aten.native_batch_norm_backward


def _scaled(rows: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, eps: float) -> Tensor:
    return torch.native_batch_norm(rows, weight, bias, mean, variance, training=False, momentum=0.0, eps=eps)[0]


class _SideBySide(torch.autograd.Function):
    """BatchNorm of rows that hold the channels of several pixels side by side.

    torch goes through the channels of one row, vector by vector: the 8 channels of one pixel fill none, and its way
    back takes up to 20 times as long as that for the 32 of four pixels.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised rows; the mean and the variance (biased) of each channel."""
        pixels = rows.shape[1] // len(weight)
        none, one = weight.new_zeros(rows.shape[1]), weight.new_ones(rows.shape[1])
        means, variances = (t.view(pixels, -1) for t in torch.batch_norm_update_stats(rows, none, one, momentum=0.0))
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        ctx.save_for_backward(rows, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        known = (t.repeat(pixels) for t in (weight, bias, mean, variance))
        return _scaled(rows, *known, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Of rows, weight and bias."""
        rows, weight, mean, variance = ctx.saved_tensors
        pixels, eps, gradient = rows.shape[1] // len(weight), ctx.eps, gradients[0].contiguous()
        inverse = (variance + eps).rsqrt()
        known = [t.repeat(pixels) for t in (weight, mean, variance, mean, inverse)]
        _, *sums = _backward(gradient, rows, *known, True, eps, (False, True, True))
        to_weight, to_bias = (t.view(pixels, -1).sum(0) for t in sums)
        # as if mean and variance were given; then what they take away, which is linear in the rows
        result, _, _ = _backward(gradient, rows, *known, False, eps, (True, False, False))
        slope = -weight * inverse.square() * to_weight / (rows.numel() // len(weight))
        offset = -weight * inverse * to_bias / (rows.numel() // len(weight)) - slope * mean
        none, one = torch.zeros_like(known[0]), torch.ones_like(known[0])
        result += _scaled(rows, slope.repeat(pixels), offset.repeat(pixels), none, one, eps=0.0)
        return result, to_weight, to_bias, None


_side_by_side: Any = _SideBySide.apply


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """As torch's, to the rounding of its sums."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, *space) to the same."""
        rows, channels = x.movedim(1, -1), x.shape[1]
        count = x.shape.numel() // channels
        pixels = _LANES // math.gcd(channels, _LANES) if channels % (_LANES // 2) else 1
        if pixels == 1 or count % pixels or not rows.is_contiguous() or not self.training or x.device.type != "cpu":
            return super().forward(x)
        own: Any = self  # torch allows for norms that keep no moments
        several = rows.reshape(-1, pixels * channels)
        normalised, mean, variance = _side_by_side(several, own.weight, own.bias, own.eps)
        with torch.no_grad():
            own.running_mean.lerp_(mean, own.momentum)
            own.running_var.lerp_(variance * (count / (count - 1)), own.momentum)
            own.num_batches_tracked += 1
        result: Tensor = normalised.view(rows.shape).movedim(-1, 1)
        return result


class _BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    pass


class _BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    pass


BATCH_NORM: dict[int, Any] = {2: _BatchNorm2d, 3: _BatchNorm3d}
