"""Settings: TOML and `--set` in, clear words for what is wrong, canonical bytes out."""

from pathlib import Path

import pytest

from useg.config import Config, load_config, setting_names
from useg.errors import ConfigError


def test_nothing_given() -> None:
    assert load_config() == Config()


def test_a_file_then_sets_then_named_arguments(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('seed = 3\nminutes = 2.5\nrecipe = "paper"\n[train]\nlr = 0.1\nclip_norm = 2.0\n')
    config = load_config(path, ["train.lr=0.01", "seed = 4", "network.patch=[32, 64]"], seed=5, minutes=None)
    assert (config.seed, config.minutes, config.recipe) == (5, 2.5, "paper")
    assert (config.train.lr, config.train.clip_norm) == (0.01, 2.0)
    assert config.network.patch == (32, 64)


@pytest.mark.parametrize(
    ("pair", "read"),
    [
        ("train.dtype=bfloat16", lambda c: c.train.dtype == "bfloat16"),
        ('train.dtype="bfloat16"', lambda c: c.train.dtype == "bfloat16"),
        ("augmentation.elastic=false", lambda c: c.augmentation.elastic is False),
        ("loss.border_weight=auto", lambda c: c.loss.border_weight == "auto"),
        ("loss.border_weight=true", lambda c: c.loss.border_weight is True),
        ("train.lr=1e-3", lambda c: c.train.lr == 1e-3),
        ("data.dims=3", lambda c: c.data.dims == "3"),
        ("data.dims='3'", lambda c: c.data.dims == "3"),
    ],
)
def test_values_of_set(pair: str, read) -> None:
    assert read(load_config(sets=[pair]))


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("train.learning_rat=1", "unknown setting 'train.learning_rat'"),
        ("train.lrr=1", r"unknown setting 'train\.lrr'; did you mean 'train\.lr'"),
        ("network.bas=1", "did you mean 'network.base'"),
        ("minuts=1", "did you mean 'minutes'"),
        ("train.lr", "--set wants KEY=VALUE, not 'train.lr'"),
        ("train.lr=fast", "setting train.lr: .*number.*'fast'"),
        ("train.lr=-1", "setting train.lr: .*greater than 0"),
        ("minutes=inf", "setting minutes: .*finite number"),
        ("loss.w0=nan", "setting loss.w0: "),
        ("data={validation=0.6, test=0.4}", "setting data: .*nothing to train on"),
        ("seed=-1", "setting seed"),
        ("recipe=pape", "setting recipe: .*'modern' or 'paper'"),
        ("seed.more=1", "setting seed"),
    ],
)
def test_what_is_wrong_is_said(pair: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(sets=[pair])


def test_a_value_is_no_group() -> None:
    with pytest.raises(ConfigError, match="'lr' is a value, not a group"):
        load_config(sets=["train.lr=1", "train.lr.more=2"])


def test_all_problems_together() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(sets=["train.lr=-1", "seed=x", "tain.lr=1"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe\x00", b"[train\nlr=1"])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml: cannot be read as TOML"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.toml")


def test_setting_names_are_all_settable() -> None:
    names = setting_names()
    assert {"seed", "train.lr", "network.patch", "loss.w0", "instances.mode"} <= set(names)
    assert len(names) == len(set(names))
    for name in names:
        value = Config()
        for part in name.split("."):
            value = getattr(value, part)


def test_the_digest_is_of_the_meaning(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[train]\nclip_norm = 5\n")
    assert load_config(path).digest() == Config().digest()
    assert load_config(sets=["seed=1"]).digest() != Config().digest()
    assert Config.model_validate_json(Config().canonical()) == Config()


def test_the_digest_of_the_defaults_is_pinned() -> None:
    """A new setting or another default changes what `useg train` does: then change this on purpose.

    python -c "from useg.config import Config; print(Config().digest())"
    """
    assert Config().digest() == "9a1a4bb2c209b7627a01b1278f8e450cb434810d8addad61664f9afbef1bfed0"


def test_one_fold_of_those_there_are() -> None:
    assert load_config(sets=["folds=3", "fold=2"]).fold == 2
    for pairs in (["folds=3", "fold=3"], ["fold=1"]):
        with pytest.raises(ConfigError, match="they count from 0"):
            load_config(sets=pairs)


def test_what_came_later_changes_no_digest_until_it_is_used() -> None:
    assert "fold" not in Config().model_dump()
    assert "split_seed" not in Config().model_dump(mode="json")["data"]
    used = load_config(sets=["folds=3", "fold=1", "data.split_seed=4"])
    assert (used.split_seed, load_config(sets=["seed=9"]).split_seed) == (4, 9)
    assert used.digest() != load_config(sets=["folds=3"]).digest()
    assert Config.model_validate_json(used.canonical()) == used
