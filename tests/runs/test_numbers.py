"""What is written into records is read again, also what JSON has no number for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.runs import start
from useg.runs.numbers import from_json, to_json
from useg.runs.record import RunFolder

WORDS = st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\-Infinity", "nan", "NaN ", '"NaN"', "\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | WORDS, inner, max_size=3),
    max_leaves=10,
)


def same(a, b):
    """Equal, NaN equal to itself, and of the same kind."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)))


@given(VALUES)
def test_what_is_written_is_read(value):
    content = to_json(value)
    assert same(value, from_json(content))
    json.loads(content, parse_constant=pytest.fail)  # it is JSON for every reader: no bare NaN


def test_numbers_of_numpy_and_tensors_are_numbers():
    class Tensor:
        ndim = 0

        def item(self):
            return math.inf

    found = from_json(to_json({"a": np.float32("nan"), "b": np.array([1.5, -np.inf]), "c": Tensor(), "d": Path("x")}))
    assert math.isnan(found["a"])
    assert (found["b"], found["c"], found["d"]) == ([1.5, -math.inf], math.inf, "x")


def test_a_record_keeps_them(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.update(scores={"loss": math.nan, "best": [math.inf, 1.0]}, note="NaN", nothing=None)
    record = folder.record()
    assert math.isnan(record["scores"]["loss"])
    assert (record["scores"]["best"], record["note"], record["nothing"]) == ([math.inf, 1.0], "NaN", None)
    folder.write_json("scores.json", {"dice": -math.inf})
    assert folder.read_json("scores.json") == {"dice": -math.inf}


def test_a_loop_of_ones_own_keeps_them(tmp_path):
    with start(config={"clip": math.inf}, home=tmp_path) as run:
        run.finish({"loss": math.nan})
    record = run.folder.record()
    assert record["config"] == {"clip": math.inf}
    assert math.isnan(record["scores"]["loss"])
