"""How a run learned, drawn from its journal: the loss, the scores on validation, the learning rate."""

from collections.abc import Mapping, Sequence
from typing import Any

from useg.experiments.report.charts import Line, legend, line_chart, smoothed
from useg.experiments.report.markup import Markup, tag
from useg.experiments.report.tables import as_name, as_text, facts

__all__ = ["curves"]

MOST_LINES = 7
"""More lines than this in one chart cannot be told apart."""


def curves(events: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw what a journal tells; None when it tells nothing.

    A step that was repeated after a crash counts once, as it was the last time.

    Args:
        events: of a journal, in order; "step", "validation" and "decision" are understood.
    """
    steps = _last_of_each_step(events, "step")
    validations = _last_of_each_step(events, "validation")
    decisions = [event for event in events if event.get("event") == "decision"]
    if not steps and not validations:
        return None
    at = [step["step"] for step in steps]
    marks = [(event["step"], _telling(event)) for event in decisions if _is_number(event.get("step"))]
    cards = []
    if steps:
        loss = [_number(step.get("loss")) for step in steps]
        soft = smoothed(loss, max(1, len(loss) // 50))
        lines = [Line("", at, loss, faint=True), Line("training loss", at, soft)]
        cards.append(_chart("Loss", lines, marks=marks))
    if validations:
        cards.append(_chart("Scores on validation", _score_lines(validations), marks=marks))
    if any("lr" in step for step in steps):
        rate = Line("learning rate", at, [_number(step.get("lr")) for step in steps], colour=3)
        cards.append(_chart("Learning rate", [rate], marks=marks))
    if decisions:
        told = {f"step {event.get('step', '?')}": _telling(event) for event in decisions}
        cards.append(tag("section", tag("h3", "Decisions on the way"), facts(told), class_="card"))
    return tag("div", *cards, class_="grid")


def _chart(title: str, lines: Sequence[Line], *, marks: Sequence[tuple[float, str]]) -> Markup:
    drawn = line_chart(lines, title=title, x_label="step", marks=marks)
    return tag("section", tag("h3", title), drawn, legend(lines), class_="card")


def _last_of_each_step(events: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    last = {event["step"]: event for event in events if event.get("event") == kind}
    return [last[step] for step in sorted(last)]


def _score_lines(validations: Sequence[Mapping[str, Any]]) -> list[Line]:
    flat = [_ratios(event.get("scores") or {}) for event in validations]
    names = list(dict.fromkeys(name for scores in flat for name in scores))[:MOST_LINES]
    at = [event["step"] for event in validations]
    return [
        Line(name, at, [scores.get(name, float("nan")) for scores in flat], colour)
        for colour, name in enumerate(names, start=1)
    ]


def _ratios(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores from 0 to 1, with the Dice of each class."""
    found = {as_name(key): float(value) for key, value in scores.items() if _is_number(value) and 0 <= value <= 1}
    for name, value in (scores.get("dice") or {}).items():
        if isinstance(value, int | float):
            found[f"Dice of {name}"] = float(value)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _telling(event: Mapping[str, Any]) -> str:
    said = {key: value for key, value in event.items() if key not in {"event", "step", "seconds", "time"}}
    if len(said) == 1:
        return as_text(next(iter(said.values())))
    return ", ".join(f"{key} {as_text(value)}" for key, value in said.items())
