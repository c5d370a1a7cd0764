import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from useg.cli import output


class Model(BaseModel):
    path: Path
    share: float


@dataclass
class Point:
    x: int
    y: np.float32


def test_json_is_one_line_on_stdout(capsys):
    result = {
        "path": Path("a/b"),
        "nan": math.nan,
        "infinite": np.float64(np.inf),
        "array": np.arange(4, dtype=np.uint8).reshape(2, 2),
        "number": np.int64(7),
        "yes": np.bool_(True),
        "model": Model(path=Path("c"), share=0.5),
        "point": Point(1, np.float32(0.5)),
        "set": {"b", "a"},
        3: ("x", None, True),
    }
    output.emit(result, json=True, text="not this")
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
    assert json.loads(captured.out) == {
        "path": "a/b",
        "nan": None,
        "infinite": None,
        "array": [[0, 1], [2, 3]],
        "number": 7,
        "yes": True,
        "model": {"path": "c", "share": 0.5},
        "point": {"x": 1, "y": 0.5},
        "set": ["a", "b"],
        "3": ["x", None, True],
    }


def test_names_that_are_no_utf8_survive_json(capsys):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    output.emit({"name": name}, json=True, text="")
    assert json.loads(capsys.readouterr().out)["name"] == name


def test_text_is_made_only_when_it_is_needed(capsys):
    output.emit({"a": 1}, json=False, text=lambda: "for people")
    assert capsys.readouterr().out == "for people\n"
    output.emit({"a": 1}, json=True, text=lambda: pytest.fail("text was made for --json"))


def test_an_unknown_kind_of_value_is_refused():
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        output.plain({"a": object()})


def test_messages_go_to_stderr_without_colour_in_a_file(capsys):
    output.note("a")
    output.warn("b [bold]")
    output.error("c")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a\nwarning: b [bold]\nerror: c\n"


def test_progress_in_a_log_is_sparse_and_ends(capsys):
    with output.progress("step", total=1000) as advance:
        for step in range(1, 1001):
            advance(step, status=f"loss {1 / step:.3f}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "step 1000/1000 loss 0.001\n"


def test_progress_in_a_log_tells_something_every_interval(capsys, monkeypatch):
    now = iter([0.0, 1.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(now))
    with output.progress("tile") as advance:
        for tile in range(1, 5):
            advance(tile, total=9)
    assert capsys.readouterr().err == "tile 2/9\ntile 4/9\n"


def test_progress_on_a_terminal_is_a_bar_on_stderr(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.progress("step", total=10) as advance:
        advance(5, status="loss [0.5]")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "5/10" in captured.err
    assert "[0.5]" in captured.err
