"""`useg predict` from the command line: usage errors before any loading, one JSON object, exit statuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from useg.cli import main
from useg.data.labels import LabelClass, LabelMapping
from useg.errors import ConfigError
from useg.home.amounts import parse_bytes
from useg.segmentation.normalise import ChannelNorm
from useg.segmentation.unet import UNet
from useg.train.bundle import save_bundle
from useg.train.plan import Plan


@pytest.fixture
def bundle(tmp_path) -> Path:
    torch.manual_seed(0)
    plan = Plan(
        stored_channels=1,
        num_classes=2,
        patch=(32, 32),
        strides=((2, 2),),
        base=2,
        steps=1,
        normalisation=(ChannelNorm("image"),),
    )
    classes = (LabelClass(name="no", values=(0,)), LabelClass(name="yes", values=(255,)))
    path = tmp_path / "model.useg"
    save_bundle(
        path,
        plan,
        LabelMapping(kind="values", classes=classes),
        UNet(**plan.network_arguments()).state_dict(),
    )
    return path


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)).save(path)
    return path


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("800M", 8 * 10**8), ("64k", 64_000), ("12345", 12345)],
)
def test_amounts_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "2 XB", "-1GB", "0", "1iB", "2GB please"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ConfigError, match="is no amount of bytes: write it like 2GB"):
        parse_bytes(text)


def test_json_is_the_last_line_and_names_every_result(capsys, tmp_path, bundle, image):
    out = tmp_path / "out"
    status, stdout, _ = run(capsys, bundle, image, "--out", out, "--overlay", "--memory-limit", "8GB", "--json")
    assert status == 0
    result = json.loads(stdout.splitlines()[-1])
    assert result["problems"] == []
    [one] = result["outputs"]
    assert set(one) == {"input", "labels", "probabilities", "instances", "overlay", "seconds"}
    assert one["labels"] == str(out / "a.png")
    assert Path(one["overlay"]).is_file()


def test_a_bad_input_beside_a_good_one_ends_with_status_2(capsys, tmp_path, bundle, image):
    bad = tmp_path / "bad.png"
    bad.write_text("text")
    status, stdout, stderr = run(capsys, bundle, image, bad, "--out", tmp_path / "out", "--json")
    assert status == 2
    result = json.loads(stdout.splitlines()[-1])
    assert len(result["outputs"]) == 1
    assert result["problems"][0]["where"] == str(bad)
    assert "1 of 2 images were not predicted" in stderr
    assert "Traceback" not in stderr


def test_usage_errors(capsys, tmp_path, bundle, image):
    out = ("--out", tmp_path / "out")
    for arguments, message in (
        ((image, *out), "no model was named"),
        ((bundle, *out), "no image was named"),
        ((tmp_path / "none.useg", image, *out), "none.useg: there is no such file"),
        ((bundle, image, *out, "--memory-limit", "lots"), "no amount of bytes"),
        ((bundle, image), "--out"),
    ):
        status, _, stderr = run(capsys, *arguments)
        assert status == 2
        assert message in stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_bundle_is_refused(capsys, tmp_path, bundle, image):
    damaged = tmp_path / "damaged.useg"
    content = bytearray(bundle.read_bytes())
    content[-40] ^= 0xFF
    damaged.write_bytes(content)
    status, _, stderr = run(capsys, damaged, image, "--out", tmp_path / "out")
    assert status == 2
    assert "damaged" in stderr


def test_the_module_loads_nothing_heavy():
    program = "import sys, useg.cli.predict; print(sorted({'torch','numpy','cv2','scipy','rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
