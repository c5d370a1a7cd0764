import numpy as np
import pytest
from PIL import Image

from useg.data.inspect import inspect


def write(root, images, masks):
    for folder, arrays in (("images", images), ("masks", masks)):
        (root / folder).mkdir()
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(root / folder / f"{i}.png")


def noise(seed, shape=(64, 64)):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def square(value=1, size=10):
    mask = np.zeros((64, 64), np.uint8)
    mask[5 : 5 + size, 5 : 5 + size] = value
    return mask


CASES = {
    "rare classes": ([noise(i) for i in range(6)], [square(size=1)] * 6),
    "the foreground covers": ([noise(i) for i in range(6)], [square(255, 59)] * 6),
    "only 2 labelled samples": ([noise(i) for i in range(2)], [square()] * 2),
    "one value only: 2": ([noise(i) if i != 2 else square(0) for i in range(6)], [square()] * 6),
    "in one or two samples only": ([noise(i) for i in range(6)], [square(1 + (i == 3)) for i in range(6)]),
    "channels with one value only": (
        [np.stack([noise(i), noise(i + 9), square(0)], -1) for i in range(6)], [square()] * 6,
    ),
    "alpha channel that varies": ([noise(i, (64, 64, 4)) for i in range(6)], [square()] * 6),
    "exactly the same picture; they are kept": ([noise(i % 5) for i in range(6)], [square()] * 6),
}  # fmt: skip


@pytest.mark.parametrize("message", CASES)
def test_what_is_worth_a_look_is_told_and_nothing_else(tmp_path, message):
    write(tmp_path, *CASES[message])
    warnings = inspect(tmp_path).warnings
    assert any(message in warning for warning in warnings)
    assert len(warnings) <= 2


def test_a_sound_folder_has_no_warnings(tmp_path):
    write(tmp_path, [noise(i) for i in range(6)], [square()] * 6)
    assert inspect(tmp_path).warnings == []
