"""Which trials are not worth going on with: by successive halving (ASHA) or by the median, from live scores.

Trials are compared where they are equally far, as shares of their steps, so that those with other numbers of steps
can be compared, too. Sources: ASHA: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020,
in the form that stops instead of promoting; median: Golovin et al., Google Vizier, KDD 2017, section 3.2.
"""

import statistics
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from useg.config import Checked

Curve = Sequence[tuple[float, float]]
"""(share of the steps done, live score) in order; the highest score is best."""


class EarlyStopping(Checked):
    """When a trial is stopped before its end."""

    method: Literal["asha", "median"] = "asha"
    live: str = "mean_dice"
    """Score of the validations while a trial runs: `mean_dice`, `pixel_error`, or `dice.CLASS`."""
    reduction: int = Field(default=3, ge=2)
    """ASHA: one in so many goes on at each rung, and the rungs are so many times as far apart."""
    first_share: float = Field(default=0.1, gt=0, lt=1)
    """No trial is stopped before this share of its steps."""
    fewest: int = Field(default=5, ge=1)
    """Median: at least so many others must have come as far."""


def is_hopeless(rule: EarlyStopping, own: Curve, others: Sequence[Curve]) -> bool:
    """Whether a trial should be stopped at the last point of its curve.

    Args:
        rule: which. own: its live scores so far. others: those of the trials it is compared with, as far as they are.
    """
    if not own or own[-1][0] < rule.first_share or own[-1][0] >= 1:
        return False
    return _asha(rule, own, others) if rule.method == "asha" else _median(rule, own, others)


def _asha(rule: EarlyStopping, own: Curve, others: Sequence[Curve]) -> bool:
    """Not among the best 1/reduction of those that have come to a rung that it has come to itself."""
    rung = rule.first_share
    while rung < 1 and (mine := _at(own, rung)) is not None:
        there = [value for curve in others if (value := _at(curve, rung)) is not None]
        kept = (1 + len(there)) // rule.reduction
        if kept and sum(value > mine for value in there) >= kept:
            return True
        rung *= rule.reduction
    return False


def _at(curve: Curve, rung: float) -> float | None:
    """The score at the first look at or after a rung."""
    return next((value for share, value in curve if share >= rung - 1e-9), None)


def _median(rule: EarlyStopping, own: Curve, others: Sequence[Curve]) -> bool:
    """Its best so far is below the median of what the others had on average until then."""
    share = own[-1][0]
    means = [
        statistics.fmean(value for at, value in curve if at <= share + 1e-9)
        for curve in others
        if curve and curve[0][0] <= share + 1e-9 and curve[-1][0] >= share - 1e-9
    ]
    return len(means) >= rule.fewest and max(value for _, value in own) < statistics.median(means)
