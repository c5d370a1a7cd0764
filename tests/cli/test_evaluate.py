"""`useg evaluate` on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from useg.cli import application


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    draw = np.random.default_rng(0)
    for name in ("found", "labels"):
        (tmp_path / name).mkdir()
    for index in range(2):
        truth = np.zeros((40, 40), dtype=np.uint8)
        truth[5:30, 5:30] = 255
        found = truth.copy()
        found[draw.random(truth.shape) < 0.02] = 255
        Image.fromarray(truth).save(tmp_path / "labels" / f"{index}.png")
        Image.fromarray(found).save(tmp_path / "found" / f"{index}.png")
    return [str(tmp_path / "found"), str(tmp_path / "labels")]


def test_json_is_the_last_line_and_text_a_table(folders: list[str]) -> None:
    result = CliRunner().invoke(application, ["evaluate", *folders, "--json"])
    assert result.exit_code == 0
    scores = json.loads(result.stdout.splitlines()[-1])
    assert 0.9 < scores["classes"]["foreground"]["dice"] < 1
    text = CliRunner().invoke(application, ["evaluate", *folders])
    assert text.exit_code == 0
    assert f"{scores['classes']['foreground']['dice']:.4f}" in text.stdout
    assert "a missed class counts as the image diagonal, 56.57" in text.stdout


def test_surface_can_be_left_out(folders: list[str]) -> None:
    result = CliRunner().invoke(application, ["evaluate", *folders, "--no-surface", "--json"])
    assert json.loads(result.stdout.splitlines()[-1])["surface"] is None


def test_bad_input_ends_with_status_2(folders: list[str]) -> None:
    (Path(folders[0]) / "0.png").unlink()
    result = CliRunner().invoke(application, ["evaluate", *folders])
    assert result.exit_code == 2
    assert "no prediction has this name" in result.stderr
    partial = CliRunner().invoke(application, ["evaluate", *folders, "--partial"])
    assert partial.exit_code == 0
    assert "1 files without a partner left out" in partial.stderr


def test_options_for_folders_are_refused_with_a_model(folders: list[str], tmp_path: Path) -> None:
    for option in (["--membrane", "none"], ["--tolerance", "2"], ["--partial"]):
        result = CliRunner().invoke(application, ["evaluate", str(tmp_path / "m.useg"), folders[1], *option])
        assert result.exit_code == 2
        assert "are for folders of predictions" in result.stderr
