import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.experiments.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, line_chart, smoothed, ticks


def points(svg):
    return [
        [tuple(map(float, pair.split())) for pair in path[1:].split("L")] for path in re.findall('d="([^"]+)"', svg)
    ]


def test_a_line_goes_from_corner_to_corner():
    ((first, last),) = points(line_chart([Line("a", [0, 10], [0.0, 1.0])], title="t", x_label="x", y_range=(0, 1)))
    assert first == (LEFT, HEIGHT - BOTTOM)
    assert last == (WIDTH - RIGHT, TOP)


def test_what_is_not_finite_makes_a_gap_and_a_lonely_point_a_dot():
    svg = line_chart(
        [Line("a", range(6), [0.0, 1.0, math.nan, 1.0, math.inf, 0.5])],
        title="t",
        x_label="x",
    )
    assert [len(path) for path in points(svg)] == [2]
    assert svg.count("<circle") == 2


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=1500),
    st.integers(0, 3),
)
def test_every_point_lies_inside_the_frame(values, marks):
    svg = line_chart(
        [Line("a", range(len(values)), values)],
        title="t",
        x_label="x",
        marks=[(mark * len(values) / 3, "here") for mark in range(marks)],
    )
    for path in points(svg):
        for x, y in path:
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


def test_nothing_to_draw_is_told():
    assert "nothing was recorded" in line_chart([Line("a", [1], [math.nan])], title="t", x_label="x")


def test_one_wild_value_does_not_flatten_the_rest():
    values = [1.0 - step / 1000 for step in range(1000)]
    values[500] = 1e9
    (path,) = points(line_chart([Line("a", range(1000), values)], title="t", x_label="x"))
    heights = [y for _, y in path]
    assert max(heights) - min(heights) > (HEIGHT - TOP - BOTTOM) * 0.9


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_and_inside(low, span):
    high = low + span
    if not high > low or span < abs(low) * 1e-9:
        return
    found = ticks(low, high, 5)
    slack = span * 1e-6 + abs(low) * 1e-9
    assert 2 <= len(found) <= 7
    assert all(low - slack <= tick <= high + slack for tick in found)


def test_ticks_are_round():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 2400, 5) == [0, 500, 1000, 1500, 2000]


@pytest.mark.parametrize("window", [1, 5, 40])
def test_smoothing_is_the_weighted_mean_of_the_neighbours(window):
    rng = np.random.default_rng(0)
    values = rng.normal(size=25)
    values[7] = math.nan
    weights = np.hanning(2 * window + 3)[1:-1]
    expected = []
    for centre in range(25):
        pairs = [
            (weights[window + offset], values[centre + offset])
            for offset in range(-window, window + 1)
            if 0 <= centre + offset < 25 and math.isfinite(values[centre + offset])
        ]
        expected.append(sum(w * v for w, v in pairs) / sum(w for w, _ in pairs))
    np.testing.assert_allclose(smoothed(values, window), expected, rtol=1e-12)


def test_smoothing_a_constant_keeps_it():
    assert smoothed([3.0] * 10, 4) == pytest.approx([3.0] * 10)
    assert math.isnan(smoothed([math.nan], 1)[0])
