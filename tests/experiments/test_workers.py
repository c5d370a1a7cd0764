"""Several processes train what one would have trained."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.config import load_config
from useg.errors import ConfigError
from useg.experiments.train import train
from useg.experiments.workers import check_workers
from useg.runs.record import RunFolder
from useg.segmentation.normalise import ChannelNorm
from useg.train.plan import Plan

SMALL = ("network.base=4", "network.depth=2", "network.patch=[32,32]", "train.micro_batch=2", "train.count=2",
         "train.threads=1", "train.dtype=float32")  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(5):
        random = np.random.default_rng(number)
        mask = np.zeros((48, 48), np.uint8)
        mask[10:30, 5 + number : 25 + number] = 255
        image = (mask // 2 + random.integers(0, 100, mask.shape)).astype(np.uint8)
        for folder, picture in (("images", image), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "data" / folder / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.walk
@pytest.mark.slow
def test_one_and_two_processes(data: Path, tmp_path: Path) -> None:
    runs = [train(data, home=tmp_path, config=load_config(None, SMALL, steps=8, workers=n)) for n in (1, 2, 2)]
    alone, pair, again = (
        [(e["loss"], e["lr"]) for e in RunFolder(Path(run["folder"])).journal() if e["event"] == "step"] for run in runs
    )
    assert len(alone) == 8
    np.testing.assert_allclose(pair, alone, rtol=1e-5)
    assert pair == again
    assert runs[1]["weights"] == runs[2]["weights"]
    # a run with companions that is extended goes on past its first end
    more = train(None, home=tmp_path, resume=runs[1]["run"], epochs=3)
    steps = [e["step"] for e in RunFolder(Path(more["folder"])).journal() if e["event"] == "step"]
    assert len(steps) > 8
    assert steps == list(range(1, len(steps) + 1))


def test_micro_batches_that_cannot_be_shared() -> None:
    norm = ChannelNorm("dataset", low=0.0, high=1.0)
    plan = Plan(
        stored_channels=1, num_classes=2, patch=(8, 8), strides=((2, 2),), normalisation=(norm,), steps=1, count=3
    )
    check_workers(plan, 3)
    with pytest.raises(ConfigError, match="a step has 3 micro-batches, which 2 workers cannot share evenly"):
        check_workers(plan, 2)
