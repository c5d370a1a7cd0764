"""Journals and logs of a run: the same whether whole or in pieces, and read on from where one was."""

from pathlib import Path

import orjson
from hypothesis import given
from hypothesis import strategies as st

from useg.home.store import Entry, Folder, Memory
from useg.runs.following import Follower, events_of_runs, growing_files, history, last_values
from useg.runs.journal import read_journal


def lines(*events: dict[str, object]) -> bytes:
    return b"".join(orjson.dumps(event) + b"\n" for event in events)


def step(number: int, **more: object) -> dict[str, object]:
    return {"event": "step", "step": number, "loss": number / 10} | more


FIRST = [{"event": "started", "step": 0}, *(step(n) for n in range(1, 6)), {"event": "decision", "step": 5, "stop": 9}]
SECOND = [{"event": "resumed", "step": 3}, *(step(n, loss=1.0) for n in (4, 5, 6))]


def attempt(home: Path, number: int, content: bytes, fold: str = "") -> Path:
    place = home / "runs" / "a" / fold / "attempts" / str(number)
    place.mkdir(parents=True)
    (place / "journal.jsonl").write_bytes(content)
    return place


def test_history_is_that_of_the_journal(tmp_path: Path) -> None:
    attempt(tmp_path, 2, lines(*SECOND) + b'{"event": "st')
    attempt(tmp_path, 1, lines(*FIRST))
    attempt(tmp_path, 10, lines({"event": "resumed", "step": 6}, step(7, loss="NaN")))
    found = history(Folder(tmp_path), "a")
    assert str(found) == str(read_journal(tmp_path / "runs" / "a"))
    assert [event["step"] for event in found if event["event"] == "step"] == [1, 2, 3, 4, 5, 6, 7]


def test_folds_are_histories_of_their_own(tmp_path: Path) -> None:
    for fold in (0, 1):
        attempt(tmp_path, 1, lines(*FIRST), f"folds/{fold}")
        attempt(tmp_path, 2, lines(*SECOND), f"folds/{fold}")
    found = history(Folder(tmp_path), "a")
    assert [(e["fold"], e["step"]) for e in found if e["event"] == "step"] == [
        (f, s) for f in (0, 1) for s in range(1, 7)
    ]


@given(cuts=st.sets(st.integers(0, len(FIRST)), max_size=4))
def test_pieces_are_the_whole(cuts: set[int]) -> None:
    whole, pieces = Memory("memory:a"), Memory("memory:b")
    whole.put("runs/a/attempts/1/journal.jsonl", lines(*FIRST))
    ends = sorted(cuts | {len(FIRST)} - {0})
    for begin, end in zip([0, *ends], ends, strict=False):
        key = f"runs/a/attempts/1/journal/{len(lines(*FIRST[:end])):012d}.jsonl"
        if end > begin:
            pieces.put(key, lines(*FIRST[begin:end]))
    assert history(pieces, "a") == history(whole, "a") == FIRST
    listings = [list(store.list("runs/a/")) for store in (whole, pieces)]
    assert [each.size for each in growing_files("a", listings[0])] == [
        each.size for each in growing_files("a", listings[1])
    ]
    assert last_values(whole, "a", listings[0]) == last_values(pieces, "a", listings[1])


def test_last_values(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    attempt(tmp_path, 1, lines(*FIRST, {"event": "validation", "step": 2, "scores": {"mean_dice": 0.5}}, step(8, lr=3)))
    assert last_values(store, "a", list(store.list("runs/a/"))) == {
        "step": 8, "loss": 0.8, "lr": 3, "mean_dice": 0.5, "stop": 9
    }  # fmt: skip
    attempt(tmp_path, 2, lines({"event": "resumed", "step": 3}))
    found = last_values(store, "a", list(store.list("runs/a/")))
    assert (found["step"], found["loss"]) == (3, 0.3), "what comes after the resume was done in vain"
    assert last_values(store, "b", []) == {}


def test_a_last_line_longer_than_what_is_read_first(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    long = {"event": "step", "step": 2} | {f"metric {number}": number for number in range(30_000)}
    attempt(tmp_path, 1, lines(step(1), long))
    assert last_values(store, "a", list(store.list("runs/a/")))["metric 29999"] == 29_999


def test_files_that_are_gone_again(tmp_path: Path) -> None:
    listing = [Entry("runs/a/attempts/1/journal.jsonl", 500, 0.0)]
    assert last_values(Folder(tmp_path), "a", listing) == {}


def test_following(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    follower = Follower(store, "a")
    assert follower.more() == []
    place = attempt(tmp_path, 1, lines(step(1)) + b'{"event":')
    assert follower.more() == [step(1)]
    with (place / "journal.jsonl").open("ab") as file:
        file.write(b'"stopped","step":1}\nno JSON\n')
    (place / "log.txt").write_text("hello\nwor")
    assert follower.more() == [{"event": "stopped", "step": 1}, "hello"]
    (place / "log.txt").write_text("hello\nworld\n")
    attempt(tmp_path, 2, lines({"event": "resumed", "step": 1}))
    assert follower.more() == ["world", {"event": "resumed", "step": 1}]
    assert follower.more() == []


def test_following_pieces_that_become_one_file() -> None:
    store = Memory("memory:c")
    follower = Follower(store, "a")
    first = lines(step(1))
    store.put(f"runs/a/attempts/1/journal/{len(first):012d}.jsonl", first)
    assert follower.more() == [step(1)]
    store.put("runs/a/attempts/1/journal.jsonl", first + lines(step(2)))
    assert follower.more() == [step(2)]
    store.delete(f"runs/a/attempts/1/journal/{len(first):012d}.jsonl")
    assert follower.more() == []


def test_rows_of_curves(tmp_path: Path) -> None:
    attempt(tmp_path, 1, lines({"event": "validation", "step": 2, "scores": {"dice": {"a": 0.5}}}))
    assert list(events_of_runs(Folder(tmp_path), ["a"])) == [
        {"run": "a", "event": "validation", "step": 2, "scores.dice.a": 0.5}
    ]
