"""An environment is built again as it was recorded, or everything that is missing is named."""

import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from useg.errors import InputError
from useg.runs import rebuilding
from useg.runs.rebuilding import Rebuilt, find_python, rebuild, variables_of

PYTHON = {"version": platform.python_version()}


def wheel(folder: Path, name: str, version: str, content: str = "") -> None:
    """A package of one module, such as an index has."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", content)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for packages."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "a cache"))
    for version in ("1.0", "2.0"):
        wheel(tmp_path / "index", "colours", version, f"red = {version!r}")
    wheel(tmp_path / "index", "useg", "0.1")
    return tmp_path / "index"


def record(packages: dict[str, str], **more: object) -> dict[str, object]:
    return {
        "environment": {"packages": packages, "python": PYTHON} | more,
        "code": {"useg": {"version": "0.1", "installed": "wheel"}},
    }


def nothing(digest: str) -> bytes:
    raise KeyError(digest)


def test_recorded_versions_are_installed_once(index: Path) -> None:
    steps: list[int] = []
    given = record({"colours": "1.0", "pip": "1.2.3"})
    built = rebuild(given, nothing, advance=lambda done, total: steps.append(total))
    said = subprocess.run([built.python, "-c", "import colours; print(colours.red)"], capture_output=True, text=True)
    assert said.stdout == "1.0\n", said.stderr
    assert (built.reused, built.not_the_same, set(steps)) == (False, (), {2})
    (built.folder / "venv" / "kept").touch()
    again = rebuild(given, nothing)
    assert (again.folder, again.reused) == (built.folder, True)
    (built.folder / "whole").unlink()
    old = built.folder.with_name("a" * 20)
    old.mkdir()
    (old / "whole").touch()
    os.utime(old / "whole", (0, 0))
    assert not rebuild(given, nothing).reused
    assert not old.exists(), "what nobody used for long is taken away"
    assert not (built.folder / "venv" / "kept").exists(), "half of an environment is not gone on with"


def test_all_that_cannot_be_had_is_named(index: Path) -> None:
    given = record({"colours": "3.0", "shapes": "1.0", "useg": "0.1"})
    with pytest.raises(InputError, match=r"2 of the recorded packages .*: colours==3\.0, shapes==1\.0\. Give pip"):
        rebuild(given, nothing)
    folder = next(path for path in index.parent.glob("a cache/environments/*") if path.is_dir())
    assert not (folder / "whole").exists()


def test_what_was_installed_from_a_folder(index: Path, tmp_path: Path) -> None:
    source = {"own": {"path": str(tmp_path / "own"), "editable": True}}
    with pytest.raises(InputError, match=r"own was installed from .*own, which is not there: bring it back"):
        rebuild(record({"own": "1"}, sources=source), nothing)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": {}}, "the environment of this run was not recorded"),
        (
            {"environment": {"packages": {"a": "1"}, "python": {"version": "3.2.1"}}},
            "by Python 3.2.1, and this",
        ),
        ({"code": {"useg": {"version": "0.1", "installed": "checkout"}}}, "without git, so its code was not kept"),
    ],
)
def test_what_is_missing_is_said(index: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        rebuild(record({"colours": "1.0"}) | changes, nothing)


def test_the_same_python_is_this_one() -> None:
    assert find_python(PYTHON) == find_python({}) == Path(sys.executable)


def test_no_answer_of_the_index_is_told_as_such(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(InputError, match="no package index could be reached"):
        rebuild(record({"colours": "1.0", "useg": "0.1"}), nothing)


def test_variables_that_change_results_are_those_of_then(tmp_path: Path) -> None:
    now = {"OMP_NUM_THREADS": "8", "MKL_CBWR": "AVX2", "HOME": "/me", "PATH": "/bin", "PYTHONPATH": "/else"}
    then = {"OMP_NUM_THREADS": "2", "LD_PRELOAD": "/evil.so", "TORCH_LOGS": "x", "MKL_FOO": "/a/b", "LANG": "C"}
    found = variables_of(Rebuilt(tmp_path, False, ()), then, now)
    assert found == {"HOME": "/me", "OMP_NUM_THREADS": "2", "PATH": f"{tmp_path}/venv/bin:/bin"}


def test_the_key_depends_on_versions_code_and_python(tmp_path: Path) -> None:
    python = Path(sys.executable)
    keys = {
        rebuilding._key({"packages": {"a": version}, "python": PYTHON}, {"useg": code}, python)
        for version in ("1", "2")
        for code in ({"commit": "c", "root": "/x"}, {"commit": "c", "root": "/y"}, {"commit": "d"})
    }
    assert len(keys) == 4, "the place where the code lay does not count"
