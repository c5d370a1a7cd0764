"""Runs sent to MLflow: everything once, whoever is killed in between; with a naive server that has MLflow's limits."""

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.home.faults import Killed
from tests.runs.making import add_entry, finished, write_run
from tests.runs.mlflow_servers import Naive, curve

from useg.errors import InputError, ResourceError
from useg.home.store import Folder, Memory, Store
from useg.runs.following import history
from useg.runs.index import Index, Run
from useg.runs.mirror import Mirror
from useg.runs.mirror_known import mirroring
from useg.runs.mirror_names import LONGEST_NAME, file_name_for, name_for, text_for
from useg.runs.mirror_points import Curves
from useg.runs.pictures import keep_picture
from useg.runs.selecting import select

STARTED = "2026-11-01T10:00:00+00:00"


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"event": "step", "step": number, "loss": 1 / number, "seconds": 0.5} | more


def everything(index: Index) -> list[Run]:
    return select(index)


@pytest.fixture(autouse=True)
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))


def mirror(home: Path | Store, server: Naive, memory: Path, notes: list[str] | None = None) -> Mirror:
    store = Folder(home) if isinstance(home, Path) else home
    memory.mkdir(exist_ok=True)
    found = Mirror(store, server, "useg", memory, (notes if notes is not None else []).append)  # type: ignore[arg-type]
    for run in found.changed(everything):
        found.send(run)
    return found


def test_a_run_is_sent_once(tmp_path: Path) -> None:
    journal = [{"event": "started", "step": 0}, *(step(n) for n in range(1, 2501))]
    journal += [
        {
            "event": "validation",
            "step": 2500,
            "scores": {"mean_dice": 0.9, "classes": {"cell": {"dice": 0.8}}},
            "seconds": 2,
        }
    ]
    folder = write_run(tmp_path / "home", "a", finished(7, started=STARTED, user="ann", note="good"), journal=journal)
    (folder / "model.useg").write_bytes(b"weights")
    keep_picture(folder, "images/1", 10, np.zeros((8, 8)))
    server = Naive()
    sent = mirror(tmp_path / "home", server, tmp_path / "m")
    assert sent.problems == {}
    assert sent.counts["pictures"] == 1
    (there,) = server.runs.values()
    points = server.points[there.id]
    assert curve(points, "loss") == [(n, repr(1 / n)) for n in range(1, 2501)]
    assert curve(points, "mean_dice") == [(2500, "0.9")]
    assert curve(points, "classes.cell.dice") == [(2500, "0.8")]
    assert curve(points, "validation.seconds") == [(2500, "2.0")]
    assert curve(points, "scores.mean_dice") == [(0, "0.07")]
    times = {step: time for name, _, time, step in points if name == "loss"}
    assert times[2500] - times[1] == 2499 * 500
    assert there.params["config.train.lr"] == "0.0001"
    assert {
        "useg.run": "a",
        "mlflow.user": "ann",
        "mlflow.note.content": "good",
        "useg.tags": "paper",
    }.items() <= there.tags.items()
    assert there.status == "FINISHED"
    stored = server.stored[there.id]
    assert stored["model.useg"] == b"weights"
    assert orjson.loads(stored["record.json"])["scores"]["mean_dice"] == 0.07
    pictures = sorted(name for name in stored if name.startswith("images/"))
    assert [name.rpartition("+")[0].partition("+step+10+timestamp+")[0][:14] for name in pictures] == [
        "images/images_"
    ] * 2
    assert pictures[0].endswith(".webp") or pictures[1].endswith(".webp")
    assert server.largest == 998, "with the tag that says how far it goes at most 1000, and no step cut in two"
    before = server.requests, server.points_sent
    again = mirror(tmp_path / "home", server, tmp_path / "m")
    assert (again.counts["runs"], server.points_sent) == (0, before[1])
    assert server.requests == before[0] + 1, "only the experiment is asked for"


def test_what_is_remembered_is_on_the_server_too(tmp_path: Path) -> None:
    write_run(tmp_path / "home", "a", finished(7), journal=[step(n) for n in range(1, 50)])
    server = Naive()
    mirror(tmp_path / "home", server, tmp_path / "m")
    before = server.points_sent
    add_entry(tmp_path / "home/runs/a", {"tags": ["late"]})
    sent = mirror(tmp_path / "home", server, tmp_path / "other machine")
    assert (sent.counts["runs"], server.points_sent, len(server.runs)) == (1, before, 1)
    assert server.runs["m0"].tags["useg.tags"] == "late"
    add_entry(tmp_path / "home/runs/a", {"tags": []})
    mirror(tmp_path / "home", server, tmp_path / "m")
    assert server.runs["m0"].tags["useg.tags"] == ""


def test_a_growing_run_is_followed(tmp_path: Path) -> None:
    """Through all its states, read on from where it was."""
    folder = write_run(
        tmp_path / "home", "a", {"format": 2, "status": "running", "started": STARTED}, journal=[step(1)]
    )
    (folder / "attempts/1/lease").mkdir()
    (folder / "attempts/1/lease/00000000").write_bytes(b"{}")
    server, seen = Naive(), []
    (tmp_path / "m").mkdir()
    sender = Mirror(Folder(tmp_path / "home"), server, "useg", tmp_path / "m", lambda text: None)  # type: ignore[arg-type]
    actions: list[Callable[[], Any]] = [
        lambda: append(folder, step(2), step(3)),
        lambda: setattr(server, "down", 1) or append(folder, step(4)),
        lambda: (folder / "attempts/1/end.json").write_bytes(b"{}"),
        lambda: add_entry(folder, {"status": "finished", "scores": {"mean_dice": math.nan}}),
    ]

    def wait(seconds: float) -> None:
        seen.append((server.runs["m0"].status, len(curve(server.points["m0"], "loss"))))
        if actions:
            actions.pop(0)()

    names = [run.status for run in sender.go_on(everything, until_ended=True, sleep=wait)]
    assert names[-1] in ("dead", "finished")
    for run in sender.changed(everything):
        sender.send(run)
    assert ("RUNNING", 1) in seen
    assert ("RUNNING", 3) in seen
    assert curve(server.points["m0"], "loss") == [(n, repr(1 / n)) for n in range(1, 5)]
    assert server.points_sent == len(server.points["m0"])


def append(folder: Path, *events: dict[str, Any], attempt: int = 1) -> None:
    place = folder / f"attempts/{attempt}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "journal.jsonl").open("ab") as file:
        file.write(b"".join(orjson.dumps(event) + b"\n" for event in events))


def test_steps_replaced_by_a_later_attempt(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "home", "a", finished(1), journal=[step(n) for n in range(1, 11)])
    later = [{"event": "resumed", "step": 7}, step(8), step(9, loss=5.0), step(10), step(11)]
    append(folder, *later, attempt=2)
    late, notes = Naive(), []
    mirror(tmp_path / "home", late, tmp_path / "late", notes)
    assert [s for s, _ in curve(late.points["m0"], "loss")] == list(range(1, 12)), "mirrored late, there is one curve"
    assert notes == []

    (folder / "attempts/2/journal.jsonl").unlink()
    early = Naive()
    mirror(tmp_path / "home", early, tmp_path / "early")
    append(folder, *later, attempt=2)
    add_entry(folder, {"status": "finished"})
    for _ in range(2):
        mirror(tmp_path / "home", early, tmp_path / "early", notes)
    found = curve(early.points["m0"], "loss")
    assert [s for s, _ in found] == [*range(1, 10), 9, 10, 11], "what is the same again is not there twice"
    assert (9, "5.0") in found
    latest = max((time, value) for name, value, time, s in early.points["m0"] if (name, s) == ("loss", 9))
    assert latest[1] == "5.0", "what counts is the later one"
    assert early.runs["m0"].tags["useg.replaced"] == "steps 8 to 10 also have values of an earlier attempt"
    assert len(notes) == 1


def test_what_mlflow_refuses_is_changed_and_said(tmp_path: Path) -> None:
    events = [step(1, **{"a\nb": 1, "x@y": 2, "a/b": 3, "x" * 300: 4, "../..": 5, "": 6, "ü": 7, "deep": {"er": True}})]
    events += [step(2, loss="NaN"), step(3, loss="Infinity"), step(4, loss=None, text="no number", many=[1, 2])]
    events += [{"event": "step", "step": "odd", "loss": 9}, {"event": "step", "step": 1e30, "loss": 8}]
    config = {
        "long": "ä" * 20_000,
        "zero": "a\0b",
        "empty": "",
        "none": None,
        "list": [1, 2],
        "bad\nname": 1,
        "nan": math.nan,
    }
    write_run(tmp_path / "home", "a", finished(1, config=config), journal=events)
    server, notes = Naive(), []
    sent = mirror(tmp_path / "home", server, tmp_path / "m", notes)
    assert sent.problems == {}
    points, there = server.points["m0"], server.runs["m0"]
    names = {name for name, _, _, _ in points}
    assert {
        "a/b",
        "ü",
        "deep.er",
        name_for("a\nb"),
        name_for("x@y"),
        name_for("x" * 300),
        name_for("../.."),
        name_for(""),
    } <= names
    assert curve(points, "loss") == [(1, "1.0"), (2, "nan"), (3, "inf"), (4, "8.0"), (4, "9.0")]
    assert there.params["config.none"] == "null"
    assert there.params["config.list"] == "[1,2]"
    assert there.params["config.zero"] == "a␀b"
    assert there.params["config.long"].endswith("(20000 characters; all of it is in record.json)")
    assert there.tags["useg.infinite"] == "loss"
    assert orjson.loads(server.stored["m0"]["names.json"])[name_for("x@y")] == "x@y"
    assert [note.partition(": ")[2][:20] for note in notes] == ["infinite values of l", "5 names were changed"]


def test_params_that_change_have_a_tag(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "home", "a", finished(1))
    server, notes = Naive(), []
    mirror(tmp_path / "home", server, tmp_path / "m")
    add_entry(folder, {"plan": {"steps": 200, "lr": 0.1, "new": 1}, "scores": {"mean_dice": 0.5}})
    sent = mirror(tmp_path / "home", server, tmp_path / "m", notes)
    there = server.runs["m0"]
    assert sent.problems == {}
    assert (there.params["plan.steps"], there.params["plan.new"]) == ("100", "1")
    assert there.tags["useg.changed.plan.steps"] == "200"
    assert "1 params changed" in notes[0]
    assert there.metrics["scores.mean_dice"] == 0.5
    assert there.metrics["scores.classes.cell.dice"] == 0.01
    assert len(curve(server.points["m0"], "scores.classes.cell.dice")) == 1


def test_a_hundred_thousand_names(tmp_path: Path) -> None:
    write_run(tmp_path / "home", "a", finished(1), journal=[step(1, **{f"n{i}": i for i in range(100_000)})])
    server = Naive()
    mirror(tmp_path / "home", server, tmp_path / "m")
    assert len(server.points["m0"]) > 100_000
    assert server.largest == 999


def test_killed_in_the_middle_of_one_event(tmp_path: Path) -> None:
    write_run(tmp_path / "home", "a", finished(1), journal=[step(1, **{f"n{i}": i for i in range(3000)})])
    left = set()
    for kill_at in range(3, 30):
        server, memory = Naive(), tmp_path / f"killed{kill_at}"
        server.kill_at = kill_at
        with suppress(Killed):
            mirror(tmp_path / "home", server, memory)
        left.add(len(server.points.get("m0", ())))
        server.kill_at = None
        mirror(tmp_path / "home", server, memory)
        assert {f"n{i}" for i in range(3000)} <= {name for name, _, _, _ in server.points["m0"]}
    assert {999, 1998, 2997} <= left


def test_any_kind_of_home(tmp_path: Path) -> None:
    store, server = Memory("memory:mirrored"), Naive()
    store.put("runs/a/record/00000001", orjson.dumps(finished(1)))
    store.put("runs/a/model.useg", b"weights")
    first, second = (b"".join(orjson.dumps(step(n)) + b"\n" for n in steps) for steps in (range(1, 4), range(4, 6)))
    store.put(f"runs/a/attempts/1/journal/{len(first):012d}.jsonl", first)
    mirror(store, server, tmp_path / "m")
    assert len(curve(server.points["m0"], "loss")) == 3
    store.put(f"runs/a/attempts/1/journal/{len(first + second):012d}.jsonl", second)
    store.put("runs/a/record/00000002", orjson.dumps({"tags": []}))
    mirror(store, server, tmp_path / "m")
    assert curve(server.points["m0"], "loss") == [(n, repr(1 / n)) for n in range(1, 6)]
    assert server.stored["m0"]["model.useg"] == b"weights"


def test_a_problem_of_one_run_stops_no_other(tmp_path: Path) -> None:
    write_run(tmp_path / "home", "a", finished(1))
    folder = write_run(tmp_path / "home", "b", finished(2))
    (folder / "record/00000002").write_bytes(b"{")
    write_run(tmp_path / "home", "c", finished(3))
    sent = mirror(tmp_path / "home", Naive(), tmp_path / "m")
    assert sent.counts["runs"] == 2


def test_deleted_there_is_left_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "home", "a", finished(1))
    server, notes = Naive(), []
    mirror(tmp_path / "home", server, tmp_path / "m")
    server.runs["m0"].is_deleted = True
    add_entry(folder, {"tags": ["x"]})
    assert mirror(tmp_path / "home", server, tmp_path / "m", notes).counts["runs"] == 0
    assert "deleted in MLflow" in notes[0]
    server.runs.clear()
    mirror(tmp_path / "home", server, tmp_path / "m")
    assert len(server.runs) == 1, "what was swept away there is sent anew"


def test_only_one_mirror_at_a_time() -> None:
    store = Memory("memory:one")
    others = mirroring(store, "http://a", "useg"), mirroring(store, "http://b", "useg")
    same = mirroring(store, "http://a/", "useg")
    with others[0], others[1], pytest.raises(InputError, match="another `useg runs mirror` sends"), same:
        pass


LETTERS = st.text(st.sampled_from("ab/.@_ \n"), max_size=8) | st.text(max_size=300)


@given(names=st.lists(LETTERS, max_size=8, unique=True))
def test_two_names_never_become_one(names: list[str]) -> None:
    found = [name_for(name) for name in names]
    assert len(set(found)) == len(found)
    assert all(0 < len(name) <= LONGEST_NAME for name in found)
    assert [name_for(name) for name in found] == found, "what was changed needs no change"
    files = [file_name_for(name) for name in names]
    assert len(set(files)) == len(files)
    assert all(name.isascii() and "+" not in name and "/" not in name for name in files)
    assert all(len(text_for(name * 99, 200)) <= 200 for name in names)


EVENT = st.tuples(st.integers(0, 6), st.sampled_from([0.5, 0.25, math.nan]))
ATTEMPTS = st.lists(st.tuples(st.integers(0, 6), st.lists(EVENT, max_size=6)), min_size=1, max_size=3)


def lines(number: int, attempt: tuple[int, list[tuple[int, float]]]) -> list[dict[str, Any]]:
    resumed, steps = attempt
    begin = {"event": "resumed", "step": resumed} if number > 1 else {"event": "started", "step": 0}
    told = [{"event": "step", "step": s, "loss": "NaN" if math.isnan(v) else v, "seconds": 0.25} for s, v in steps]
    return [begin, *told]


@given(attempts=ATTEMPTS)
def test_points_are_those_of_the_history(attempts) -> None:
    """A naive twin: the curve of what `history` says happened."""
    store = Memory("memory:points")
    for entry in [*store.list("runs/")]:
        store.delete(entry.key)
    for number, attempt in enumerate(attempts, 1):
        content = b"".join(orjson.dumps(line) + b"\n" for line in lines(number, attempt))
        store.put(f"runs/a/attempts/{number}/journal.jsonl", content)
    told = [point for each in Curves(store, "a", 0).more({}) for point in each.points if point.name == "loss"]
    naive = [(e["step"], e["loss"]) for e in history(store, "a") if e["event"] == "step"]
    assert str([(point.step, point.value) for point in told]) == str(naive)
    assert all(one.time_ms <= other.time_ms for one, other in pairwise(told))


@settings(max_examples=15)
@given(count=st.integers(1, 2400), kills=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=4))
def test_killed_anywhere_nothing_is_there_twice(tmp_path_factory: pytest.TempPathFactory, count: int, kills) -> None:
    place = tmp_path_factory.mktemp("killed")
    journal = [step(n, loss=n / 7) for n in range(1, count + 1)]
    folder = write_run(place / "home", "a", finished(1, started=STARTED), journal=journal)
    keep_picture(folder, "x", 1, np.zeros((4, 4)))
    server = Naive()
    for number, (after, is_after) in enumerate(kills):
        server.kill_at, server.is_after = server.requests + after, is_after
        try:
            mirror(place / "home", server, place / f"m{number % 2}")
        except Killed:
            continue
    server.kill_at = None
    mirror(place / "home", server, place / "m")
    whole = Naive()
    mirror(place / "home", whole, place / "whole")
    assert server.points == whole.points
    assert {name: there.params for name, there in server.runs.items()} == {"m0": whole.runs["m0"].params}
    assert server.stored == whole.stored
    assert server.runs["m0"].status == "FINISHED"


def test_what_has_arrived_is_not_sent_again(tmp_path: Path) -> None:
    """Killed after the server had it, and before this machine remembered it."""
    write_run(tmp_path / "home", "a", finished(1), journal=[step(n) for n in range(1, 1500)])
    for kill_at in range(2, 26):
        server, memory = Naive(), tmp_path / f"m{kill_at}"
        server.kill_at, server.is_after = kill_at, True
        with suppress(Killed):
            mirror(tmp_path / "home", server, memory)
        server.kill_at = None
        mirror(tmp_path / "home", server, memory)
        assert server.points_sent == len(server.points["m0"]) > 2998


def test_a_server_that_is_down(tmp_path: Path) -> None:
    write_run(tmp_path / "home", "a", finished(1), journal=[step(n) for n in range(1, 3000)])
    for request in range(1, 12, 2):
        server = Naive()
        memory = tmp_path / f"m{request}"
        memory.mkdir()
        sender = Mirror(Folder(tmp_path / "home"), server, "useg", memory, lambda text: None)  # type: ignore[arg-type]
        (run,) = sender.changed(everything)
        server.kill_at = None
        left = [request]

        def request_or_fail(change=lambda: None, *, _ask=server._request, _left=left, _server=server):
            _left[0] -= 1
            if _left[0] == 0:
                _server.down = 1
            return _ask(change)

        server._request = request_or_fail  # type: ignore[method-assign]
        with pytest.raises(ResourceError):
            sender.send(run)
        sender.send(run)
        assert len(curve(server.points["m0"], "loss")) == 2999
        assert server.points_sent - len(server.points["m0"]) <= 0
