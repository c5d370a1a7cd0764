"""What differs between runs: settings, plan, code, data, environment, machine, curves and scores."""

import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from useg.errors import DamagedFile, InputError, UsegError
from useg.home.store import Missing, Store
from useg.runs.code_texts import itself, text_of, unified
from useg.runs.facts import completed, flattened
from useg.runs.following import history
from useg.runs.journal import Event
from useg.runs.numbers import from_json
from useg.runs.record import read_record
from useg.runs.verdict import Scored, judge, sample_rows

_DECIDED_BY_CLOCK = ("steps", "warmup_steps", "cooldown_steps", "validate_every", "patches_per_epoch")
_MEASURED = ("seconds_per_step", "reasons", "seed")
_PLACES = re.compile(r"python\.executable: |sources\.[^ ]+\.(path|url|editable): ")
_SHOWN_STEPS = 5


@dataclass(frozen=True)
class Run:
    """A run as it is compared.

    Attributes:
        store: the home it lies in. id: in that home.
        label: a letter.
        record: what went in and came out. scores: all of them, from `scores.json`; empty where there are none.
        groups: of the samples that have one.
        splits: what each sample was for, fold by fold; empty where it is not known.
        events: one continuous history over all attempts.
    """

    store: Store
    id: str
    label: str
    record: Mapping[str, Any]
    scores: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Event] = ()

    @property
    def title(self) -> str:
        """Its id, and its name where that is no part of it."""
        name = self.record.get("name")
        return self.id if not name or str(name).replace(" ", "-") in self.id else f"{self.id} ({name})"


def read_runs(places: Sequence[tuple[Store, str]]) -> list[Run]:
    """Read the runs that are to be compared and give them letters.

    Args:
        places: homes and ids.

    Raises:
        InputError: fewer than two runs, or one of them twice. DamagedFile: a run's files cannot be read.
    """
    ids = [f"{store.url}/{run}" for store, run in places]
    twice = sorted({run for run in ids if ids.count(run) > 1})
    if twice or len(ids) < 2:
        raise InputError(f"wanted two or more runs to compare{', each once: ' if twice else ''}{', '.join(twice)}")
    return [_read(store, run, label) for (store, run), label in zip(places, _letters(), strict=False)]


def compare(runs: Sequence[Run], metric: str | None = None) -> dict[str, Any]:
    """All that differs between runs.

    Args:
        runs: two or more, see `read_runs`.
        metric: what is judged; by default the task's.

    Returns:
        {"runs": [{"label", "run", "name", "status", "started", "seconds", "steps", "data", "samples", "weights",
         "scores"}],
         "config", "plan", "machine": {dotted name: {label: value}}, only what differs; a label without the name is
         not there,
         "code": {"facts": as before, "diffs": [{"name", "first", "second", "lines"}]},
         "data": [{"first", "second", "same_version", "compared" ("versions", "samples" or "no"), "note", "added",
         "removed", "relabelled", "changed", "metadata": [keys], "moved": {key: [part before, part after]}}],
         "environment": [{"first", "second", "differences"}],
         "curves": {label: [{"step", "seconds", "loss", "mean_dice"}]} at a few steps,
         "verdict": see `verdict.judge`}. Data and environment are compared with the first run.

    Raises:
        InputError: no run has this metric.
    """
    first, *rest = runs
    data = [data_difference(first, other) for other in rest]
    strange = {
        (each["first"], each["second"]): [*each["relabelled"], *each["changed"]] for each in data
    } | _different_contents(rest)
    return {
        "runs": [_facts(run) for run in runs],
        **{name: differing({run.label: run.record.get(name) for run in runs}) for name in ("config", "plan")},
        "machine": differing({run.label: run.record.get("machine") for run in runs}),
        "code": _code(runs),
        "data": data,
        "environment": [each for other in rest if (each := _environment(first, other))],
        "curves": {run.label: _milestones(run.events) for run in runs},
        "verdict": judge([_scored(run, _renamed(first, run)) for run in runs], metric, strange),
    }


def differing(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of nested values by label, those that are not the same everywhere, by dotted name."""
    flat = {label: dict(_leaves(value)) for label, value in values.items()}
    names = dict.fromkeys(name for leaves in flat.values() for name in leaves)
    found = {}
    for name in names:
        there = {label: leaves[name] for label, leaves in flat.items() if name in leaves}
        if len(there) < len(flat) or len({repr(_comparable(value)) for value in there.values()}) > 1:
            found[name] = there
    return found


def curve(events: Sequence[Event], kind: str, name: str) -> list[tuple[int, float, float]]:
    """What a run reported over time.

    Args:
        events: its history. kind: "step" or "validation". name: of the value, such as "loss" or "mean_dice".

    Returns:
        Step, seconds of work until then (time between attempts does not count), value; NaN and infinities as they are.
        Where a step is there several times, as in a run with folds, their mean.
    """
    points: dict[int, list[tuple[float, float]]] = {}
    for event, seconds in _timed(events):
        holder = event.get("scores") or {} if kind == "validation" else event
        value, step = _number(holder.get(name)), event.get("step")
        if event.get("event") == kind and value is not None and isinstance(step, int):
            points.setdefault(step, []).append((seconds, value))
    means = {step: [sum(each) / len(each) for each in zip(*found, strict=True)] for step, found in points.items()}
    return [(step, means[step][0], means[step][1]) for step in sorted(means)]


def data_difference(first: Run, second: Run) -> dict[str, Any]:
    """Which samples two runs had, and what differs in them; see `compare`."""
    origins = [run.record.get("origin") or {} for run in (first, second)]
    versions = [origin.get("version") for origin in origins]
    known = all(versions)
    found: dict[str, Any] = {
        "first": first.label,
        "second": second.label,
        "same_version": versions[0] == versions[1] if known else None,
        "compared": "samples" if first.splits and second.splits else "no",
        "note": "" if known else "no version of the data was recorded: contents are not compared",
        **{kind: [] for kind in ("added", "removed", "relabelled", "changed", "metadata")},
    }
    keys = [set(run.splits) for run in (first, second)]
    if first.splits and second.splits:
        found |= {"added": sorted(keys[1] - keys[0]), "removed": sorted(keys[0] - keys[1])}
    if known and found["same_version"]:
        found["compared"] = "versions"
    elif known:
        try:
            _compare_versions(first, second, found)
        except UsegError as error:
            found["note"] = f"contents are not compared: {error}"
    moved = {key: [first.splits[key], second.splits[key]] for key in sorted(keys[0] & keys[1])}
    return found | {"moved": {key: parts for key, parts in moved.items() if parts[0] != parts[1]}}


def _compare_versions(first: Run, second: Run, found: dict[str, Any]) -> None:
    from useg.data.difference import difference

    told = difference(_manifest(first), _manifest(second))
    used = {*first.splits, *second.splits}
    for kind in ("relabelled", "changed", "metadata"):
        found[kind] = [key for key in getattr(told, kind) if key in used or not used]
    if not used:
        found |= {"added": list(told.added), "removed": list(told.removed)}
    found["compared"] = "versions"


def _manifest(run: Run) -> Any:
    """The version of the data that a run learned from."""
    from useg.data.versions import Dataset
    from useg.home.opening import open_home

    origin = run.record["origin"]
    store, objects = open_home(origin.get("home") or run.store.url)
    dataset = Dataset.open(store, objects, origin["dataset"])
    return dataset.contents(dataset.version(origin["commit"])).manifest


def _different_contents(runs: Sequence[Run]) -> dict[tuple[str, str], list[str]]:
    """Of runs that are not the first, the samples whose contents are not the same in two of them."""
    found = {}
    for index, run in enumerate(runs):
        for other in runs[index + 1 :]:
            told = data_difference(run, other)
            found[run.label, other.label] = [*told["relabelled"], *told["changed"]]
    return found


def _read(store: Store, run: str, label: str) -> Run:
    record = completed(store, run, read_record(store, run))
    samples, splits = _json(store, run, "samples.json") or [], _json(store, run, "splits.json") or []
    return Run(
        store=store,
        id=run,
        label=label,
        record=record,
        scores=_json(store, run, "scores.json") or {},
        groups={row["key"]: row["group"] for row in samples if row.get("group") is not None},
        splits={key: " ".join(fold.get(key, "-") for fold in splits) for key in (splits[0] if splits else ())},
        events=history(store, run),
    )


def _json(store: Store, run: str, name: str) -> Any:
    key = f"runs/{run}/{name}"
    try:
        return from_json(store.get(key))
    except Missing:
        return None
    except orjson.JSONDecodeError as error:
        raise DamagedFile(f"{store.url}/{key}: not JSON: {error}") from error


def _letters() -> Iterator[str]:
    yield from string.ascii_uppercase
    number = 27
    while True:
        yield f"R{number}"
        number += 1


def _facts(run: Run) -> dict[str, Any]:
    record = run.record
    steps = [event["step"] for event in run.events if event.get("event") == "step"]
    seconds = record.get("seconds") or max((seconds for _, seconds in _timed(run.events)), default=None)
    origin = record.get("origin") or {}
    data = f"{origin['dataset']}@{origin['version'][:12]}" if origin.get("version") else record.get("data")
    names = ("name", "status", "started", "samples", "weights")
    scores = record.get("scores") or {}
    return {
        "label": run.label,
        "run": run.id,
        **{name: record.get(name) for name in names},
        "seconds": seconds,
        "steps": record.get("steps") or max(steps, default=None),
        "data": data,
        "scores": {name: scores[name] for name in ("part", "mean_dice", "instances", "membranes") if scores.get(name)},
    }


def _renamed(first: Run, run: Run) -> dict[str, str]:
    """The first run's keys of samples that it has by another key: their content is the same, and no other's."""
    mine, theirs = (each.scores.get("samples") or {} for each in (run, first))
    known: dict[tuple[str, str], list[str]] = {}
    for key, row in theirs.items():
        if row.get("content"):
            known.setdefault((row["content"]["image"], row["content"]["labels"]), []).append(key)
    found = {}
    for key, row in mine.items():
        content = row.get("content")
        names = known.get((content["image"], content["labels"]), []) if content else []
        if key not in theirs and len(names) == 1 and names[0] not in mine:
            found[key] = names[0]
    return found if len(set(found.values())) == len(found) else {}


def _scored(run: Run, names: Mapping[str, str]) -> Scored:
    config = run.record.get("config") or {}
    part, changes = run.scores.get("part"), (run.record.get("origin") or {}).get("transforms")
    return Scored(
        label=run.label,
        part=f"{part}, changed by {', '.join(changes)}," if changes else part,
        samples={names.get(key, key): row for key, row in sample_rows(run.scores).items()},
        over=tuple(run.scores.get("mean_over") or ()),
        configuration=_configuration(run),
        seed=config.get("seed", run.record.get("seeds")),
        weights=run.record.get("weights"),
        groups={names.get(key, key): group for key, group in run.groups.items()},
    )


def _configuration(run: Run) -> str:
    """Equal for runs that differ by their seed alone: settings, plan, data and code are the same."""
    config, plan = dict(run.record.get("config") or {}), dict(run.record.get("plan") or {})
    if not config or run.record.get("status") != "finished":
        return f"{run.store.url}/{run.id}"
    left_out = _MEASURED + (_DECIDED_BY_CLOCK if config.get("minutes") is not None else ())
    origin, code = run.record.get("origin") or {}, run.record.get("code") or {}
    parts = [
        {name: value for name, value in config.items() if name != "seed"},
        {name: value for name, value in plan.items() if name not in left_out},
        [origin.get("version"), origin.get("view")] if origin.get("version") else run.record.get("data"),
        dict(run.splits),
        itself(code),
    ]
    return orjson.dumps(parts, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def _code(runs: Sequence[Run]) -> dict[str, Any]:
    """What differs in the code; texts that the homes keep are compared line by line."""
    facts = differing({run.label: itself(run.record.get("code") or {}) for run in runs})
    diffs = []
    first = runs[0]
    for name, values in facts.items():
        for other in runs[1:]:
            pair = values.get(first.label), values.get(other.label)
            texts = [text_of(run.store, value) for run, value in zip((first, other), pair, strict=True)]
            if pair[0] != pair[1] and any(text is not None for text in texts):
                lines = unified(texts, [f"{run.label}: {name}" for run in (first, other)])
                diffs.append({"name": name, "first": first.label, "second": other.label, "lines": lines})
    return {"facts": facts, "diffs": diffs}


def _environment(first: Run, second: Run) -> dict[str, Any] | None:
    before, after = (run.record.get("environment") for run in (first, second))
    if not before or not after or before == after:
        return None
    from useg.runs.environment import environment_difference

    differences = map(str, environment_difference(before, after))
    told = [difference for difference in differences if not _PLACES.match(difference)]
    return {"first": first.label, "second": second.label, "differences": told} if told else None


def _milestones(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Loss and validation score at a few steps, evenly apart."""
    losses, scores = curve(events, "step", "loss"), curve(events, "validation", "mean_dice")
    last = max((points[-1][0] for points in (losses, scores) if points), default=0)
    rows = []
    for number in range(1, _SHOWN_STEPS + 1):
        step = round(last * number / _SHOWN_STEPS)
        since = last * (number - 1) / _SHOWN_STEPS
        near = [value for at, _, value in losses if since < at <= step and math.isfinite(value)]
        seen = [value for at, _, value in scores if at <= step]
        if near or seen:
            seconds = max(time for at, time, _ in (*losses, *scores) if at <= step)
            loss = sum(near) / len(near) if near else None
            score = seen[-1] if seen else None
            rows.append({"step": step, "seconds": round(seconds, 3), "loss": loss, "mean_dice": score})
    return rows


def _timed(events: Sequence[Event]) -> Iterator[tuple[Event, float]]:
    """Each event with the seconds of work until then; clocks that went back and pauses between attempts count 0."""
    total, before, fold = 0.0, None, None
    for event in events:
        if event.get("fold") != fold:
            total, before, fold = 0.0, None, event.get("fold")
        seconds, time = _number(event.get("seconds")), _number(event.get("time"))
        if event.get("event") in ("started", "resumed"):
            before = None
        if seconds is not None:
            total += max(0.0, seconds)
        elif time is not None and before is not None:
            total += max(0.0, time - before)
        before = time
        yield event, total


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted names and values; a list of files becomes names, so that each is compared with its own."""
    if isinstance(value, Mapping):
        for name, each in flattened(dict(value), ""):
            if isinstance(each, list) and each and all(isinstance(e, dict) and "path" in e for e in each):
                for entry in each:
                    yield f"{name}.{entry['path']}".removeprefix("."), entry.get("digest", entry)
            else:
                yield name.removeprefix("."), each
    elif value is not None:
        yield "value", value


def _comparable(value: Any) -> Any:
    """Equal numbers alike, whether whole or not."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


__all__ = ["Run", "compare", "curve", "data_difference", "differing", "read_runs"]
