"""Runs as text for people: tables, a page of one run, curves as a line of blocks."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from useg.cli.tables import laid_out, terminal_width

if TYPE_CHECKING:
    from useg.runs.find import Origin

FIRST_OF_CURVES = ("run", "fold", "event", "step", "time")
"""Columns of an export of curves that come first."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDEST = 40
_CURVE = 60
_MOST_CLASSES = 12


def table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under short headings, in the width of the terminal; numbers to the right."""
    ends = [name.rpartition(".")[2] for name in names]
    heads = [end if ends.count(end) == 1 else name for end, name in zip(ends, names, strict=True)]
    cells = [[cell(name, row.get(name)) for name in names] for row in rows]
    numbers = [i for i, name in enumerate(names) if all(isinstance(row.get(name), int | float | None) for row in rows)]
    return "\n".join(laid_out([heads, *cells], right=numbers, width=terminal_width()))


def cell(name: str, value: Any) -> str:
    """A value in few signs."""
    if value is None:
        return ""
    if name in ("started", "ended"):
        return _printable(str(value)[:16].replace("T", " "))
    if name == "seconds" and isinstance(value, int | float) and math.isfinite(value):
        return duration(value)
    if isinstance(value, list):
        return _cut(", ".join(map(str, value)))
    if name == "data":
        return _cut(str(value), at_end=True)
    return _cut(number(value))


def number(value: Any) -> str:
    """A number with four digits that count; other values as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """1h02m, 1m52s or 3.1s."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _cut(text: str, *, at_end: bool = False) -> str:
    if len(text) > _WIDEST:
        text = "…" + text[1 - _WIDEST :] if at_end else text[: _WIDEST - 1] + "…"
    return _printable(text)


def _printable(text: str) -> str:
    """A text that stays in its line and moves no cursor."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def sparkline(values: Sequence[float | None]) -> str:
    """A curve as blocks, the last value of each stretch; NaN and infinities are `x`."""
    known = [value for value in values if value is not None]
    stretch = max(1, math.ceil(len(known) / _CURVE))
    shown = [known[min(start + stretch, len(known)) - 1] for start in range(0, len(known), stretch)]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    # divided first: the difference of two numbers may be too large for one
    scale = 1.0 / max(abs(low), abs(high), 1e-300)
    height = (high * scale - low * scale) or 1.0
    parts = [(value * scale - low * scale) / height for value in shown]
    return "".join(_BLOCKS[round(part * (len(_BLOCKS) - 1))] if math.isfinite(part) else "x" for part in parts)


def page(record: Mapping[str, Any], values: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    """All of a run on one page.

    Args:
        record: of the run, with the status it is seen to have.
        values: its fields as the index has them.
        events: its history.
    """
    lines = [f"{record['run']}  {record['status']}" + ("  (removed)" if record.get("removed") else "")]
    parts = {
        "started": _when(record, values),
        "by": "@".join(str(record[name]) for name in ("user", "host") if record.get(name)),
        "tags": ", ".join(map(str, record.get("tags") or ())),
        "note": _long(record.get("note")),
        "error": _long(record.get("error")),
        "command": _long(" ".join(map(str, record.get("command") or ()))),
        "data": data_of(values),
        "plan": _plan(values),
        "code": code_of(values),
        "machine": _machine(values),
        "weights": record.get("weights"),
        "parent": record.get("parent"),
    }
    lines += [f"  {name:9}{_printable(str(text))}" for name, text in parts.items() if text]
    return "\n".join([*lines, *_scores(record), *_curves(events)])


def _when(record: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    seconds = values.get("seconds")
    took = f", took {duration(seconds)}" if isinstance(seconds, int | float) and math.isfinite(seconds) else ""
    return f"{record.get('started') or 'not known'}{took}"


def _long(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 400 else f"{text[:400]}… ({len(text)} characters)"


def data_of(values: Mapping[str, Any]) -> str:
    """Which data, and which version of them, a run learned from."""
    version = values.get("origin.version")
    name = f"{values.get('origin.dataset')}@{str(version)[:12]}" if version else str(values.get("data") or "")
    where = f" where {values['origin.where']}" if values.get("origin.where") else ""
    samples = f", {values['samples']} samples" if values.get("samples") is not None else ""
    return _long(f"{name}{where}{samples}")


def _plan(values: Mapping[str, Any]) -> str:
    found = [("recipe", ""), ("patch", "patch "), ("base", "base "), ("depth", "depth "), ("steps", "steps "),
             ("micro_batch", "batch "), ("lr", "lr "), ("loss", "loss "), ("instance_mode", "instances: "),
             ("dtype", "")]  # fmt: skip
    known = [(word, values.get(f"plan.{name}")) for name, word in found]
    shown = [(word, "x".join(map(str, value)) if isinstance(value, list) else value) for word, value in known]
    return ", ".join(f"{word}{number(value)}" for word, value in shown if value not in (None, ""))


def code_of(values: Mapping[str, Any]) -> str:
    """Which useg, and which code of the user, a run was made by."""
    useg = values.get("code.useg.version") or values.get("useg")
    commit = values.get("code.useg.commit")
    own = [f"useg {useg}" + (f" ({str(commit)[:12]})" if commit else "")] if useg else []
    commit, script = values.get("code.user.commit"), values.get("code.user.script")
    if commit or script:
        at = f"at {str(commit)[:12]}" if commit else "without a commit"
        changed = " with changes" if values.get("code.user.patch") else ""
        own.append(f"own code {f'{script} ' if script else ''}{at}{changed}")
    return ", ".join(own)


def _machine(values: Mapping[str, Any]) -> str:
    names = ("processor", "cores", "memory_gb", "gpu", "torch")
    units = {"cores": " cores", "memory_gb": " GB"}
    known = [(name, values.get(f"machine.{name}")) for name in names]
    return ", ".join(
        ("torch " if name == "torch" else "") + number(value) + units.get(name, "")
        for name, value in known
        if value is not None
    )


def _scores(record: Mapping[str, Any]) -> list[str]:
    scores = record.get("scores")
    if not isinstance(scores, dict) or not scores:
        return []
    plain = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    part = scores.get("part")
    lines = [f"  scores{f' ({part})' if part else ''}"]
    lines += [f"    {_printable(name):<20} {number(value)}" for name, value in [*plain.items()][:_MOST_CLASSES]]
    for group in ("classes", "instances", "membranes"):
        rows = scores.get(group)
        for name, row in [*rows.items()][:_MOST_CLASSES] if isinstance(rows, dict) else []:
            pairs = row.items() if isinstance(row, dict) else [("", row)]
            shown = "  ".join(f"{key} {number(each)}".strip() for key, each in pairs if isinstance(each, int | float))
            lines.append(f"    {_printable(str(name))[:40]:<20} {shown}")
    return lines


def _curves(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Loss and Dice by step."""
    found: dict[str, list[float]] = {"loss": [], "mean_dice": []}
    for event in events:
        live = event.get("scores")
        for name, values in found.items():
            value = event.get(name, live.get(name) if isinstance(live, dict) else None)
            if isinstance(value, int | float):
                values.append(float(value))
    return [
        f"  {name:10}{sparkline(values)}  {number(values[0])} to {number(values[-1])}"
        for name, values in found.items()
        if values
    ]


def line_of(item: Mapping[str, Any] | str) -> str:
    """An event or a printed line, in one line."""
    if isinstance(item, str):
        return _printable(item)
    rest = {name: value for name, value in item.items() if name not in ("event", "step", "time")}
    shown = [f"{name} {_brief(value)}" for name, value in [*rest.items()][:_MOST_CLASSES]]
    more = [f"and {len(rest) - _MOST_CLASSES} more"] if len(rest) > _MOST_CLASSES else []
    return _printable("  ".join([f"{item.get('step', ''):>8} {item.get('event', '')}", *shown, *more]))


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        pairs = [(key, each) for key, each in value.items() if isinstance(each, int | float | str)]
        return "{" + ", ".join(f"{key} {number(each)}" for key, each in pairs[:_MOST_CLASSES]) + "}"
    return number(value)[:200]


def summary(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was made of and what came of it, in short."""
    groups = ("origin.", "scores.", "code.")
    single = ("run", "name", "status", "removed", "started", "ended", "command", "data", "samples", "weights", "tags",
              "note", "parent", "useg", "config_digest")  # fmt: skip
    return {name: value for name, value in values.items() if name in single or name.startswith(groups)}


def summary_text(values: Mapping[str, Any]) -> str:
    """The same for people."""
    scores = {name.removeprefix("scores."): value for name, value in values.items() if name.startswith("scores.")}
    shown = ", ".join(
        f"{_printable(name)} {number(value)}"
        for name, value in scores.items()
        if isinstance(value, int | float) and (name.count(".") == 0 or name.startswith("instances."))
    )
    parts = {
        "started": values.get("started"),
        "command": _long(" ".join(map(str, values.get("command") or ()))),
        "data": data_of(values),
        "code": code_of(values),
        "scores": f"{shown} ({values.get('scores.part')})" if shown else "",
    }
    head = f"{values['run']}  {values['status']}" + ("  (removed)" if values.get("removed") else "")
    return "\n".join([head, *(f"  {name:9}{_printable(str(text))}" for name, text in parts.items() if text)])


def origin_text(model: str, home: str, found: "Origin") -> str:
    """What made a model file."""
    lines = [f"{_printable(model)}: {found.model.kind} with weights {found.model.weights[:16]}"]
    lines += [summary_text(run) for run in found.runs]
    about = found.model.about
    if found.says is not None:
        step = f" at step {about['step']}" if isinstance(about.get("step"), int) else ""
        lines.append(f"no run ended with these weights; by its own word it was made{step} by")
        lines.append(summary_text(found.says))
    elif not found.runs:
        said = f"; by its own word it is of run {_printable(str(about['run']))}" if about.get("run") else ""
        lines.append(f"no run in {home} has these weights{said}")
    return "\n".join(lines)
