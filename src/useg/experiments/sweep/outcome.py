"""What came of a sweep: the best settings, a table, what each setting matters, and what is more than seed noise."""

import math
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from useg.errors import UsegError
from useg.experiments.sweep.asked import Sweep
from useg.experiments.sweep.importance import Importance, importances
from useg.experiments.sweep.log import Known
from useg.home.store import Store
from useg.runs.numbers import from_json
from useg.runs.paired import ALPHA, compare_pairs, holm
from useg.runs.verdict import sample_rows

Row = dict[str, Any]
_MOST_COMPARED = 10
_FOLD = "\0fold"  # before what can be no name of a sample
_SHORT = {"score": "mean_dice", "scores": "mean_dice", "dice": "mean_dice", "iou": "mean_iou"}


def outcome(sweep: Sweep, known: Known, store: Store, status: str) -> Row:
    """All that a sweep has found so far.

    Returns:
        {"sweep", "status", "metric", "method", "trials": {state: count},
         "best": the first of "configurations" that all its trials finished, or None,
         "configurations": [{"configuration", "settings", "score", "spread" (between seeds), "finished", "given_up",
         "failed", "runs"}], the best first,
         "importance": [see `Importance`],
         "differences": [{"first", "second", "difference", "low", "high", "p_seeds", "p_samples", "p_corrected",
         "samples", "more_than_noise"}], the best against the next ones; None where these are too few,
         "notes": [what one should know of all this], "failed": [{"trial", "run", "lines"}]}.
    """
    rows = sorted((_row(sweep, known, number) for number in sorted(known.drawn)), key=lambda row: _order(sweep, row))
    whole = [row for row in rows if row["finished"] == sweep.repeats]
    compared, same_data = _differences(sweep, known, store, whole)
    states = [end["state"] for end in known.ended.values()]
    return {
        "sweep": sweep.id,
        "status": status,
        "metric": sweep.asked.metric,
        "method": sweep.asked.method,
        "trials": {state: states.count(state) for state in ("finished", "given up", "failed", "stopped")},
        "best": whole[0] if whole else None,
        "configurations": rows,
        "importance": [asdict(each) for each in _importances(sweep, known, rows)],
        "differences": compared,
        "notes": _notes(sweep, rows, whole, same_data=same_data),
        "failed": [
            {"trial": number, "run": end["run"], "lines": end.get("lines", [])}
            for number, end in sorted(known.ended.items()) if end["state"] == "failed"
        ],
    }  # fmt: skip


def _row(sweep: Sweep, known: Known, number: int) -> Row:
    ends = [known.ended.get(trial, {}) for trial in sweep.trials_of(number)]
    scores = [end.get("score") for end in ends]
    there = [score for score in scores if score is not None]
    by_seed = [scores[first : first + sweep.asked.folds] for first in range(0, len(scores), sweep.asked.folds)]
    means = [statistics.fmean(score for score in each if score is not None) for each in by_seed if None not in each]
    states = [end.get("state") for end in ends]
    return {
        "configuration": number,
        "settings": known.drawn[number],
        "score": statistics.fmean(there) if there else None,
        "spread": statistics.stdev(means) if len(means) > 1 else None,
        "finished": len(there),
        "given_up": states.count("given up"),
        "failed": states.count("failed"),
        "runs": [end["run"] for end in ends if end.get("run")],
    }


def _order(sweep: Sweep, row: Row) -> tuple[bool, float]:
    score = math.inf if row["score"] is None else row["score"] if sweep.is_less_better else -row["score"]
    return row["finished"] != sweep.repeats, score


def _importances(sweep: Sweep, known: Known, rows: Sequence[Row]) -> list[Importance]:
    """Of configurations that finished by their score; behind them those that were given up, by how far they came."""
    points: list[tuple[Row, tuple[float, ...]]] = []
    for row in rows:
        ends = [known.ended[t] for t in sweep.trials_of(row["configuration"]) if t in known.ended]
        if lives := [end["live"][-1] for end in ends if end["state"] == "given up" and end.get("live")]:
            points.append((row | {"score": None}, (0.0, *max(lives))))
        elif row["score"] is not None:
            points.append((row, (1.0, -_order(sweep, row)[1])))
    places = {each: float(place) for place, each in enumerate(sorted({each for _, each in points}))}
    ranked = [(row["settings"], places[each], row["score"]) for row, each in points]
    return importances(ranked, [parameter.key for parameter in sweep.space])


def _differences(sweep: Sweep, known: Known, store: Store, whole: Sequence[Row]) -> tuple[list[Row], bool]:
    """The best configuration against the next ones, over samples and seeds; and whether all learned from the same data.

    A metric that single samples do not have is compared over folds and seeds.
    """
    read = [_seeds(sweep, known, store, row["configuration"]) for row in whole[: _MOST_COMPARED + 1]]
    has_samples = not any(key.startswith(_FOLD) for side in read for seed in side for key in seed)
    found: list[Row] = []
    for other, row in zip(read[1:], whole[1:], strict=False):
        keys = sorted(set().union(*(seed for side in (other, read[0]) for seed in side)))
        second, first = ([[seed.get(key, math.nan) for key in keys] for seed in side] for side in (other, read[0]))
        paired = compare_pairs(second, first)
        one = {"first": whole[0]["configuration"], "second": row["configuration"], "difference": paired.difference}
        names = ("low", "high", "p_samples", "samples", "smallest_p")
        bounds = {name: getattr(paired, name) if has_samples else None for name in names}
        found.append(one | bounds | {"p_seeds": paired.p_seeds})
    # the best was chosen among all of them, so that every pair counts, also those that are not compared
    pairs = len(whole) * (len(whole) - 1) // 2
    ps = [max(1.0 if each["p_seeds"] is None else each["p_seeds"], each["p_samples"] or 0.0) for each in found]
    for each, p in zip(found, holm([*ps, *[1.0] * (pairs - len(ps))]), strict=False):
        is_unknown = each["p_seeds"] is None or pairs * (each["smallest_p"] or 0.0) > ALPHA
        each |= {"p_corrected": p, "more_than_noise": None if is_unknown else p <= ALPHA}
    ends = [end for end in known.ended.values() if end.get("version")]
    return found, len({end["version"] for end in ends}) < 2


def _seeds(sweep: Sweep, known: Known, store: Store, number: int) -> list[dict[str, float]]:
    """For each seed of a configuration the metric of each sample, of all folds together; else of each fold."""
    metric = sweep.asked.metric.removeprefix("scores.").removeprefix("score.")
    found: list[dict[str, float]] = [{} for _ in range(sweep.asked.seeds)]
    for place, trial in enumerate(sweep.trials_of(number)):
        seed, fold = divmod(place, sweep.asked.folds)
        rows = {}
        with suppress(UsegError):  # the run was taken away since
            rows = sample_rows(from_json(store.get(f"runs/{known.ended[trial]['run']}/scores.json")))
        values = {key: row[name] for key, row in rows.items() if (name := _SHORT.get(metric, metric)) in row}
        found[seed] |= values or {f"{_FOLD}{fold}": known.ended[trial]["score"]}
    return found


def _notes(sweep: Sweep, rows: Sequence[Row], whole: Sequence[Row], *, same_data: bool) -> list[str]:
    given_up = sum(bool(row["given_up"]) for row in rows)
    said = {
        "no configuration has all its trials finished with a score, so none is called the best": not whole,
        "one seed each: how much seeds differ is not known, so no difference is called more": sweep.asked.seeds == 1,
        f"the best of {len(whole)} is in part the luckiest: judge it on data that chose nothing": len(whole) > 1,
        "tpe looks where scores are good: importances are those around there": sweep.asked.method == "tpe",
        f"{given_up} configurations were given up; in the importances they stand behind the others": given_up > 0,
        "the data changed while the sweep ran: trials learned from different versions": not same_data,
    }
    return [note for note, holds in said.items() if holds]
