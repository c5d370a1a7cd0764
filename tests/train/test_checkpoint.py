"""Files of tensors: what was written comes back, what was damaged is refused, the newest good one is found."""

import errno
import os
from pathlib import Path

import pytest
import torch

from useg.errors import DamagedFile, ResourceError
from useg.train.checkpoint import Checkpoints, read_tensors, tensors_digest, write_tensors


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(4, 3, 3, 3, generator=random).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(5, generator=random).bfloat16(),
        "step": torch.tensor(7.0),
        "count": torch.tensor(3, dtype=torch.int64),
        "none": torch.zeros(0, 2),
    }


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    digest = write_tensors(path, tensors(), {"note": "é", "list": [1, 2.5]})
    back, header = read_tensors(path)
    assert header == {"note": "é", "list": [1, 2.5], "weights": digest}
    for name, tensor in tensors().items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_the_digest_is_of_names_types_shapes_and_values_only() -> None:
    plain = tensors()
    digest = tensors_digest(plain)
    assert tensors_digest(dict(reversed(plain.items()))) == digest
    assert tensors_digest({n: t.contiguous() for n, t in plain.items()}) == digest
    for name, other in [
        ("weight", plain["weight"] + 1e-6),
        ("half", plain["half"].reshape(5, 1)),
        ("half", plain["half"].view(torch.float16)),
        ("count", plain["count"].int()),
    ]:
        assert tensors_digest({**plain, name: other}) != digest
    assert tensors_digest({("weigh" if n == "weight" else n): t for n, t in plain.items()}) != digest


def test_the_digest_is_pinned() -> None:
    assert (
        tensors_digest({"a": torch.arange(3.0), "b": torch.ones(1, dtype=torch.int8)})
        == "c5de39dd592444f157ac7eb507ae5ac60ceed80170f719e2200e700c534007f7"
    )


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_tensors(path, {"w": torch.randn(30)}, {"state": {}})
    good = path.read_bytes()
    for length in [*range(0, len(good), 7), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(DamagedFile, match="a: "):
            read_tensors(path)
    start = 8 + int.from_bytes(good[:8], "little")
    for place in range(start, len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(DamagedFile, match="not those that were written"):
            read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" + bytes(100), bytes(1000), b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DamagedFile):
        read_tensors(tmp_path / "a")
    with pytest.raises(DamagedFile, match="there is no such file"):
        read_tensors(tmp_path / "b")
    with pytest.raises(DamagedFile):
        read_tensors(tmp_path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for number, metadata in enumerate([None, {"useg": "{}"}, {"useg": "[1"}, {"useg": "3"}]):
        save_file({"w": torch.ones(3)}, tmp_path / str(number), metadata)
        with pytest.raises(DamagedFile, match=r"not one that useg wrote|not a readable"):
            read_tensors(tmp_path / str(number))


def test_the_newest_stay(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", keep=2)
    assert kept.latest() is None
    for step in (5, 10, 200):
        kept.save(step, tensors(step), {"step": step})
    assert kept.steps() == [10, 200]
    step, found, state = kept.latest()
    assert (step, state) == (200, {"step": 200})
    assert tensors_digest(found) == tensors_digest(tensors(200))
    assert kept.latest(at_most=199)[0] == 10
    assert kept.latest(at_most=9) is None


def test_a_damaged_newest_is_passed_over(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        kept.save(step, tensors(step), {"step": step})
    kept.path(3).write_bytes(kept.path(3).read_bytes()[:-1])
    content = bytearray(kept.path(2).read_bytes())
    content[-1] ^= 1
    kept.path(2).write_bytes(content)
    (tmp_path / "step-x.safetensors").write_bytes(b"")
    assert kept.latest()[0] == 1
    kept.path(1).unlink()
    assert kept.latest() is None


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_keeps_the_one_before(tmp_path: Path, monkeypatch, failing: str) -> None:
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, tensors(1), {"step": 1})

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(ResourceError, match="No space left on device"):
            kept.save(2, tensors(2), {"step": 2})
    assert kept.latest()[0] == 1
    assert len(os.listdir(tmp_path)) == 1
    kept.save(3, tensors(3), {"step": 3})
    assert kept.steps() == [3]
