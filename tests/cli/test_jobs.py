"""`useg submit` and `useg jobs`: what is refused, and real jobs by a real dispatcher that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.cli.calling import SMALL, Told, call, save

import useg
from useg.runs.record import RunFolder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A home with a data set of four pictures."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[5:20, 4 + number : 20] = 255
        random = np.random.default_rng(number)
        save(Path("folder/images", f"{number}.png"), mask // 2 + random.integers(0, 99, mask.shape))
        save(Path("folder/masks", f"{number}.png"), mask)
    Told(capsys)("data", "add", "folder", "--name", "discs", "--home", "home")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", "x.toml"], "wanted `train NAME ...`, got 'sweep'"),
        (["train"], "nothing to train on: name a data set"),
        (["train", "discs", "--wrong"], "train: No such option: --wrong"),
        (["train", "discs", "--steps", "many"], "train: Invalid value for '--steps'"),
        (["train", "discs", "--on", "10.0.0.1:1"], "train --on cannot be queued: a dispatcher names the cluster"),
        (["train", "discs", "--home", "x"], "discs: there is no such file or folder"),
        (["train", "--resume", "x"], "train --resume cannot be queued"),
        (["train", "discs", "--steps", "3", "--minutes", "1"], "give one of --minutes, --epochs and --steps"),
        (["train", "discs", "--set", "train.lr=x"], "setting train.lr"),
        (["train", "discs", "--where", "split ="], "the query 'split =' cannot be read"),
        (["train", "absent"], "absent: there is no such file or folder, nor a data set of"),
        (["train", "folder"], "useg data add folder --name NAME, then train on NAME@main"),
        (["train", "discs", "--config", "absent.toml"], "train: Invalid value for '--config'"),
        (["train", "discs", "--classes", "latin.toml"], "is no text in UTF-8"),
    ],
)
def test_what_is_refused(home: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    Path("latin.toml").write_bytes("größe = 1".encode("latin-1"))
    assert call("submit", "--home", "home", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not list(home.glob("jobs/*"))


def test_jobs_are_listed_and_taken_out(home: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    assert told("submit", "--home", "home", "--priority", "2", "train", "discs", "--steps", "3")["job"] == 1
    Path("mine.toml").write_text("[train]\nthreads = 2\n")
    assert told("submit", "--home", "home", "--gpus", "1", "--", "train", "discs", "--config", "mine.toml")["job"] == 2
    Path("mine.toml").unlink()
    first, second = told("jobs", "--home", "home")["jobs"]
    assert (first["state"], first["priority"], first["cpus"], first["what"]) == (
        "waiting", 2, None, "train discs --steps 3"
    )  # fmt: skip
    assert (second["gpus"], second["cpus"]) == (1, 2)
    assert told("jobs", "stop", "2", "--home", "home")["jobs"] == {"2": "stopped"}
    assert call("jobs", "stop", "2", "--home", "home") == 2
    assert "job 2 is stopped already" in capsys.readouterr().err
    assert call("jobs", "stop", "7", "--home", "home") == 2
    assert "no job 7 in" in capsys.readouterr().err
    assert call("jobs", "logs", "1", "--home", "home") == 0
    assert "job 1: waiting" in capsys.readouterr().err
    assert call("jobs", "--home", "home") == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in table] == [["state", "prio", "user"], ["1", "waiting", "2"],
                                                   ["2", "stopped", "0"]]  # fmt: skip
    asked = [json.loads(file.read_text()) for file in home.glob("jobs/asked/*")]
    assert all(each["words"][0].startswith("discs@") and len(each["words"][0]) > 40 for each in asked)
    assert {each["threads"] for each in asked} == {None, 2}


def dispatcher(*words: str) -> "subprocess.Popen[str]":
    env = os.environ | {"PYTHONPATH": str(Path(useg.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "useg", "jobs", "dispatch", "--home", "home", *words], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.walk
def test_jobs_run_and_outlive_a_dispatcher_that_is_killed(
    home: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [word if word != "2" else "3000" for word in SMALL[:2]] + SMALL[2:]
    told("submit", "--home", "home", "train", "discs", *long, "--set", "train.checkpoint_seconds=0.5")
    told("submit", "--home", "home", "train", "discs@main", *SMALL, "--set", "train.lr=1e38")
    told("submit", "--home", "home", "train", "discs", *SMALL, "--name", "short")
    first = dispatcher("--slots", "1")
    until = time.monotonic() + 100
    while not list(home.glob("runs/*/attempts/1/checkpoints/*")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = dispatcher("--until-empty")
    _, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert "died; its jobs wait again" in err
    jobs = told("jobs", "--home", "home")["jobs"]
    assert [(job["state"], job["attempt"]) for job in jobs] == [("finished", 2), ("failed", 1), ("finished", 1)]
    assert "became" in jobs[1]["lines"][0]
    run = RunFolder(home / "runs" / jobs[0]["run"])
    assert sorted(path.name for path in run.path.glob("attempts/*")) == ["1", "2"]
    assert [event["step"] for event in run.journal() if event["event"] == "step"] == [*range(1, 3001)]
    assert "job:1" in run.record()["tags"]
    assert call("jobs", "logs", "-f", "3", "--home", "home") == 0
    assert "short" in capsys.readouterr().out
