import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.home.faults import Faulty, crashes

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home.refs import Moved, check_name, delete_ref, list_refs, move_ref, read_ref, ref_log
from useg.home.store import Folder, Memory, Store, open_store

ROOT = Path(__file__).parents[2]
NAMES = (
    "data/cells/branches/main",
    "data/cells/branches/main/fix",
    "data/cells/branches",
    "data/20261122/00000001",
    "x",
)


def digest(number: int) -> str:
    return f"{number:064x}"


class Names(RuleBasedStateMachine):
    """Moves, deletions and stale moves against a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = Memory()
        self.twin: dict[str, list[str | None]] = {}

    def stands(self, name: str) -> int:
        log = self.twin.get(name, [])
        return len(log) if log and log[-1] is not None else 0

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 9))
    def move(self, name: str, number: int) -> None:
        entry = move_ref(self.store, name, {"to": digest(number), "names": []}, expected=self.stands(name))
        self.twin.setdefault(name, []).append(digest(number))
        assert entry.number == len(self.twin[name])
        assert entry.record["to"] == digest(number)

    @rule(name=st.sampled_from(NAMES), wrong=st.integers(0, 4))
    def move_from_elsewhere(self, name: str, wrong: int) -> None:
        if wrong == self.stands(name):
            return
        with pytest.raises(Moved, match="has been moved under you") as caught:
            move_ref(self.store, name, {"to": digest(1)}, expected=wrong)
        assert (caught.value.now.number if caught.value.now else 0) == self.stands(name)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        delete_ref(self.store, name)
        if self.stands(name):
            self.twin[name].append(None)

    @invariant()
    def is_what_the_twin_is(self) -> None:
        for name in NAMES:
            log = self.twin.get(name, [])
            assert [(entry.number, entry.record["to"]) for entry in ref_log(self.store, name)] == [
                (number + 1, log[number]) for number in reversed(range(len(log)))
            ]
            now = read_ref(self.store, name)
            assert (now.record["to"] if now else None) == (log[-1] if log else None)
        for prefix in ("", "data/", "data/cells/branches/m", "data/cells/branches", "y"):
            there = sorted(name for name in NAMES if name.startswith(prefix) and self.stands(name))
            assert list_refs(self.store, prefix) == there


TestNames = Names.TestCase
TestNames.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


def write(url: str, writer: int, moves: int) -> list[tuple[int, int]]:
    """Move a name some times, each time from where it stands, and tell which numbers these moves have got."""
    return write_to(open_store(url), writer, moves)


def write_to(store: Store, writer: int, moves: int) -> list[tuple[int, int]]:
    got = []
    for move in range(moves):
        while True:
            now = read_ref(store, "data/x/branches/main")
            record: dict[str, Any] = {"to": digest(writer * 1000 + move), "parent": now.record["to"] if now else None}
            try:
                entry = move_ref(store, "data/x/branches/main", record, expected=now.number if now else 0)
            except Moved:
                continue
            got.append((entry.number, writer * 1000 + move))
            break
    return got


def check_nothing_lost(store: Store, got: list[list[tuple[int, int]]], moves: int) -> None:
    everything = sorted(entry for each in got for entry in each)
    assert [number for number, _ in everything] == list(range(1, len(got) * moves + 1))
    log = ref_log(store, "data/x/branches/main")[::-1]
    assert [(entry.number, entry.record["to"]) for entry in log] == [(n, digest(what)) for n, what in everything]
    assert [entry.record["parent"] for entry in log] == [None, *(entry.record["to"] for entry in log[:-1])]


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_of_many_threads_none_loses_a_move(kind: str, tmp_path: Path) -> None:
    store = Folder(tmp_path) if kind == "folder" else Memory()
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda writer: write_to(store, writer, 8), range(4)))
    check_nothing_lost(store, got, 8)


def test_of_several_processes_none_loses_a_move(tmp_path: Path) -> None:
    program = "import sys; from tests.home.test_refs import write; print(write(sys.argv[1], int(sys.argv[2]), 8))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(writer)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for writer in range(3)
    ]
    got = [ast.literal_eval(process.communicate(timeout=60)[0]) for process in processes]
    check_nothing_lost(Folder(tmp_path), got, 8)


def test_of_several_writers_to_a_bucket_none_loses_a_move(s3_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda writer: write(s3_url, writer, 3), range(2)))
    check_nothing_lost(open_store(s3_url), got, 3)


def test_a_killed_move_is_done_or_not_begun() -> None:
    def fresh() -> Store:
        store = Memory()
        move_ref(store, "x", {"to": digest(1)}, expected=0)
        return store

    left = []
    for store in crashes(fresh, lambda store: move_ref(store, "x", {"to": digest(2)}, expected=1)):
        now = read_ref(store, "x")
        assert now
        left.append((now.number, now.record["to"]))
        again = move_ref(store, "x", {"to": digest(3)}, expected=now.number)
        assert again.number == now.number + 1
    assert left == [(1, digest(1)), (2, digest(2))]


class LosesItsAnswer(Memory):
    """Writes, but says that something was there: what a client sees that sends a request again."""

    def put(self, key: str, content: bytes | Path) -> bool:
        super().put(key, content)
        return False


def test_a_mover_knows_its_own_entry_when_the_answer_was_lost() -> None:
    assert move_ref(LosesItsAnswer(), "x", {"to": digest(1)}, expected=0).number == 1


def test_two_movers_of_the_same_to_the_same_are_told_apart() -> None:
    store = Memory()
    stale = Faulty(store, verbs=())
    move_ref(store, "x", {"to": digest(1)}, expected=0)
    stale.list = lambda prefix="": iter(())  # type: ignore[method-assign]  # has looked before the other one wrote
    with pytest.raises(Moved):
        move_ref(stale, "x", {"to": digest(1)}, expected=0)


def test_deleting_from_a_stale_place_is_refused() -> None:
    store = Memory()
    move_ref(store, "x", {"to": digest(1)}, expected=0)
    move_ref(store, "x", {"to": digest(2)}, expected=1)
    with pytest.raises(Moved, match=f"it stands at {digest(2)[:12]}"):
        delete_ref(store, "x", expected=1)
    delete_ref(store, "x", expected=2)
    with pytest.raises(Moved, match="it is not there any more"):
        move_ref(store, "x", {"to": digest(3)}, expected=2)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "a/", "/a", "a//b", "..", "a/../b", "a..b", ".a", "-a", "a b", "a@b", "a~1", "a.", "a\0", "a\n"),
        *("e\u0301", "a" * 101, "a/" * 300 + "a", "x" * 5000),
    ],
)
def test_names_are_checked(name: str) -> None:
    with pytest.raises(InputError, match="cannot be a name"):
        check_name(name)
    for verb in (read_ref, ref_log, delete_ref):
        with pytest.raises(InputError, match="cannot be a name"):
            verb(Memory(), name)
    with pytest.raises(InputError, match="cannot be a name"):
        move_ref(Memory(), name, {"to": digest(1)}, expected=0)


def test_names_of_words_are_names() -> None:
    for name in ("a", "v1.0", "Zürich/2026-11-22", "data/cells_2/branches/fix-3", "a" * 100):
        check_name(name)
        assert move_ref(Memory(), name, {"to": digest(1)}, expected=0).number == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"to": 3}', b"\xff", b"null"])
def test_a_damaged_entry_is_named(content: bytes) -> None:
    store = Memory("memory:home")
    move_ref(store, "x", {"to": digest(1)}, expected=0)
    store.put("refs/x/00000002", content)
    for look in (read_ref, ref_log, delete_ref):
        with pytest.raises(DamagedFile, match="memory:home/refs/x/00000002: not an entry of a name"):
            look(store, "x")
    with pytest.raises(DamagedFile, match="00000002"):
        list_refs(store)


def test_a_full_disk_leaves_the_name_where_it_was() -> None:
    store = Memory()
    move_ref(store, "x", {"to": digest(1)}, expected=0)
    with pytest.raises(ResourceError, match="No space left"):
        move_ref(Faulty(store, fail_at=0), "x", {"to": digest(2)}, expected=1)
    now = read_ref(store, "x")
    assert now
    assert now.record["to"] == digest(1)


def test_the_files_are_what_the_format_says(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    move_ref(store, "data/x/tags/v1", {"to": digest(5), "records": [digest(5)]}, expected=0)
    delete_ref(store, "data/x/tags/v1")
    folder = tmp_path / "refs" / "data" / "x" / "tags" / "v1"
    assert sorted(os.listdir(folder)) == ["00000001", "00000002"]
    written = orjson.loads((folder / "00000001").read_bytes())
    assert (written["to"], written["records"]) == (digest(5), [digest(5)])
    assert orjson.loads((folder / "00000002").read_bytes())["to"] is None


def test_a_record_without_a_digest_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="needs a digest"):
        move_ref(Memory(), "x", {"to": None}, expected=0)
