"""Models scored on data sets: the same figures as at the end of their training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg import cli
from useg.errors import DataError, InputError
from useg.experiments.evaluate_model import evaluate_model
from useg.experiments.train import train
from useg.train.bundle import load_bundle, save_bundle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny, discs_folder) -> dict:
    root = tmp_path_factory.mktemp("models")
    data = discs_folder(root / "data", 7, "rrrvvtt")
    found = {"data": data}
    for seed in (0, 1):
        result = train(data, home=root / "home", config=tiny(seed=seed, steps=15))
        found[f"bundle{seed}"], found[f"scores{seed}"] = Path(result["bundle"]), result["scores"]
    return found


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(a) for a in arguments])
    output, errors = capsys.readouterr()
    return leaving.value.code or 0, output, errors


def test_the_same_figures_as_the_run_s_own(trained) -> None:
    scores = evaluate_model([trained["bundle0"]], trained["data"], split="test")
    mine = trained["scores0"]
    assert mine["part"] == "test"
    for sample in mine["samples"].values():
        assert set(sample.pop("content")) == {"image", "labels"}  # of its files, in the run alone
    for name in ("samples", "classes", "confusion", "mean_dice", "pixel_error", "operating_points", "surface"):
        assert scores[name] == mine[name], name
    assert list(scores["samples"]) == ["images/5", "images/6"]
    assert len(evaluate_model([trained["bundle0"]], trained["data"])["samples"]) == 7


def test_two_models_with_symmetries_by_command(trained, capsys) -> None:
    arguments = [trained["bundle0"], trained["bundle1"], trained["data"], "--json", "--split", "test"]
    status, output, errors = call(capsys, "evaluate", *arguments, "--tta")
    assert status == 0, errors
    both = json.loads(output.splitlines()[-1])
    assert list(both["samples"]) == ["images/5", "images/6"]
    _, output, _ = call(capsys, "evaluate", *arguments)
    assert json.loads(output.splitlines()[-1])["confusion"] != both["confusion"]
    alone = evaluate_model([trained["bundle0"]], trained["data"], split="test", tta=True)
    twice = evaluate_model([trained["bundle0"]] * 2, trained["data"], split="test", tta=True)
    assert alone["confusion"] == twice["confusion"] != both["confusion"]


def test_no_symmetry_to_average_over(trained, tmp_path: Path, capsys) -> None:
    bundle = load_bundle(trained["bundle0"])
    still = replace(bundle.plan.augmentation, flip=(False,) * 3)
    save_bundle(
        tmp_path / "still.useg", bundle.plan.model_copy(update={"augmentation": still}), bundle.mapping, bundle.tensors
    )
    said = "--tta changes nothing"
    for name, is_told in ((trained["bundle0"], False), (tmp_path / "still.useg", True)):
        for flags in ([], ["--tta"]):
            status, _, errors = call(capsys, "evaluate", name, trained["data"], "--split", "test", *flags)
            assert (status, said in errors) == (0, is_told and bool(flags))
        image = trained["data"] / "images" / "5.png"
        status, _, errors = call(capsys, "predict", name, image, "--out", tmp_path / name.stem, "--tta")
        assert (status, said in errors) == (0, is_told)


def test_what_cannot_be_scored(trained, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match="no labels were found"):
        evaluate_model([trained["bundle0"]], tmp_path)
    with pytest.raises(InputError, match="no labelled sample of split 'late'"):
        evaluate_model([trained["bundle0"]], trained["data"], split="late")
    three = tmp_path / "classes.toml"
    rows = "".join(f'[[classes]]\nname = "{n}"\nvalues = [{n}]\n' for n in range(3))
    three.write_text(f'kind = "values"\n{rows}')
    with pytest.raises(DataError, match="3 classes, the model has 2"):
        evaluate_model([trained["bundle0"]], trained["data"], classes=three)


def test_bad_files_are_named_together(trained, tmp_path: Path, discs_folder) -> None:
    data = discs_folder(tmp_path / "data", 4)
    (data / "images" / "1.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((9, 48), np.uint8)).save(data / "masks" / "2.png")
    Image.fromarray(np.full((48, 48), 3, np.uint8)).save(data / "masks" / "3.png")
    with pytest.raises(DataError) as caught:
        evaluate_model([trained["bundle0"]], data)
    for name in ("images/1.png", "masks/2.png", "masks/3.png"):
        assert name in str(caught.value)
