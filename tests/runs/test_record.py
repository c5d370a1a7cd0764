"""The folder of a run and its record."""

from pathlib import Path

import numpy as np
import pytest

from useg.errors import DamagedFile
from useg.runs.record import RunFolder, now


def test_where_things_lie(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "abc")
    assert folder.id == "abc"
    assert folder.bundle == tmp_path / "runs" / "abc" / "model.useg"
    assert (folder.plan.name, folder.report.name) == ("plan.toml", "report.html")
    assert folder.journal() == []


def test_a_record_is_updated_entry_by_entry(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.update(status="running", n=np.float32(0.5)) == {"status": "running", "n": np.float32(0.5)}
    folder.update(status="finished", path=Path("a"))
    assert folder.record() == {"status": "finished", "n": 0.5, "path": "a"}
    assert (tmp_path / "record.json").read_text().startswith('{\n  "status"')


def test_no_record_and_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"not a run: it has no record.json"):
        RunFolder(tmp_path).record()
    (tmp_path / "record.json").write_text('{"status": ')
    with pytest.raises(DamagedFile, match=r"record\.json: not JSON"):
        RunFolder(tmp_path).record()


def test_other_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("a.json", {1: np.arange(3), "é": None})
    assert (tmp_path / "a.json").read_text() == '{\n  "1": [\n    0,\n    1,\n    2\n  ],\n  "é": null\n}\n'
    folder.write_text("b.txt", "é")
    assert (tmp_path / "b.txt").read_bytes() == "é".encode()
    assert len(now()) == len("2026-01-01T00:00:00+0000")
