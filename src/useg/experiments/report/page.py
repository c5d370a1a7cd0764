"""What stands on the page of a run, and in which order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from useg.experiments.report.charts import Line, line_chart
from useg.experiments.report.curves import curves
from useg.experiments.report.markup import Markup, tag
from useg.experiments.report.pictures import MOST_BYTES, Picture, sample_pictures
from useg.experiments.report.tables import (
    as_name,
    as_number,
    as_text,
    class_table,
    confusion_table,
    facts,
    mapping_table,
    nested_table,
    sample_table,
)
from useg.experiments.report.whole import section, write_page

__all__ = ["write_report"]

_OWN_PLACE = frozenset({"name", "warnings", "plan", "mapping", "fingerprint", "legend"})
"""What of a record is shown in a place of its own, not among the facts of the run."""


def write_report(
    path: Path,
    *,
    record: Mapping[str, Any],
    journal_events: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
) -> None:
    """Write the page of a run; it appears complete or not at all.

    Every key below may be missing; its place is then left out. What is not known here is shown as it is.

    Args:
        path: of the HTML file.
        record: what the run was: `name`, `run`, `warnings` (texts), `plan`, `mapping` (a label mapping),
            `fingerprint`, `legend` (class name to a colour of three numbers 0..255), and any other facts.
        journal_events: what happened, in order: events "step", "validation" and "decision".
        scores: how good it is: `part` (of the data that was measured), `classes`, `mean_dice`, `mean_iou`,
            `pixel_error`, `confusion`, `surface`, `instances`, `membranes`, `samples`.
        pictures: samples to look at.
    """
    title = as_text(record.get("name") or record.get("run") or "A run")
    sections = [
        _header(title, record, scores),
        _figures(record, journal_events, scores),
        _warnings(record.get("warnings") or ()),
        *_scores(scores),
        *_pictures(pictures, record.get("legend") or {}),
        *section("How it learned", curves(journal_events)),
        *_per_image(scores),
        *_what_went_in(record),
    ]
    write_page(path, title, *sections)


def _card(title: str, *content: Markup) -> Markup:
    return tag("section", tag("h3", title), *content, class_="card")


def _header(title: str, record: Mapping[str, Any], scores: Mapping[str, Any]) -> Markup:
    part = scores.get("part")
    about = [as_text(record["run"])] if record.get("run") else []
    if part:
        about.append(f"scores on the {as_text(part)} part")
    if record.get("began"):
        about.append(as_text(record["began"]))
    return tag("header", tag("h1", title), tag("p", " · ".join(about)))


def _figures(
    record: Mapping[str, Any], events: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]
) -> Markup | None:
    instances, membranes = scores.get("instances") or {}, scores.get("membranes") or {}
    shown = [
        ("mean Dice", scores.get("mean_dice")),
        ("mean IoU", scores.get("mean_iou")),
        ("pixel error", scores.get("pixel_error")),
        ("AP at IoU 0.5", instances.get("ap50")),
        ("panoptic quality", instances.get("pq")),
        ("V_rand", membranes.get("v_rand")),
        ("V_info", membranes.get("v_info")),
    ]
    figures = [(name, as_number(value)) for name, value in shown if isinstance(value, int | float)]
    steps = [event["step"] for event in events if event.get("event") == "step"]
    if steps:
        figures.append(("steps", f"{max(steps):,}"))
    if isinstance(record.get("seconds"), int | float):
        figures.append(("time", duration(record["seconds"])))
    items = [tag("li", tag("b", value), tag("span", name)) for name, value in figures]
    return tag("ul", *items, class_="figures") if items else None


def duration(seconds: float) -> str:
    """Write a time as people say it: "8 s", "4.2 min", "17 min", "2 h 3 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _warnings(warnings: Sequence[str]) -> Markup | None:
    if not warnings:
        return None
    items = tag("ul", *(tag("li", as_text(warning)) for warning in warnings))
    return tag("section", tag("h3", "Worth knowing"), items, class_="warnings")


def _scores(scores: Mapping[str, Any]) -> list[Markup]:
    classes = scores.get("classes") or {}
    cards = []
    if classes:
        cards.append(_card("Classes", class_table(classes)))
    extra: list[Markup] = []
    if scores.get("confusion"):
        told = "Of the pixels of a class (row), per cent that were predicted as each class (column)."
        table = confusion_table(scores["confusion"], list(classes))
        # many classes need the whole width
        place = extra if len(classes) <= _NARROW else cards
        place.append(_card("Confusion", table, tag("p", told, class_="quiet")))
    titles = {"surface": "Boundaries", "instances": "Objects", "membranes": "Membranes"}
    for key in [*titles, *(other for other in scores if other not in _KNOWN_SCORES)]:
        if isinstance(scores.get(key), Mapping) and scores[key]:
            extra.append(_card(titles.get(key) or as_name(key).capitalize(), *_measured(scores[key])))
    if extra:
        cards.append(tag("div", *extra, class_="grid"))
    return section("Scores", *cards)


_KNOWN_SCORES = frozenset({"part", "classes", "confusion", "samples", "surface", "instances", "membranes"})


def _measured(scores: Mapping[str, Any]) -> list[Markup]:
    """Show one kind of scores; the precision of objects by threshold becomes a curve."""
    if isinstance(scores.get("classes"), Mapping):
        rest = {key: value for key, value in scores.items() if key != "classes"}
        return [nested_table(scores["classes"], corner="class"), facts(rest)]
    curve = scores.get("ap")
    if not isinstance(curve, Mapping):
        return [nested_table(scores)]
    rest = {key: value for key, value in scores.items() if key != "ap"}
    known = [(float(threshold), value) for threshold, value in curve.items() if value is not None]
    if not known:
        return [nested_table(rest)]
    at, precision = zip(*sorted(known), strict=True)
    chart = line_chart([Line("", at, precision)], title="AP by threshold", x_label="IoU", y_range=(0, 1))
    return [tag("p", "AP by the IoU that counts as found", class_="quiet"), chart, nested_table(rest)]


_NARROW = 5
"""A confusion table of so many classes fits into half the width."""


def _pictures(pictures: Sequence[Picture], legend: Mapping[str, Sequence[int]]) -> list[Markup]:
    found = []
    for rank, title in (("worst", "Where it is worst"), ("best", "Where it is best"), ("sample", "Samples")):
        chosen = [picture for picture in pictures if picture.rank == rank]
        if chosen:
            share = MOST_BYTES * len(chosen) // len(pictures)
            found += section(title, sample_pictures(chosen, legend, most_bytes=share))
    return found


def _per_image(scores: Mapping[str, Any]) -> list[Markup]:
    samples = scores.get("samples") or {}
    return section("Image by image", _card("Worst first", sample_table(samples))) if samples else []


def _what_went_in(record: Mapping[str, Any]) -> list[Markup]:
    rest = {key: value for key, value in record.items() if key not in _OWN_PLACE}
    cards = []
    if record.get("mapping"):
        cards.append(_card("What the label files say", mapping_table(record["mapping"])))
    for title, content in (
        ("The plan", record.get("plan")),
        ("What was measured on the data", record.get("fingerprint")),
        ("The run", rest),
    ):
        if content:
            cards.append(_card(title, facts(content)))
    return section("What went in", *cards)
