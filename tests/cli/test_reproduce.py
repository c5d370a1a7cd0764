"""`useg reproduce`: the same again, to the bit, without the folder it came from; or what differs, and where."""

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.calling import SMALL, call, save
from tests.home.served_home import in_thread

from useg.home.store import Folder
from useg.runs.record import RunFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(8):
        random = np.random.default_rng(number)
        image = random.integers(0, 200, (32, 32))
        image[8:20, 5 + number : 15 + number] += 50
        mask = np.zeros((32, 32))
        mask[8:20, 5 + number : 15 + number] = 255
        save(tmp_path / "data" / "images" / f"{number}.png", image)
        save(tmp_path / "data" / "masks" / f"{number}.png", mask)
    return tmp_path / "data"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.walk
def test_a_run_on_a_folder_can_be_had_again_without_the_folder(data: Path, home: Path, told: Any) -> None:
    run = told("train", data, *SMALL, "--name", "first", "--home", home)
    shutil.rmtree(data)
    again = told("reproduce", run["run"], "--home", home)
    assert again["proof"]["verdict"] == "bit-identical"
    assert again["proof"]["steps"] == 2
    assert again["weights"] == run["weights"]
    assert again["scores"]["classes"] == run["scores"]["classes"]
    record = RunFolder(Path(again["folder"])).record()
    assert (record["parent"], record["proof"]["verdict"]) == (run["run"], "bit-identical")
    twice = told("reproduce", again["run"], "--home", home)
    assert twice["weights"] == run["weights"], "what was had again can be had again"


def test_views_folds_and_decisions_are_repeated(data: Path, home: Path, told: Any) -> None:
    told("data", "add", data, "--name", "cells", "--home", home)
    options = ["--where", "key != '3'", "--transform", "scale=0.5", "--set", "folds=2"]
    run = told("train", "cells", *SMALL, *options, "--home", home)
    told("data", "set", "cells", "split=test", "--where", "key = '1'", "--home", home)
    again = told("reproduce", run["run"], "--home", home)
    assert again["proof"]["verdict"] == "bit-identical"
    assert again["proof"]["steps"] == 4
    more = told("train", data, *SMALL, "--home", home)
    longer = told("train", "--resume", more["run"], "--epochs", "1", "--home", home)
    assert longer["weights"] != more["weights"]
    again = told("reproduce", more["run"], "--home", home)
    assert again["proof"]["verdict"] == "bit-identical", "a run that was extended, too"
    assert again["weights"] == longer["weights"]


def test_what_differs_is_named(data: Path, home: Path, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = told("train", data, *SMALL, "--home", home)
    plan = Path(run["folder"]) / "plan.toml"
    changed, count = re.subn(r"(?m)^peak_lr = .*$|^lr = .*$", "lr = 0.5", plan.read_text())
    assert count == 1
    plan.write_text(changed)
    capsys.readouterr()
    assert call("reproduce", run["run"], "--home", home, "--json") == 3
    proof = json.loads(capsys.readouterr().out.splitlines()[-1])["proof"]
    assert (proof["verdict"], proof["first_step"]) == ("different", 2)
    assert proof["weights"][0] != proof["weights"][1]


def test_data_that_is_gone_is_named_before_anything_begins(
    data: Path, home: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    told("data", "add", data, "--name", "cells", "--home", home)
    run = told("train", "cells", *SMALL, "--home", home)
    told("data", "purge", "cells", "2", "5", "--reason", "consent withdrawn", "--yes", "--home", home)
    before = sorted((home / "runs").iterdir())
    assert call("reproduce", run["run"], "--home", home) == 2
    said = " ".join(capsys.readouterr().err.split())
    for key in "25":
        assert f"{key} (images/{key}.png): object" in said
    assert said.count("consent withdrawn") >= 2
    assert sorted((home / "runs").iterdir()) == before
    linked = told("train", data, *SMALL, "--home", home)
    (Path(linked["folder"]) / "record" / "00000099").write_text('{"origin": null}')
    assert call("reproduce", linked["run"], "--home", home) == 2
    assert "its data was never recorded" in capsys.readouterr().err


def test_a_run_can_be_varied(data: Path, home: Path, told: Any) -> None:
    run = told("train", data, *SMALL, "--name", "first", "--home", home)
    shutil.rmtree(data)
    same = told("reproduce", run["run"], "--set", "seed=0", "--home", home)
    assert same["weights"] == run["weights"], "the same settings, planned anew, are the same training"
    other = told("reproduce", run["run"], "--set", "train.lr=0.01", "--home", home)
    assert other["weights"] != run["weights"]
    record = RunFolder(Path(other["folder"])).record()
    assert (record["parent"], record["config"]["train"]["lr"]) == (run["run"], 0.01)
    assert record["origin"]["version"] == RunFolder(Path(run["folder"])).record()["origin"]["version"]
    again = told("reproduce", "first", "--home", home)
    assert again["weights"] == run["weights"], "the name means the run itself, not what repeats or varies it"


@pytest.mark.walk
@pytest.mark.parametrize("kind", ["s3", "served"])
def test_a_run_of_another_machine_can_be_had_again(
    kind: str, data: Path, home: Path, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.delenv("USEG_HOME", raising=False)
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    with ExitStack() as stack:
        shared = request.getfixturevalue("s3_url") if kind == "s3" else str(home)
        told("data", "add", data, "--name", "cells", "--home", shared)
        run = told("train", "cells", *SMALL, "--name", "far", "--home", shared)
        if kind == "served":
            shared = stack.enter_context(in_thread(Folder(home)))
        monkeypatch.chdir(tmp_path / "second")
        monkeypatch.setenv("USEG_CACHE", str(tmp_path / "second cache"))
        again = told("reproduce", "far", "--home", shared)
        assert (again["proof"]["verdict"], again["weights"]) == ("bit-identical", run["weights"])
        assert Path(again["folder"]).is_relative_to(tmp_path / "second")
        assert told("reproduce", "far", "--set", "train.lr=0.01", "--home", shared)["weights"] != run["weights"]
        assert {row["run"] for row in told("runs", "list", "--home", shared)["runs"]} >= {run["run"], again["run"]}
        assert call("reproduce", "nothing", "--home", shared) == 2
        assert "no run 'nothing'" in capsys.readouterr().err


def test_what_cannot_be_asked_together_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reproduce", "any", "--env", "old", "--home", home) == 2
    assert "--env: wanted current or fresh, not 'old'" in capsys.readouterr().err
    assert call("reproduce", "any", "--env", "fresh", "--set", "seed=1", "--home", home) == 2
    assert "leave out --env fresh" in capsys.readouterr().err


def test_another_number_of_workers_on_the_way_is_named(data: Path, home: Path, told: Any) -> None:
    run = told("train", data, *SMALL, "--home", home)
    (journal,) = Path(run["folder"]).glob("attempts/1/journal.jsonl")
    journal.write_text(journal.read_text().replace('"world":1', '"world":2', 1))
    again = told("reproduce", run["run"], "--home", home)
    assert again["proof"]["surroundings"] == ["workers: 2 -> 1"]


def test_surroundings_that_differ_are_named(data: Path, home: Path, told: Any) -> None:
    run = told("train", data, *SMALL, "--home", home)
    folder = RunFolder(Path(run["folder"]))
    environment = folder.record()["environment"]
    folder.update(environment=environment | {"packages": environment["packages"] | {"torch": "1.0"}})
    again = told("reproduce", run["run"], "--home", home)
    assert again["proof"]["verdict"] == "bit-identical"
    (first, *_) = again["proof"]["surroundings"]
    assert first.startswith("torch: 1.0 -> ")
