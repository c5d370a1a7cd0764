"""A plan is a readable file that comes back as it was."""

from pathlib import Path

import pytest

from useg.errors import ConfigError
from useg.segmentation.normalise import ChannelNorm
from useg.train.plan import load_plan, plan_from


def test_it_comes_back_from_its_file(tmp_path: Path, plan) -> None:
    norms = (ChannelNorm("image", nodata=-1.0), ChannelNorm("onehot", values=(1.0, 2.0)), ChannelNorm("drop"))
    changed = plan(normalisation=norms, dims=3, patch=(8, 16, 16), strides=((1, 2, 2),), seconds_per_step=0.25,
                   reasons={"patch": "since 'so' \"it\" is\n= [1]"})  # fmt: skip
    for made in (plan(), changed):
        made.save(tmp_path / "plan.toml")
        assert load_plan(tmp_path / "plan.toml") == made
    assert (changed.channels, changed.depth) == (3, 1)
    assert "micro_batch = 2" in (tmp_path / "plan.toml").read_text()


def test_outputs_of_each_instance_mode(plan) -> None:
    modes = {mode: plan(instance_mode=mode) for mode in ("none", "border", "weights", "distance")}
    assert {mode: (p.outputs, p.softmax_channels) for mode, p in modes.items()} == {
        "none": (2, 2),
        "border": (3, 3),
        "weights": (2, 2),
        "distance": (3, 2),
    }


def test_a_newer_format_is_refused(tmp_path: Path, plan) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(plan().to_toml().replace("format = 1", "format = 2\nfuture = 1"))
    with pytest.raises(ConfigError, match=r"plan\.toml: format 2 is newer than this useg knows \(1\); update useg"):
        load_plan(path)


def test_all_that_is_wrong_is_named(tmp_path: Path, plan) -> None:
    path = tmp_path / "plan.toml"
    text = plan().to_toml().replace("micro_batch = 2", "micro_batch = 0").replace("base = 2", "bass = 2")
    path.write_text(text.replace("format = 1", 'format = "one"'))
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    for word in ("plan.toml: not a usable plan", "micro_batch", "bass", "format"):
        assert word in str(caught.value)


@pytest.mark.parametrize("content", [b"format = ", b"\xff\xff", b""])
def test_what_is_no_plan(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(ConfigError, match=r"p: (cannot be read as a plan|not a usable plan)"):
        load_plan(tmp_path / "p")
    with pytest.raises(ConfigError, match="cannot be read as a plan"):
        load_plan(tmp_path / "absent")
    with pytest.raises(ConfigError, match="x: not a plan"):
        plan_from([], "x")
