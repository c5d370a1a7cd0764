"""`useg train` and `useg plan` from the command line: bad folders end with one message and leave nothing behind."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.calling import call, save

SMALL = ["--set", "network.base=2", "--set", "network.depth=1", "--set", "network.patch=[16,16]", "--set",
         "train.micro_batch=1", "--set", "train.threads=1", "--set", "train.dtype=float32"]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(6):
        random = np.random.default_rng(number)
        image = random.integers(0, 200, (32, 32))
        image[8:20, 5 + number : 15 + number] += 50
        mask = np.zeros((32, 32))
        mask[8:20, 5 + number : 15 + number] = 255
        save(tmp_path / "data" / "images" / f"{number}.png", image)
        save(tmp_path / "data" / "masks" / f"{number}.png", mask)
    return tmp_path / "data"


def truncated(data: Path) -> list[str]:
    path = data / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:-300])
    return ["images/1.png"]


def other_size(data: Path) -> list[str]:
    save(data / "masks" / "2.png", np.zeros((30, 32)))
    return ["2.png", "30", "32"]


def text_called_png(data: Path) -> list[str]:
    (data / "images" / "3.png").write_text("this is no picture")
    return ["images/3.png"]


def empty_tiff(data: Path) -> list[str]:
    for folder in ("images", "masks"):
        for path in sorted((data / folder).iterdir()):
            Image.open(path).save(path.with_suffix(".tif"))
            path.unlink()
    (data / "images" / "4.tif").write_bytes(b"")
    return ["images/4.tif"]


def mask_for_no_image(data: Path) -> list[str]:
    (data / "images" / "5.png").unlink()
    return ["masks/5.png"]


def image_for_no_mask(data: Path) -> list[str]:
    (data / "masks" / "0.png").unlink()
    return ["images/0.png"]


def one_class(data: Path) -> list[str]:
    for path in (data / "masks").iterdir():
        save(path, np.full((32, 32), 255))
    return ["only one value occurs (255)", *(f"masks/{number}.png" for number in range(6))]


def all_empty(data: Path) -> list[str]:
    for path in (data / "masks").iterdir():
        save(path, np.zeros((32, 32)))
    return ["masks"]


def several(data: Path) -> list[str]:
    return truncated(data) + other_size(data) + text_called_png(data)


CASES = [truncated, other_size, text_called_png, empty_tiff, mask_for_no_image, image_for_no_mask, one_class,
         all_empty, several]  # fmt: skip


@pytest.mark.parametrize("spoil", CASES, ids=[case.__name__ for case in CASES])
def test_a_bad_folder_is_refused_in_one_message(data: Path, tmp_path: Path, capsys, spoil) -> None:
    words = spoil(data)
    home = tmp_path / "home"
    before = sorted(p for p in data.rglob("*"))
    assert call("train", data, "--home", home, "--steps", "1", *SMALL) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("error") <= 1 or errors.count("error:") == 1
    for word in words:
        assert word in errors.replace("\n", " ")
    assert "Traceback" not in errors
    assert "fault of useg" not in errors
    assert not list(home.glob("runs/*"))
    assert sorted(p for p in data.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--minutes", "1", "--steps", "2"], "give one of --minutes, --epochs and --steps"),
        (["--set", "train.lrr=1"], "did you mean 'train.lr'"),
        (["--name", "../x"], "--name"),
        (["--recipe", "old"], "recipe"),
        (["--minutes", "inf"], "--minutes and --epochs want a finite number"),
        (["--resume", "x", "--seed", "3"], "leave out --set, --seed"),
    ],
)
def test_bad_settings(data: Path, tmp_path: Path, capsys, arguments: list[str], words: str) -> None:
    more = [] if {"--steps", "--minutes", "--resume"} & {*arguments} else ["--steps", "1"]
    assert call("train", data, "--home", tmp_path / "home", *more, *SMALL, *arguments) == 2
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "home").glob("runs/*"))


def test_nothing_to_train_on(tmp_path: Path, capsys) -> None:
    assert call("train", "--home", tmp_path) == 2
    assert "name a data folder, or a run to --resume" in capsys.readouterr().err
    assert call("train", tmp_path / "absent", "--home", tmp_path) == 2
    assert "absent" in capsys.readouterr().err
    assert call("train", "--resume", "x", "--home", tmp_path) == 2
    assert "no run 'x'" in capsys.readouterr().err


def test_a_plan_is_written_and_used_as_it_is(data: Path, tmp_path: Path, capsys) -> None:
    home, path = tmp_path / "home", tmp_path / "plan.toml"
    assert call("plan", data, "--home", home, "--steps", "2", "--out", path, *SMALL) == 0
    assert "train with: useg train" in capsys.readouterr().err.replace("\n", " ")
    assert call("plan", data, "--home", home, "--steps", "2", *SMALL) == 0
    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(path.read_text())
    assert call("plan", data, "--home", home, "--steps", "2", "--json", *SMALL) == 0
    assert json.loads(capsys.readouterr().out)["patch"] == [16, 16]
    assert not (home / "runs").exists()


@pytest.mark.walk
def test_train_prints_its_result(data: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *args: None)  # those of the test process stay
    assert call("train", data, "--home", tmp_path / "home", "--steps", "2", "--json", *SMALL) == 0
    output, _ = capsys.readouterr()
    result = json.loads(output)
    assert {"run", "folder", "bundle", "weights", "scores", "seconds"} <= result.keys()
    assert Path(result["bundle"]).exists()
    assert call("train", "--resume", result["run"], "--home", tmp_path / "home") == 0
    assert "Dice" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_run_has_one_budget(data: Path, tmp_path: Path, capsys, command: str) -> None:
    assert call(command, data, "--minutes", 1, "--steps", 3, "--home", tmp_path / "home") == 2
    assert "give one of --minutes, --epochs and --steps" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
