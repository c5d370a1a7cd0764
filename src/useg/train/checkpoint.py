"""Checkpoints: everything a run needs to go on, in one file that is there whole or not at all."""

import re
from pathlib import Path
from typing import Any

import orjson
import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from useg.errors import DamagedFile
from useg.home.folder import write_atomically

_NAME = re.compile(r"step-(\d{8})\.safetensors")


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """BLAKE3 over the sorted (name, dtype, shape, bytes) of tensors, as hex: what they are, not how stored."""
    digest = blake3()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(orjson.dumps([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return str(digest.hexdigest())


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> str:
    """Write tensors and a JSON header as one safetensors file, atomically; returns the tensors' digest."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = tensors_digest(plain)
    text = orjson.dumps({**header, "weights": digest}, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    write_atomically(path, save(plain, metadata={"useg": text}))
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file by `write_tensors`.

    Raises:
        DamagedFile: not such a file, or its bytes are not what was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = orjson.loads((file.metadata() or {}).get("useg", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise DamagedFile(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedFile(f"{path}: not a readable model or checkpoint: {error}") from error
    if not isinstance(header, dict) or "weights" not in header:
        raise DamagedFile(f"{path}: a safetensors file, but not one that useg wrote")
    if tensors_digest(tensors) != header["weights"]:
        raise DamagedFile(f"{path}: the weights are not those that were written; fetch the file again")
    return tensors, header


class Checkpoints:
    """The checkpoint folder of one attempt's run: the newest `keep` files, plus those marked to stay."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps that have a file, ascending."""
        names = (_NAME.fullmatch(p.name) for p in self.folder.glob("step-*.safetensors"))
        return sorted(int(match[1]) for match in names if match)

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies."""
        return self.folder / f"step-{step:08d}.safetensors"

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write one; only then older ones go."""
        from useg.home.folder import writing

        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self.path(step), tensors, {"format": 1, "step": step, "state": state})
        for old in self.steps()[: -self.keep]:
            self.path(old).unlink(missing_ok=True)

    def latest(self, at_most: int | None = None) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """The newest readable checkpoint (a damaged one is passed over), or None."""
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                continue
            try:
                tensors, header = read_tensors(self.path(step))
            except DamagedFile:
                continue
            return step, tensors, header["state"]
        return None
