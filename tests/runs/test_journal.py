"""The journal: nothing reported is lost, what was torn is left out, attempts belong to one process."""

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import pytest

from useg.errors import ResourceError
from useg.runs.journal import Journal, claim_attempt, read_attempt, read_journal


def step(number: int, **more: object) -> dict:
    return {"event": "step", "step": number, **more}


def write(run: Path, attempt: int, *events: dict) -> None:
    place = run / "attempts" / str(attempt)
    place.mkdir(parents=True)
    journal = Journal(place / "journal.jsonl")
    for event in events:
        journal.write(event)
    journal.close()


def test_events_are_on_disk_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for number in range(3):
        journal.write(step(number, loss=np.float32(0.5)), sync=number == 1)
        assert [e["step"] for e in read_attempt(path)] == list(range(number + 1))
    journal.close()
    assert path.read_bytes().splitlines()[0] == b'{"event":"step","step":0,"loss":0.5}'


def test_a_journal_is_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in range(2):
        journal = Journal(path)
        journal.write(step(number))
        journal.close()
    assert read_attempt(path) == [step(0), step(1)]
    assert read_attempt(tmp_path / "absent") == []


def test_every_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first, second = (orjson.dumps(step(n, why="ä" * 3)) + b"\n" for n in range(2))
    for length in range(len(second)):
        path.write_bytes(first + second[:length])
        assert read_attempt(path) == [step(0, why="äää")]
    path.write_bytes(first + second)
    assert len(read_attempt(path)) == 2


def test_a_file_that_a_crash_has_torn_is_gone_on_with_on_a_new_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for torn in (b"", b'{"event":"step"}\n', b'{"event":"step"}\n{"event":"st'):
        path.write_bytes(torn)
        journal = Journal(path)
        journal.write({"event": "resumed"}, sync=True)
        journal.close()
        assert [event["event"] for event in read_attempt(path)] == ["step"] * torn.count(b"\n") + ["resumed"]


@pytest.mark.parametrize("taken", [0, 1, 10, 22])
def test_a_disk_that_fills_up_leaves_a_gap_that_is_marked(tmp_path: Path, monkeypatch, taken: int) -> None:
    path, warnings = tmp_path / "journal.jsonl", []
    journal = Journal(path, warnings.append)
    journal.write(step(0))
    real, left = os.write, [taken]

    def filling(file: int, content: bytes) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(file, content[: left[0]])
        left[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", filling)
        for _ in range(3):
            journal.write(step(1))
        with pytest.raises(ResourceError, match=r"journal\.jsonl: cannot write: No space left"):
            journal.write(step(1), sync=True)
    journal.write(step(2))
    journal.write(step(3))
    journal.close()
    assert read_attempt(path) == [step(0), {"event": "gap", "lost": 3}, step(2), step(3)]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")])
def test_numbers_that_json_does_not_have_are_kept(tmp_path: Path, number: float) -> None:
    journal = Journal(tmp_path / "j")
    journal.write(step(1, loss=number, parts=[1.5, number], none=None, text="null"))
    journal.close()
    (event,) = read_attempt(tmp_path / "j")
    assert repr(event["loss"]) == repr(event["parts"][1]) == repr(float(number))
    assert (event["parts"][0], event["none"], event["text"]) == (1.5, None, "null")


def test_threads_write_whole_events(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.write(step(number, why="x" * 5000)), range(400)))
    journal.close()
    assert sorted(event["step"] for event in read_attempt(tmp_path / "j")) == list(range(400))


def test_writers_wait_for_no_disk(tmp_path: Path, monkeypatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(file: int) -> None:
        begun.set()
        go_on.wait(30)

    monkeypatch.setattr(os, "fsync", slow)
    journal = Journal(tmp_path / "j")
    journal.write(step(1))
    assert begun.wait(30)
    journal.write(step(2))
    assert [event["step"] for event in read_attempt(tmp_path / "j")] == [1, 2]
    go_on.set()
    journal.close()


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:5]))
    journal = Journal(tmp_path / "j")
    journal.write(step(1, loss=0.25))
    journal.close()
    assert read_attempt(tmp_path / "j") == [step(1, loss=0.25)]


def test_a_full_disk_at_the_end_is_a_resource_error(tmp_path: Path, monkeypatch) -> None:
    journal = Journal(tmp_path / "j")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        journal.close()
    with pytest.raises(ResourceError):
        journal.write(step(1), sync=True)  # closed all the same


def test_steps_done_again_replace_the_first_ones(tmp_path: Path) -> None:
    decision = {"event": "decision", "step": 3, "stop": 9}
    write(
        tmp_path, 1, {"event": "started", "step": 0}, *(step(n, loss=1) for n in (1, 2, 3)), decision, step(4, loss=1)
    )
    write(tmp_path, 2, {"event": "resumed", "step": 2}, step(3, loss=2), step(4, loss=2), step(5, loss=2))
    write(tmp_path, 10, {"event": "resumed", "step": 4}, step(5, loss=10))
    history = read_journal(tmp_path)
    losses = [(e["step"], e["loss"]) for e in history if e["event"] == "step"]
    assert losses == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 10)]
    assert [e for e in history if e["event"] == "decision"] == [decision]
    assert read_journal(tmp_path / "none") == []


def test_an_attempt_without_events_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, 1, step(1))
    write(tmp_path, 2)
    (tmp_path / "attempts" / "3").mkdir()
    (tmp_path / "attempts" / "notes").mkdir()
    assert read_journal(tmp_path) == [step(1)]


CLAIMS = """
import sys
from pathlib import Path
from useg.runs.journal import claim_attempt
sys.stdin.readline()
print(*(claim_attempt(Path(sys.argv[1])).name for _ in range(10)))
"""


def test_two_processes_never_share_an_attempt(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIMS, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate(timeout=30)[0].split()]
    assert sorted(names, key=int) == [str(n) for n in range(1, 31)]
    assert claim_attempt(tmp_path).name == "31"
