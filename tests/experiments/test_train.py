"""Whole trainings on six small images: what a run leaves, and that no interruption changes the result."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from useg.config import Config, load_config
from useg.errors import ConfigError, DamagedFile, InputError, ResourceError, TrainingError
from useg.experiments.train import Listener, train
from useg.runs.journal import Event, read_attempt, read_journal
from useg.runs.record import RunFolder
from useg.train.bundle import load_bundle
from useg.train.checkpoint import Checkpoints
from useg.train.loop import Trainer

SMALL = (
    "network.base=4",
    "network.depth=2",
    "network.patch=[32,32]",
    "train.micro_batch=2",
    "train.threads=1",
    "train.dtype=float32",
    "train.checkpoint_seconds=0.001",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images of 64x64 with discs, and masks of 0 and 255."""
    for seed in range(6):
        random = np.random.default_rng(seed)
        y, x = np.mgrid[:64, :64]
        mask = np.zeros((64, 64), bool)
        for cy, cx in random.uniform(12, 52, (3, 2)):
            mask |= (y - cy) ** 2 + (x - cx) ** 2 < 60
        image = (60 + 120 * mask + random.normal(0, 12, mask.shape)).clip(0, 255)
        for folder, picture in (("images", image), ("masks", 255 * mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "data" / folder / f"{seed}.png")
    return tmp_path / "data"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def small(*sets: str, **given: object) -> Config:
    return load_config(None, [*SMALL, *sets], **{"steps": 20, **given})


def losses(events: list[Event]) -> list[tuple[int, float, float]]:
    return [(e["step"], e["loss"], e["lr"]) for e in events if e["event"] == "step"]


class StopAfter(Listener):
    """Asks to stop when so many steps were shown."""

    def __init__(self, step: int, act: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.step, self.act = step, act or self.ask
        self.progress = self.show

    def ask(self) -> None:
        self.stop.asked = True

    def show(self, text: str):
        from contextlib import nullcontext

        def advance(done: int, **rest: object) -> None:
            if text == "training" and done == self.step:
                self.act()

        return nullcontext(advance)


@pytest.mark.walk
def test_what_a_run_leaves(data: Path, home: Path) -> None:
    words: list[str] = []
    result = train(data, home=home, config=small(steps=40), name="first", listener=Listener(note=words.append))
    folder = RunFolder(Path(result["folder"]))
    assert folder.path == home / "runs" / result["run"]
    assert "first" in result["run"]
    for name in ("config.json", "plan.toml", "fingerprint.json", "classes.toml", "splits.json", "scores.json",
                 "report.html", "model.useg", "record/00000001", "attempts/1/journal.jsonl"):  # fmt: skip
        assert (folder.path / name).stat().st_size > 0, name
    assert not list(home.rglob("*.part"))
    assert result["status"] == folder.record()["status"] == "finished"
    assert orjson.loads((folder.path / "scores.json").read_bytes()) == json.loads(json.dumps(result["scores"]))
    bundle = load_bundle(Path(result["bundle"]))
    assert bundle.weights == result["weights"] == folder.record()["weights"]
    assert 0 < bundle.tuning["thresholds"]["dice"] < 1
    events = folder.journal()
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(1, 41))
    assert events[-1] == {"event": "finished", "step": 40}
    early, late = (np.mean([loss for _, loss, _ in losses(events)][part]) for part in (slice(5), slice(-5, None)))
    assert late < 0.8 * early
    assert result["scores"]["classes"]["foreground"]["dice"] > 0.6
    page = folder.report.read_text()
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    splits = orjson.loads((folder.path / "splits.json").read_bytes())[0]
    assert set(splits.values()) == {"train", "val"}
    assert list(result["scores"]["samples"]) == [key for key, split in splits.items() if split == "val"]
    assert any("0, 255" in line for line in words)


@pytest.mark.slow
def test_the_same_again_is_the_same(data: Path, home: Path, tmp_path: Path) -> None:
    one = train(data, home=home, config=small())
    other = train(data, home=tmp_path / "other", config=small())
    assert one["weights"] == other["weights"]
    assert losses(RunFolder(Path(one["folder"])).journal()) == losses(RunFolder(Path(other["folder"])).journal())
    assert train(data, home=home, config=small(seed=1))["weights"] != one["weights"]


@pytest.mark.parametrize("step", [7])
def test_stopped_and_resumed_is_as_if_not(data: Path, home: Path, step: int) -> None:
    whole = train(data, home=home, config=small())
    stopped = train(data, home=home, config=small(), listener=StopAfter(step))
    folder = RunFolder(Path(stopped["folder"]))
    assert (stopped["status"], folder.record()["status"]) == ("stopped", "stopped")
    assert folder.bundle.exists()
    assert folder.report.exists()
    assert folder.journal()[-1] == {"event": "stopped", "step": step}
    again = train(None, home=home, resume=stopped["run"])
    assert (again["weights"], again["status"]) == (whole["weights"], "finished")
    (begun,) = [e for e in read_attempt(folder.path / "attempts" / "2" / "journal.jsonl") if e["event"] == "resumed"]
    assert begun["step"] == step, "no step is taken twice"
    scored = train(None, home=home, resume=stopped["run"])
    assert scored["weights"] == whole["weights"], "a finished run is scored anew"
    longer = train(None, home=home, resume=stopped["run"], epochs=1)
    (begun,) = [e for e in read_attempt(folder.path / "attempts" / "4" / "journal.jsonl") if e["event"] == "resumed"]
    assert begun["step"] > 0
    assert longer["weights"] != whole["weights"]
    folder = RunFolder(Path(train(data, home=home, config=small(), listener=StopAfter(step))["folder"]))
    train(None, home=home, resume=folder.id)
    assert losses(folder.journal()) == losses(RunFolder(Path(whole["folder"])).journal())


@pytest.mark.slow
def test_several_interruptions_and_lost_checkpoints(data: Path, home: Path) -> None:
    whole = train(data, home=home, config=small())
    run = train(data, home=home, config=small(), listener=StopAfter(6))["run"]
    train(None, home=home, resume=run, listener=StopAfter(9))
    folder = RunFolder(home / "runs" / run)
    newest = Checkpoints(folder.path / "attempts" / "2" / "checkpoints")
    newest.path(newest.steps()[-1]).write_bytes(b"damaged")
    result = train(None, home=home, resume=run)
    assert result["weights"] == whole["weights"]
    assert losses(folder.journal()) == losses(RunFolder(Path(whole["folder"])).journal())
    resumed = read_attempt(folder.path / "attempts" / "3" / "journal.jsonl")[0]
    assert resumed == {"event": "resumed", "step": 8, "world": 1}


def full_from(step: int, until: int = 10**9):
    """A disk on which no checkpoint from `step` to `until` can be written."""
    real = os.replace

    def replace(source: object, target: object) -> None:
        found = re.search(r"checkpoints/step-(\d+)\.safetensors$", str(target))
        if found and step <= int(found[1]) < until:
            raise OSError(28, "No space left on device")
        real(source, target)

    return replace


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_and_loses_nothing(data: Path, home: Path, monkeypatch) -> None:
    whole = train(data, home=home, config=small())
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_from(9))
        with pytest.raises(ResourceError, match=r"No space left on device.*Go on with: useg train --resume"):
            train(data, home=home, config=small(), name="full")
    folder = RunFolder(next((home / "runs").glob("*full*")))
    assert folder.record()["status"] == "failed"
    assert Checkpoints(folder.path / "attempts" / "1" / "checkpoints").latest()[0] == 8
    assert train(None, home=home, resume="full")["weights"] == whole["weights"]


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_stops_nobody(data: Path, home: Path, monkeypatch) -> None:
    whole = train(data, home=home, config=small())
    notes: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_from(3, until=10))
        found = train(data, home=home, config=small(), listener=Listener(note=notes.append))
    assert found["weights"] == whole["weights"]
    assert len([note for note in notes if "has no checkpoint" in note and "Training goes on" in note]) == 1


def test_a_loss_that_is_not_a_number_ends_the_run(data: Path, home: Path, monkeypatch) -> None:
    real = Trainer._loss

    def loss(trainer: Trainer, batch):
        return real(trainer, batch) * (float("nan") if trainer.step == 9 else 1.0)

    monkeypatch.setattr(Trainer, "_loss", loss)
    with pytest.raises(TrainingError, match="the loss became nan at step 10"):
        train(data, home=home, config=small(), name="nan")
    folder = RunFolder(next((home / "runs").glob("*nan*")))
    assert folder.record()["status"] == "failed"
    assert "step 10" in folder.record()["error"]
    assert Checkpoints(folder.path / "attempts" / "1" / "checkpoints").latest()[0] == 9


@pytest.mark.slow
def test_a_finished_run_is_extended_without_a_jump(data: Path, home: Path) -> None:
    first = train(data, home=home, config=small(steps=20))
    folder = RunFolder(Path(first["folder"]))
    before = folder.journal()
    assert losses(before)[-1][2] < 0.1 * 2e-3
    # an epoch has 20 patches of 5 images; 4 epochs are 40 steps
    second = train(None, home=home, resume=first["run"], epochs=4)
    steps = losses(folder.journal())
    assert [step for step, _, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) > 40
    assert losses(before)[:12] == steps[:12]
    assert [rate for _, _, rate in steps[1:20]] == [2e-3] * 19
    rates = [rate for _, _, rate in steps]
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) < 0.2 * 2e-3
    assert rates[-1] < 0.02 * 2e-3
    assert second["weights"] != first["weights"]
    assert load_bundle(folder.bundle).about["step"] == len(steps)


@pytest.mark.parametrize("more", [{"epochs": 4}, {"minutes": 0.1}])
def test_a_run_whose_time_is_over_is_extended_by_all_that_was_asked_for(data: Path, home: Path, more) -> None:
    first = train(data, home=home, config=small(steps=None, minutes=0.05))
    folder = RunFolder(Path(first["folder"]))
    end = losses(folder.journal())[-1][0]
    train(None, home=home, resume=first["run"], **more)
    events = folder.journal()
    extension = next(e for e in events if e["event"] == "decision" and e["why"] == "extended by the user")
    if "epochs" in more:
        assert (extension["stop"], extension["seconds_allowed"]) == (end + 40, None)
        assert losses(events)[-1][0] == end + 40
    else:
        spent = sum(e.get("seconds", 0.0) for e in events if e.get("step", 0) <= extension["step"])
        assert extension["seconds_allowed"] == pytest.approx(spent + 4.0, abs=0.5)
        assert losses(events)[-1][0] > end + 0.1 * (extension["stop"] - end)


def test_what_shortened_a_run_in_its_cool_down_does_not_shorten_its_extension(
    data: Path, home: Path, monkeypatch
) -> None:
    from useg.experiments.attempt import Budget

    monkeypatch.setattr(Budget, "steps_that_fit", lambda self, spent, step, left: 4 if step == 14 else left)
    first = train(data, home=home, config=small())
    folder = RunFolder(Path(first["folder"]))
    assert losses(folder.journal())[-1][0] == 18
    monkeypatch.undo()
    train(None, home=home, resume=first["run"], epochs=4)
    assert losses(folder.journal())[-1][0] == 18 + 40


@pytest.mark.slow
def test_decisions_of_the_clock_are_replayed_at_their_step(data: Path, home: Path, monkeypatch) -> None:
    """A run shortened at step 14, in its cool-down, stopped at 16, and begun again: steps 1 to 14 do not change."""
    from useg.experiments.attempt import Budget

    def late(budget: Budget, spent_s: float, steps: int, steps_left: int) -> int:
        return 4 if steps == 14 else steps_left

    def in_time(budget: Budget, spent_s: float, steps: int, steps_left: int) -> int:
        return steps_left

    monkeypatch.setattr(Budget, "steps_that_fit", late)
    whole = train(data, home=home, config=small())
    events = RunFolder(Path(whole["folder"])).journal()
    decision = next(e for e in events if e["event"] == "decision")
    assert (decision["step"], decision["stop"], losses(events)[-1][0]) == (14, 18, 18)

    run = train(data, home=home, config=small(), listener=StopAfter(16))["run"]
    monkeypatch.setattr(Budget, "steps_that_fit", in_time)
    folder = RunFolder(home / "runs" / run)
    for path in folder.path.rglob("step-*.safetensors"):
        path.unlink()
    again = train(None, home=home, resume=run)
    assert losses(folder.journal()) == losses(events)
    assert again["weights"] == whole["weights"]


def test_what_cannot_be_resumed(data: Path, home: Path) -> None:
    with pytest.raises(InputError, match="no run 'x'"):
        train(None, home=home, resume="x")
    with pytest.raises(InputError, match="name a data folder, or a run to --resume"):
        train(None, home=home)
    run = train(data, home=home, config=small(), listener=StopAfter(2))["run"]
    for folder in ("images", "masks"):
        (data / folder / "3.png").rename(data / folder / "9.png")
    with pytest.raises(
        InputError, match=r"data of this run has changed(.*\n)*.*images/3\.png: was part of this run and is gone"
    ):
        train(None, home=home, resume=run)


def test_a_run_with_damaged_files_is_not_resumed(data: Path, home: Path) -> None:
    run = train(data, home=home, config=small(), listener=StopAfter(2))["run"]
    entry = home / "runs" / run / "record" / "00000002"
    content = entry.read_bytes()
    entry.write_text('{"a":')
    with pytest.raises(DamagedFile, match="record/00000002: not a JSON object"):
        train(None, home=home, resume=run)
    entry.write_bytes(content)
    for name in ("config", "samples", "mapping", "splits", "fingerprint"):
        path = home / "runs" / run / f"{name}.json"
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(DamagedFile, match=rf"{name}\.json"):
            train(None, home=home, resume=run)
        path.write_text('{"a":')
        with pytest.raises(DamagedFile, match=rf"{name}\.json: not JSON"):
            train(None, home=home, resume=run)
        path.write_bytes(content)
    (home / "runs" / run / "samples.json").write_text('[{"images": 3}]')
    with pytest.raises(DamagedFile, match="not those that were written"):
        train(None, home=home, resume=run)


@pytest.mark.slow
def test_a_plan_of_other_data_is_refused(data: Path, home: Path, tmp_path: Path) -> None:
    result = train(data, home=home, config=small(steps=2))
    plan = RunFolder(Path(result["folder"])).plan
    path = tmp_path / "plan.toml"
    path.write_text(plan.read_text().replace("stored_channels = 1", "stored_channels = 3"))
    runs = len(list((home / "runs").iterdir()))
    with pytest.raises(ConfigError, match="was made for other data: it has 3 channels, the data has 1"):
        train(data, home=home, config=small(), plan_file=path)
    assert len(list((home / "runs").iterdir())) == runs
    again = train(data, home=home, config=Config(), plan_file=plan)
    assert again["weights"] == result["weights"]


# ---- through the command line, in processes of their own ----


def start(data: Path | None, home: Path, *more: str) -> subprocess.Popen[str]:
    sets = [word for pair in SMALL for word in ("--set", pair)]
    command = [sys.executable, "-m", "useg", "train", *([str(data)] if data else []), "--home", str(home), "--json"]
    return subprocess.Popen(
        [*command, *(sets if data else []), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str], status: int = 0) -> dict:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    return json.loads(output)


def wait_for_step(home: Path, known: set[str], step: int) -> Path:
    """The folder of a new run when its journal has reached a step."""
    for _ in range(1200):
        for run in (home / "runs").glob("*"):
            if run.name not in known and any(e.get("step", 0) >= step for e in read_journal(run)):
                return run
        time.sleep(0.02)
    raise TimeoutError(f"no run reached step {step}")


def kill_and_resume(data: Path, home: Path, *budget: str) -> None:
    whole = end(start(data, home, *budget))
    events = RunFolder(Path(whole["folder"])).journal()
    process = start(data, home, *budget)
    run = wait_for_step(home, {whole["run"]}, 15)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert RunFolder(run).record()["status"] == "running"
    again = end(start(None, home, "--resume", run.name))
    assert (run / "plan.toml").read_text() == (Path(whole["folder"]) / "plan.toml").read_text()
    assert losses(RunFolder(run).journal()) == losses(events)
    assert again["weights"] == whole["weights"]
    assert RunFolder(run).record()["status"] == "finished"


@pytest.mark.walk
@pytest.mark.slow
def test_killed_and_resumed_is_as_if_not(data: Path, home: Path) -> None:
    kill_and_resume(data, home, "--steps", "40")


@pytest.mark.walk
@pytest.mark.slow
def test_killed_and_resumed_within_a_time_budget(data: Path, home: Path) -> None:
    """The second run has the plan of the first, because the home remembers what was probed.

    What was probed is made slower here, and checkpoints are rarer, so that the clock has nothing to decide on any
    machine: what it decides is another test's.
    """
    rarer = ("--set", "train.checkpoint_seconds=0.3")
    plan = [sys.executable, "-m", "useg", "plan", str(data), "--home", str(home), "--minutes", "0.2"]
    sets = [word for pair in SMALL for word in ("--set", pair)]
    subprocess.run([*plan, *sets, *rarer], check=True, capture_output=True, timeout=60)
    memory = next((home / "machines").glob("*.json"))
    known = {k: v * 10 if isinstance(v, float) else v for k, v in orjson.loads(memory.read_bytes()).items()}
    memory.write_bytes(orjson.dumps(known))
    kill_and_resume(data, home, "--minutes", "0.2", *rarer)


@pytest.mark.walk
@pytest.mark.slow
def test_ctrl_c_once_finishes_the_step_and_reports(data: Path, home: Path) -> None:
    whole = end(start(data, home, "--steps", "80"))
    process = start(data, home, "--steps", "80")
    run = wait_for_step(home, {whole["run"]}, 10)
    process.send_signal(signal.SIGINT)
    stopped = end(process, 130)
    assert (stopped["status"], stopped["run"]) == ("stopped", run.name)
    assert Path(stopped["bundle"]).exists()
    assert (run / "report.html").exists()
    assert load_bundle(Path(stopped["bundle"])).about["step"] < 80
    again = end(start(None, home, "--resume", run.name))
    assert (again["weights"], again["status"]) == (whole["weights"], "finished")
