"""Which of several runs is better, said in a sentence: scores paired by sample, runs of one configuration together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from useg.errors import InputError
from useg.runs.facts import flattened
from useg.runs.paired import ALPHA, Paired, compare_pairs, groups_needed, holm

PRIMARY = ("instances.ap50", "membranes.v_rand", "mean_dice")
"""What is judged: the first of these that all runs have."""
NAMES = {
    "instances.ap50": "AP at 0.5",
    "instances.ap_mean": "AP, mean of 0.5 to 0.95",
    "instances.pq": "panoptic quality",
    "membranes.v_rand": "V_rand",
    "membranes.v_info": "V_info",
    "mean_dice": "mean Dice",
    "pixel_error": "pixel error",
}
_SHOWN = (*NAMES, "dice", "hd95", "cldice")
_SHORT = {"dice": "mean_dice", "ap": "instances.ap50"}
_LESS_IS_BETTER = ("pixel_error", "hd95", "assd", "loss", "error", "variation_of_information")
_MOST_PAIRS = 4
"""Of more configurations than this only the best is shown against each other one; all pairs are corrected for."""

Row = Mapping[str, float]


@dataclass(frozen=True)
class Scored:
    """What is compared of one run.

    Attributes:
        label: how it is called: "A".
        part: of the data that was scored: "test", "validation", "out-of-fold", and how its images were changed.
        samples: metrics by dotted name, for each sample.
        over: the classes that count in means.
        configuration: equal for runs that differ by their seed alone.
        seed: of the run.
        weights: digest of what was trained.
        groups: of samples that must not be torn apart.
    """

    label: str
    part: str | None
    samples: Mapping[str, Row]
    over: tuple[str, ...] = ()
    configuration: str = ""
    seed: Any = None
    weights: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Side:
    """Runs of one configuration."""

    runs: tuple[Scored, ...]

    @property
    def name(self) -> str:
        return "+".join(run.label for run in self.runs)


def sample_rows(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers of each sample in `scores.json`, by dotted name."""
    found = {}
    for key, row in (scores.get("samples") or {}).items():
        values = {name.removeprefix("."): value for name, value in flattened(row, "")}
        found[key] = {name: float(value) for name, value in values.items() if _is_number(value)}
    return found


def judge(
    runs: Sequence[Scored], metric: str | None = None, others: Mapping[tuple[str, str], Sequence[str]] | None = None
) -> dict[str, Any]:
    """Compare runs on the samples they share.

    Args:
        runs: two or more.
        metric: what is judged; by default the task's.
        others: for two labels, the samples whose contents are not the same in both: they are not paired.

    Returns:
        {"metric", "name", "part", "less_is_better",
         "sentence": which is better, "notes": [what one should know of it],
         "spreads": {runs of one configuration: {"spread", "runs"}},
         "comparisons": [{"first", "second", the fields of `Paired`, "p" (the larger one), "p_corrected", "better",
         "sentence", "samples_compared": {key: [first, second]}, "not_the_same": [keys]}],
         "shown": [{"metric", "name", "first", "second", "difference", "low", "high", "samples"}]}.
        Without a verdict "comparisons" is empty and the sentence says why.

    Raises:
        InputError: no run has this metric.
    """
    chosen = _metric(runs, metric)
    result: dict[str, Any] = {
        "metric": chosen,
        "name": metric_name(chosen),
        "part": runs[0].part,
        "less_is_better": less_is_better(chosen),
        "sentence": "",
        "notes": [],
        "spreads": {},
        "comparisons": [],
        "shown": [],
    }
    reason = _incomparable(runs, chosen)
    if reason:
        return result | {"part": None, "sentence": f"No verdict: {reason}."}
    if (runs[0].part or "").startswith("validation"):
        result["notes"].append(
            "scored on validation samples, on which operating points were tuned: a part kept for testing tells more"
        )
    sides, same = _sides(runs)
    result["notes"] += same
    if len(sides) == len(sides[0].runs) == 1:
        told = [
            f"{len(keys)} samples are not the same in {a} and {b}" for (a, b), keys in (others or {}).items() if keys
        ]
        return result | {"sentence": "No difference: all these runs have the same weights.", "notes": told}
    if len(sides) == 1:
        sides = [_Side((run,)) for run in sides[0].runs]
        result["notes"].append("these runs are one configuration: what differs between them is the seed")
    pairs = list(combinations(sides, 2))
    compared = [_compare(first, second, chosen, others or {}) for first, second in pairs]
    corrected = holm([each["p"] for each in compared])
    for each, p in zip(compared, corrected, strict=True):
        each["p_corrected"] = p
        _conclude(each, chosen, len(compared))
        result["spreads"] |= each.pop("spread_of")
    best = _best(compared, sides, chosen)
    kept = [e for e in compared if len(sides) <= _MOST_PAIRS or best in (e["first"], e["second"])]
    result["comparisons"] = kept
    result["sentence"] = kept[0]["sentence"] if len(kept) == 1 else _of_several(kept, best, result["name"])
    result["shown"] = _shown(sides[0], sides[1], chosen, others or {}) if len(sides) == 2 else []
    return result


def metric_name(metric: str) -> str:
    """A metric in words."""
    first, _, rest = metric.partition(".")
    spelled = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "cldice": "clDice"}.get(first, first)
    return NAMES.get(metric) or (f"{spelled} of {rest}" if rest else spelled)


def less_is_better(metric: str) -> bool:
    """Whether lower values of a metric are better; what comes after the metric's name may be a class."""
    return metric.removeprefix("membranes.").partition(".")[0].endswith(_LESS_IS_BETTER)


def _metric(runs: Sequence[Scored], wanted: str | None) -> str:
    names = [{name for row in run.samples.values() for name in row} for run in runs]
    there = sorted(set().union(*names))
    if wanted is None:
        scored = [each for each in names if each]
        everywhere = set.intersection(*scored) if scored else set()
        return next((m for m in (*PRIMARY, *sorted(everywhere)) if m in everywhere), PRIMARY[-1])
    full = _SHORT.get(wanted.lower(), wanted)
    found = [full] if full in there else [name for name in there if name.endswith("." + full)]
    if len(found) != 1 and there:
        raise InputError(f"--metric {wanted}: wanted one of {', '.join(found or there)}")
    return found[0] if found else full


def _incomparable(runs: Sequence[Scored], metric: str) -> str | None:
    """Why these runs cannot be called better or worse; None when they can."""
    bare = [run.label for run in runs if not run.samples]
    if bare:
        return f"{_listed(bare)} {_has(bare)} no scores of single samples"
    parts = {run.label: run.part or "unknown" for run in runs}
    if len(set(parts.values())) > 1:
        told = _listed([f"{label} on the {part} part" for label, part in parts.items()])
        return f"the runs were scored on different parts of the data, {told}"
    if len({frozenset(run.over) for run in runs}) > 1 and metric == "mean_dice":
        return "their means are over different classes: " + "; ".join(
            f"{run.label} over {', '.join(run.over)}" for run in runs
        )
    lacking = [run.label for run in runs if not any(metric in row for row in run.samples.values())]
    return f"{_listed(lacking)} {_has(lacking)} no {metric_name(metric)} of any sample" if lacking else None


def _sides(runs: Sequence[Scored]) -> tuple[list[_Side], list[str]]:
    """The runs of each configuration; of runs with the same weights one counts."""
    notes: list[str] = []
    by_weights: dict[str, Scored] = {}
    by_configuration: dict[str, list[Scored]] = {}
    for run in runs:
        known = by_weights.setdefault(run.weights or run.label, run)
        if known is not run:
            notes.append(f"{run.label} has the same weights as {known.label}, and is counted once")
            continue
        configuration = run.configuration or run.label
        twin = next((r for r in by_configuration.get(configuration, ()) if r.seed == run.seed), None)
        if twin is not None:
            notes.append(f"{run.label} has the settings and the seed of {twin.label}, but not its weights")
            configuration = run.label
        by_configuration.setdefault(configuration, []).append(run)
    return [_Side(tuple(each)) for each in by_configuration.values()], notes


def _compare(
    first: _Side, second: _Side, metric: str, others: Mapping[tuple[str, str], Sequence[str]]
) -> dict[str, Any]:
    keys: list[set[str]] = [{*run.samples} for run in (*first.runs, *second.runs)]
    strange = {
        key for a in first.runs for b in second.runs for pair in ((a, b), (b, a))
        for key in others.get((pair[0].label, pair[1].label), ())
    }  # fmt: skip
    common = sorted(keys[0].intersection(*keys[1:]) - strange)
    values = [[[run.samples[k].get(metric, math.nan) for k in common] for run in side.runs] for side in (first, second)]
    groups = {key: group for run in (*second.runs, *first.runs) for key, group in run.groups.items()}
    paired = compare_pairs(values[0], values[1], [groups.get(key) for key in common])
    means = [dict(zip(common, map(_mean, zip(*each, strict=True)), strict=True)) for each in values]
    spreads = zip((first, second), paired.spreads, strict=True)
    return {
        "first": first.name,
        "second": second.name,
        **{name: getattr(paired, name) for name in Paired.__dataclass_fields__ if name not in ("first", "second")},
        "spreads": list(paired.spreads),
        "means": [paired.first, paired.second],
        "runs": [len(first.runs), len(second.runs)],
        "p": paired.p,
        "samples_compared": {key: [means[0][key], means[1][key]] for key in common},
        "not_shared": len(set().union(*keys) - strange) - len(common),
        "not_the_same": sorted(strange.intersection(*keys)),
        "spread_of": {s.name: {"spread": v, "runs": len(s.runs)} for s, v in spreads if v is not None},
    }


def _conclude(found: dict[str, Any], metric: str, comparisons: int) -> None:
    """Say whether the second is better than the first, or not."""
    difference = found["difference"]
    is_second = (difference > 0) != less_is_better(metric)
    better, worse = (found["second"], found["first"]) if is_second else (found["first"], found["second"])
    units = "groups" if found["groups"] < found["samples"] else "samples"
    name, evidence = metric_name(metric), _evidence(found, units, comparisons)
    size = f"{better} scores {_number(abs(difference))} better than {worse} on {name} ({evidence})"
    believed = found["samples"] > 0 and found["p_corrected"] <= ALPHA
    found["better"] = better if believed else None
    if not found["samples"]:
        said = f"no verdict: {found['first']} and {found['second']} share no sample that has a value of {name} in both"
    elif believed:
        said = f"{better} is better than {worse} on {name} by {_number(abs(difference))} ({evidence})"
    elif found["low"] == found["high"] == 0:
        said = f"no difference: {found['first']} and {found['second']} have the same {name} on every sample"
    elif min(1.0, found["smallest_p"] * comparisons) > ALPHA:
        count = f"{found['groups']} {units if found['groups'] > 1 else units[:-1]}"
        least = f"the smallest p that {count} can give is {found['smallest_p']:.3g}"
        said = (
            f"no difference that {count} could show: {size}, but {least}, and {groups_needed(comparisons)} are needed"
        )
    elif found["p_samples"] <= ALPHA < (found["p_seeds"] or 0.0):
        over = f"p {_p(found['p_samples'])} over samples, p {_p(found['p_seeds'])} over seeds"
        few = " and ".join(map(str, found["runs"])) + " runs are too few to tell this from the noise between seeds"
        noise = "no difference that is more than the noise between seeds"
        said = f"{few if found['p_many_seeds'] <= ALPHA else noise}: {size}, {over}"
    else:
        said = f"no difference that is more than chance: {size}"
    noise = _noise(found) if found["samples"] else ""
    found["sentence"] = said[:1].upper() + said[1:] + (f"; {noise}." if noise else ".")


def _evidence(found: Mapping[str, Any], units: str, comparisons: int) -> str:
    """The interval, p, and over what."""
    count = f"{found['samples']} sample{'s' if found['samples'] != 1 else ''}"
    count += f" in {found['groups']} groups" if units == "groups" else ""
    p = f"p {_p(found['p_corrected'])}" + (f" corrected for {comparisons} comparisons" if comparisons > 1 else "")
    if math.isnan(found["low"]):
        return f"{p}, {count}"
    ends = sorted(math.copysign(1, found["difference"]) * end for end in (found["low"], found["high"]))
    return f"95 % interval {_number(ends[0])} to {_number(ends[1])}, {p}, {count}"


def _noise(found: Mapping[str, Any]) -> str:
    """What is known of the noise between seeds."""
    sides = zip((found["first"], found["second"]), found["spreads"], found["runs"], strict=True)
    known = [(name, spread, runs) for name, spread, runs in sides if spread is not None]
    if not known:
        return "one run of each, so the noise between seeds is not known"
    return " and ".join(
        f"the spread between seeds of {name} is {_number(spread)} ({runs} runs)" for name, spread, runs in known
    )


def _best(compared: Sequence[Mapping[str, Any]], sides: Sequence[_Side], metric: str) -> str:
    """The configuration that has the better mean in most pairs."""
    wins = dict.fromkeys((side.name for side in sides), 0)
    for each in compared:
        if each["samples"] and each["difference"]:
            is_second = (each["difference"] > 0) != less_is_better(metric)
            wins[each["second"] if is_second else each["first"]] += 1
    return max(wins, key=lambda name: wins[name])


def _of_several(compared: Sequence[Mapping[str, Any]], best: str, name: str) -> str:
    against = [each for each in compared if best in (each["first"], each["second"])]
    rivals = {(e["first"] if e["second"] == best else e["second"]): e["better"] == best for e in against}
    beaten, open_ = [r for r, won in rivals.items() if won], [r for r, won in rivals.items() if not won]
    if not beaten:
        return f"{best} has the best {name}, but by no more than chance or the noise between seeds."
    rest = f", and not more than by chance better than {_listed(open_)}" if open_ else ""
    return f"{best} has the best {name}: better than {_listed(beaten)}{rest}."


def _shown(
    first: _Side, second: _Side, judged: str, others: Mapping[tuple[str, str], Sequence[str]]
) -> list[dict[str, Any]]:
    """Other metrics, of which nothing is claimed."""
    names = {name for run in (*first.runs, *second.runs) for row in run.samples.values() for name in row}
    order = {name: place for place, name in enumerate(_SHOWN)}
    wanted = [n for n in names if n != judged and (n in order or n.partition(".")[0] in order) and n.count(".") < 2]
    wanted = [name for name in wanted if name in NAMES or not name.startswith(("instances.", "membranes."))]
    rows = []
    for name in sorted(wanted, key=lambda n: (order.get(n, order.get(n.partition(".")[0], 99)), n)):
        found = _compare(first, second, name, others)
        if found["samples"]:
            kept = {key: found[key] for key in ("difference", "low", "high", "samples")}
            means = {"first": found["means"][0], "second": found["means"][1]}
            rows.append({"metric": name, "name": metric_name(name), **means, **kept})
    return rows


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _number(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:.2g}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else "= " + f"{p:.3f}".rstrip("0").rstrip(".")


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def _has(words: Sequence[str]) -> str:
    return "has" if len(words) == 1 else "have"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


__all__ = ["PRIMARY", "Scored", "judge", "less_is_better", "metric_name", "sample_rows"]
