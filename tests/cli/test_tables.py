"""Tables that fit into a terminal."""

import random

from hypothesis import given
from hypothesis import strategies as st

from useg.cli.tables import laid_out

ROWS = [
    ["run", "status", "data", "dice", "tags"],
    ["20261123-first", "finished", "/home/ada/projects/cells/plate-7", "0.9132", ""],
    ["20261123-second", "dead", "/home/ada/projects/cells/plate-8", "", ""],
]


def test_where_there_is_room_nothing_is_cut() -> None:
    lines = laid_out(ROWS, right=[3])
    assert lines == laid_out(ROWS, right=[3], width=len(lines[0]) + 1)
    assert lines[0] == "run              status    data                                dice  tags"
    assert lines[2] == "20261123-second  dead      /home/ada/projects/cells/plate-8"
    assert lines[1].index("0.9132") + 2 == lines[0].index("dice")


def test_words_lose_their_beginning_then_the_last_columns_go() -> None:
    lines = laid_out(ROWS, right=[3], width=50)
    assert lines[1] == "20261123-first   finished  …/cells/plate-7  0.9132"
    assert len(lines) == 3  # that no tags are shown needs no word: there are none
    narrow = laid_out(ROWS, right=[3], width=30)
    assert narrow == [
        "run              status",
        "20261123-first   finished",
        "20261123-second  dead",
        "too narrow for: data, dice",
    ]
    assert laid_out(ROWS, width=1)[:3] == ["run", "20261123-first", "20261123-second"]


@given(st.integers(1, 120), st.integers(0, 10**6))
def test_no_line_is_longer_and_no_number_is_cut(width: int, seed: int) -> None:
    draw = random.Random(seed)
    columns, count = draw.randint(1, 7), draw.randint(2, 5)
    rows = [["x" * draw.randint(1, 40) for _ in range(columns)] for _ in range(count)]
    right = [i for i in range(columns) if draw.random() < 0.4]
    *table, last = [*laid_out(rows, right=right, width=width), ""][: count + 1]
    assert len(table) == count
    assert all(len(line) <= max(width, max(len(row[0]) for row in rows)) for line in table)
    for row, line in zip(rows, table, strict=True):
        for i in right:
            assert rows[0][i] in last or row[i] in line
