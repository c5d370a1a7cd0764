"""Files in pieces: what grew is there once and whole, whatever fails; a reader sees a beginning of it at any time."""

import random
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.home.faults import Faulty, Killed

from useg.errors import DamagedFile, ResourceError
from useg.home.store import Folder, Memory, Store
from useg.runs import pieces as pieces_module
from useg.runs.journal import Journal, read_attempt
from useg.runs.pieces import Growing, read_content, read_events

KEY = "runs/run/attempts/1/journal.jsonl"


def whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def pieces(store: Store) -> list[str]:
    return [entry.key for entry in store.list("runs/run/attempts/1/journal/")]


def add(file: Path, content: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(content)


@given(st.lists(st.one_of(st.binary(max_size=30), st.just(b"\n"), st.sampled_from(["ship", "new keeper"]))))
def test_what_is_read_is_what_was_shipped(tmp_path_factory: pytest.TempPathFactory, actions: list) -> None:
    file, store = tmp_path_factory.getbasetemp() / "journal.jsonl", Memory()
    file.unlink(missing_ok=True)
    growing, expected = Growing(file, store, KEY), b""
    for action in actions:
        if action == "ship":
            growing.ship()
            expected = whole_lines(file.read_bytes() if file.exists() else b"")
        elif action == "new keeper":
            growing = Growing(file, store, KEY)
        else:
            add(file, action)
        assert read_content(store, KEY) == expected
        for start in range(0, len(expected) + 1, 7):
            assert read_content(store, KEY, start) == expected[start:]
    growing.finish()
    if file.exists():
        assert store.get(KEY) == file.read_bytes()
        assert read_content(store, KEY) == whole_lines(file.read_bytes())
    assert pieces(store) == []


def test_pieces_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "LARGEST_PIECE", 30_000)
    file, store = tmp_path / "journal.jsonl", Memory()
    growing, most = Growing(file, store, KEY), 0
    for number in range(2500):
        add(file, b'{"step": %d}\n' % number)
        growing.ship()
        most = max(most, len(pieces(store)))
        if number % 400 == 0:
            assert read_content(store, KEY) == file.read_bytes()
            growing = Growing(file, store, KEY)
    assert most < 110
    assert read_content(store, KEY) == file.read_bytes()
    assert sum(entry.size for entry in store.list("runs/run/attempts/1/journal/")) == file.stat().st_size


def test_a_line_longer_than_a_piece_is_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "LARGEST_PIECE", 10)
    file, store = tmp_path / "journal.jsonl", Memory()
    file.write_bytes(b"12\n34\n" + b"x" * 95 + b"\n56\n" + b"y" * 33)
    Growing(file, store, KEY).ship()
    assert read_content(store, KEY) == whole_lines(file.read_bytes())
    assert [entry.size for entry in store.list("runs/run/attempts/1/journal/")] == [6, 99]


def scenario(file: Path, store: Store) -> None:
    """A journal that grows, is shipped in small pieces that are put together, and is finished."""
    file.unlink(missing_ok=True)
    growing = Growing(file, store, KEY)
    for number in range(8):
        add(file, b"line %d\n" % number)
        growing.ship()
    add(file, b"torn")
    growing.finish()


@pytest.mark.parametrize("is_after_effect", [False, True])
@pytest.mark.parametrize("fault", ["killed", "refused"])
def test_nothing_is_lost_or_doubled_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, is_after_effect: bool
) -> None:
    monkeypatch.setattr(pieces_module, "_AT_A_LEVEL", 3)
    file, number = tmp_path / "journal.jsonl", 0
    while True:
        at = {"kill_at": number} if fault == "killed" else {"fail_at": number, "fail_times": 2}
        faulty = Faulty(
            Memory(), **at, is_after_effect=is_after_effect, verbs=("get", "put", "list", "delete")
        )  # fmt: skip
        try:
            scenario(file, faulty)
        except (Killed, ResourceError):
            left = read_content(faulty.inner, KEY)
            assert file.read_bytes().startswith(left)
            assert left.count(b"\n") >= file.read_bytes().count(b"\n") - 1
            growing = Growing(file, faulty.inner, KEY)
            growing.ship()
            assert read_content(faulty.inner, KEY) == whole_lines(file.read_bytes())
            growing.finish()
            assert faulty.inner.get(KEY) == file.read_bytes()
            assert pieces(faulty.inner) == []
        else:
            break
        number += 1
    assert number > 15


def test_the_same_one_goes_on_after_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "_AT_A_LEVEL", 3)
    chance = random.Random(0)
    file, store = tmp_path / "journal.jsonl", Memory()
    faulty = Faulty(store, verbs=("get", "put", "list", "delete"))
    growing, failures = Growing(file, faulty, KEY), 0
    for number in range(300):
        add(file, b"line %d\n" % number)
        faulty.fail_at = faulty.requests() + chance.randrange(6)
        faulty.is_after_effect = chance.random() < 0.5
        try:
            growing.ship()
        except ResourceError:
            failures += 1
        assert file.read_bytes().startswith(read_content(store, KEY))
    faulty.fail_at = None
    growing.ship()
    assert read_content(store, KEY) == file.read_bytes()
    assert failures > 30


class Meanwhile(Memory):
    """A home in which something happens just before a reader's n-th operation."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.happens, self.is_reader = -1, lambda: None, False

    def _count(self) -> None:
        if self.is_reader:
            self.at -= 1
            if self.at == -1:
                self.is_reader = False
                self.happens()
                self.is_reader = True

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._count()
        return super().get(key, start, end)

    def list(self, prefix: str = ""):
        self._count()
        return super().list(prefix)


@pytest.mark.parametrize("what", ["put together", "finished"])
def test_a_reader_in_the_middle_of_it_sees_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(pieces_module, "_AT_A_LEVEL", 4)
    for at in range(8):
        file, store = tmp_path / f"journal-{at}.jsonl", Meanwhile()
        growing = Growing(file, store, KEY)
        for number in range(3):
            add(file, b'{"step":%d}\n' % number)
            growing.ship()
        before = file.read_bytes()
        add(file, b'{"step":3}\n')
        store.at, store.is_reader = at, True
        store.happens = growing.ship if what == "put together" else growing.finish
        found = read_content(store, KEY)
        store.is_reader = False
        assert found in (before, file.read_bytes())
        assert [event["step"] for event in read_events(store, "run", 1)][:3] == [0, 1, 2]


def test_readers_beside_a_writer_see_more_and_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "_AT_A_LEVEL", 4)
    file, store, seen = tmp_path / "journal.jsonl", Memory(), []

    def read() -> None:
        while not seen or seen[-1] < 2000:
            seen.append(len(events := read_events(store, "run", 1)))
            assert [event["step"] for event in events] == list(range(len(events)))

    reader = Thread(target=read)
    reader.start()
    growing = Growing(file, store, KEY)
    for number in range(2000):
        add(file, b'{"step":%d}\n' % number)
        if number % 5 == 0:
            growing.ship()
    growing.finish()
    reader.join(20)
    assert not reader.is_alive()
    assert seen == sorted(seen)


def test_a_missing_piece_is_no_shorter_history(tmp_path: Path) -> None:
    file, store = tmp_path / "journal.jsonl", Memory()
    growing = Growing(file, store, KEY)
    for number in range(3):
        add(file, b'{"step":%d}\n' % number)
        growing.ship()
    store.delete(pieces(store)[1])
    with pytest.raises(DamagedFile, match=r"attempts/1/journal\.jsonl: a piece of it is missing"):
        read_events(store, "run", 1)


def test_events_are_read_as_they_are_here(tmp_path: Path) -> None:
    place = tmp_path / "runs/run/attempts/1"
    place.mkdir(parents=True)
    journal, store = Journal(place / "journal.jsonl"), Memory()
    for number, loss in enumerate([1.5, float("inf"), None]):
        journal.write({"event": "step", "step": number, "loss": loss, "why": "\u2028ä"})
    journal.close()
    add(place / "journal.jsonl", b'{"cut sho\n{"event":"gap"}\n{"torn"')
    expected = read_attempt(place / "journal.jsonl")
    assert [event["event"] for event in expected] == ["step"] * 3 + ["gap"]
    Growing(place / "journal.jsonl", store, KEY).ship()
    assert read_events(store, "run", 1) == read_events(Folder(tmp_path), "run", 1) == expected
    assert read_events(store, "run", 2) == []
    store.put("runs/run/folds/2/attempts/1/journal.jsonl", b'{"step":7}\n')
    assert read_events(store, "run", 1, fold=2) == [{"step": 7}]
