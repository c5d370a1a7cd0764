"""What `useg inspect` prints for people: the reading, the measurements, the mapping, what to do next."""

import io
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from useg.data.foreign import ways_out

if TYPE_CHECKING:
    from rich.console import Console

    from useg.data.fingerprint import ChannelStatistics, Fingerprint, Quantiles
    from useg.data.inspect import Inspection
    from useg.data.labels import LabelMapping

MOST_LINES = 20
"""Longer lists are cut in the report; `--json` has all of them."""

WIDEST = 110


def render(inspection: "Inspection", data: str, *, colour: bool | None = None) -> str:
    """The report as text.

    Args:
        inspection: of the folder.
        data: the folder as the user named it.
        colour: with terminal colours; None: if stdout is a terminal.
    """
    from rich.console import Console

    if colour is None:
        colour = sys.stdout.isatty()
    width = max(60, min(WIDEST, shutil.get_terminal_size((100, 24)).columns))
    out = Console(file=io.StringIO(), width=width, force_terminal=colour, highlight=False, markup=False, emoji=False)
    _reading(out, inspection)
    if inspection.fingerprint is not None:
        _images(out, inspection.fingerprint)
        _channels(out, inspection.fingerprint)
    if inspection.mapping is not None:
        _classes(out, inspection.mapping, inspection.fingerprint)
    if inspection.fingerprint is not None:
        _objects(out, inspection.fingerprint)
    _list(out, "Repairs (recorded, and undone in predictions)", inspection.repairs, "green")
    _list(out, "Please check", inspection.warnings, "yellow")
    _list(out, "Problems", [str(problem) for problem in inspection.problems], "red")
    _next(out, inspection, data)
    text: str = out.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def _heading(out: "Console", text: str) -> None:
    out.print()
    out.print(text, style="bold")


def _reading(out: "Console", inspection: "Inspection") -> None:
    reading = inspection.reading
    labelled = sum(bool(sample.labels) for sample in reading.samples)
    out.print(f"{len(reading.samples)} samples, {labelled} with labels", style="bold")
    _wrapped(out, reading.rule)
    for other in reading.alternatives:
        _wrapped(out, f"Also possible: {other}")
    if reading.leftovers:
        _wrapped(out, f"Not used ({len(reading.leftovers)}): {_some(reading.leftovers, 6)}")
        for sentence in ways_out(reading.leftovers):
            _wrapped(out, sentence, indent=4)


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _wrapped(out: "Console", text: str, indent: int = 2) -> None:
    from rich.padding import Padding
    from rich.text import Text

    out.print(Padding(Text(text), (0, 0, 0, indent)))


_SPARED = (("std",), ("0.5 %", "99.5 %"), ("5 %", "95 %"), ("25 %", "75 %"), ("count",), ("in samples",))
"""Columns that a narrow terminal does without, the first ones first; `--json` has them all."""


def _show(out: "Console", columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; the first columns, of words, are broken into lines where it is too wide, numbers are not."""
    from rich.box import SIMPLE_HEAD
    from rich.measure import Measurement
    from rich.padding import Padding
    from rich.table import Table

    kept = list(columns)
    spared = [names for names in _SPARED if set(names) <= set(columns)]
    while True:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
        for name in kept:
            is_text = columns.index(name) < left
            table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
        for row in rows:
            table.add_row(*(cell for name, cell in zip(columns, row, strict=True) if name in kept))
        indented = Padding(table, (0, 0, 0, 2))
        if not spared or Measurement.get(out, out.options.update(max_width=10_000), indented).maximum <= out.width:
            break
        without = spared.pop(0)
        kept = [name for name in kept if name not in without]
    out.print(indented)


def _images(out: "Console", fingerprint: "Fingerprint") -> None:
    _heading(out, "Images")
    by = " x ".join
    if fingerprint.smallest == fingerprint.largest:
        size = by(map(str, fingerprint.largest)) + ", all alike"
    else:
        size = (
            f"{by(map(str, fingerprint.smallest))} to {by(map(str, fingerprint.largest))}, "
            f"median {by(map(str, fingerprint.median_space))} ({len(fingerprint.shapes)} sizes)"
        )
    lines = {
        "size": f"{size}; {'volumes' if fingerprint.ndim == 3 else 'planes'}, {fingerprint.pixels:,} "
        f"{'voxels' if fingerprint.ndim == 3 else 'pixels'} in all",
        "files": _counts(fingerprint.formats) + "; " + _counts(fingerprint.dtypes),
    }
    if fingerprint.spacing is not None:
        unit = f" {fingerprint.spacing_unit}" if fingerprint.spacing_unit else ""
        varies = ", differing between files" if fingerprint.spacing_varies else ""
        lines["spacing"] = by(f"{v:g}" for v in fingerprint.spacing) + unit + varies
    if fingerprint.splits:
        lines["splits"] = _counts(fingerprint.splits) + " (given, and kept)"
    if fingerprint.groups:
        lines["groups"] = f"{fingerprint.groups} (never cut by a split)"
    if fingerprint.intensity_scale_differs:
        lines["scales"] = "intensities differ in scale from file to file"
    for name, text in lines.items():
        _wrapped(out, f"{name:<12}{text}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({number})" if len(counts) > 1 else name for name, number in counts.items())


def _channels(out: "Console", fingerprint: "Fingerprint") -> None:
    _heading(out, "Channels")
    columns = ("channel", "min", "0.5 %", "median", "99.5 %", "max", "mean", "std", "kind")
    rows = []
    for channel in fingerprint.channel_statistics:
        numbers = (
            channel.minimum, channel.percentile_00_5, channel.percentile_50, channel.percentile_99_5,
            channel.maximum, channel.mean, channel.std,
        )  # fmt: skip
        rows.append((channel.name, *(_number(v) for v in numbers), _kind(channel)))
    _show(out, columns, rows)


def _kind(channel: "ChannelStatistics") -> str:
    if channel.kind == "constant":
        return "constant, left out"
    if channel.kind == "categorical":
        return f"{channel.distinct} codes"
    return "amounts" + (f", nodata {', '.join(_number(v) for v in channel.nodata)}" if channel.nodata else "")


def _number(value: float) -> str:
    if (value == round(value) or abs(value) >= 1000) and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _classes(out: "Console", mapping: "LabelMapping", fingerprint: "Fingerprint | None") -> None:
    _heading(out, f"Classes ({_KINDS[mapping.kind]})")
    rows = []
    for position, cls in enumerate(mapping.classes):
        measured = fingerprint.classes[position] if fingerprint and fingerprint.classes else None
        share = f"{100 * measured.share:.2f} %" if measured else ""
        samples = f"{measured.samples:,}" if measured else ""
        rows.append((str(position), cls.name, _stored(mapping, position), share, samples))
    if mapping.ignore or mapping.ignore_colours:
        listed = ", ".join(str(v) for v in (*mapping.ignore, *mapping.ignore_colours))
        share = f"{100 * fingerprint.ignored_share:.2f} % of all" if fingerprint else ""
        rows.append(("–", "not annotated", listed, share, ""))
    elif fingerprint and fingerprint.ignored_share:
        share = f"{100 * fingerprint.ignored_share:.2f} % of all"
        rows.append(("–", "not annotated", "outside of the region", share, ""))
    _show(out, ("id", "name", "in the files", "share", "in samples"), rows, left=3)


_KINDS = {
    "values": "a number per class",
    "colours": "a colour per class",
    "threshold": "grey values, cut in two",
    "instances": "a number per object",
    "objects": "a mask file per object",
}


def _stored(mapping: "LabelMapping", position: int) -> str:
    cls = mapping.classes[position]
    if mapping.kind == "threshold":
        return f"{'> ' if position else '<= '}{mapping.threshold:g}"
    if cls.colours:
        return " ".join("#" + "".join(f"{v:02x}" for v in colour) for colour in cls.colours)
    if mapping.has_objects and position:
        return "every other number" if mapping.kind == "instances" else "inside of a mask"
    return ", ".join(map(str, cls.values))


def _objects(out: "Console", fingerprint: "Fingerprint") -> None:
    objects = fingerprint.objects
    if objects is None:
        return
    kind = "told apart by the labels" if objects.source == "instances" else "connected pieces of one class"
    _heading(out, f"Objects ({kind})")
    unit = "voxels" if fingerprint.ndim == 3 else "pixels"
    rows: list[tuple[str, Quantiles | None]] = [
        ("objects of a sample", objects.per_sample),
        (f"size ({unit})", objects.size_px),
        ("longest edge (px)", objects.extent_px),
        ("gap to a neighbour (px)", objects.gap_px),
    ]
    shown = []
    for name, q in rows:
        if q is not None:
            numbers = (q.minimum, q.p05, q.p25, q.median, q.p75, q.p95, q.maximum)
            shown.append((name, f"{q.count:,}", *(f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in numbers)))
    _show(out, ("", "count", "min", "5 %", "25 %", "median", "75 %", "95 %", "max"), shown)
    if objects.touching_share:
        _wrapped(out, f"{100 * objects.touching_share:.1f} % of neighbouring pairs touch")


def _list(out: "Console", title: str, lines: Sequence[str], style: str) -> None:
    if not lines:
        return
    from rich.padding import Padding
    from rich.text import Text

    out.print()
    out.print(title, style=f"bold {style}")
    for line in lines[:MOST_LINES]:
        out.print(Padding(Text(f"- {line}"), (0, 0, 0, 2)))
    if len(lines) > MOST_LINES:
        out.print(f"  … and {len(lines) - MOST_LINES} more (all of them: --json)")


def _next(out: "Console", inspection: "Inspection", data: str) -> None:
    _heading(out, "Next")
    name = shlex.quote(data)
    if inspection.problems:
        _wrapped(out, f"repair the problems above, then again: useg inspect {name}")
    elif inspection.mapping is None:
        _wrapped(out, f"useg predict MODEL {name} --out FOLDER")
    else:
        _wrapped(out, f"useg train {name}")
        if inspection.mapping.kind != "objects":
            _wrapped(
                out,
                "to change classes or names: add --write classes.toml, edit that file, give it by --classes",
            )
