"""Where a home is found, runs by name, and files that are there whole or not at all."""

import errno
import os
import threading
from pathlib import Path

import pytest

from useg.errors import InputError, ResourceError
from useg.home.folder import find_home, new_run, write_atomically, writing


def test_the_home_as_given_then_from_the_environment_then_upward(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("USEG_HOME", raising=False)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_home(start=deep) == deep / "useg-home"
    assert not (deep / "useg-home").exists()
    (tmp_path / "useg-home").mkdir()
    assert find_home(start=deep) == tmp_path / "useg-home"
    monkeypatch.setenv("USEG_HOME", str(tmp_path / "other"))
    assert find_home(start=deep) == tmp_path / "other"
    assert find_home(tmp_path / "given", deep) == tmp_path / "given"
    monkeypatch.chdir(tmp_path)
    assert find_home(Path("near")) == tmp_path / "near"


def test_a_home_that_is_a_file(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"--home .*file is a file; a folder was wanted"):
        find_home(tmp_path / "file")
    monkeypatch.setenv("USEG_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(InputError, match=r"USEG_HOME .*below: .*file is a file"):
        find_home()


def test_runs_of_one_second_are_different(tmp_path: Path) -> None:
    made = [new_run(tmp_path, "my run") for _ in range(20)]
    assert len(set(made)) == 20
    assert all(run.is_dir() and "-my-run-" in run.name for run in made)


@pytest.mark.parametrize("name", ["", "a/b", "..", "../x", ".hidden", "x" * 200, "a\nb"])
def test_names_that_would_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--name"):
        new_run(tmp_path, name)
    assert not (tmp_path / "runs").exists()


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    write_atomically(path, memoryview(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch, failing: str) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"one")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(ResourceError, match=r"a\.json: cannot write: No space left on device\. Free space"):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"No such file or directory\. Make its folder"):
        write_atomically(tmp_path / "gone" / "a", b"")
    with pytest.raises(ResourceError, match="cannot write"), writing(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path, stop = tmp_path / "a", threading.Event()
    contents = {bytes([letter]) * 100_000 for letter in b"ab"}
    write_atomically(path, b"a" * 100_000)
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for content in sorted(contents):
            write_atomically(path, content)
    stop.set()
    reader.join()
    assert seen <= contents
