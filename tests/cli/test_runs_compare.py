"""`useg runs compare` on the command line."""

import json
from pathlib import Path

import orjson
import pytest
import typer
from tests.runs.making import finished, write_run
from typer.testing import CliRunner

from useg.cli.guard import guarded
from useg.cli.runs_compare import WIDTH, compare

application = typer.Typer(add_completion=False, rich_markup_mode=None)
application.command()(guarded(compare))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, extra in (("first", 0.0), ("second", 0.1)):
        config = {"seed": 0, "lr": 0.1 + extra, "very_long": {"name" * 20: "value" * 60 + name}, "list": [extra] * 30}
        record = finished(0, config=config, weights=name, machine={"cores": 2 + 10 * extra}, name=None)
        journal = [{"event": "step", "step": n, "loss": 1 / n, "seconds": 9} for n in range(1, 30)]
        folder = write_run(tmp_path / "home", name, record, journal=journal)
        rows = {f"sample-{n}": {"mean_dice": 0.5 + extra, "pixel_error": 0.1} for n in range(8)}
        scores = {"part": "test", "mean_over": ["cell"], "samples": rows}
        (folder / "scores.json").write_bytes(orjson.dumps(scores))
        keys = [*rows, *(f"{name}-{n}" for n in range(20)), "moved"]
        splits = dict.fromkeys(keys, "test") | {"moved": "val" if extra else "train"}
        (folder / "splits.json").write_bytes(orjson.dumps([splits]))
    return tmp_path / "home"


def call(*arguments: object):
    return CliRunner().invoke(application, [str(each) for each in arguments])


def test_text_says_it_first_and_fits_into_a_terminal(home: Path) -> None:
    result = call("first", "second", "--home", home)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "A  first"
    assert lines[5].startswith(
        "B is better than A on mean Dice by 0.100 (95 % interval 0.100 to 0.100, p = 0.008, 8 samples)"
    )
    assert max(map(len, lines)) <= WIDTH
    assert "    + second-0" in lines
    assert "    and 8 more: --json has all" in lines
    assert "    moved: train -> val" in lines
    assert any(
        line.split() == ["pixel", "error", "0.1000", "0.1000", "+0.0000", "+0.0000", "to", "+0.0000"] for line in lines
    )
    assert any(line.split() == ["cores", "2", "3"] for line in lines)
    assert "plan: no difference" in lines


def test_json_is_all_of_it(home: Path) -> None:
    result = call("first", "second", "--home", home, "--json", "--metric", "pixel_error")
    found = json.loads(result.stdout)
    assert found["verdict"]["metric"] == "pixel_error"
    assert found["config"]["lr"] == {"A": 0.1, "B": 0.2}
    assert len(found["data"][0]["added"]) == 20
    assert found["verdict"]["comparisons"][0]["better"] is None


def test_a_page_is_written_on_request(home: Path, tmp_path: Path) -> None:
    result = call("first", "second", "--home", home, "--html", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "curves and samples are drawn in" in result.stderr
    assert "B is better than A" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["first"], "two or more runs"),
        (["first", "first"], "each once"),
        (["first", "nothing"], "no run 'nothing'"),
        (["first", "second", "--metric", "beauty"], "wanted one of mean_dice, pixel_error"),
        (["first", "second", "--html", "/dev/null/page.html"], "cannot write"),
    ],
)
def test_bad_input_ends_with_status_2(home: Path, arguments: list[str], told: str) -> None:
    result = call(*arguments, "--home", home)
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr
