"""Intensities to comparable numbers, channel by channel; the same in training and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from useg.arrays import Raw

SAMPLE_PIXELS = 1_000_000
"""Statistics of an image come from a strided sample of about this many pixels."""


@dataclass(frozen=True)
class ChannelNorm:
    """How one stored channel becomes network input.

    Attributes:
        kind: "dataset" clips to [low, high], subtracts `mean`, divides by `std`, all of them fixed;
            "image" does the same with the statistics of the image at hand;
            "onehot" gives one input channel per entry of `values` (codes, flags: no order in them);
            "drop" gives none (a constant alpha channel).
        low, high: clipping bounds in stored units ("dataset").
        mean, std: in stored units ("dataset").
        nodata: stored value that means "not measured"; it becomes the mean, that is 0.
        values: the codes of a "onehot" channel.
    """

    kind: Literal["dataset", "image", "onehot", "drop"]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    nodata: float | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Statistics:
    """Per channel of one image: clipping bounds (0.5 and 99.5 percentile), mean and std inside them."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def input_channels(norms: Sequence[ChannelNorm]) -> int:
    """How many channels the network sees."""
    return sum({"drop": 0, "onehot": len(norm.values)}.get(norm.kind, 1) for norm in norms)


def sample_strides(space: Sequence[int], pixels: int = SAMPLE_PIXELS) -> tuple[int, ...]:
    """Steps per axis that leave about `pixels` of an image of size `space`; 1 for small images.

    Only axes longer than 64 are thinned, all by the same factor.
    """
    total = float(np.prod([float(n) for n in space]))
    long_axes = [axis for axis, n in enumerate(space) if n > 64]
    if total <= pixels or not long_axes:
        return (1,) * len(space)
    step = max(1, round((total / pixels) ** (1 / len(long_axes))))
    return tuple(step if axis in long_axes else 1 for axis in range(len(space)))


def statistics(sample: Raw, norms: Sequence[ChannelNorm]) -> Statistics:
    """Statistics of an image from (a sample of) its pixels; nodata and not-finite values have no part."""
    rows = []
    for channel, norm in zip(sample, norms, strict=True):
        values = channel.ravel()
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if norm.nodata is not None:
            values = values[values != norm.nodata]
        if norm.kind != "image" or values.size == 0:
            rows.append((0.0, 0.0, 0.0, 1.0))
            continue
        low, high = (float(q) for q in np.percentile(values, (0.5, 99.5)))
        clipped = np.clip(values, low, high).astype(np.float64)
        rows.append((low, high, float(clipped.mean()), float(clipped.std())))
    low_, high_, mean_, std_ = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Statistics(tuple(low_), tuple(high_), tuple(mean_), tuple(std_))


def normalise(raw: Raw, norms: Sequence[ChannelNorm], stats: Statistics) -> Float[np.ndarray, "inputs *space"]:
    """Stored pixels to network input: float32 of mean 0 and std about 1, `input_channels` channels.

    A channel without variation becomes 0; nodata and not-finite pixels become 0.
    """
    result = np.empty((input_channels(norms), *raw.shape[1:]), np.float32)
    at = 0
    for index, (channel, norm) in enumerate(zip(raw, norms, strict=True)):
        if norm.kind == "drop":
            continue
        if norm.kind == "onehot":
            for value in norm.values:
                np.equal(channel, value, out=result[at], casting="unsafe")
                at += 1
            continue
        own = norm.kind == "image"
        low, high = (stats.low[index], stats.high[index]) if own else (norm.low, norm.high)
        mean, std = (stats.mean[index], stats.std[index]) if own else (norm.mean, norm.std)
        target = result[at]
        target[...] = channel
        missing = None
        if channel.dtype.kind == "f":
            missing = ~np.isfinite(channel)
        if norm.nodata is not None:
            gone = channel == norm.nodata
            missing = gone if missing is None else missing | gone
        scale = 1.0 / std if std > 1e-6 * max(1.0, abs(mean)) else 0.0
        np.clip(target, low, high, out=target)
        target -= np.float32(mean)
        target *= np.float32(scale)
        if missing is not None:
            target[missing] = 0.0
        at += 1
    return result
