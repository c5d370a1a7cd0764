"""The proof that two runs are the same: every value of every step, the scores, and the digest of the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from useg.runs.environment import environment_difference
from useg.runs.journal import read_journal
from useg.runs.record import RunFolder

TOLERANCE = 1e-3
"""Values that differ by less, relative to their size, differ by rounding: another number of threads, another build."""

_NO_RESULTS = ("step", "time", "seconds", "fold")


@dataclass(frozen=True)
class Proof:
    """Whether two runs are the same.

    Attributes:
        verdict: "bit-identical", "within tolerance" or "different".
        steps: steps that either took.
        first_step: the first step with another value; None where there is none.
        value: the name of that value.
        losses: that value, before and now; NaN where the step was not taken.
        largest: the largest relative difference of a value.
        weights: digests of the weights, before and now; None where none were recorded.
        scores: mean Dice, before and now.
        surroundings: what differs between the environments and may change results.
    """

    verdict: str
    steps: int
    first_step: int | None
    value: str | None
    losses: tuple[float, float] | None
    largest: float
    weights: tuple[str | None, str | None]
    scores: tuple[float | None, float | None]
    surroundings: tuple[str, ...] = ()


def prove(before: RunFolder, after: RunFolder) -> Proof:
    """Compare the loss at every step and the weights of trainings; of other runs every value, and the scores."""
    records = before.record(), after.record()
    weights = records[0].get("weights"), records[1].get("weights")
    pairs = [pair for part in parts_of(before) for pair in _pairs(before.path / part, after.path / part)]
    if weights[0] is not None:  # of a training the loss tells all; the rest of a step is planned
        pairs = [pair for pair in pairs if pair[1] == "loss"]
    different = [(step, name, old, new) for step, name, old, new in pairs if not _same(old, new)]
    largest = max((_relative(old, new) for _, _, old, new in different), default=0.0)
    scores = tuple((record.get("scores") or {}).get("mean_dice") for record in records)
    ends_same = weights[0] == weights[1]
    if weights == (None, None):
        ends_same = _same(records[0].get("scores"), records[1].get("scores"))
    if not different and ends_same:
        verdict = "bit-identical"
    else:
        verdict = "within tolerance" if different and largest <= TOLERANCE else "different"
    first = different[0] if different else None
    return Proof(
        verdict=verdict,
        steps=len(_steps(before, after)),
        first_step=first and first[0],
        value=first and first[1],
        losses=first and (first[2], first[3]),
        largest=largest,
        weights=weights,
        scores=(scores[0], scores[1]),
        surroundings=(*_workers(before, after), *_surroundings(*records)),
    )


def parts_of(run: RunFolder) -> list[str]:
    """The parts of a run's folder that have journals: its folds, or itself."""
    folds = sorted((run.path / "folds").glob("*"), key=lambda path: int(path.name))
    return [f"folds/{path.name}" for path in folds] or ["."]


def values_of(place: Path) -> dict[tuple[int, str, int], float]:
    """What the steps of a journal say: (step, name, which time) and the value."""
    found: dict[tuple[int, str, int], float] = {}
    for event in read_journal(place):
        if event.get("event") != "step":
            continue
        for name, value in event.items():
            if name in _NO_RESULTS or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            time = 0
            while (event["step"], name, time) in found:
                time += 1
            found[event["step"], name, time] = value
    return found


def _pairs(before: Path, after: Path) -> list[tuple[int, str, float, float]]:
    """Values that either has, from both; NaN where one has none, infinite where the other's is NaN."""
    old, new = values_of(before), values_of(after)
    found = []
    for key in sorted(dict.fromkeys([*old, *new]), key=lambda key: (key[0], key[2])):
        if key in old and key in new:
            found.append((key[0], key[1], old[key], new[key]))
        else:
            there = old.get(key, new.get(key, 0.0))
            lacking = math.inf if math.isnan(there) else math.nan
            found.append((key[0], key[1], old.get(key, lacking), new.get(key, lacking)))
    return found


def _steps(before: RunFolder, after: RunFolder) -> set[tuple[str, int]]:
    return {
        (part, key[0]) for part in parts_of(before) for run in (before, after) for key in values_of(run.path / part)
    }


def _same(a: Any, b: Any) -> bool:
    """Equal, and NaN is NaN."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def _relative(old: float, new: float) -> float:
    """How far apart two values are, of the size of the first; infinite where one of them is no finite number."""
    if not (math.isfinite(old) and math.isfinite(new)):
        return math.inf
    return abs(old - new) / max(abs(old), 1e-12)


def _workers(*runs: RunFolder) -> tuple[str, ...]:
    """How many processes trained together, where that differs or changed on the way."""
    told = []
    for run in runs:
        events = [event for part in parts_of(run) for event in read_journal(run.path / part)]
        worlds = [event["world"] for event in events if event["event"] in ("started", "resumed") and "world" in event]
        told.append(", then ".join(str(world) for world, _ in groupby(worlds)))
    return (f"workers: {told[0]} -> {told[1]}",) if all(told) and told[0] != told[1] else ()


def _surroundings(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    old, new = before.get("environment") or {}, after.get("environment") or {}
    differences = environment_difference(old, new) if old and new else []
    return tuple(str(each) for each in differences if each.importance == "may change results")


__all__ = ["TOLERANCE", "Proof", "parts_of", "prove", "values_of"]
