"""Runs side by side as one HTML page: which is better, sample by sample, how they learned, and what differs."""

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from useg.experiments.report.charts import Line, legend, line_chart, smoothed, ticks
from useg.experiments.report.markup import Markup, joined, tag
from useg.experiments.report.page import duration
from useg.experiments.report.tables import as_name, as_number, as_text
from useg.experiments.report.whole import section, write_page
from useg.runs.compare import Run, curve

MOST_DOTS = 2000
MOST_KEYS = 200
_EXTREMES = 5
_COLOURS = 7
_WIDTH, _SIDE, _TOP, _BOTTOM = 960, 24, 12, 40
_STYLE = """
.verdict { font-size: 18px; line-height: 1.45; margin-top: 24px; border-left: 4px solid var(--accent); }
.verdict p { margin: 0; overflow-wrap: anywhere; } .verdict p + p { margin-top: 10px; font-size: 14px; }
.chart .zero { stroke: var(--ink); stroke-width: 1; } .chart .mean { stroke: var(--accent); stroke-width: 2; }
.dot.tie { fill: var(--quiet); } .chart .span { fill: var(--accent); opacity: 0.16; }
.narrow { display: block; max-width: 960px; margin: 0 auto; }
.letter { font-weight: 600; white-space: nowrap; }
pre { margin: 0 -20px; padding: 0 20px; overflow-x: auto; font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre .add, pre .take { display: inline-block; min-width: 100%; }
pre .add { background: color-mix(in srgb, var(--c6) 20%, transparent); }
pre .take { background: color-mix(in srgb, var(--c2) 20%, transparent); }
.columns th + th, .columns td + td { padding-left: 14px; }
"""
_KINDS = {
    "added": "only in {second}",
    "removed": "only in {first}",
    "relabelled": "with other labels",
    "changed": "with other images",
    "metadata": "with other metadata",
}


def write_compare_page(path: Path, runs: Sequence[Run], comparison: Mapping[str, Any]) -> None:
    """Write the page; it is there whole or not at all, and needs no other file.

    Args:
        path: of the HTML file.
        runs: as they were read.
        comparison: of these runs, see `runs.compare.compare`.

    Raises:
        ResourceError: it cannot be written.
    """
    title = " against ".join(str(run.record.get("name") or run.id) for run in runs[:2])
    if len(runs) > 2 or len({run.record.get("name") or run.id for run in runs}) < len(runs):
        title = f"{len(runs)} runs compared"
    ids = " · ".join(f"{run.label} {run.title}" for run in runs)
    colours = {run.label: number % _COLOURS + 1 for number, run in enumerate(runs)}
    sections = [
        tag("header", tag("h1", title), tag("p", ids)),
        _verdict(comparison["verdict"]),
        *section("The runs", _runs(comparison["runs"])),
        *section("Sample by sample", *(_paired(each, comparison["verdict"], colours) for each in _drawn(comparison))),
        *section("Other scores, without a verdict", _other_scores(comparison["verdict"])),
        *section("How they learned", _curves(runs)),
        *section("What differs", *_differences(comparison)),
    ]
    write_page(path, title, *sections, style=_STYLE)


def _card(title: str, *content: Markup | str | None) -> Markup:
    return tag("section", tag("h3", title), *content, class_="card")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: bool = False) -> Markup:
    kind = "number" if numbers else "text"
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell, class_=kind) for cell in row[1:])) for row in rows
    ]
    top = tag("tr", tag("th", head[0]), *(tag("th", title, class_=kind) for title in head[1:]))
    table = tag("table", tag("thead", top), tag("tbody", *body), class_="columns")
    return tag("div", table, class_="scroll tall" if len(rows) > 40 else "scroll")


def _verdict(verdict: Mapping[str, Any]) -> Markup:
    said = [tag("p", verdict["sentence"])]
    if len(verdict["comparisons"]) > 1:
        said += [tag("p", each["sentence"]) for each in verdict["comparisons"]]
    said += [tag("p", note, class_="quiet") for note in verdict["notes"]]
    return tag("section", *said, class_="card verdict")


def _runs(rows: Sequence[Mapping[str, Any]]) -> Markup:
    names = ("run", "status", "started", "time", "steps", "samples", "data", "mean Dice", "AP at 0.5", "V_rand")
    columns = []
    for row in rows:
        scores = row["scores"]
        seconds = None if row["seconds"] is None else duration(float(row["seconds"]))
        found = [scores.get("mean_dice"), (scores.get("instances") or {}).get("ap50")]
        found.append((scores.get("membranes") or {}).get("v_rand"))
        told = [row["run"], row["status"], row["started"], seconds, row["steps"], row["samples"], row["data"], *found]
        columns.append([None if value is None else as_text(value) for value in told])
    kept = [place for place in range(len(names)) if any(column[place] is not None for column in columns)]
    lines = [[names[place], *(column[place] or "–" for column in columns)] for place in kept]
    note = tag("p", "Scores as each run recorded them, pooled over its samples.", class_="quiet")
    return tag("section", _table(["", *(row["label"] for row in rows)], lines), note, class_="card")


def _drawn(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in comparison["verdict"]["comparisons"] if each["samples"]]


def _paired(found: Mapping[str, Any], verdict: Mapping[str, Any], colours: Mapping[str, int]) -> Markup:
    """The differences of all samples as dots, and those that changed most by name."""
    pairs = {
        key: (values[0], values[1], values[1] - values[0])
        for key, values in found["samples_compared"].items()
        if math.isfinite(values[1] - values[0])
    }
    order = sorted(pairs, key=lambda key: pairs[key][2], reverse=bool(verdict["less_is_better"]))
    first, second, name = found["first"], found["second"], verdict["name"]
    told = f"{name} of {second} minus that of {first}: a dot for each sample, in the colour of the better one; "
    told += "the band is the 95 % interval of the mean."
    own = [colours[each.partition("+")[0]] for each in (first, second)]
    better = own[::-1] if verdict["less_is_better"] else own
    drawn = [_dots([(key, pairs[key][2]) for key in order], found, f"{name}: {second} against {first}", better)]
    swatches = [
        joined(tag("i", class_=f"swatch series-{colour}"), s) for s, colour in zip((first, second), own, strict=True)
    ]
    drawn.append(tag("ul", *(tag("li", swatch) for swatch in swatches), class_="legend"))
    above = _above(order)
    lines = [[key[above:], *(as_number(value) for value in pairs[key][:2]), f"{pairs[key][2]:+.3f}"] for key in order]
    head = ["sample", first, second, "difference"]
    cards = [
        _card(title, _table(head, some, numbers=True))
        for title, some in ((f"Worst for {second}", lines[:_EXTREMES]), (f"Best for {second}", lines[::-1][:_EXTREMES]))
        if len(lines) > 1
    ]
    left = [f"{found['left_out']} samples have no value on a side" if found["left_out"] else ""]
    left.append(f"{found['not_shared']} samples were not scored in both" if found["not_shared"] else "")
    left.append(f"{len(found['not_the_same'])} samples are not the same in both" if found["not_the_same"] else "")
    quiet = "; ".join(["", *filter(None, left)]).removeprefix("; ")
    note = tag("p", f"Not paired: {quiet}.", class_="quiet") if quiet else None
    card = _card(f"{second} against {first}", tag("p", told, class_="quiet"), *drawn, note)
    return joined(card, tag("div", *cards, class_="grid", style="margin-top:16px"))


def _above(keys: Sequence[str]) -> int:
    """How many characters of the keys are folders that all have in common."""
    folders = zip(*(key.split("/")[:-1] for key in keys), strict=False)
    return sum(len(names[0]) + 1 for names in takewhile(lambda names: len(set(names)) == 1, folders))


def _dots(points: Sequence[tuple[str, float]], found: Mapping[str, Any], title: str, colours: Sequence[int]) -> Markup:
    """A dot for each sample by its difference, the worst of the second on top; the mean and its interval behind.

    Args:
        points: keys and differences. found: the comparison. title: what is shown.
        colours: of negative and positive differences.
    """
    if not points:
        return tag("p", "no sample has a value in both", class_="quiet")
    shown = points if len(points) <= MOST_DOTS else points[:: -(-len(points) // MOST_DOTS)]
    ends = [value for _, value in shown] + [0.0, found["difference"]]
    ends += [end for end in (found["low"], found["high"]) if math.isfinite(end) and len(points) > 1]
    low, high = min(ends), max(ends)
    reach = (high - low) or 1.0
    low, high = low - 0.04 * reach, high + 0.04 * reach
    inner = min(420, max(96, 14 * len(shown)))
    bottom = _TOP + inner

    def across(value: float) -> float:
        return float(round(_SIDE + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - 2 * _SIDE), 1))

    drawn = []
    for at in ticks(low, high, 8):
        drawn.append(tag("line", x1=across(at), x2=across(at), y1=_TOP, y2=bottom, class_="grid"))
        drawn.append(tag("text", f"{at:+g}" if at else "0", x=across(at), y=bottom + 18, text_anchor="middle"))
    if math.isfinite(found["low"]):
        start, stop = across(found["low"]), across(found["high"])
        drawn.append(tag("rect", x=start, y=_TOP, width=max(1.0, stop - start), height=inner, class_="span"))
    for kind, value in (("zero", 0.0), ("mean", found["difference"])):
        if math.isfinite(value):
            line = tag("line", x1=across(value), x2=across(value), y1=_TOP, y2=bottom, class_=kind)
            drawn.append(line)
    for rank, (key, value) in enumerate(shown):
        down = round(_TOP + inner * (rank + 0.5) / len(shown), 1)
        dot = {"cx": across(value), "cy": down, "r": 4 if len(shown) < 60 else 2.5}
        kind = f"dot series-{colours[value > 0]}" if value else "dot tie"
        drawn.append(tag("circle", tag("title", f"{key}: {value:+.4f}"), **dot, class_=kind))
    size = f"0 0 {_WIDTH} {bottom + _BOTTOM - 12}"
    return tag("svg", tag("title", title), *drawn, viewBox=size, role="img", class_="chart narrow")


def _other_scores(verdict: Mapping[str, Any]) -> Markup | None:
    rows = [
        [
            row["name"],
            as_number(row["first"]),
            as_number(row["second"]),
            f"{row['difference']:+.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}" if math.isfinite(row["low"]) else "–",
            row["samples"],
        ]
        for row in verdict["shown"]
    ]
    if not rows:
        return None
    sides = verdict["comparisons"][0]
    head = ["mean over samples", sides["first"], sides["second"], "difference", "95 % interval", "samples"]
    return tag("section", _table(head, rows, numbers=True), class_="card")


def _curves(runs: Sequence[Run]) -> Markup | None:
    """Loss and validation score of all runs, by step and by time."""
    cards = []
    for title, kind, name in (("Loss", "step", "loss"), ("Mean Dice on validation", "validation", "mean_dice")):
        found = {run.label: curve(run.events, kind, name) for run in runs}
        for word, place in (("by step", 0), ("by time", 1)):
            lines = []
            for number, (label, points) in enumerate(found.items()):
                if not points:
                    continue
                ordered = sorted(points, key=lambda point, place=place: point[place])  # type: ignore[misc]
                at, values = [point[place] for point in ordered], [point[2] for point in ordered]
                colour = number % _COLOURS + 1
                soft = smoothed(values, max(1, len(values) // 50)) if kind == "step" else values
                if kind == "step" and len(runs) <= 3:
                    lines.append(Line("", at, values, colour, faint=True))
                lines.append(Line(label, at, soft, colour))
            if lines:
                unit = "step" if place == 0 else "seconds of training"
                drawn = line_chart(lines, title=f"{title} {word}", x_label=unit)
                cards.append(_card(f"{title} {word}", drawn, legend(lines)))
    return tag("div", *cards, class_="grid") if cards else None


def _differences(comparison: Mapping[str, Any]) -> list[Markup | None]:
    labels = [row["label"] for row in comparison["runs"]]
    found: list[Markup | None] = []
    tables = (("Settings", "config"), ("Plan", "plan"), ("Machine", "machine"))
    for title, changes in [*((t, comparison[n]) for t, n in tables), ("Code", comparison["code"]["facts"])]:
        rows = [[name, *(_cell(values, label) for label in labels)] for name, values in changes.items()]
        same = tag("p", "No difference.", class_="quiet")
        found.append(_card(title, _table(["", *labels], rows) if rows else same))
    for diff in comparison["code"]["diffs"]:
        title = f"{diff['name']}: {diff['first']} and {diff['second']}"
        found.append(_card(title, tag("pre", joined(*map(_diff_line, diff["lines"])))))
    for each in comparison["environment"]:
        told = each["differences"]
        lines = [f"{name}: {as_text(value)}" for name, value in told.items()] if isinstance(told, Mapping) else told
        items = tag("ul", *(tag("li", as_text(line)) for line in lines))
        found.append(_card(f"Environment: {each['first']} and {each['second']}", items))
    return [*found, *map(_data, comparison["data"])]


def _cell(values: Mapping[str, Any], label: str) -> str:
    return as_text(values[label]) if label in values else "not there"


def _diff_line(line: str) -> Markup:
    kind = {"+": "add", "-": "take"}.get(line[:1])
    return joined(tag("span", line, class_=kind) if kind else line, "\n")


def _data(found: Mapping[str, Any]) -> Markup:
    same = {True: "The same version.", False: "Two versions.", None: found["note"] or "Not known."}
    content: list[Markup] = [tag("p", same[found["same_version"]], class_="quiet")]
    if found["note"] and found["same_version"] is not None:
        content.append(tag("p", found["note"], class_="quiet"))
    for kind, title in _KINDS.items():
        if found[kind]:
            words = title.format(**{side: found[side] for side in ("first", "second")})
            summary = tag("summary", f"{len(found[kind]):,} samples {words}")
            more = [f"and {len(found[kind]) - MOST_KEYS:,} more"] if len(found[kind]) > MOST_KEYS else []
            content.append(tag("details", summary, tag("p", ", ".join([*found[kind][:MOST_KEYS], *more]))))
    if found["moved"]:
        rows = [[key, *map(as_name, parts)] for key, parts in [*found["moved"].items()][:MOST_KEYS]]
        summary = tag("summary", f"{len(found['moved']):,} samples were for something else")
        content.append(tag("details", summary, _table(["sample", found["first"], found["second"]], rows)))
    return _card(f"Data: {found['first']} and {found['second']}", *content)


__all__ = ["write_compare_page"]
