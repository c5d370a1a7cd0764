"""Which images a command line means, and what their results are called."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.errors import InputError, Problem
from useg.experiments.inputs import find_inputs


def picture(path: Path, value: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(path.name)) % 1000)
    pixels = rng.integers(0, 255, (12, 10)) if value is None else rng.integers(0, 2, (12, 10)) * value
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def names(inputs, out: Path) -> dict[str, str]:
    problems: list[Problem] = []
    found = find_inputs(inputs, out, problems, [])
    assert not problems
    return {Path(one.ref).name: str(one.name) for one in found}


def test_files_lie_in_the_output_and_folders_keep_their_structure(tmp_path):
    single = picture(tmp_path / "other" / "single.v2.png")
    picture(tmp_path / "scans" / "day1" / "a.png")
    picture(tmp_path / "scans" / "day2" / "a.png")
    assert names([single, tmp_path / "scans"], tmp_path / "out") == {
        "single.v2.png": "single.v2",
        "a.png": "day2/a",
    }
    found = find_inputs([tmp_path / "scans"], tmp_path / "out", [], [])
    assert [str(one.name) for one in found] == ["day1/a", "day2/a"]


def test_equal_stems_get_their_suffix(tmp_path):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "a.bmp")
    assert names([tmp_path / "in" / "a.png", tmp_path / "in" / "a.bmp"], tmp_path / "out") == {
        "a.png": "a_png",
        "a.bmp": "a_bmp",
    }


def test_equal_names_of_different_folders_are_refused(tmp_path):
    one, other = picture(tmp_path / "x" / "a.png"), picture(tmp_path / "y" / "a.png")
    with pytest.raises(InputError, match="would have the same name"):
        find_inputs([one, other], tmp_path / "out", [], [])
    assert len(find_inputs([one, one, str(one)], tmp_path / "out", [], [])) == 1


def test_label_maps_of_a_data_set_are_no_inputs(tmp_path):
    for number in range(3):
        picture(tmp_path / "data" / "images" / f"{number}.png")
        picture(tmp_path / "data" / "masks" / f"{number}.png", 255)
    (tmp_path / "data" / "notes.txt").write_text("read me")
    notes: list[str] = []
    found = find_inputs([tmp_path / "data"], tmp_path / "out", [], notes)
    assert [str(one.name) for one in found] == ["images/0", "images/1", "images/2"]
    assert any("3 label files are not predicted" in note for note in notes)


def test_earlier_results_are_no_inputs(tmp_path):
    picture(tmp_path / "scans" / "a.png")
    picture(tmp_path / "scans" / "predicted" / "zzz.png")
    assert names([tmp_path / "scans"], tmp_path / "scans" / "predicted") == {"a.png": "a"}


def test_a_folder_of_nothing_but_results_says_so(tmp_path):
    picture(tmp_path / "scans" / "images" / "a.png")
    with pytest.raises(InputError, match=r"no image to predict in .*scans but those in .*images, where results go"):
        find_inputs([tmp_path / "scans"], tmp_path / "scans" / "images", [], [])


def test_results_over_inputs_are_refused(tmp_path):
    image = picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="could overwrite"):
        find_inputs([image], tmp_path, [], [])
    with pytest.raises(InputError, match="could overwrite"):
        find_inputs([tmp_path], tmp_path / "x" / "..", [], [])


def test_nothing_to_predict(tmp_path):
    with pytest.raises(InputError, match="no image to predict in nothing"):
        find_inputs([], tmp_path / "out", [], [])
    (tmp_path / "empty").mkdir()
    problems: list[Problem] = []
    assert find_inputs([tmp_path / "empty", tmp_path / "none.png"], tmp_path / "out", problems, []) == []
    assert [Path(problem.where).name for problem in problems] == ["empty", "none.png"]


def test_a_folder_without_images_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    problems: list[Problem] = []
    assert find_inputs([tmp_path / "in"], tmp_path / "out", problems, []) == []
    assert [str(problem) for problem in problems] == [
        f"{tmp_path / 'in'}: there is no image in this folder that can be read"
    ]
