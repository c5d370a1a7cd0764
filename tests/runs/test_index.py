"""The index of runs: always what the files say, whoever changes them, and whatever happens to it."""

import math
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.runs.making import add_entry, finished, write_run

from useg.errors import InputError
from useg.home.store import Folder, Memory, Store
from useg.runs.changes import signs_of
from useg.runs.index import Index, asking, index_file
from useg.runs.selecting import select


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "home"


def table(store: Store, rebuild: bool = False) -> dict[str, dict[str, Any]]:
    return asking(store, lambda index: {run.id: index.values(run) for run in index.runs()}, rebuild=rebuild)


def counting(store: Store) -> int:
    """How many runs are read by a look."""
    index = Index(store, index_file(store))
    try:
        return index.refresh().read
    finally:
        index.close()


def test_what_it_holds(home: Path) -> None:
    journal = [
        {"event": "step", "step": 1, "loss": 2.0},
        {"event": "validation", "step": 1, "scores": {"mean_dice": 0.3}},
    ]
    journal += [{"event": "step", "step": 2, "loss": "NaN", "time": 5.0}]
    write_run(home, "a", finished(3), {"tags": ["x", "y"], "note": "né\n"}, journal=journal)
    found = table(Folder(home))["a"]
    assert (found["run"], found["status"], found["name"]) == ("a", "finished", "run 3")
    assert (found["config.train.lr"], found["scores.classes.cell.dice"], found["seconds"]) == (1e-4, 0.03, 90.0)
    assert (found["tags"], found["note"], found["environment.packages.torch"]) == (["x", "y"], "né\n", "2.13.0")
    assert (found["last.step"], found["last.mean_dice"], "last.time" in found) == (2, 0.3, False)
    assert math.isnan(found["last.loss"])


def test_only_what_changed_is_read(home: Path) -> None:
    folders = [write_run(home, f"r{number}", finished(number)) for number in range(5)]
    store = Folder(home)
    assert counting(store) == 5
    assert counting(store) == 0
    add_entry(folders[2], {"note": "later"})
    write_run(home, "new", finished(9))
    shutil.rmtree(folders[3])
    assert counting(store) == 2
    found = table(store)
    assert sorted(found) == ["new", "r0", "r1", "r2", "r4"]
    assert found["r2"]["note"] == "later"
    assert counting(store) == 0


def test_changes_within_one_tick_are_seen(home: Path) -> None:
    folder = write_run(home, "a", finished(1))
    write_run(home, "b", finished(2))
    store = Folder(home)
    table(store)
    before = (folder / "record").stat()
    add_entry(folder, {"note": "at the same time"})
    os.utime(folder / "record", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert table(store)["a"]["note"] == "at the same time"
    add_entry(folder, {"note": "once more"})
    os.utime(folder / "record", ns=(before.st_atime_ns, before.st_mtime_ns))
    later = write_run(home, "c", finished(3)) / "record"
    os.utime(later, ns=(before.st_atime_ns, before.st_mtime_ns + 10**10))
    assert table(store)["a"]["note"] == "once more", "also when a later change makes that one old"
    assert counting(store) == 0


def test_runs_that_go_on_are_followed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = "running"
    monkeypatch.setattr("useg.runs.index._status", lambda store, run: status)
    folder = write_run(home, "a", {"status": "running"}, journal=[{"event": "step", "step": 1, "loss": 1.0}])
    store = Folder(home)
    assert table(store)["a"] | {"last.step": 1, "status": "running"} == table(store)["a"]
    with (folder / "attempts" / "1" / "journal.jsonl").open("ab") as file:
        file.write(b'{"event":"step","step":7,"loss":0.5}\n{"event":"st')
    assert table(store)["a"]["last.step"] == 7
    status = "dead"
    assert table(store)["a"]["status"] == "dead"
    assert asking(store, lambda index: [run.id for run in select(index, "status = 'dead'")]) == ["a"]
    status = "running"
    assert table(store)["a"]["status"] == "dead", "nothing moved: it is not asked again"
    (folder / "attempts" / "2").mkdir()
    assert table(store)["a"]["status"] == "running"
    add_entry(folder, {"status": "finished"})
    assert table(store)["a"]["status"] == "finished"


def test_status_is_that_of_the_lease(home: Path) -> None:
    from useg.runs.lease import claim_attempt

    store = Folder(home)
    write_run(home, "a", {"status": "running"})
    claim_attempt(store, "a")
    assert table(store)["a"]["status"] == "running"
    (home / "runs" / "a" / "attempts" / "1" / "end.json").write_text('{"signal": "SIGKILL"}')
    assert table(store)["a"]["status"] == "dead"


def test_what_cannot_be_read_is_told(home: Path) -> None:
    write_run(home, "sound", finished(1))
    (home / "runs" / "empty").mkdir()
    broken = write_run(home, "broken", finished(2))
    (broken / "record" / "00000002").write_text("{")
    (home / "runs" / "with\nnewline" / "record").mkdir(parents=True)
    (home / "runs" / "file").write_text("")
    problems = asking(Folder(home), lambda index: {run.id: run.problem for run in index.runs()})
    assert problems.keys() == {"sound", "empty", "broken", "with\nnewline"}
    assert problems["sound"] == ""
    assert "no record" in problems["empty"]
    assert "00000002: not a JSON object" in problems["broken"]
    assert asking(Folder(home), lambda index: [run.id for run in select(index)]) == ["sound"]
    (broken / "record" / "00000002").unlink()
    assert asking(Folder(home), lambda index: len(select(index))) == 2


def test_values_of_all_kinds(home: Path) -> None:
    config = {"yes": True, "no": False, "big": 2**63 + 5, "inf": 1e308, "none": None, "list": [1, None, {"a": 2.5}],
              "a.b": 1, "a/b\n": "x\0y", "": "nameless", "é": "ü" * 10, "text": "1", "deep": {}}  # fmt: skip
    write_run(home, "a", finished(1, config=config, note="n" * 10_000_000))
    found = table(Folder(home))["a"]
    assert {name: found.get(f"config.{name}") for name in config} == config | {"big": 2**63 + 5, "deep": None} or (
        found["config.big"] in (str(2**63 + 5), float(2**63 + 5))
    )
    assert found["config.yes"] is True
    assert found["config.list"] == [1, None, {"a": 2.5}]
    assert len(found["note"]) == 10_000_000


def test_a_hundred_thousand_names(home: Path) -> None:
    event = {"event": "step", "step": 5} | {f"metric {number}": float(number) for number in range(100_000)}
    write_run(home, "a", finished(1), journal=[{"event": "step", "step": 1}, event])
    store = Folder(home)
    assert asking(store, lambda index: len(index.names())) > 100_000
    assert asking(store, lambda index: [run.id for run in select(index, '"last.metric 99999" = 99999')]) == ["a"]
    with pytest.raises(InputError, match="no run has a field 'metrik'"):
        asking(store, lambda index: select(index, "metrik = 1"))


def test_old_runs_have_their_settings_from_other_files(home: Path) -> None:
    folder = home / "runs" / "old"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"status": "finished", "name": "old", "started": "2026-11-22T20:49:56+0000"}')
    (folder / "config.json").write_text('{"train": {"lr": 0.5}}')
    (folder / "plan.toml").write_text("steps = 7\n")
    found = table(Folder(home))["old"]
    assert (found["config.train.lr"], found["plan.steps"], found["status"]) == (0.5, 7, "finished")
    (folder / "record.json").write_text('{"status": "stopped", "name": "old"}')
    assert table(Folder(home))["old"]["status"] == "stopped"


@pytest.mark.parametrize("damage", ["noise", "half", "other format", "no table", "empty"])
def test_a_damaged_index_is_made_anew(home: Path, damage: str) -> None:
    for number in range(30):
        write_run(home, f"r{number:02d}", finished(number))
    store, file = Folder(home), index_file(Folder(home))
    before = table(store)
    content = file.read_bytes()
    if damage == "noise":
        file.write_bytes(content[:100] + os.urandom(len(content) - 100))
    elif damage == "half":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA user_version = 99" if damage == "other format" else "DROP TABLE names")
        connection.commit()
        connection.close()
    assert table(store) == before
    assert counting(store) == 0


def test_rebuilding_gives_the_same(home: Path) -> None:
    for number in range(12):
        write_run(home, f"r{number}", finished(number))
    before = table(Folder(home))
    assert table(Folder(home), rebuild=True) == before


def test_without_a_place_for_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(home, "a", finished(1))
    blocked = home / "file"
    blocked.write_text("")
    monkeypatch.setenv("USEG_CACHE", str(blocked))
    assert sorted(table(Folder(home))) == ["a"]


def test_without_a_home(home: Path) -> None:
    assert table(Folder(home)) == {}
    (home / "runs").mkdir(parents=True)
    assert table(Folder(home)) == {}


def test_another_kind_of_home(home: Path) -> None:
    store = Memory("memory:runs")
    for number in range(3):
        store.put(f"runs/r{number}/record/00000001", orjson.dumps(finished(number)))
    journal = b'{"event":"step","step":4,"loss":0.25}\n'
    store.put(f"runs/r1/attempts/1/journal/{len(journal):012d}.jsonl", journal)
    assert table(store)["r1"]["last.step"] == 4
    assert counting(store) == 0
    store.put("runs/r2/record/00000002", b'{"note": "x"}')
    assert counting(store) == 1
    assert table(store)["r2"]["note"] == "x"
    assert signs_of(store, {}).keys() == {"r0", "r1", "r2"}


def test_sorting(home: Path) -> None:
    rows: dict[str, Any] = {"a": 2.0, "b": 10, "c": None, "d": 1e300, "e": "text", "f": 2.0}
    for name, value in rows.items():
        write_run(home, name, finished(1, value=value, started=f"2026-11-22T10:00:00+0{ord(name) % 7}00"))
    write_run(home, "g", finished(1))
    add_entry(home / "runs" / "g", {"removed": True})

    def order(sort: str, **more: Any) -> str:
        return "".join(asking(Folder(home), lambda index: [run.id for run in select(index, None, sort, **more)]))

    assert order("value") == "fabdec"
    assert order("-value") == "edbfac"
    assert order("value, run") == "afbdec"
    assert order("started") == "afedcb"
    assert order("run", removed=True) == "abcdefg"
    assert asking(Folder(home), lambda index: [run.id for run in select(index, "removed")]) == ["g"]


class Runs(RuleBasedStateMachine):
    """The index against what all records say, whatever is done to them."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.twin: dict[str, dict[str, Any]] = {}

    @rule(name=st.sampled_from("abcd"), note=st.integers(0, 3))
    def add(self, name: str, note: int) -> None:
        entry = {"status": "finished", "note": note}
        if name in self.twin:
            add_entry(self.home / "runs" / name, entry)
        else:
            write_run(self.home, name, entry)
        self.twin[name] = {"run": name} | entry

    @rule(name=st.sampled_from("abcd"))
    def delete(self, name: str) -> None:
        if self.twin.pop(name, None):
            shutil.rmtree(self.home / "runs" / name)

    @rule()
    def lose(self) -> None:
        index_file(Folder(self.home)).unlink(missing_ok=True)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "home"):
            assert table(Folder(self.home)) == self.twin

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=10, stateful_step_count=10, deadline=None)

LOOK = """
import sys
from useg.home.store import open_store
from useg.runs.index import asking
from useg.runs.selecting import select
print(len(asking(open_store(sys.argv[1]), lambda index: select(index, "score.dice >= 0"))))
"""


def look_at_once(home: Path, count: int) -> list[str]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LOOK, str(home)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(count)
    ]
    return [process.communicate(timeout=300)[0] for process in started]


def test_several_processes_at_once(home: Path) -> None:
    for number in range(40):
        write_run(home, f"r{number}", finished(number))
    assert look_at_once(home, 4) == ["40\n"] * 4


@pytest.mark.slow
def test_64_processes_at_once(home: Path) -> None:
    for number in range(100):
        write_run(home, f"r{number}", finished(number))
    assert look_at_once(home, 64) == ["100\n"] * 64
