"""Real trials in processes of their own: killed, crashed, gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.experiments.sweep.asking import sweep_of

from useg.experiments.sweep.local import share_out
from useg.runs.journal import read_attempt
from useg.runs.record import RunFolder

FILE = """
data = "{data}"
method = "grid"
seeds = 2
[settings]
train.threads = 1
train.micro_batch = 2
train.dtype = "float32"
train.checkpoint_seconds = 0.01
network.base = 4
network.depth = 1
steps = 80
[search]
data.dims = ["2", "3"]
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "useg", "sweep", *map(str, words), "--json"]


def until(holds: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_of_real_trials_killed_in_the_middle(tmp_path: Path, discs_folder) -> None:
    data, home, file = discs_folder(tmp_path / "discs"), tmp_path / "home", tmp_path / "ask.toml"
    file.write_text(FILE.format(data=data))
    words = command(file, "--home", home, "--parallel", 1)
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = home / "runs"

    def steps() -> list[int]:
        return [
            e["step"]
            for path in runs.glob("*/attempts/1/journal.jsonl")
            for e in read_attempt(path)
            if e["event"] == "step"
        ]

    until(lambda: any(runs.glob("*/attempts/1/checkpoints/*.safetensors")) and len(steps()) > 5)
    (run,) = runs.glob("*")
    claim = json.loads((run / "attempts" / "1" / "lease" / "00000000").read_bytes())
    driver.kill()
    os.kill(claim["pid"], signal.SIGKILL)
    driver.wait()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["trials"] == {"finished": 2, "given up": 0, "failed": 2, "stopped": 0}
    assert [each["trial"] for each in found["failed"]] == [2, 3]  # 3D networks do not fit pictures
    assert "the images are 2D" in " ".join(found["failed"][0]["lines"])
    assert len(list(runs.glob("*"))) == 2  # what cannot be trained never came to a run
    first = RunFolder(run)
    assert sorted(path.name for path in (run / "attempts").glob("*")) == ["1", "2"]
    assert [e["step"] for e in first.journal() if e["event"] == "step"] == list(range(1, 81))
    record = first.record()
    assert record["tags"] == [f"sweep:{found['sweep']}", "trial:0"]
    assert (record["config"]["seed"], record["config"]["data"]["split_seed"]) == (0, 0)
    other = next(RunFolder(path) for path in runs.glob("*") if path != run)
    assert first.read_json("splits.json") == other.read_json("splits.json")
    assert found["best"]["runs"] == sorted([first.id, other.id], key=lambda each: each.split("-")[-2])
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert json.loads(again.stdout.splitlines()[-1])["configurations"] == found["configurations"]
    assert "trial 0:" in done.stderr
    assert "trial 0:" not in again.stderr


@pytest.mark.slow
def test_a_trial_that_outlives_the_sweep_is_not_repeated(tmp_path: Path, discs_folder) -> None:
    data, home, file = discs_folder(tmp_path / "discs"), tmp_path / "home", tmp_path / "ask.toml"
    file.write_text(FILE.format(data=data).replace('["2", "3"]', '["2"]').replace("seeds = 2", "seeds = 1"))
    words = command(file, "--home", home, "--parallel", 2)
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: any(home.glob("runs/*/plan.toml")))
    driver.kill()
    driver.wait()
    (run,) = (home / "runs").glob("*")
    until(lambda: RunFolder(run).record()["status"] == "finished")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["best"]["runs"] == [run.name]
    assert [path.name for path in (run / "attempts").glob("*")] == ["1"]
    (log,) = (home / "sweeps").glob("*/log.jsonl")
    (end,) = [event for event in read_attempt(log) if event["event"] == "ended"]
    assert end["seconds"] > 0.1
    assert end["live"][-1][0] == 1.0


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, discs_folder) -> None:
    data, home, file = discs_folder(tmp_path / "discs"), tmp_path / "home", tmp_path / "ask.toml"
    file.write_text(FILE.format(data=data).replace("steps = 80", "steps = 4000"))
    driver = subprocess.Popen(command(file, "--home", home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: any(b'"step"' in path.read_bytes() for path in home.glob("runs/*/attempts/1/journal.jsonl")))
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, err
    found = json.loads(out.splitlines()[-1])
    assert found["status"] == "stopped"
    assert f"useg sweep --resume {found['sweep']}" in err
    for run in (home / "runs").glob("*"):
        assert RunFolder(run).record()["status"] == "stopped"
        assert list(run.glob("attempts/1/checkpoints/*.safetensors"))


def test_a_machine_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import useg.experiments.sweep.local as local

    text = "method = 'grid'\nseeds = 3\n{}[search]\ntrain.lr = [0.1, 0.2]"
    plain, fixed = sweep_of(text.format("")), sweep_of(text.format("[settings]\ntrain.threads = 4\n"))
    monkeypatch.setattr(local, "cores", lambda: {"affinity": 16, "quota": None, "machine": 16})
    monkeypatch.setattr(local, "gpus", lambda: {"models": []})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (share_out(None, plain).slots, share_out(None, plain).threads) == (6, 2)
    assert (share_out(None, fixed).slots, share_out(None, fixed).threads) == (4, None)
    assert (share_out(3, plain).slots, share_out(3, plain).threads) == (3, 5)
    monkeypatch.setattr(local, "cores", lambda: {"affinity": 16, "quota": 1.5, "machine": 16})
    assert (share_out(None, plain).slots, share_out(None, plain).threads) == (1, 1)
    monkeypatch.setattr(local, "gpus", lambda: {"models": ["a", "b"]})
    assert (share_out(None, plain).slots, share_out(None, plain).gpus) == (2, ("0", "1"))


def test_the_example_of_the_page_is_a_sweep() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sweep.md").read_text(encoding="utf-8")
    (example,) = [part.partition("```")[0] for part in page.split("```toml\n")[1:]]
    sweep = sweep_of(example.replace('data = "cells"', ""))
    assert [parameter.key for parameter in sweep.space] == [
        "train.lr", "train.optimizer", "train.momentum", "network.base"
    ]  # fmt: skip
    assert sweep.asked.model_fields_set == set(tomllib.loads(example))
