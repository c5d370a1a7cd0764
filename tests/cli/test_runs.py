"""`useg runs` as people use it: look back, compare, tag, take away, follow, find what made a model."""

import csv
import io
import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.calling import Told, call
from tests.runs.making import add_entry, finished, write_model, write_run

from useg import cli
from useg.cli.runs import Tagging, tag
from useg.cli.runs_show import cell, duration, sparkline, table


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    if "runs" not in cli.COMMANDS:
        monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, "runs"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("USEG_HOME", str(tmp_path / "home"))
    journal = [{"event": "step", "step": n, "loss": 1 / n} for n in range(1, 100)]
    for number in range(10):
        write_run(tmp_path / "home", f"run{number}", finished(10 * number), journal=journal)
    return tmp_path / "home"


def ids(found: Any) -> list[str]:
    return [row["run"] for row in found["runs"]]


@pytest.mark.usefixtures("home")
def test_list(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    found = told("runs", "list", "--where", "score.dice > 0.5 and config.lr < 1e-2", "--sort", "-score")
    assert ids(found) == ["run9", "run7"]
    assert found["total"] == 2
    found = told("runs", "list", "--sort", "score.cell.dice", "--columns", "run,train.lr", "--limit", "2")
    assert found["runs"] == [{"run": "run0", "config.train.lr": 0.1}, {"run": "run1", "config.train.lr": 0.001}]
    assert call("runs", "list", "--sort", "-score", "--limit", "1") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "run   status    started           seconds  mean_dice  step  data  tags",
        "run9  finished  2026-11-07 10:00    1m30s        0.9    99",
    ]
    assert "1 of 10 runs" in captured.err


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--where", "scor > 1"], "no run has a field 'scor'; near it: "),
        (["list", "--where", "score >"], "ends too early"),
        (["list", "--sort", "-nothing"], "no run has a field 'nothing'"),
        (["list", "--columns", "run,lr"], "'lr' could be config.train.lr, plan.lr"),
        (["show", "nothing"], "no run 'nothing' in"),
        (["show", "run"], "'run' fits 10 runs"),
        (["export", "--out", "a.txt"], "--format: wanted csv, parquet or json, not 'txt'"),
        (["export", "--out", "none/a.csv"], "wanted a file, in a folder that is there"),
        (["tag", "run1", "two words"], "'two words' cannot be a tag"),
        (["stop", "run1"], "run1 does not run: it is finished"),
        (["list", "--home", __file__], "is a file"),
    ],
)
def test_what_is_refused_is_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("runs", *words) == 2
    assert said in capsys.readouterr().err


def test_show(home: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    add_entry(home / "runs" / "run3", {"note": "line\nbreak \x1b[31m", "status": "failed", "error": "it broke"})
    found = told("runs", "show", "run3")
    assert (found["status"], found["config"]["seed"], found["run"]) == ("failed", 30, "run3")
    assert call("runs", "show", "run3") == 0
    said = capsys.readouterr().out
    parts = (
        "run3  failed",
        "error    it broke",
        r"note     line\nbreak \x1b[31m",
        "mean_dice            0.3",
        "cell                 dice 0.3  iou 0.5",
        "loss      █▄▃▃▂▂",
        "1 to 0.0101",
        "took 1m30s",
    )
    for part in parts:
        assert part in said
    assert "\x1b" not in said


def test_tags_notes_and_taking_away(
    home: Path, told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told("runs", "tag", "run1", "+paper", "bleach", "paper")["tags"] == ["paper", "bleach"]
    assert told("runs", "tag", "run1", "--remove", "paper")["tags"] == ["bleach"]
    assert ids(told("runs", "list", "--where", "tags has 'bleach'")) == ["run1"]
    assert told("runs", "note", "run1", "the 'best'\n")["note"] == "the 'best'\n"
    assert told("runs", "note", "run1")["note"] == "the 'best'\n"
    assert ids(told("runs", "list", "--where", "note is not null")) == ["run1"]
    assert told("runs", "rm", "run1", "run2", "--yes") == {"runs": ["run1", "run2"], "removed": True}
    assert len(ids(told("runs", "list"))) == 8
    assert len(ids(told("runs", "list", "--all"))) == 10
    assert ids(told("runs", "list", "--where", "removed", "--sort", "run")) == ["run1", "run2"]
    assert told("runs", "rm", "run1", "--undo")["removed"] is False
    assert len(ids(told("runs", "list"))) == 9
    assert (home / "runs" / "run2" / "attempts").is_dir()
    for answer in ("", "n\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert call("runs", "rm", "run3") == 2
        assert "nothing was done: it was asked, and not answered with yes" in capsys.readouterr().err
    assert len(ids(told("runs", "list"))) == 9


def test_tags_that_look_like_options(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    application = typer.Typer(rich_markup_mode=None)
    application.command(cls=Tagging)(tag)
    command = typer.main.get_command(application)
    for words in (["run1", "+hot", "+cold"], ["run1", "-hot", "+new", "--json"]):
        command.main(words, standalone_mode=False)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tags"] == ["cold", "new"]


def test_running_ones_are_not_removed_but_stopped(home: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    from useg.home.store import Folder
    from useg.runs.lease import Lease, claim_attempt

    write_run(home, "live", {"status": "running"})
    number = claim_attempt(Folder(home), "live")
    assert call("runs", "rm", "live", "--yes") == 2
    assert "running, and not removed: live; first `useg runs stop RUN`" in capsys.readouterr().err
    assert told("runs", "list", "--where", "status = 'running'")["total"] == 1
    assert told("runs", "stop", "live") == {"asked": ["live"], "problems": []}
    assert Lease(Folder(home), "live", number).is_asked_to_stop()


def test_tail(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("runs", "tail", "run1", "-n", "2") == 0
    assert capsys.readouterr().out.splitlines() == ["      98 step  loss 0.0102", "      99 step  loss 0.0101"]
    (home / "runs" / "run1" / "attempts" / "1" / "log.txt").write_text("printed\n")
    assert call("runs", "tail", "run1", "-n", "1", "--json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": "step", "step": 99, "loss": 1 / 99}, {"log": "printed"}
    ]  # fmt: skip
    assert call("runs", "tail", "run1", "-n", "0", "-f") == 0, "it has ended"
    assert "run1: finished" in capsys.readouterr().err


def test_tail_until_the_end(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from useg.home.store import Folder
    from useg.runs.lease import claim_attempt

    monkeypatch.setattr("useg.cli.runs.POLL_S", 0.02)
    folder = write_run(home, "live", {"status": "running"})
    claim_attempt(Folder(home), "live")
    journal = folder / "attempts" / "1" / "journal.jsonl"
    journal.write_bytes(b'{"event":"started","step":0}\n')

    def train() -> None:
        for step in range(1, 4):
            time.sleep(0.1)
            with journal.open("ab") as file:
                file.write(b'{"event":"step","step":%d,"loss":"NaN"}\n' % step)
        add_entry(folder, {"status": "finished"})

    trainer = threading.Thread(target=train)
    trainer.start()
    assert call("runs", "tail", "live", "-f", "--json") == 0
    trainer.join()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event.get("step") for event in told] == [0, 1, 2, 3]


def test_export(home: Path, tmp_path: Path, told: Told) -> None:
    found = told("runs", "export", "--where", "score.dice > 0.75", "--out", tmp_path / "a.csv")
    assert (found["rows"], found["format"]) == (2, "csv")
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], float(row["scores.mean_dice"]), row["config.train.optimizer"]) for row in rows] == [
        ("run8", 0.8, "adamw"), ("run9", 0.9, "adamw")
    ]  # fmt: skip
    found = told("runs", "export", "--curves", "--format", "parquet", "--out", tmp_path / "curves")
    assert (found["rows"], found["columns"]) == (990, ["run", "event", "step", "loss"])


def test_find(home: Path, tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.useg"
    digest = write_model(model, 1.0, kind="bundle", about={"run": "run4", "step": 7})
    write_run(home, "maker", finished(5, weights=digest, origin={"dataset": "cells", "version": "ab" * 32}))
    found = told("runs", "find", model)
    assert (found["weights"], ids(found), found["runs"][0]["origin.dataset"]) == (digest, ["maker"], "cells")
    assert call("runs", "find", model) == 0
    said = capsys.readouterr().out
    assert "data     cells@abababababab" in said
    assert "scores   mean_dice 0.05" in said
    assert ids(told("runs", "find", "run4")) == ["run4"]
    write_model(model, 0.0, kind="bundle", about={"run": "run4", "step": 7})
    assert told("runs", "find", model)["says"]["run"] == "run4"
    assert call("runs", "find", model) == 0
    assert "no run ended with these weights; by its own word it was made at step 7 by\nrun4" in capsys.readouterr().out
    write_model(model, 0.0, kind="bundle", about={"run": "far"})
    assert call("runs", "find", model) == 2
    assert "has these weights; by its own word it is of run far" in capsys.readouterr().out
    model.write_bytes(model.read_bytes()[:-1] + b"\1")
    assert call("runs", "find", model) == 2
    assert "the weights are not those that were written" in capsys.readouterr().err


def test_index_and_what_is_half_deleted(home: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "runs" / "half").mkdir()
    (home / "runs" / "run0" / "record" / "00000002").write_bytes(b"\x00\xff")
    found = told("runs", "index", "--rebuild")
    assert found["runs"] == 9
    assert found["problems"].keys() == {"half", "run0"}
    Path(found["index"]).write_bytes(b"no database at all" * 100)
    assert len(ids(told("runs", "list"))) == 9
    assert call("runs", "list") == 0
    captured = capsys.readouterr()
    assert "'half' cannot be read and is left out: no record in it" in captured.err


def test_an_empty_home(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    found = told("runs", "list", "--where", "score.dice > 0.8 and config.train.lr < 1", "--home", tmp_path / "home")
    assert (found["total"], found["runs"]) == (0, [])
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_on_s3(s3_url: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from useg.home.store import open_store

    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    store = open_store(s3_url)
    for number in range(5):
        store.put(f"runs/run{number}/record/00000001", json.dumps(finished(number)).encode())
    assert ids(told("runs", "list", "--where", "score >= 0.03", "--sort", "-score", "--home", s3_url)) == [
        "run4",
        "run3",
    ]
    told("runs", "tag", "run1", "+a", "--home", s3_url)
    assert ids(told("runs", "list", "--where", "tags has 'a'", "--home", s3_url)) == ["run1"]


def test_nothing_heavy_is_loaded(home: Path) -> None:
    program = (
        "import sys\nfrom useg import cli\n"
        "cli.COMMANDS = tuple(dict.fromkeys((*cli.COMMANDS, 'runs')))\n"
        "try:\n    cli.main(['runs', 'list', '--sort', '-score', '--where', 'score >= 0'])\n"
        "except SystemExit as leaving:\n    print(leaving.code)\n"
        "heavy = {'numpy', 'torch', 'pyarrow', 'duckdb', 'sqlglot', 'rich', 'obstore', 'psutil', 'useg.config'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert done[1].stdout.splitlines()[-2:] == ["0", "[]"]


def test_curves_as_blocks() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([0.0, math.nan, math.inf, 1.0]) == "▁xx█"
    assert sparkline([]) == ""
    assert sparkline([-1e308, 1e308]) == "▁█"
    long = sparkline([float(n) for n in range(10_000)])
    assert len(long) <= 60
    assert long == "".join(sorted(long))
    assert long[-1] == "█"


def test_cells() -> None:
    assert [duration(s) for s in (0.001, 59.4, 60, 3599.6, 3661)] == ["0.001s", "59.4s", "1m00s", "1h00m", "1h01m"]
    assert cell("x", "a\nb\x1b") == r"a\nb\x1b"
    assert cell("x", "y" * 100) == "y" * 39 + "…"
    assert cell("data", "/long" * 20).endswith("/long")
    assert cell("x", 1 / 3) == "0.3333"
    assert cell("x", True) == "true"
    assert table(["a.b", "c.b", "d"], [{"a.b": 1, "d": "x"}]) == "a.b  c.b  d\n  1       x"
