"""The page of several runs: whole, safe, and with what was compared on it."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import orjson
import pytest
from tests.runs.making import add_entry, finished, write_run

from useg.errors import ResourceError
from useg.experiments.compare_page import write_compare_page
from useg.home.store import Folder
from useg.runs.compare import compare, read_runs

STRANGE = '<img src=x onerror="alert(1)">'


def make(home: Path, name: str, extra: float, *, keys: int = 9, metric: str = "mean_dice", **more: object) -> None:
    journal = [{"event": "started", "step": 0}]
    for step in range(1, 21):
        journal.append({"event": "step", "step": step, "loss": 1 / step + extra, "seconds": 0.5})
    journal.append({"event": "validation", "step": 20, "scores": {"mean_dice": 0.5 + extra}, "seconds": 1})
    folder = write_run(home, name, finished(0, weights=name, **more), journal=journal)
    rows = {
        f"a/b/{STRANGE}{n}": {metric: 0.5 + extra * n / 8 if n else None, "hd95": {"cell": 3.0}} for n in range(keys)
    }
    (folder / "scores.json").write_bytes(orjson.dumps({"part": "test", "mean_over": ["cell"], "samples": rows}))
    (folder / "splits.json").write_bytes(orjson.dumps([dict.fromkeys(rows, "test")]))


def written(home: Path, *names: str, metric: str | None = None) -> str:
    runs = read_runs([(Folder(home), name) for name in names])
    page = home / "page.html"
    write_compare_page(page, runs, compare(runs, metric))
    assert [path.name for path in home.iterdir()] == ["runs", "page.html"] or not list(home.glob("*.part"))
    return page.read_text(encoding="utf-8")


def parsed(page: str) -> ElementTree.Element:
    """The page as a tree; what is not closed is refused."""
    void = re.sub(r"<(meta[^>]*)>", r"<\1/>", page.removeprefix("<!doctype html>\n"))
    return ElementTree.fromstring(void)


def test_everything_is_on_the_page(tmp_path: Path) -> None:
    make(tmp_path, "one", 0.0)
    make(tmp_path, "two", 0.2, plan={"steps": 100, "lr": 0.3})
    add_entry(tmp_path / "runs" / "two", {"code": {"user": {"patch": "+a\n+b"}}})
    page = written(tmp_path, "one", "two")
    tree = parsed(page)
    text = " ".join(tree.itertext())
    assert "B is better than A on mean Dice by 0.11" in text
    assert "1 samples have no value on a side" in text
    assert "HD95 of cell" in text
    titles = [node.text for node in tree.iter("h3")]
    assert {"Loss by step", "Loss by time", "Mean Dice on validation by step", "Mean Dice on validation by time"} <= {
        *titles
    }
    assert {"Settings", "Plan", "Machine", "Code", "Worst for B", "Best for B", "user.patch: A and B"} <= {*titles}
    (dots,) = (node for node in tree.iter("svg") if "narrow" in node.get("class", ""))
    named = [node.find("title").text for node in dots.iter("circle")]
    assert len(named) == 8
    assert named[0] == f"a/b/{STRANGE}1: +0.0250"
    assert not list(tree.iter("script"))
    assert not list(tree.iter("img"))
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", page)


def test_dots_have_the_colour_of_the_better_run(tmp_path: Path) -> None:
    make(tmp_path, "one", 0.0, metric="pixel_error")
    make(tmp_path, "two", 0.2, metric="pixel_error")
    tree = parsed(written(tmp_path, "one", "two", metric="pixel_error"))
    (dots,) = (node for node in tree.iter("svg") if "narrow" in node.get("class", ""))
    assert {node.get("class") for node in dots.iter("circle")} == {"dot series-1"}


def test_dots_lie_where_their_differences_are(tmp_path: Path) -> None:
    make(tmp_path, "one", 0.0)
    make(tmp_path, "two", 0.2)
    tree = parsed(written(tmp_path, "one", "two"))
    (dots,) = (node for node in tree.iter("svg") if "narrow" in node.get("class", ""))
    zero = float(next(node for node in dots.iter("line") if node.get("class") == "zero").get("x1"))
    places = [
        (float(node.find("title").text.rpartition(": ")[2]), float(node.get("cx"))) for node in dots.iter("circle")
    ]
    scale = {round((at - zero) / value) for value, at in places}
    assert max(scale) - min(scale) <= 4
    assert [at for _, at in places] == sorted(at for _, at in places)
    assert all(math.isfinite(at) for _, at in places)


def test_equal_runs_runs_without_scores_and_many_runs(tmp_path: Path) -> None:
    for number, name in enumerate("abcdefgh"):
        make(tmp_path, name, number / 50)
    write_run(tmp_path, "own", {"run": "own", "config": {"x": math.pi}})
    make(tmp_path, "twin", 0.0)
    assert "have the same mean Dice on every sample" in written(tmp_path, "a", "twin")
    assert "No verdict: B has no scores of single samples." in written(tmp_path, "a", "own")
    page = written(tmp_path, *"abcdefgh")
    assert "8 runs compared" in page
    assert parsed(page) is not None


def test_what_stood_there_is_whole_when_the_page_cannot_be_written(tmp_path: Path) -> None:
    make(tmp_path, "one", 0.0)
    make(tmp_path, "two", 0.2)
    runs = read_runs([(Folder(tmp_path), name) for name in ("one", "two")])
    with pytest.raises(ResourceError, match="cannot write"):
        write_compare_page(tmp_path / "gone" / "page.html", runs, compare(runs))
