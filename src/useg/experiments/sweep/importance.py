"""How much of the differences between configurations goes back to each setting, and how sure that is.

The scores become normal scores of their ranks, so that one training that went astray does not count for all. The share
of a setting is that of the variance between its levels (its values, or thirds of its range) in the variance that the
other settings leave; where draws follow the scores, settings change together, and one must not shine by another. It is
estimated by partial omega squared, which is 0 on average where a setting does nothing; its 95 % interval inverts the
noncentral F distribution. Sources: Hays, Statistics, 1963 (omega squared); Steiger, Psychological Methods 9 (2004), on
intervals by noncentral F.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from useg.experiments.sweep.space import Settings

_MOST_VALUES = 4
_PARTS = 3
_FEWEST_PER_LEVEL = 3
_TAIL = 0.025


@dataclass(frozen=True)
class Importance:
    """What one setting explains.

    Attributes:
        key: dotted name. configurations: that have it and a score.
        share: of the variance that the other settings leave, 0 to 1; None where configurations are too few to say.
        low, high: its 95 % interval.
        levels: each value or part of the range: its name, how many configurations, their mean score.
    """

    key: str
    configurations: int
    share: float | None
    low: float | None
    high: float | None
    levels: tuple[tuple[str, int, float | None], ...]


def importances(points: Sequence[tuple[Settings, float, float | None]], keys: Sequence[str]) -> list[Importance]:
    """What each setting explains, the most important first; those of which nothing can be said last.

    Args:
        points: settings, what is ranked, and the score, which is only told. keys: the settings.
    """
    found = [_importance(key, keys, [point for point in points if key in point[0]]) for key in keys]
    return sorted(found, key=lambda each: (each.share is None, -(each.share or 0.0)))


def _importance(key: str, keys: Sequence[str], points: Sequence[tuple[Settings, float, float | None]]) -> Importance:
    names, level_of = _levels([settings[key] for settings, _, _ in points])
    levels = []
    for place, name in enumerate(names):
        mine = [score for (_, _, score), level in zip(points, level_of, strict=True) if level == place]
        known = [score for score in mine if score is not None]
        levels.append((name, len(mine), statistics.fmean(known) if known else None))
    found = None
    if len(points) >= _FEWEST_PER_LEVEL * len(names):
        others = [_column(other, points) for other in keys if other != key]
        found = explained(normal_scores([rank for _, rank, _ in points]), level_of, others)
    share, low, high = found or (None, None, None)
    return Importance(key, len(points), share, low, high, tuple(levels))


def _column(key: str, points: Sequence[tuple[Settings, float, float | None]]) -> list[int]:
    """The level of each point; -1 where the setting does not exist."""
    there = iter(_levels([settings[key] for settings, _, _ in points if key in settings])[1])
    return [next(there) if key in settings else -1 for settings, _, _ in points]


def explained(
    scores: Sequence[float], levels: Sequence[int], others: Sequence[Sequence[int]] = ()
) -> tuple[float, float, float] | None:
    """What share levels explain of what other factors leave, at least 0, and its 95 % interval.

    None where the levels are one, or the same as those of others, or as many as there are scores.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    values = np.asarray(scores, float)

    def left_by(factors: Sequence[Sequence[int]]) -> tuple[float, int]:
        """The sum of squares that factors leave, and how many numbers they fit."""
        columns = [np.asarray(factor) == level for factor in factors for level in sorted({*factor})[1:]]
        design = np.stack([np.ones(values.size), *columns], axis=1)
        fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
        return float(((values - design @ fitted) ** 2).sum()), int(rank)

    (before, fewer), (within, more) = left_by(others), left_by([*others, levels])
    freedom, rest = more - fewer, values.size - more
    if freedom < 1 or rest < 1:
        return None
    nothing = 1e-12 * float(values @ values)
    if within <= nothing:
        return (1.0, 1.0, 1.0) if before > nothing else (0.0, 0.0, 0.0)
    ratio = (before - within) / freedom / (within / rest)

    def end(at: float) -> float:
        """The noncentrality for which a ratio as small has this probability."""
        if ncfdtr(freedom, rest, 0.0, ratio) <= at:
            return 0.0
        most = 10.0
        while ncfdtr(freedom, rest, most, ratio) > at and most < 1e6:
            most *= 2
        return float(brentq(lambda size: ncfdtr(freedom, rest, size, ratio) - at, 0.0, most))

    sizes = (max(0.0, freedom * (ratio - 1)), end(1 - _TAIL), end(_TAIL))
    share, low, high = (size / (size + values.size) for size in sizes)
    return share, low, high


def normal_scores(values: Sequence[float]) -> list[float]:
    """Where each value stands among all, as a quantile of the normal distribution; equal ones share their place."""
    from scipy.stats import norm, rankdata

    return [float(each) for each in norm.ppf(rankdata(values) / (len(values) + 1))]


def _levels(values: Sequence[Any]) -> tuple[list[str], list[int]]:
    """Names of levels, and the level of each value."""
    distinct = list({repr(value): value for value in values}.values())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    ordered = sorted(distinct, key=None if numbers else repr)
    if not numbers or len(distinct) <= _MOST_VALUES:
        return [str(value) for value in ordered], [ordered.index(value) for value in values]
    edges = [sorted(values)[len(values) * part // _PARTS] for part in range(1, _PARTS)]
    level_of = [sum(value >= edge for edge in edges) for value in values]
    there = sorted({*level_of})  # fewer than all where many values are the same
    members = [[value for value, level in zip(values, level_of, strict=True) if level == one] for one in there]
    return [f"{min(each):g} to {max(each):g}" for each in members], [there.index(level) for level in level_of]
