"""Runs that were taken away go for good when the time of grace is over, and no others."""

from pathlib import Path

import pytest
from tests.runs.making import finished, write_run

from useg.home.store import Entry, Folder, Memory, Store
from useg.runs.index import asking
from useg.runs.record import append_record
from useg.runs.removing import delete_removed


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    for name in ("kept", "gone", "back"):
        write_run(tmp_path / "home", name, finished(1, name=name))
    folder = Folder(tmp_path / "home")
    found = folder
    if request.param == "memory":
        found = Memory()
        for entry in folder.list():
            found.put(entry.key, folder.get(entry.key))
    for name in ("gone", "back"):
        append_record(found, name, {"removed": True})
    append_record(found, "back", {"removed": False})
    return found


def keys(store: Store, run: str) -> list[str]:
    return [entry.key for entry in store.list(f"runs/{run}/")]


def test_what_was_taken_away_goes_and_the_rest_stays(store: Store) -> None:
    before = {name: keys(store, name) for name in ("kept", "back")}
    size = sum(entry.size for entry in store.list("runs/gone/"))
    assert delete_removed(store, grace_s=3600).runs == ()
    assert keys(store, "gone")
    done = delete_removed(store, grace_s=-5)
    assert (done.runs, done.bytes) == (("gone",), size)
    assert keys(store, "gone") == []
    assert {name: keys(store, name) for name in before} == before
    assert sorted(run.id for run in asking(store, lambda index: index.runs())) == ["back", "kept"]
    assert delete_removed(store, grace_s=-5).runs == ()


def test_killed_in_between_it_still_is_taken_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(store, Folder):
        monkeypatch.setattr("useg.runs.removing.shutil.rmtree", lambda folder, **_: None)
        delete_removed(store, grace_s=-5)
        assert keys(store, "gone") == []
        monkeypatch.undo()
    else:
        key = keys(store, "gone")[0]
        for entry in list(store.list("runs/gone/"))[:-1]:
            store.delete(entry.key)
        assert key not in keys(store, "gone")
        assert [bool(run.removed) for run in asking(store, lambda index: index.runs()) if run.id == "gone"] == [True]
    delete_removed(store, grace_s=-5)
    assert not [entry for entry in store.list("runs/") if "gone" in entry.key]
    if isinstance(store, Folder):
        assert {path.name for path in Path(store.root, "runs").iterdir()} == {"kept", "back"}


def test_grace_is_counted_by_the_clock_of_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    modified = max(entry.modified for entry in store.list("runs/gone/record/"))
    monkeypatch.setattr(type(store), "time", lambda self: modified + 99.0)
    assert delete_removed(store, grace_s=100).runs == ()
    assert isinstance(next(iter(store.list("runs/gone/"))), Entry)
    assert delete_removed(store, grace_s=98).runs == ("gone",)
