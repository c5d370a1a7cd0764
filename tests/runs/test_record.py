"""The folder of a run and its record."""

from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "a")


def test_a_record_is_updated_entry_by_entry(folder: RunFolder) -> None:
    assert folder.update(status="running", n=np.float32(0.5)) == {"status": "running", "n": 0.5}
    folder.update(status="finished", path=Path("a"))
    assert folder.record() == {"status": "finished", "n": 0.5, "path": "a"}
    assert (folder.path / "record" / "00000001").read_text() == '{\n  "status": "running",\n  "n": 0.5\n}\n'
    assert sorted(path.name for path in (folder.path / "record").iterdir()) == ["00000001", "00000002"]


def test_writers_at_the_same_time_lose_nothing(folder: RunFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: folder.update(**{f"field{number}": number}), range(24)))
    assert folder.record() == {f"field{number}": number for number in range(24)}


def test_records_of_before_are_read(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "record.json").write_text('{"status": "finished", "run": "a"}')
    assert folder.record() == {"status": "finished", "run": "a"}
    assert folder.update(status="running") == {"status": "running", "run": "a"}


def test_no_record_and_a_broken_one(folder: RunFolder) -> None:
    with pytest.raises(DamagedFile, match=r"runs/a: not a run: it has no record"):
        folder.record()
    (folder.path / "record").mkdir(parents=True)
    (folder.path / "record" / "00000001").write_text('{"status": ')
    with pytest.raises(DamagedFile, match=r"record/00000001: not a JSON object"):
        folder.record()


def test_other_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("a.json", {1: np.arange(3), "é": None})
    assert (tmp_path / "a.json").read_text() == '{\n  "1": [\n    0,\n    1,\n    2\n  ],\n  "é": null\n}\n'
    folder.write_text("b.txt", "é")
    assert (tmp_path / "b.txt").read_bytes() == "é".encode()
    assert len(now()) == len("2026-01-01T00:00:00+0000")
