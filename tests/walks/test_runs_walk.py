"""What the README tells of runs, walked: train, change the code, train again, compare, have the first again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.calling import SMALL, Told, call, save

from useg.runs.record import RunFolder

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_HOME", str(tmp_path / "home"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "someone@example.org")
    return tmp_path / "home"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The example in a repository of the user's, committed."""
    folder = tmp_path / "my code"
    (folder / "src").mkdir(parents=True)
    shutil.copy(EXAMPLE, folder / "src" / "loop.py")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def run(repository: Path, home: Path) -> RunFolder:
    before = set((home / "runs").glob("*"))
    subprocess.run([sys.executable, "src/loop.py"], cwd=repository, env=os.environ, check=True, capture_output=True)
    (new,) = set((home / "runs").glob("*")) - before
    return RunFolder(new)


def change(repository: Path, before: str, after: str) -> None:
    script = repository / "src" / "loop.py"
    assert before in script.read_text()
    script.write_text(script.read_text().replace(before, after))


@pytest.mark.walk
def test_a_script_of_ones_own(repository: Path, home: Path, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    change(repository, '"steps": 100', '"steps": 50')  # never committed
    first = run(repository, home)
    change(repository, '"lr": 0.1', '"lr": 0.2')
    second = run(repository, home)
    found = told("runs", "compare", first.id, second.id)
    assert found["config"] == {"lr": {"A": 0.1, "B": 0.2}}
    (patch,) = (each["lines"] for each in found["code"]["diffs"] if each["name"] == "user.patch")
    assert any('"lr": 0.2' in line for line in patch)
    assert "user.root" not in found["code"]["facts"]
    git(repository, "checkout", ".")
    again = told("reproduce", first.id)  # of a script that lies nowhere any more
    assert (again["proof"]["verdict"], again["proof"]["steps"]) == ("bit-identical", 50)
    record = RunFolder(Path(again["folder"])).record()
    assert (record["scores"], record["parent"]) == (first.record()["scores"], first.id)
    capsys.readouterr()
    assert call("reproduce", first.id, "--set", "lr=1") == 2
    assert "was recorded by a script, which takes its settings itself" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_script_that_is_not_the_same_each_time_is_found_out(
    repository: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(repository, "torch.manual_seed(0)", "torch.seed()")
    first = run(repository, home)
    capsys.readouterr()
    assert call("reproduce", first.id, "--json") == 3
    proof = json.loads(capsys.readouterr().out.splitlines()[-1])["proof"]
    assert (proof["verdict"], proof["first_step"], proof["value"]) == ("different", 1, "loss")
    git(repository, "checkout", ".")
    first = run(repository, home)
    for _ in range(2):  # what was had again can be had again, though its copy is gone
        told = Told(capsys)("reproduce", first.id)
        assert told["proof"]["verdict"] == "bit-identical"
        first = RunFolder(Path(told["folder"]))
    change(repository, "torch.manual_seed(0)", "raise SystemExit(4)")
    failing = subprocess.run([sys.executable, "src/loop.py"], cwd=repository, check=False, capture_output=True)
    assert failing.returncode == 4
    record = first.record()
    first.update(code=record["code"] | {"user": record["code"]["user"] | {"patch": "0" * 64}})
    assert call("reproduce", first.id) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_training(tmp_path: Path, home: Path, told: Any) -> None:
    for number in range(8):
        random = np.random.default_rng(number)
        image, mask = random.integers(0, 200, (32, 32)), np.zeros((32, 32))
        image[8:20, 5 + number : 15 + number] += 50
        mask[8:20, 5 + number : 15 + number] = 255
        save(tmp_path / "data" / "images" / f"{number}.png", image)
        save(tmp_path / "data" / "masks" / f"{number}.png", mask)
    first = told("train", tmp_path / "data", *SMALL, "--name", "first")
    scored = json.loads((Path(first["folder"]) / "scores.json").read_text())["samples"]
    key = next(iter(scored))
    second = told("train", tmp_path / "data", *SMALL, "--set", "train.lr=0.5", "--name", "second")
    found = told("runs", "compare", first["run"], second["run"])
    assert found["config"]["train.lr"]["B"] == 0.5
    assert found["code"]["facts"] == {}
    rows = told("runs", "sample", key)["rows"]
    assert {row["run"] for row in rows} == {first["run"], second["run"]}
    assert told("runs", "sample", rows[0]["image"][:12])["rows"] == rows
    again = told("reproduce", "first")
    assert again["proof"]["verdict"] == "bit-identical"
    assert again["weights"] == first["weights"] != second["weights"]
