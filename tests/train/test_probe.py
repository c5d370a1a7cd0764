"""What is measured of the machine."""

import pytest
import torch

from useg.train import probe


def test_the_machine_has_one_name() -> None:
    assert probe.machine_digest() == probe.machine_digest()
    assert len(probe.machine_digest()) == 16
    assert probe.machine()["torch"] == torch.__version__
    assert 1 <= probe.cores() <= probe.machine()["cores"]


@pytest.mark.parametrize("dims", [2, 3])
def test_more_work_takes_longer(dims: int) -> None:
    arguments = {"dims": dims, "channels": 1, "outputs": 3, "base": 4, "depth": 1, "deep_supervision": dims == 3}

    def seconds(micro: int) -> float:
        return probe.step_seconds(arguments, (16,) * dims, micro, softmax_channels=2, dtype="float32", threads=1)

    assert 0 < seconds(1) < seconds(40) < 30


def test_valid_convolutions_are_probed_at_their_own_size() -> None:
    arguments = {"channels": 1, "outputs": 2, "base": 2, "depth": 1, "valid": True, "batch_norm": False}
    assert probe.step_seconds(arguments, (28, 28), 1, softmax_channels=2, dtype="float32", threads=1) > 0


def test_the_faster_dtype_is_a_measured_one(monkeypatch) -> None:
    arguments = {"channels": 1, "outputs": 2, "base": 2, "depth": 1}
    given = {"softmax_channels": 2, "threads": 1, "device": "cpu"}
    monkeypatch.setattr(probe, "_has_bfloat16", lambda: False)
    assert probe.better_dtype(arguments, (8, 8), **given) == (
        "float32",
        "this processor has no bfloat16 arithmetic",
    )
    monkeypatch.setattr(probe, "_has_bfloat16", lambda: True)
    for times, chosen in [
        ({"float32": 2.0, "bfloat16": 1.0}, "bfloat16"),
        ({"float32": 1.0, "bfloat16": 1.0}, "float32"),
    ]:
        monkeypatch.setattr(probe, "step_seconds", lambda *a, dtype, t=times, **k: t[dtype])
        assert probe.better_dtype(arguments, (8, 8), **given)[0] == chosen
