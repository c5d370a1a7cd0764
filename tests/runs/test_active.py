"""A run of one's own loop."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg import runs
from useg.errors import InputError
from useg.home.opening import open_home
from useg.home.store import Folder
from useg.runs.following import history
from useg.runs.pictures import folder_name, forget_pictures, keep_picture
from useg.runs.record import RunFolder, read_record


def events(folder: RunFolder, kind: str = "step") -> list[dict]:
    return [{k: v for k, v in e.items() if k not in ("time", "event")} for e in folder.journal() if e["event"] == kind]


def test_three_calls_make_a_run(tmp_path: Path) -> None:
    with runs.start(config={"lr": 1e-3, "net": {"depth": 4}}, name="mine", home=tmp_path) as run:
        for step in range(3):
            run.log(step, loss=1 / (step + 1), accuracy=np.float32(0.5))
        run.log(3, {"val/dice": 0.9, "a\nb": math.nan})
        run.image("first sample", np.eye(20), step=3)
        run.finish({"dice": 0.9})
    record = run.folder.record()
    assert (record["status"], record["scores"], record["name"]) == ("finished", {"dice": 0.9}, "mine")
    assert record["config"] == {"lr": 1e-3, "net": {"depth": 4}}
    logged = events(run.folder)
    assert logged[:2] == [{"step": 0, "loss": 1.0, "accuracy": 0.5}, {"step": 1, "loss": 0.5, "accuracy": 0.5}]
    assert logged[3]["val/dice"] == 0.9
    assert math.isnan(logged[3]["a\nb"])
    with Image.open(run.folder.path / "pictures" / "first sample" / "00000003.webp") as file:
        shown = np.asarray(file)
    assert (shown[..., 0] == 255 * np.eye(20)).all()


def test_a_run_of_a_bucket_is_brought_there(tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USEG_HOME", s3_url)
    with runs.start(config={"lr": 0.5}, name="far") as run:
        run.log(1, loss=0.25)
    store, _ = open_home(s3_url)
    record = read_record(store, run.id)
    assert (record["status"], record["origin"], run.folder.home) == (
        "finished",
        {"home": s3_url},
        tmp_path / "useg-home",
    )
    assert [event["loss"] for event in history(store, run.id) if event["event"] == "step"] == [0.25]
    assert not (tmp_path / "useg-home" / "packs").exists(), "its code is where the run is"


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "stopped"), (ValueError("too bad"), "failed"), (SystemExit(3), "failed")],
)
def test_how_a_run_ends_is_written_down(tmp_path: Path, error: BaseException, status: str) -> None:
    run = runs.start(home=tmp_path)
    run.log(1, loss=0.5)
    with pytest.raises(type(error)), run:
        raise error
    record = run.folder.record()
    assert record["status"] == status
    assert ("error" in record) == (status == "failed")
    assert events(run.folder) == [{"step": 1, "loss": 0.5}]


def test_what_was_logged_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys; from useg import runs; run = runs.start(home=sys.argv[1]); "
        "[run.log(step, loss=step) for step in range(1000)]; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, env={**os.environ})
    (folder,) = (tmp_path / "runs").iterdir()
    assert [event["loss"] for event in events(RunFolder(folder))] == list(range(1000))


def test_strange_values_are_kept_or_told(tmp_path: Path) -> None:
    class Tensor:
        def item(self) -> float:
            return 0.25

    class Odd:
        def __repr__(self) -> str:
            return "odd"

    with runs.start(home=tmp_path, config={"path": Path("a"), "n": np.int64(3)}) as run:
        run.log(5, loss=Tensor(), text="x" * 10**7, odd=Odd(), many=np.arange(3))
        run.log(2, {f"metric{number}": number for number in range(100_000)})
    first, second = events(run.folder)
    assert (first["loss"], first["odd"], first["many"]) == (0.25, "odd", [0, 1, 2])
    assert len(first["text"]) < 110_000
    assert len(second) == 100_001
    assert run.folder.record()["config"] == {"path": "a", "n": 3}


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "..", "\n", "é" * 500, "con.txt", "a" * 300])
def test_any_name_is_a_folder_of_its_own(name: str) -> None:
    found = folder_name(name)
    assert "/" not in found
    assert "." not in found
    assert 0 < len(found.encode()) <= 120
    assert folder_name(name + "x") != found


def test_pictures_that_are_none_are_refused(tmp_path: Path) -> None:
    with runs.start(home=tmp_path) as run:
        for wrong in (np.zeros(3), np.zeros((4, 4, 2)), np.zeros((4, 4), np.int32), np.zeros((0, 4))):
            with pytest.raises(InputError, match="a picture is"):
                run.image("x", wrong, step=1)
        large = run.image("large", np.zeros((100, 3000, 3), np.uint8), step=1)
        with Image.open(large) as file:
            assert max(file.size) == 512


def test_pictures_of_samples_can_be_forgotten(tmp_path: Path) -> None:
    with runs.start(home=tmp_path) as run:
        for name in ("a", "a#3", "a[0:5,0:9]", "ab", "b"):
            for step in (1, 2):
                run.image(name, np.eye(4), step)
    assert forget_pictures(Folder(tmp_path), run.id, {"a"}) == 6
    left = sorted(path.parent.name for path in (run.folder.path / "pictures").glob("*/*.webp"))
    assert left == ["ab", "ab", "b", "b"]


@pytest.mark.slow
def test_64_processes_start_a_run_at_once_in_a_new_home(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom useg import runs\n"
        "while not Path(sys.argv[1], 'go').exists(): time.sleep(0.01)\n"
        "with runs.start(home=Path(sys.argv[1], 'home'), name='sweep') as run: run.log(1, loss=0.5)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(64)]
    (tmp_path / "go").touch()
    told = [process.communicate()[1] for process in processes]
    assert ([process.returncode for process in processes], set(told)) == ([0] * 64, {""})
    records = [RunFolder(folder).record() for folder in (tmp_path / "home" / "runs").iterdir()]
    assert [record["status"] for record in records] == ["finished"] * 64


def test_flat_colours_stay_and_photographs_are_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    flat = random.integers(0, 6, (64, 64)).astype(np.uint8) * 40
    noise = random.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    with Image.open(keep_picture(tmp_path, "flat", 1, flat)) as file:
        assert np.array_equal(np.asarray(file.convert("L")), flat)
    assert keep_picture(tmp_path, "noise", 1, noise).stat().st_size < noise.nbytes / 2
