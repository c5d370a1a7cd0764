"""A small plan and small samples to train on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.data.labels import LabelClass, LabelMapping
from useg.data.reading import Sample
from useg.data.samples import Samples
from useg.segmentation.normalise import ChannelNorm
from useg.train.plan import Plan


@pytest.fixture
def mapping() -> LabelMapping:
    return LabelMapping(
        kind="values",
        classes=(LabelClass(name="ground", values=(0,)), LabelClass(name="disc", values=(200,))),
    )


@pytest.fixture
def discs(tmp_path: Path, mapping: LabelMapping) -> Samples:
    """Five noisy images of 64x48 with bright discs."""
    found = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        y, x = np.mgrid[:64, :48]
        mask = np.zeros((64, 48), bool)
        for cy, cx in random.uniform(8, 40, (3, 2)):
            mask |= (y - cy) ** 2 + (x - cx) ** 2 < 40
        image = (60 + 100 * mask + random.normal(0, 10, mask.shape)).clip(0, 255).astype(np.uint8)
        paths = tmp_path / f"{seed}.png", tmp_path / f"{seed}-label.png"
        Image.fromarray(image).save(paths[0])
        Image.fromarray((200 * mask).astype(np.uint8)).save(paths[1])
        found.append(Sample(str(seed), (str(paths[0]),), (str(paths[1]),)))
    return Samples(found, mapping, 1)


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """A plan of a tiny network, with changes."""

    def make(**changes: object) -> Plan:
        return Plan(
            **{
                "stored_channels": 1,
                "num_classes": 2,
                "class_names": ("ground", "disc"),
                "patch": (16, 16),
                "strides": ((2, 2),),
                "base": 2,
                "normalisation": (ChannelNorm("dataset", low=0.0, high=255.0, mean=80.0, std=50.0),),
                "micro_batch": 2,
                "steps": 12,
                "warmup_steps": 2,
                "cooldown_steps": 4,
                "patches_per_epoch": 60,
                "class_weights": (0.8, 2.0),
                **changes,
            }
        )

    return make
