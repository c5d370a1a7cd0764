"""Runs as tables: every value is in the file as it was."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from useg.errors import InputError, ResourceError
from useg.runs.export import write_rows

ROWS: list[dict[str, Any]] = [
    {
        "run": "a",
        "loss": 1,
        "flag": True,
        "tags": ["x", "é"],
        "mixed": 1,
        "text": 'a,"b"\nc',
        "none": None,
        "big": 2**70,
    },
    {"run": "b", "loss": math.nan, "mixed": "1", "text": "\udcff", "late/name": 2},
    {"run": "c", "loss": -math.inf, "flag": False, "big": 1},
]


def test_csv(tmp_path: Path) -> None:
    count, columns = write_rows(tmp_path / "a.csv", "csv", lambda: ROWS, ("run", "nothing", "text"))
    assert (count, columns) == (3, ["run", "text", "big", "flag", "late/name", "loss", "mixed", "none", "tags"])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["1", "nan", "-inf"]
    assert [row["text"] for row in rows] == ['a,"b"\nc', "\\udcff", ""]
    assert [row["flag"] for row in rows] == ["true", "", "false"]
    assert json.loads(rows[0]["tags"]) == ["x", "é"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]


def test_parquet(tmp_path: Path) -> None:
    write_rows(tmp_path / "a", "parquet", lambda: iter(ROWS))
    table = pq.read_table(tmp_path / "a")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {"run": "string", "loss": "double", "flag": "bool", "tags": "string", "mixed": "string",
                     "text": "string", "none": "string", "big": "string", "late/name": "int64"}  # fmt: skip
    found = table.to_pylist()
    assert [row["mixed"] for row in found] == ["1", "1", None]
    assert [row["flag"] for row in found] == [True, None, False]
    assert math.isnan(found[1]["loss"])
    assert (found[0]["loss"], found[2]["loss"], found[0]["big"]) == (1.0, -math.inf, str(2**70))


def test_json(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.json", "json", lambda: ROWS)
    found = json.loads((tmp_path / "a.json").read_text())
    assert [row["loss"] for row in found] == [1, None, None]
    assert found[0]["tags"] == ["x", "é"]
    assert {len(row) for row in found} == {9}


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_no_rows_and_many(tmp_path: Path, form: Any) -> None:
    assert write_rows(tmp_path / "none", form, lambda: []) == (0, [])
    rows = [{"n": number} for number in range(12_000)]
    assert write_rows(tmp_path / "many", form, lambda: rows) == (12_000, ["n"])
    if form == "parquet":
        assert pq.read_table(tmp_path / "many")["n"].to_pylist() == list(range(12_000))


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted a file, in a folder that is there"):
        write_rows(tmp_path, "csv", lambda: ROWS)
    with pytest.raises(InputError, match="wanted a file"):
        write_rows(tmp_path / "none" / "a", "csv", lambda: ROWS)
    with pytest.raises(ResourceError, match="cannot write"):
        write_rows(Path("/proc/a.csv"), "csv", lambda: ROWS)


def test_what_was_there_stays_when_rows_fail(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("before")
    calls = []

    def rows() -> Any:
        calls.append(1)
        yield ROWS[0]
        if len(calls) == 2:
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        write_rows(tmp_path / "a.csv", "csv", rows)
    assert (tmp_path / "a.csv").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1
