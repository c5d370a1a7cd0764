"""A sweep's file: every problem is named with its place, all of them at once."""

from pathlib import Path

import pytest
from tests.experiments.sweep.asking import LR, sweep_of

from useg.errors import ConfigError
from useg.experiments.sweep.asked import read_sweep


def problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_sweep(file)
    first, *rest = str(caught.value).splitlines()
    assert "bad.toml" in first
    return [line.removeprefix("  - ") for line in rest]


def test_all_problems_at_once_each_with_its_place(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        data = "cells"
        seads = 5
        method = "gird"
        [budget]
        trails = 4
        minutes = -1
        [early_stopping]
        method = "asha"
        reductoin = 4
        [settings]
        train.batch = 3
        folds = 5
        steps = 0
        [search]
        train.lrr = [1, 2]
        seed = [1, 2]
        network.base = { low = 4, high = 2 }
        train.ema = { low = 0.9, hihg = 0.99 }
        loss.w0 = 3
        train.momentum = { low = 0.5, high = 0.9, when = { "train.optimizer" = "sgd" } }
        train.lr = [0.1, -0.1]
        """,
    )
    text = "\n".join(found)
    for words in (
        "seads: unknown key; did you mean 'seeds'",
        "method: Input should be 'grid', 'random' or 'tpe', not 'gird'",
        "[budget] trails: unknown key; did you mean 'trials'?",
        "[budget] minutes: Input should be greater than 0",
        "[early_stopping] reductoin: unknown key; did you mean 'reduction'?",
        "[settings] folds: is an axis of its own: write folds = N at the top",
        "[search] train.lrr: unknown setting; did you mean 'train.lr'",
        "[search] seed: is an axis of its own: write seeds = N at the top",
        "[search] network.base: low must be below high",
        "[search] train.ema: hihg: unknown key; did you mean 'high'?",
        "[search] loss.w0: values:",
        "[search] train.momentum: when names 'train.optimizer', which does not stand in [search] before it",
        "[settings] setting steps: Input should be greater than or equal to 1",
        "[search] train.lr: Input should be greater than 0, not -0.1",
    ):
        assert words in text, (words, text)
    assert any(line.startswith("[settings] train.batch: unknown setting") for line in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data = ", "cannot be read as TOML"),
        ('[search]\n"train.lr" = [1e-3]', "data: Field required"),
        ('data = "x"\nmethod = "grid"', "search: Field required"),
        ('data = "x"\nmethod = "grid"\n[search]', "at least 1 item"),
        (f'data = "x"\n[search]\n{LR}', 'method = "random" has no end of its own'),
        (f'data = "x"\nmethod = "grid"\n[search]\n{LR}', "train.lr: a grid wants a list, or a step"),
        ('data = "x"\nmethod = "grid"\n[search]\nseed = {}', "seeds = N"),
        ('data = "x"\nmethod = "grid"\n[search]\ntrain.lr = []', "at least 1 item"),
        ('data = "x"\nmethod = "grid"\n[search]\ntrain.lr = [0.1, 0.1]', "stands there twice"),
        ('data = "x"\nmethod = "grid"\n[search]\ntrain.lr = {low=0, high=1, log=true}', "log wants a range with low"),
        ('data = "x"\nmethod = "grid"\nwhere = 3\n[search]\ntrain.lr = [0.1]', "where: "),
        ('data = "x"\nmethod = "grid"\n[settings]\ntrain.lr = 0.1\n[search]\ntrain.lr = [0.1]', "is searched, too"),
        (
            'data = "x"\nmethod = "grid"\n[search]\n"data.test" = [0.1, 0.8]\n"data.validation" = [0.1, 0.5]',
            "leave nothing",
        ),
        ('data = "x"\nmethod = "grid"\n[search]\n"seed" = [0]\n', "axis of its own"),
        (
            'data = "x"\nmethod = "grid"\n[search]\nnetwork.base = {low=2, high=256}\n'
            "train.warmup = {low=0, high=0.4, step=1e-3}",
            "a grid of more than 10,000 points",
        ),
    ],
)
def test_one_problem(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_sweep(file)
    assert words in str(caught.value)


def test_the_budget_is_no_part_of_the_identity_and_all_else_is() -> None:
    base = f"seeds = 2\n[budget]\ntrials = 4\n[search]\n{LR}"
    assert sweep_of(base).id == sweep_of(base.replace("trials = 4", "minutes = 9")).id
    for other in (base.replace("seeds = 2", "seeds = 3"), base.replace("1e-4", "1e-5"), "folds = 2\n" + base):
        assert sweep_of(other).id != sweep_of(base).id


def test_the_direction_is_that_of_the_metric_unless_it_is_said() -> None:
    end = f"[budget]\ntrials = 4\n[search]\n{LR}"
    assert not sweep_of(end).is_less_better
    assert sweep_of('metric = "scores.pixel_error"\n' + end).is_less_better
    assert sweep_of('metric = "last.loss"\n' + end).is_less_better
    assert sweep_of('direction = "min"\n' + end).is_less_better
