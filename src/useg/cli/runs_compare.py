"""`useg runs compare`: what differs between runs, and which one is better."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from useg.cli.data_options import Home, Json
from useg.cli.output import emit, note

if TYPE_CHECKING:
    from useg.home.store import Store

__all__ = ["compare"]

WIDTH = 100
_MOST = 12
_LONGEST_CELL = 40
_MOST_DIFF_LINES = 40
_SIGNS = {"added": "+", "removed": "-", "relabelled": "~", "changed": "!", "metadata": "m"}


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="A B [C...]", help="Two or more runs: id, name or folder.")],
    metric: Annotated[
        str | None, typer.Option(help="What is judged, such as dice or pixel_error. [default: the task's]")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with curves side by side, and sample by sample.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what differs between runs, and which one is better by more than chance and the noise between seeds."""
    from useg.runs.compare import compare as compare_runs
    from useg.runs.compare import read_runs

    read = read_runs([_place(home, run) for run in runs])
    found = compare_runs(read, metric)
    if html is not None:
        from useg.experiments.compare_page import write_compare_page

        write_compare_page(html, read, found)
        note(f"curves and samples are drawn in {html}")
    emit(found, json=json, text=lambda: "\n".join(_text(found)))


def _place(home: str | None, run: str) -> "tuple[Store, str]":
    from useg.runs.find import with_run

    return with_run(home, run, lambda store, index, found: (store, found.id))


def _text(found: Mapping[str, Any]) -> Iterator[str]:
    labels = [row["label"] for row in found["runs"]]
    yield from _runs(found["runs"])
    yield ""
    yield from _verdict(found["verdict"])
    yield from _curves(found["curves"])
    for title, name in (("settings", "config"), ("plan", "plan"), ("machine", "machine")):
        yield from _changes(title, found[name], labels)
    yield from _changes("code", found["code"]["facts"], labels)
    for diff in found["code"]["diffs"]:
        yield f"\n{diff['name']}, {diff['first']} and {diff['second']}"
        yield from (f"  {line}" for line in diff["lines"][:_MOST_DIFF_LINES])
        if len(diff["lines"]) > _MOST_DIFF_LINES:
            yield f"  ... {len(diff['lines']) - _MOST_DIFF_LINES} more lines: --html shows them"
    for each in found["data"]:
        yield from _data(each)
    for each in found["environment"]:
        yield f"\nenvironment, {each['first']} and {each['second']}"
        told = each["differences"]
        lines = [f"{name}: {_cell(value)}" for name, value in told.items()] if isinstance(told, Mapping) else told
        yield from _some([str(line) for line in lines])


def _runs(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        facts = [row["status"], None if row["seconds"] is None else _time(row["seconds"])]
        facts.append(None if row["steps"] is None else f"{row['steps']} steps")
        scores = row["scores"]
        facts.append(f"mean Dice {scores['mean_dice']:.4f}" if scores.get("mean_dice") is not None else None)
        for group, name, word in (("instances", "ap50", "AP at 0.5"), ("membranes", "v_rand", "V_rand")):
            value = (scores.get(group) or {}).get(name)
            facts.append(f"{word} {value:.4f}" if value is not None else None)
        facts.append(f"({scores['part']}, pooled)" if scores.get("part") and len(scores) > 1 else None)
        said = row["run"] + (f" ({row['name']})" if row["name"] and row["name"] not in row["run"] else "")
        yield f"{row['label']}  {said}"
        yield f"   {', '.join(str(fact) for fact in facts if fact is not None)}".replace(", (", " (")


def _verdict(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrapped(verdict["sentence"])
    if len(verdict["comparisons"]) > 1:
        for each in verdict["comparisons"]:
            yield from _wrapped(each["sentence"], "  - ")
    for each in verdict["notes"]:
        yield from _wrapped(f"note: {each}")
    for each in verdict["comparisons"]:
        pair = f"{each['first']} and {each['second']}"
        if each["left_out"]:
            yield from _wrapped(f"note: {each['left_out']} samples have no value in {pair}, and are left out")
        if each["not_shared"]:
            yield from _wrapped(f"note: {each['not_shared']} samples were not scored in both {pair}, and are left out")
        if each["not_the_same"]:
            some = ", ".join(each["not_the_same"][:3])
            count = len(each["not_the_same"])
            yield from _wrapped(f"note: {count} samples are not the same in {pair}, and are left out, such as {some}")
    if not verdict["shown"]:
        return
    first, second = verdict["comparisons"][0]["first"], verdict["comparisons"][0]["second"]
    yield ""
    yield from _table(
        ["without a verdict", first, second, "difference", "95 % interval"],
        [
            [
                row["name"],
                f"{row['first']:.4f}",
                f"{row['second']:.4f}",
                f"{row['difference']:+.4f}",
                f"{row['low']:+.4f} to {row['high']:+.4f}" if math.isfinite(row["low"]) else "-",
            ]
            for row in verdict["shown"]
        ],
    )


def _curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    rows = []
    for label, points in curves.items():
        for point in points:
            loss, dice = (f"{point[n]:.4f}" if point[n] is not None else "-" for n in ("loss", "mean_dice"))
            rows.append([label, str(point["step"]), _time(point["seconds"]), loss, dice])
    if rows:
        yield ""
        yield from _table(["run", "step", "after", "loss", "validation Dice"], rows)


def _changes(title: str, changes: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> Iterator[str]:
    if not changes:
        yield f"\n{title}: no difference"
        return
    yield ""
    rows = [[name, *(_cell(values[label]) if label in values else "not there" for label in labels)]
            for name, values in changes.items()]  # fmt: skip
    yield from _table([title, *labels], rows)


def _data(found: Mapping[str, Any]) -> Iterator[str]:
    same = {True: "the same version", False: "two versions", None: found["note"]}[found["same_version"]]
    yield ""
    yield from _wrapped(f"data, {found['first']} and {found['second']}: {same}")
    if found["note"] and found["same_version"] is not None:
        yield from _wrapped(found["note"], "  ")
    for kind, sign in _SIGNS.items():
        if found[kind]:
            yield f"  {len(found[kind])} {kind}"
            yield from _some([f"{sign} {key}" for key in found[kind]])
    if found["moved"]:
        yield f"  {len(found['moved'])} for something else"
        yield from _some([f"{key}: {before} -> {after}" for key, (before, after) in found["moved"].items()])


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from (f"    {_short(line, WIDTH - 4)}" for line in lines[:_MOST])
    if len(lines) > _MOST:
        yield f"    and {len(lines) - _MOST} more: --json has all"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns that fit into the width; where they cannot, each row becomes a few lines."""
    cells = [head, *rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    if sum(widths) + 2 * (len(widths) - 1) <= WIDTH:
        for row in cells:
            first, *rest = (word.ljust(width) for word, width in zip(row, widths, strict=True))
            yield "  ".join([first, *rest]).rstrip()
        return
    yield head[0]
    for name, *values in rows:
        yield f"  {_short(name, WIDTH - 2)}"
        for label, value in zip(head[1:], values, strict=True):
            yield from _wrapped(value, f"    {label}  ")


def _wrapped(text: str, before: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=before, subsequent_indent=" " * len(before)) or [before.rstrip()]


def _cell(value: Any) -> str:
    """A value on one line; long lists by their length."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(value).split())
    if isinstance(value, list) and len(text) > _LONGEST_CELL:
        return f"{len(value)} values: {_short(text, _LONGEST_CELL)}"
    return _short(text, 2 * _LONGEST_CELL)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 2]}...{text[len(text) - (most - most // 2 - 1) :]}"


def _time(seconds: float) -> str:
    from useg.experiments.report.page import duration

    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
