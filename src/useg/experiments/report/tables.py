"""Scores, facts and mappings as tables of a page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from useg.experiments.report.markup import Markup, tag

__all__ = [
    "as_name",
    "as_number",
    "as_text",
    "class_table",
    "confusion_table",
    "facts",
    "mapping_table",
    "nested_table",
    "sample_table",
]

MOST_ROWS = 1000
MOST_COLUMNS = 10
LONG_LIST = 12
"""A list with more entries is told by its length and its ends."""

_CLASS_COLUMNS = {
    "iou": "IoU",
    "dice": "Dice",
    "precision": "precision",
    "recall": "recall",
    "dice_mean": "Dice/image",
    "cldice": "clDice",
    "images_with_class": "images",
    "images_missed": "missed",
    "images_false": "invented",
}


_SPELLED = {
    "iou": "IoU",
    "dice": "Dice",
    "ap": "AP",
    "ap50": "AP50",
    "cldice": "clDice",
    "hd95": "HD95",
    "assd": "ASSD",
    "v": "V",
} | {short: short.upper() for short in ("nsd", "pq", "sq", "rq", "seg")}


def as_name(key: object) -> str:
    """Write a key in words: `mean_iou` as "mean IoU"."""
    return " ".join(_SPELLED.get(word, word) for word in str(key).split("_"))


def as_number(value: object) -> str:
    """Write a number, with three digits after the point where it is small; what is none as a dash."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.3f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:,.4g}"
    return "–"


def as_text(value: object) -> str:
    """Write any value in words."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.4g}"
    if value is None or isinstance(value, bool | int | float):
        return as_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {as_text(item)}" for key, item in value.items()) or "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        words = [_within(item) for item in value]
        if len(words) > LONG_LIST:
            return f"{len(words):,}: {', '.join(words[:3])} … {words[-1]}"
        return ", ".join(words) or "–"
    return str(value)


def _within(value: object) -> str:
    """Write a value that stands in a list."""
    nested = isinstance(value, Mapping | Sequence) and not isinstance(value, str)
    return f"({as_text(value)})" if nested else as_text(value)


def class_table(classes: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Write the scores of each class."""
    return nested_table(classes, columns=_CLASS_COLUMNS, corner="class")


def nested_table(content: Mapping[str, Any], *, columns: Mapping[str, str] | None = None, corner: str = "") -> Markup:
    """Write a table of tables as rows and columns, or a flat one as names and values.

    Args:
        content: rows by name; those that are no mappings go below, as names and values.
        columns: which columns, with their titles; by default all there are, titled by their names.
        corner: what the row names are.
    """
    rows = {name: row for name, row in content.items() if isinstance(row, Mapping)}
    flat = {name: value for name, value in content.items() if name not in rows}
    if not rows:
        return facts(flat)
    there = list(dict.fromkeys(key for row in rows.values() for key in row))
    titles = columns or {key: as_name(key) for key in there}
    chosen = [key for key in titles if key in there]
    head = tag("tr", tag("th", corner), *(tag("th", titles[key], class_=_kind(rows, key)) for key in chosen))
    body = [
        tag("tr", tag("th", name, scope="row"), *(_cell(row.get(key), _kind(rows, key)) for key in chosen))
        for name, row in rows.items()
    ]
    table = _table(head, body)
    return tag("div", facts(flat), table) if flat else table


def _kind(rows: Mapping[str, Mapping[str, Any]], column: str) -> str:
    """How a column is shown: as scores where all its numbers are fractions from 0 to 1."""
    values = [row.get(column) for row in rows.values() if row.get(column) is not None]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return "text"
    fractions = all(isinstance(value, float) and 0 <= value <= 1 for value in values)
    return "score" if values and fractions else "number"


def _cell(value: object, kind: str) -> Markup:
    if kind == "score" and isinstance(value, float) and math.isfinite(value):
        return tag("td", as_number(value), tag("i", style=f"--share:{value:.3f}"), class_=kind)
    return tag("td", as_number(value) if kind == "number" else as_text(value), class_=kind)


def _table(head: Markup, body: Sequence[Markup], *, class_: str | None = None, tall: bool = False) -> Markup:
    table = tag("table", tag("thead", head), tag("tbody", *body), class_=class_)
    return tag("div", table, class_="scroll tall" if tall else "scroll")


def confusion_table(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Write which class was taken for which, as shares of the true class; counts are shown when pointed at.

    Args:
        counts: pixels by true class (row) and predicted class (column); a further column is "none predicted".
        names: of the classes; where some are missing, they are numbered.
    """
    known = [*names[: len(counts)], *(f"class {index}" for index in range(len(names), len(counts)))]
    columns = [*known, "none"] if counts and len(counts[0]) > len(counts) else known
    shown = [column for column in range(len(columns)) if column < len(known) or any(row[column] for row in counts)]
    head = tag("tr", tag("th"), *(tag("th", columns[column], scope="col") for column in shown))
    body = []
    for name, row in zip(known, counts, strict=True):
        whole = sum(row)
        cells = []
        for column in shown:
            share = row[column] / whole if whole else 0.0
            cells.append(
                tag(
                    "td",
                    f"{100 * share:.1f}" if whole else "–",
                    title=f"{row[column]:,} of {whole:,} pixels of {name} taken for {columns[column]}",
                    style=f"--share:{share:.3f}",
                    class_="strong" if share > 0.7 else None,
                )
            )
        body.append(tag("tr", tag("th", name, scope="row"), *cells))
    return _table(head, body, class_="confusion")


def sample_table(samples: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Write the scores of each sample, the worst first; at most `MOST_ROWS` of them."""
    flat = {key: dict(_flat(scores)) for key, scores in samples.items()}
    columns = list(dict.fromkeys(name for row in flat.values() for name in row))[:MOST_COLUMNS]
    order = sorted(flat, key=lambda key: _goodness(flat[key], columns))
    rows = {key: flat[key] for key in order[:MOST_ROWS]}
    kinds = {column: _kind(rows, column) for column in columns}
    head = tag("tr", tag("th", "image"), *(tag("th", name, class_=kinds[name]) for name in columns))
    body = [
        tag("tr", tag("th", key, scope="row"), *(_cell(row.get(name), kinds[name]) for name in columns))
        for key, row in rows.items()
    ]
    table = _table(head, body, tall=len(body) > 12)
    if len(flat) <= MOST_ROWS:
        return table
    told = f"The worst {MOST_ROWS:,} of {len(flat):,}; scores.json has all."
    return tag("div", table, tag("p", told, class_="quiet"))


def _goodness(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[bool, float]:
    for column in [*(name for name in columns if "dice" in name.lower()), *columns]:
        value = row.get(column)
        if isinstance(value, float) and math.isfinite(value):
            return (False, value)
    return (True, 0.0)


def _flat(scores: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The scores of a sample as name and value, single ones first."""
    for key, value in scores.items():
        if not isinstance(value, Mapping | list | tuple):
            yield f"{before}{as_name(key)}", value
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{as_name(key)} ")


def facts(content: Mapping[str, Any], before: str = "") -> Markup:
    """Write names and values, tables within tables flattened."""
    return tag("dl", *_facts(content, before), class_="facts")


def _facts(content: Mapping[str, Any], before: str) -> Iterator[Markup]:
    for key, value in content.items():
        name = f"{before}{as_name(key)}"
        if isinstance(value, Mapping) and value:
            yield from _facts(value, f"{name} · ")
        else:
            yield tag("div", tag("dt", name), tag("dd", as_text(value)))


def mapping_table(mapping: Mapping[str, Any]) -> Markup:
    """Write a label mapping: which stored values or colours are which class, and what else it says."""
    head = tag("tr", *(tag("th", title) for title in ("id", "class", "stored as")))
    body = []
    for index, entry in enumerate(mapping.get("classes") or ()):
        colours = entry.get("colours") or ()
        swatches = [_swatch(colour) for colour in colours]
        stored = as_text(entry.get("values")) if entry.get("values") else None
        cell = tag("td", *swatches, stored or (None if swatches else "–"), class_="text")
        body.append(tag("tr", tag("td", index), tag("td", as_text(entry.get("name")), class_="text"), cell))
    rest = {key: value for key, value in mapping.items() if key != "classes" and value not in (None, (), [])}
    return tag("div", _table(head, body), facts(rest))


def _swatch(colour: object) -> Markup:
    numbers = list(colour) if isinstance(colour, list | tuple) else []
    style = f"background:rgb({','.join(str(int(n)) for n in numbers[:3])})" if len(numbers) >= 3 else None
    return tag("span", tag("i", class_="swatch class", style=style), as_text(colour), " ")
