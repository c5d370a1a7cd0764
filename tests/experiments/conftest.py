"""Small data sets and settings for whole trainings that take a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.config import Config, load_config

_SMALL = ("network.base=4", "network.depth=2", "train.micro_batch=2", "train.threads=1", "train.dtype=float32")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """Settings of a tiny training, with changes."""

    def make(*sets: str, **given: object) -> Config:
        return load_config(None, [*_SMALL, *sets], **{"steps": 12, **given})

    return make


@pytest.fixture(scope="session")
def discs_folder() -> Callable[..., Path]:
    """Makes images of bright discs, masks of 0 and 255, and perhaps a pairs.csv with splits."""

    def make(root: Path, count: int = 6, splits: str = "", side: int = 48, roll_test: int = 0) -> Path:
        names = {"r": "train", "v": "val", "t": "test"}
        rows = ["image,label,split"]
        for seed in range(count):
            random = np.random.default_rng(seed)
            y, x = np.mgrid[:side, :side]
            mask = np.zeros((side, side), bool)
            for cy, cx in random.uniform(8, side - 8, (3, 2)):
                mask |= (y - cy) ** 2 + (x - cx) ** 2 < 50
            image = (60 + 120 * mask + random.normal(0, 20, mask.shape)).clip(0, 255)
            if splits and splits[seed] == "t":
                mask = np.roll(mask, roll_test, 1)
            for folder, picture in (("images", image), ("masks", 255 * mask)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.astype(np.uint8)).save(root / folder / f"{seed}.png")
            rows.append(f"images/{seed}.png,masks/{seed}.png,{names[splits[seed]] if splits else ''}")
        if splits:
            (root / "pairs.csv").write_text("\n".join(rows))
        return root

    return make
