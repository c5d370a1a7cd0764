import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "bench" / "run.py"

SCRIPT = """
import json, pathlib, sys
ROWS = {"small": [1], "large": [1000]}
def main():
    with pathlib.Path("count").open("a") as file:
        file.write(sys.argv[1] + " ")
    print("talk")
    print(json.dumps({"size": int(sys.argv[1])}))
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "sizes.py").write_text(SCRIPT)

    def run(*arguments):
        command = [sys.executable, str(RUN), "--scripts", "scripts", "--out", "out", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    run.folder = tmp_path
    return run


def test_rows_are_measured_once_and_go_on_where_they_stopped(bench):
    (bench.folder / "scripts" / "alone.py").write_text("import json\nprint(json.dumps(7))")
    assert bench("--list").stdout.split() == ["missing", "alone", "missing", "small", "missing", "large"]
    assert bench("--only", "small").returncode == 0
    assert (bench.folder / "count").read_text() == "1 "
    done = bench()
    assert (bench.folder / "count").read_text() == "1 1000 "
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [
        ["alone", "7"],
        ["small", '{"size": 1}'],
        ["large", '{"size": 1000}'],
    ]
    bench("--again", "--only", "small")
    assert (bench.folder / "count").read_text() == "1 1000 1 "
    record = json.loads((bench.folder / "out" / "large.json").read_text())
    assert record["command"] == ["python", "sizes.py", "1000"]
    assert record["machine"]["cores"] >= 1
    assert record["seconds"] > 0


@pytest.mark.parametrize("script", ["raise SystemExit(3 if __name__ == '__main__' else 0)", "print('no JSON')"])
def test_a_row_that_fails_is_told_and_leaves_no_result(bench, script):
    (bench.folder / "scripts" / "broken.py").write_text(f"if __name__ == '__main__':\n    {script}")
    done = bench()
    assert done.returncode == 1
    assert "broken: " in done.stderr
    assert not (bench.folder / "out" / "broken.json").exists()
    assert (bench.folder / "out" / "small.json").exists()
