"""Which field a name means."""

import pytest

from useg.errors import InputError
from useg.runs.naming import Names

KNOWN = ["scores.mean_dice", "scores.classes.cell wall.dice", "scores.classes.nucleus.iou", "config.train.lr",
         "config.train.ema", "last.ema", "last.lr", "plan.lr", "plan.loss.dice_share", "last.v_info",
         "machine.torch"]  # fmt: skip


@pytest.fixture
def names() -> Names:
    return Names(KNOWN.__contains__, lambda: KNOWN)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("config.train.lr", "config.train.lr"),
        ("score.dice", "scores.mean_dice"),
        ("score", "scores.mean_dice"),
        ("score.iou", "scores.mean_iou"),
        ("score.cell wall.dice", "scores.classes.cell wall.dice"),
        ("score.dice.cell wall", "scores.classes.cell wall.dice"),
        ("scores.iou.nucleus", "scores.classes.nucleus.iou"),
        ("train.lr", "config.train.lr"),
        ("config.lr", "config.train.lr"),
        ("ema", "config.train.ema"),
        ("v_info", "last.v_info"),
        ("torch", "machine.torch"),
        ("error", "error"),
        ("config.network.base", "config.network.base"),
    ],
)
def test_what_is_meant(names: Names, name: str, meant: str) -> None:
    assert names.resolve(name) == meant


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lr", "'lr' could be config.train.lr, plan.lr: write more"),
        ("config.train.rl", "no run has a field 'config.train.rl'; near it: config.train.lr"),
        ("scoredice", "near it: .*scores.mean_dice"),
        ("plan", "'plan' is a group of fields: wanted one of plan.loss.dice_share, plan.lr"),
        ("x" * 1000, "no run has a field 'xxx"),
        ("zzz\n", r"no run has a field 'zzz\\n'"),
    ],
)
def test_what_is_refused_is_told(names: Names, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        names.resolve(name)
