"""The examples run as they are."""

import os
import subprocess
import sys
from pathlib import Path

from useg.runs.record import RunFolder

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    surroundings = {**os.environ, "USEG_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "own_loop.py")],
        env=surroundings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").iterdir()
    record = RunFolder(path).record()
    assert str(path) in done.stdout
    assert record["status"] == "finished"
    assert abs(record["scores"]["slope"] - 3) < 0.1
    assert len(list((path / "pictures" / "fit").glob("*.webp"))) == 4
