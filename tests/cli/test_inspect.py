import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from useg.cli import main
from useg.data.labels import load_mapping


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "my data [1]"
    for i in range(4):
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(i).integers(0, 200, (40, 50)).astype(np.uint8)
        mask = np.zeros((40, 50), np.uint8)
        mask[5 + i : 20, 8:30] = 255
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder


@pytest.fixture
def useg(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as leaving:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return SimpleNamespace(status=leaving.value.code or 0, out=said.out, err=said.err)

    return run


def test_the_report_says_what_was_understood(data, useg):
    done = useg("inspect", data)
    assert done.status == 0
    for words in (
        "4 samples, 4 with labels",
        "40 x 50, all alike",
        "background",
        "foreground",
        "Objects",
        "useg train '",
    ):
        assert words in " ".join(done.out.split())  # a long path may be broken into two lines
    assert "\x1b" not in done.out
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("width", "quantiles"), [(60, 3), (120, 7)])
def test_tables_fit_the_terminal_and_numbers_stay_whole(data, useg, monkeypatch, width, quantiles):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = useg("inspect", data).out.splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= width  # paths are as long as they are
    at = next(number for number, line in enumerate(lines) if line.startswith("Objects"))
    head = lines[at + 1].replace(" %", "").split()
    assert len([name for name in head if name != "count"]) == quantiles
    size = next(line for line in lines if line.strip().startswith("size (pixels)"))
    assert len(size.split()) == 2 + len(head)


def test_json_is_one_object_in_the_last_line(data, useg):
    done = useg("inspect", data, "--json")
    assert done.status == 0
    result = json.loads(done.out.splitlines()[-1])
    assert set(result) == {"reading", "mapping", "fingerprint", "problems", "warnings", "repairs"}
    assert len(result["reading"]["samples"]) == 4
    assert result["mapping"]["kind"] == "values"
    assert result["fingerprint"]["channels"] == 1
    assert result["problems"] == []


def test_the_mapping_is_written_edited_and_taken(data, tmp_path, useg):
    file = tmp_path / "mine.toml"
    assert useg("inspect", data, "--write", file).status == 0
    assert load_mapping(file).class_names == ("background", "foreground")
    file.write_text(file.read_text().replace("foreground", "nucleus"))
    assert "nucleus" in useg("inspect", data, "--classes", file).out
    again = useg("inspect", data, "--write", file)
    assert again.status == 2
    assert "exists already" in again.err
    assert "no folder" in useg("inspect", data, "--write", tmp_path / "no" / "a.toml").err


@pytest.mark.parametrize("as_json", [False, True])
def test_problems_end_with_status_2_and_every_file(data, useg, as_json):
    (data / "images" / "1.png").write_bytes(b"")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "masks" / "2.png")
    done = useg("inspect", data, *(["--json"] if as_json else []))
    assert done.status == 2
    assert "2 problems" in done.err
    if as_json:
        told = json.loads(done.out.splitlines()[-1])["problems"]
        assert len(told) == 2
        assert {p["where"].rsplit("/", 2)[1] for p in told} == {"images", "masks"}
    else:
        assert "1.png" in done.out
        assert "2.png" in done.out
        assert "repair the problems" in done.out


def test_a_folder_that_is_not_there(tmp_path, useg):
    done = useg("inspect", tmp_path / "nowhere", "--json")
    assert done.status == 2
    assert json.loads(done.out.splitlines()[-1])["problems"]
    assert "nowhere" in done.err


def test_a_folder_without_labels_says_what_it_is_good_for(data, useg):
    for mask in (data / "masks").iterdir():
        mask.unlink()
    done = useg("inspect", data)
    assert done.status == 0
    assert "useg predict MODEL" in done.out


def test_the_module_loads_nothing_heavy():
    heavy = ("numpy", "cv2", "rich", "pydantic", "torch")
    code = f"import sys, useg.cli.inspect; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
