"""Which run is meant, and what made a model."""

from pathlib import Path

import pytest
from tests.runs.making import finished, write_model, write_run

from useg.errors import InputError
from useg.home.store import Folder
from useg.runs.find import find, find_run, open_runs, origin_of, with_run
from useg.runs.index import asking

IDS = ["20261101-100000-isbi-0a1b", "20261101-100500-isbi-77aa", "20261102-100000-drive-77ab", "20261102-100000"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in IDS:
        write_run(tmp_path / "home", name, finished(1, name=name.split("-")[2] if name != IDS[3] else "best, é"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("text", "meant"),
    [(IDS[0], 0), ("20261101-1005", 1), ("77aa", 1), ("drive", 2), ("20261102-100000", 3), ("best, é", 3), ("0a1b", 0)],
)
def test_what_is_meant(home: Path, text: str, meant: int) -> None:
    assert with_run(str(home), text, lambda store, index, run: run.id) == IDS[meant]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "nothing",
            "no run 'nothing' in .*home \\(the latest there: 20261101-100000-isbi-0a1b, .*20261102-100000-drive",
        ),
        ("isbi", "'isbi' fits 2 runs: 20261101-100000-isbi-0a1b, 20261101-100500-isbi-77aa; give more of the id"),
        ("", "no run ''"),
        ("x" * 100_000, "no run 'xxx"),
        ("a\0/b\n", "no run"),
        ("../..", "no run"),
    ],
)
def test_what_is_refused_is_told(home: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        with_run(str(home), text, lambda store, index, run: run.id)
    assert len(str(refused.value)) < 1000


def test_of_a_run_and_its_repeats_the_first_is_meant(home: Path) -> None:
    for name, parent in (
        ("20261103-100000-drive-1a2b", IDS[2]),
        ("20261104-100000-drive-3c4d", "20261103-100000-drive-1a2b"),
    ):
        write_run(home, name, finished(1, name="drive", parent=parent))
    assert find_run(home, "drive") == home / "runs" / IDS[2]
    assert find_run(home, "1a2b").name == "20261103-100000-drive-1a2b"
    write_run(home, "20261105-100000-drive-5e6f", finished(1, name="drive"))
    with pytest.raises(InputError, match=f"'drive' fits 2 runs: {IDS[2]}, 20261105-100000-drive-5e6f"):
        find_run(home, "drive")


def test_by_the_path_of_its_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = write_run(elsewhere, "far", finished(1))
    found = with_run(str(home), str(folder), lambda store, index, run: (store.url, run.id))
    assert found == (str(elsewhere), "far")
    monkeypatch.chdir(folder.parent)
    assert with_run(str(home), "far", lambda store, index, run: store.url) == str(elsewhere)
    assert with_run(str(home), "./far/", lambda store, index, run: store.url) == str(elsewhere)


def test_removed_ones_count_less(home: Path) -> None:
    from useg.runs.record import append_record

    append_record(Folder(home), IDS[1], {"removed": True})
    assert asking(Folder(home), lambda index: find(index, "isbi").id) == IDS[0]
    assert asking(Folder(home), lambda index: find(index, "77aa").id) == IDS[1]


def test_what_made_a_model(home: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.useg"
    digest = write_model(model, 1.0, kind="bundle", about={"run": IDS[0], "step": 3})
    found = origin_of(Folder(home), model)
    assert found.runs == []
    assert found.says is not None
    assert found.says["run"] == IDS[0]
    write_run(home, "maker", finished(5, weights=digest))
    found = origin_of(Folder(home), model)
    assert [(run["run"], run["scores.mean_dice"], found.says) for run in found.runs] == [("maker", 0.05, None)]
    write_model(model, 0.0, kind="bundle", about={"run": "of another home"})
    assert origin_of(Folder(home), model).says is None


def test_which_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USEG_HOME", raising=False)
    assert open_runs(str(home)).url == str(home)
    assert open_runs("memory:x").url == "memory:x"
    assert open_runs().url == str(Path.cwd() / "useg-home")
    monkeypatch.setenv("USEG_HOME", str(home))
    assert open_runs().url == str(home)
