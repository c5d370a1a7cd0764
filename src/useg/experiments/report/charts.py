"""Curves as inline SVG that follow the colours of the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from useg.experiments.report.markup import Markup, tag

__all__ = ["Line", "legend", "line_chart", "smoothed", "ticks"]

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 36
MOST_POINTS = 400
"""A line is drawn through at most this many points; of each stretch between them the mean is taken."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for the legend; empty draws the line without an entry there.
        x: ascending.
        y: as many values; those that are not finite make a gap.
        colour: number of the page's series colour, from 1.
        faint: whether it only stands behind another line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 1
    faint: bool = False


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Average every value with its neighbours, up to `window` on either side, weighted by a Hann window.

    Values that are not finite are left out of the averages; where nothing is left, the result is NaN.
    """
    data = np.asarray(values, dtype=float)
    weights = np.hanning(2 * window + 3)[1:-1]
    good = np.isfinite(data)
    # `same` of a short series would return as many values as the window has
    total = np.convolve(np.where(good, data, 0.0), weights)[window : window + data.size]
    share = np.convolve(good.astype(float), weights)[window : window + data.size]
    with np.errstate(invalid="ignore", divide="ignore"):
        return [float(value) for value in np.where(share > 0, total / share, np.nan)]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Draw lines over a common x.

    Args:
        lines: what to draw, later ones on top.
        title: what is shown, for those who cannot see it.
        x_label: what x counts.
        y_range: lowest and highest y; by default what the lines need, without the highest 0.5 % of values.
        marks: places on x with what happened there, drawn as thin vertical lines.
    """
    thin = [_thinned(line) for line in lines]
    xs = [x for line in thin for x in line.x] + [x for x, _ in marks]
    ys = [y for line in thin for y in line.y if math.isfinite(y)]
    if not xs or not ys:
        return tag("p", "nothing was recorded", class_="quiet")
    x_low, x_high = _widened(min(xs), max(xs))
    y_low, y_high = y_range or _widened(min(ys), float(np.quantile(ys, 0.995)))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        inside = min(max((y - y_low) / (y_high - y_low), 0.0), 1.0)
        return across, HEIGHT - BOTTOM - inside * (HEIGHT - TOP - BOTTOM)

    grid: list[Markup] = []
    for y in ticks(y_low, y_high, 5):
        _, down = place(x_low, y)
        grid.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{down:.1f}", y2=f"{down:.1f}", class_="grid"))
        grid.append(tag("text", f"{y:g}", x=LEFT - 8, y=f"{down + 4:.1f}", text_anchor="end"))
    for x in ticks(x_low, x_high, 5):
        across, _ = place(x, y_low)
        grid.append(tag("text", f"{x:,.6g}", x=f"{across:.1f}", y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
    grid.append(tag("text", x_label, x=WIDTH - RIGHT, y=HEIGHT - 2, text_anchor="end", class_="axis"))
    for x, what in marks:
        at = f"{place(x, y_low)[0]:.1f}"
        mark = tag("line", tag("title", what), x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark")
        grid.append(mark)
    drawn = [path for line in thin for path in _paths(line, place)]
    return tag(
        "svg",
        tag("title", title),
        *grid,
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )


def legend(lines: Sequence[Line]) -> Markup:
    """Write which colour is which line, and the last value of each."""
    entries = []
    for line in lines:
        finite = [y for y in line.y if math.isfinite(y)]
        if line.name and finite:
            swatch = tag("i", class_=f"swatch series-{line.colour}")
            entries.append(tag("li", swatch, line.name, " ", tag("b", f"{finite[-1]:.3g}")))
    return tag("ul", *entries, class_="legend")


def ticks(low: float, high: float, about: int) -> list[float]:
    """Choose round numbers between `low` and `high`, about so many."""
    rough = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * count, 12) for count in range(first, math.floor(high / step + 1e-9) + 1)]


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _thinned(line: Line) -> Line:
    if len(line.x) <= MOST_POINTS:
        return line
    edges = np.linspace(0, len(line.x), MOST_POINTS + 1).astype(int)
    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
    spans = [slice(begin, end) for begin, end in pairwise(edges)]
    return Line(
        line.name,
        [float(x[span].mean()) for span in spans],
        [float(y[span].mean()) for span in spans],
        line.colour,
        line.faint,
    )


def _paths(line: Line, place: Callable[[float, float], tuple[float, float]]) -> list[Markup]:
    """One path for each stretch without a gap; a stretch of a single point is a dot."""
    kind = f"line series-{line.colour}{' faint' if line.faint else ''}"
    stretches: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y):
            stretches[-1].append(place(x, y))
        elif stretches[-1]:
            stretches.append([])
    drawn = []
    for points in filter(None, stretches):
        if len(points) == 1:
            (x, y) = points[0]
            drawn.append(tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=f"dot series-{line.colour}"))
        else:
            route = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            drawn.append(tag("path", d=route, class_=kind))
    return drawn
