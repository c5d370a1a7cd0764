"""What is drawn from a search space: always the same, always within it, each point once."""

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.experiments.sweep.asking import LR, sweep_of

from useg.config import load_config
from useg.experiments.sweep.asked import settings_tree
from useg.experiments.sweep.space import Parameter, draw, flat, grid

CONDITIONAL = """
method = "grid"
[search]
train.optimizer = ["adamw", "sgd"]
train.momentum = { values = [0.9, 0.99], when = { train.optimizer = "sgd" } }
network.base = { low = 4, high = 12, step = 4 }
network.depth = { values = [1, 2], when = { network.base = [4, 8], train.optimizer = "sgd" } }
"""


def test_a_grid_has_every_point_that_exists_once() -> None:
    found = list(grid(sweep_of(CONDITIONAL).space))
    wanted = []
    for optimizer, momentum, base, depth in product(["adamw", "sgd"], [0.9, 0.99], [4, 8, 12], [1, 2]):
        point = {"train.optimizer": optimizer, "network.base": base}
        if optimizer == "sgd":
            point["train.momentum"] = momentum
            if base in (4, 8):
                point["network.depth"] = depth
        if point not in wanted:
            wanted.append(point)
    assert len(found) == len(wanted) == 3 + 2 * (2 * 2 + 1)
    assert all(point in found for point in wanted)


def test_draws_exhaust_a_small_space_without_doubles_and_end() -> None:
    space = sweep_of(CONDITIONAL).space
    drawn: list[dict] = []
    while (point := draw(space, f"x/{len(drawn)}", drawn)) is not None:
        drawn.append(point)
    assert len(drawn) == len(list(grid(space)))
    assert all(point in drawn for point in grid(space))


@settings(max_examples=30)
@given(
    low=st.floats(1e-6, 1e3),
    width=st.floats(1e-6, 1e3),
    log=st.booleans(),
    whole=st.booleans(),
    seed=st.text(max_size=4),
)
def test_what_is_drawn_lies_in_the_range_and_is_always_the_same(low, width, log, whole, seed) -> None:
    ends = (int(low) + 1, int(low) + 2 + int(width)) if whole else (low, low + width)
    parameter = Parameter(key="train.lr", low=ends[0], high=ends[1], log=log)
    first, again = draw([parameter], seed, []), draw([parameter], seed, [])
    assert first == again
    assert first is not None
    value = first["train.lr"]
    assert ends[0] <= value <= ends[1]
    assert isinstance(value, int) is whole


def test_a_logarithmic_draw_is_even_over_decades() -> None:
    parameter = Parameter(key="train.lr", low=1e-4, high=1e-1, log=True)
    decades = [math.floor(math.log10(draw([parameter], str(n), [])["train.lr"])) for n in range(900)]
    assert all(abs(decades.count(decade) - 300) < 75 for decade in (-4, -3, -2))
    whole = Parameter(key="network.base", low=2, high=8, log=True)
    drawn = [draw([whole], str(n), [])["network.base"] for n in range(900)]
    assert sorted({*drawn}) == [2, 3, 4, 5, 6, 7, 8]
    assert drawn.count(2) > drawn.count(8)


def test_tables_and_dotted_names_are_the_same() -> None:
    names = {"train.lr": {"low": 1, "high": 2}, "seed": 3}
    assert flat({"train": {"lr": {"low": 1, "high": 2}}, "seed": 3}) == flat(names) == names
    assert load_config(**settings_tree({"train.lr": 0.5, "steps": 3})).train.lr == 0.5


def test_tpe_asks_the_same_question_once_and_goes_where_scores_are_good() -> None:
    optuna = pytest.importorskip("optuna")
    assert optuna
    from useg.experiments.sweep.tpe import propose

    space = sweep_of(
        f'method = "tpe"\n[budget]\ntrials = 4\n[search]\n{LR}\nnetwork.patch = [[16, 16], [32, 32]]\n'
        "network.depth = { low = 1, high = 3, when = { network.patch = [[32, 32]] } }"
    ).space
    known: list = []
    for number in range(40):
        point = propose(space, f"a/{number}", known)
        assert point == propose(space, f"a/{number}", known)
        assert ("network.depth" in point) == (point["network.patch"] == [32, 32])
        known.append((point, -((math.log10(point["train.lr"]) + 2) ** 2) - (point["network.patch"] == [16, 16])))
    late = [abs(math.log10(point["train.lr"]) + 2) for point, _ in known[20:]]
    assert sum(late) / len(late) < 0.5  # 0.83 if drawn evenly from -4 to -1
    assert sum(point["network.patch"] == [32, 32] for point, _ in known[20:]) > 13
