"""Commands called as people call them, in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from useg import cli

SMALL = ["--steps", "2", "--set", "network.base=2", "--set", "network.depth=1", "--set", "network.patch=[16,16]",
         "--set", "train.micro_batch=1", "--set", "train.threads=1", "--set", "train.dtype=float32"]  # fmt: skip
"""Options of a training of a second."""


def call(*arguments: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(a) for a in arguments])
    return leaving.value.code or 0


class Told:
    """Runs commands that must work, and gives what `--json` says; `err` is what the last one said on stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self.err = capsys, ""

    def __call__(self, *arguments: object) -> Any:
        self._capsys.readouterr()
        status = call(*arguments, "--json")
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert status == 0, captured.err
        return json.loads(captured.out.splitlines()[-1])


def save(path: Path, picture: np.ndarray) -> None:
    """A picture of 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.astype(np.uint8)).save(path)
