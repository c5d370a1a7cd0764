"""The channels of all images: how many a network gets, and each one's intensities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from useg.data.fingerprint import ChannelStatistics
from useg.data.measure import ChannelRecord, SampleRecord
from useg.errors import Problem

MOST_CODES = 16
"""Codes of a categorical channel are listed up to this many."""

POOLED_VALUES = 1_000_000
"""About this many values of a channel are pooled for its percentiles, over all samples."""

SENTINELS = (
    -9999.0,
    -99999.0,
    -32768.0,
    -32767.0,
    -2147483648.0,
    float(np.finfo(np.float32).min),
    -1e30,
    1e20,
    1e30,
)
"""Values that mean "nothing measured here" where they are the extreme of a channel."""

CODES = 64
"""A channel of codes has at most this many different values, ..."""

CODES_SPREAD = 0.6
"""... which fill at most this share of the whole numbers between them, or are at most `FEW_CODES`, ..."""

FEW_CODES = 12
"""... and are in patches:"""

CODES_REPEAT = 0.6
"""at least this share of pixels equals the right neighbour."""

_COLOURED = ("grey", "rgb", "rgba", "palette", "binary")


@dataclass(frozen=True)
class ChannelPool:
    """Channels over all samples.

    Attributes:
        channels: how many an image has for the network.
        mixed: grey and colour pictures occur together; grey is repeated, alpha dropped.
        statistics: by channel.
    """

    channels: int
    mixed: bool
    statistics: tuple[ChannelStatistics, ...]


def channel_problems(records: Sequence[SampleRecord]) -> list[Problem]:
    """Samples whose channels do not go together with the others'."""
    counts = {len(record.channels) for record in records}
    if len(counts) <= 1 or _all_pictures(records):
        return []
    usual = max(sorted(counts), key=lambda n: sum(len(r.channels) == n for r in records))
    return [
        Problem(
            r.sample.images[0],
            f"{len(r.channels)} channels, most images have {usual}",
            "leave it out, or train on it apart",
        )
        for r in records
        if len(r.channels) != usual
    ]


def _all_pictures(records: Sequence[SampleRecord]) -> bool:
    return all(len(r.headers) == 1 and r.header.colour in _COLOURED for r in records)


def pool_channels(records: Sequence[SampleRecord], names: Sequence[str] = ()) -> ChannelPool:
    """Statistics of each channel over all samples, each sample weighing the same.

    Args:
        records: with channels; samples that do not go together have been refused before.
        names: of the channels, where the data gives them.
    """
    counts = {len(record.channels) for record in records}
    mixed = len(counts) > 1
    number = 3 if mixed else counts.pop()
    columns = [[_channel(record, c) for record in records] for c in range(number)]
    several_kinds = number >= 2 and not _all_pictures(records)
    statistics = tuple(
        _statistics(column, names[c] if c < len(names) else str(c), may_hold_codes=several_kinds)
        for c, column in enumerate(columns)
    )
    return ChannelPool(number, mixed, statistics)


def _channel(record: SampleRecord, position: int) -> ChannelRecord:
    return record.channels[position if len(record.channels) >= 3 or position < len(record.channels) else 0]


def _statistics(column: Sequence[ChannelRecord], name: str, *, may_hold_codes: bool) -> ChannelStatistics:
    low = float(np.nanmin([c.minimum for c in column])) if any(c.minimum == c.minimum for c in column) else 0.0
    high = float(np.nanmax([c.maximum for c in column])) if any(c.maximum == c.maximum for c in column) else 0.0
    least = min(len(c.some) for c in column)
    pooled = np.concatenate([_thin(c.some, least).astype(np.float64) for c in column])
    finite = np.isfinite(pooled)
    nodata = _nodata(pooled[finite], low, high)
    amounts = pooled[finite & ~np.isin(pooled, nodata)]
    if not amounts.size:
        amounts = np.zeros(1)
    if nodata:
        low, high = float(amounts.min()), float(amounts.max())
    p00_5, p50, p99_5 = (float(v) for v in np.quantile(amounts, [0.005, 0.5, 0.995]))
    kind, distinct = _kind(amounts, column, low, high, may_hold_codes=may_hold_codes)
    return ChannelStatistics(
        name=name,
        kind=kind,
        minimum=low,
        maximum=high,
        mean=float(amounts.mean()),
        std=float(amounts.std()),
        percentile_00_5=p00_5,
        percentile_50=p50,
        percentile_99_5=p99_5,
        nodata=nodata,
        nodata_share=round(1.0 - amounts.size / pooled.size, 6) if nodata or not finite.all() else 0.0,
        nonfinite=any(c.nonfinite for c in column),
        distinct=distinct,
        values=_codes(amounts) if kind == "categorical" else (),
        scale_ratio=_scale_ratio(column, nodata),
    )


def _codes(amounts: np.ndarray) -> tuple[float, ...]:
    found = np.unique(amounts)
    return tuple(float(v) for v in found) if found.size <= MOST_CODES else ()


def _thin(values: np.ndarray, wanted: int) -> np.ndarray:
    if len(values) == wanted:
        return values
    return values[np.linspace(0, len(values) - 1, wanted).astype(np.int64)]


def _nodata(pooled: np.ndarray, low: float, high: float) -> tuple[float, ...]:
    """Extreme values that stand apart: known sentinels, or a negative minimum far below everything else."""
    if not pooled.size or low == high:
        return ()
    found = [v for v in (low, high) if any(np.isclose(v, s, rtol=1e-6) for s in SENTINELS)]
    if not found and low <= -1.0:
        rest = pooled[pooled > low]
        if rest.size and (pooled == low).sum() > 1 and rest.min() - low > 2.0 * (rest.max() - rest.min()) > 0:
            found = [low]
    rest = pooled[~np.isin(pooled, found)]
    # A sentinel is far from the rest: -32768 under reflectances, not under a signal of the whole range.
    return tuple(
        v for v in found if rest.size and min(abs(v - rest.min()), abs(v - rest.max())) > 0.1 * (np.ptp(rest) or 1.0)
    )


def _kind(
    amounts: np.ndarray, column: Sequence[ChannelRecord], low: float, high: float, *, may_hold_codes: bool
) -> tuple[Literal["continuous", "categorical", "constant"], int | None]:
    if low == high:
        return "constant", None
    if not may_hold_codes:
        return "continuous", None
    values = np.unique(amounts)
    if len(values) > CODES or (values != np.round(values)).any():
        return "continuous", None
    sparse = len(values) <= CODES_SPREAD * (values[-1] - values[0] + 1) or len(values) <= FEW_CODES
    patches = float(np.mean([c.repeats for c in column])) >= CODES_REPEAT
    return ("categorical", len(values)) if sparse and patches else ("continuous", None)


def _scale_ratio(column: Sequence[ChannelRecord], nodata: tuple[float, ...]) -> float:
    spans = []
    for record in column:
        values = record.some.astype(np.float64)
        values = values[np.isfinite(values) & ~np.isin(values, nodata)]
        if values.size:
            low, high = np.quantile(values, [0.005, 0.995])
            if high > low:
                spans.append(float(high - low))
    if len(spans) < 2:
        return 1.0
    small, large = np.quantile(spans, [0.05, 0.95])
    return round(float(large / small), 4)
