"""The weights digest without torch is that with torch, and notices every byte that is another."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.runs.making import write_model
from torch import Tensor

from useg.errors import DamagedFile
from useg.runs.weights import read_model
from useg.train.checkpoint import tensors_digest, write_tensors

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool]  # fmt: skip


def tensors() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    found = {str(dtype): (8 * torch.randn(3, 5, generator=random)).to(dtype) for dtype in DTYPES}
    return found | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "é z": torch.ones(2, 1, 2)}


def test_it_is_that_of_torch(tmp_path: Path) -> None:
    file = tmp_path / "model.useg"
    written = write_tensors(file, tensors(), {"kind": "bundle", "about": {"run": "a"}})
    found = read_model(file)
    assert (found.weights, found.kind, found.about) == (written, "bundle", {"run": "a"})
    assert found.weights == tensors_digest(tensors())
    write_tensors(file, tensors(), {"step": 1})
    assert read_model(file).kind == "checkpoint"


def test_one_that_torch_has_not_written(tmp_path: Path) -> None:
    file = tmp_path / "model.useg"
    assert write_model(file, 2.5) == tensors_digest({"a": torch.full((3,), 2.5)}) == read_model(file).weights


def test_strided_tensors(tmp_path: Path) -> None:
    file = tmp_path / "model.useg"
    weight = torch.arange(24.0).reshape(1, 2, 3, 4)
    written = {"a": weight.contiguous(memory_format=torch.channels_last), "b": weight.transpose(1, 3)}
    assert write_tensors(file, written, {}) == read_model(file).weights


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_no_byte_may_change(tmp_path_factory: pytest.TempPathFactory, place: float, flip: int) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.useg"
    digest = write_model(file, 1.5, kind="bundle")
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= flip
    file.write_bytes(content)
    try:
        found = read_model(file)
    except DamagedFile as error:
        assert str(file) in str(error)  # noqa: PT017 - a change of the description alone may go unnoticed
    else:
        assert found.weights == digest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\xff" * 64,
        b"\2\0\0\0\0\0\0\0{}",
        b"\2\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}more",
        b"PK\3\4" * 100,
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.useg").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"a\.useg: not a model or checkpoint that useg wrote"):
        read_model(tmp_path / "a.useg")


def test_what_is_cut_off_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.useg"
    write_tensors(file, {"a": torch.arange(60.0)}, {"kind": "bundle"})
    content = file.read_bytes()
    for length in (4, 8, 100, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(DamagedFile):
            read_model(file)
    file.write_bytes(content + b"x")
    with pytest.raises(DamagedFile, match="something was added"):
        read_model(file)
    with pytest.raises(DamagedFile, match="there is no such file"):
        read_model(tmp_path / "none")
