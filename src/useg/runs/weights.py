"""The weights digest of a model file, counted from its bytes without loading torch."""

import json
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from blake3 import blake3

from useg.errors import DamagedFile

_LARGEST_HEADER = 100 * 2**20
_DTYPES = {
    "F64": ("torch.float64", 8),
    "F32": ("torch.float32", 4),
    "F16": ("torch.float16", 2),
    "BF16": ("torch.bfloat16", 2),
    "I64": ("torch.int64", 8),
    "I32": ("torch.int32", 4),
    "I16": ("torch.int16", 2),
    "I8": ("torch.int8", 1),
    "U8": ("torch.uint8", 1),
    "BOOL": ("torch.bool", 1),
}
"""Of each kind of number in a safetensors file, the name that counts in the digest, and bytes."""


class Model(NamedTuple):
    """What a model file says of itself.

    Attributes:
        weights: the digest of its tensors, which are what was written.
        kind: `bundle`, or `checkpoint`.
        about: run, step and scores, by its own word.
    """

    weights: str
    kind: str
    about: dict[str, Any]


def read_model(path: Path) -> Model:
    """The digest and the description of a bundle or a checkpoint, after all of its bytes were compared with it.

    Raises:
        DamagedFile: it is not such a file, or its bytes are not what was written.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            header, start = _header(content)
            about = orjson.loads(header.pop("__metadata__")["useg"])
            said = about["weights"]
            with memoryview(content) as view:
                counted = _digest(header, view, start)
    except FileNotFoundError:
        raise DamagedFile(f"{path}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise DamagedFile(
            f"{path}: not a model or checkpoint that useg wrote: {error or type(error).__name__}"
        ) from None
    if counted != said:
        raise DamagedFile(f"{path}: the weights are not those that were written; fetch the file again")
    described = about.get("about")
    kind = about.get("kind")
    return Model(
        counted, kind if isinstance(kind, str) else "checkpoint", described if isinstance(described, dict) else {}
    )


def _header(content: mmap.mmap) -> tuple[dict[str, Any], int]:
    """A safetensors file's table of tensors, and where their bytes begin."""
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(_LARGEST_HEADER, len(content) - 8):
        raise ValueError("it is no safetensors file, or was cut off")
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("it is no safetensors file")
    return header, 8 + length


def _digest(header: dict[str, Any], content: memoryview, start: int) -> str:
    digest, covered = blake3(), 0
    for name in sorted(header):
        dtype, width = _DTYPES[header[name]["dtype"]]
        shape: list[int] = header[name]["shape"]
        begin, end = header[name]["data_offsets"]
        count = 1
        for size in shape:
            count *= size
        if not 0 <= begin <= end <= len(content) - start or end - begin != width * count or min(shape, default=0) < 0:
            raise ValueError(f"the tensor {name!r} leads out of it")
        digest.update(orjson.dumps([name, dtype, shape]))
        digest.update(content[start + begin : start + end])
        covered += end - begin
    if covered != len(content) - start:
        raise ValueError("it was cut off, or something was added")
    return str(digest.hexdigest())


__all__ = ["Model", "read_model"]
