"""Alerts: everything is told, once, whoever restarts, fails to answer, or dies in between."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.home.faults import Faulty
from tests.runs.making import add_entry, finished, write_run
from tests.runs.trainers import end, lives, start, until

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home.store import Folder, Memory, Store
from useg.runs.telling import Command, NotTold, WebAddress, pause_s
from useg.runs.watching import TRIES, Wanted, Watch, memory_file, remembering
from useg.runs.watching import Memory as Remembered

RUNNING = {"format": 2, "status": "running", "started": "2026-11-01T10:00:00+0000"}


class Server:
    """A real HTTP server that answers as it is told to, and keeps what it heard."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.heard: list[dict[str, Any]] = []
        self.tries = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                outer.tries += 1
                answer = outer.answers.pop(0) if outer.answers else 204
                if answer < 300:
                    outer.heard.append(json.loads(content) | {"key": self.headers["Idempotency-Key"]})
                self.send_response(answer)
                if answer == 302:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:  # what a redirected POST becomes
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    write_run(tmp_path / "home", "old", finished(80))
    return tmp_path / "home"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watcher(home: Path | Store, memory: Path, recipients=(), clock=None, notes=None, **wanted: Any) -> Watch:
    store = Folder(home) if isinstance(home, Path) else home
    heard = (notes if notes is not None else []).append
    return Watch(store, Wanted(**wanted), recipients, Remembered(memory), heard, clock=clock or Clock())


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["run"], event["event"]) for event in events]


def test_what_happened_before_is_not_told_unless_asked(home: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    write_run(home, "on", RUNNING)
    assert watcher(home, memory, when=["score > 0.5"]).look() == []
    folder = write_run(home, "new", RUNNING)
    again = watcher(home, memory, when=["score > 0.5"])
    assert kinds(again.look()) == [("new", "starts")]
    add_entry(folder, {"tags": ["a"]})
    assert again.look() == []
    add_entry(folder, {"status": "stopped", "scores": {"mean_dice": 0.9}})
    found = again.look()
    assert kinds(found) == [("new", "ends"), ("new", "passes")]
    assert found[0]["text"] == "run new stopped"
    assert found[1]["values"] == {"scores.mean_dice": 0.9}
    assert found[1]["text"] == "run new passed score > 0.5"
    told = watcher(home, tmp_path / "other.json", when=["score > 0.5"], past=True, on=["starts", "ends"]).look()
    assert kinds(told) == [
        ("new", "starts"), ("new", "ends"), ("old", "ends"), ("on", "starts"), ("new", "passes"), ("old", "passes")
    ]  # fmt: skip


def test_while_nobody_watched(home: Path, tmp_path: Path) -> None:
    """A run that was resumed and ended again meanwhile: each of its ends and starts is told."""
    memory = tmp_path / "memory.json"
    folder = write_run(home, "a", RUNNING)
    watcher(home, memory).look()
    for entry in (
        {"status": "stopped"},
        {"tags": ["x"]},
        {"status": "running"},
        {"status": "failed", "error": "the loss became NaN"},
    ):
        add_entry(folder, entry)
    found = watcher(home, memory).look()
    assert kinds(found) == [("a", "ends"), ("a", "starts"), ("a", "fails")]
    assert found[-1]["text"] == "run a failed: the loss became NaN"
    assert len({event["id"] for event in found}) == 3
    assert watcher(home, memory).look() == []
    others = watcher(home, tmp_path / "other.json", past=True).look()
    assert [event["id"] for event in others if event["run"] == "a"][1:] == [event["id"] for event in found]


def test_a_score_is_passed_once(home: Path, tmp_path: Path) -> None:
    memory, journal = tmp_path / "memory.json", home / "runs/a/attempts/1/journal.jsonl"
    write_run(home, "a", RUNNING, journal=[{"event": "validation", "step": 1, "scores": {"mean_dice": 0.2}}])
    eye = watcher(home, memory, when=["last.mean_dice > 0.5"])
    eye.look()
    found = []
    for step, dice in enumerate((0.4, 0.6, 0.3, 0.7, 0.8), 2):
        with journal.open("ab") as file:
            file.write(orjson.dumps({"event": "validation", "step": step, "scores": {"mean_dice": dice}}) + b"\n")
        found += eye.look()
        if step == 4:
            eye = watcher(home, memory, when=["last.mean_dice > 0.5"])
    assert [(each["event"], each["values"]) for each in found] == [("passes", {"last.mean_dice": 0.6})]


def test_filters_that_cannot_hold_are_refused_at_once(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run has a field 'scor'"):
        watcher(home, tmp_path / "a.json", when=["scor > 1"]).look()
    notes: list[str] = []
    empty = watcher(tmp_path / "empty", tmp_path / "b.json", when=["my.own > 1"], notes=notes)
    assert empty.look() == []
    write_run(tmp_path / "empty", "a", finished(scores={"my": {"own": 2}}))
    assert ("a", "passes") in kinds(empty.look())
    assert len(notes) == 1
    assert "holds of no run as yet" in notes[0]


def test_a_server_that_fails_first_is_told_in_the_end(home: Path, tmp_path: Path, server: Server) -> None:
    clock, notes = Clock(), []
    eye = watcher(home, tmp_path / "m.json", [WebAddress(f"{server.url}/hook?secret=1")], clock, notes)
    eye.look()
    server.answers = [500, 302, 429]
    write_run(home, "a", finished(7))
    (event,) = eye.look()
    pauses = [eye.tell(), eye.tell()]
    assert pauses == [pause_s(1), 1.0], "not tried before its time"
    for _ in range(4):
        clock.now += eye.tell() or 0.0
    assert server.heard == [event | {"key": event["id"]}]
    assert server.tries == 4
    assert clock.now == pause_s(1) + pause_s(2) + pause_s(3)
    assert (eye.waiting, eye.given_up, len(notes)) == (0, 0, 3)
    assert "secret" not in "".join(notes)
    assert eye.tell() is None


def test_it_is_given_up_at_last(home: Path, tmp_path: Path, server: Server) -> None:
    clock, notes = Clock(), []
    eye = watcher(home, tmp_path / "m.json", [WebAddress(server.url), Command("exit 3")], clock, notes, past=True)
    server.answers = [503] * TRIES
    eye.look()
    while (pause := eye.tell()) is not None:
        clock.now += pause
    assert (eye.waiting, eye.given_up, server.heard, server.tries) == (0, 2, [], TRIES)
    assert "`exit 3` ended with exit status 3; given up" in notes[-1]
    assert 1000 < clock.now < 3600


def test_killed_between_telling_and_remembering(home: Path, tmp_path: Path, server: Server) -> None:
    """It is told again, with the same id."""
    memory = tmp_path / "m.json"
    eye = watcher(home, memory, [WebAddress(server.url)], past=True)
    eye.look()
    before = memory.read_bytes()
    eye.tell()
    memory.write_bytes(before)
    again = watcher(home, memory, [WebAddress(server.url)], past=True)
    assert again.look() == []
    again.tell()
    assert len(server.heard) == 2
    assert server.heard[0] == server.heard[1]


def test_a_command_gets_the_event(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = Command(f'cat > "{out}"; echo "$USEG_EVENT $USEG_RUN $USEG_STATUS $USEG_HOME $USEG_EVENT_ID" >> "{out}"')
    eye = watcher(home, tmp_path / "m.json", [command], past=True)
    (event,) = eye.look()
    assert eye.tell() is None
    told, _, words = out.read_text().rpartition("}")
    assert json.loads(told + "}") == event
    assert words.split() == ["ends", "old", "finished", str(home), event["id"]]


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(NotTold, match=r"took longer than 0\.5 s, and was ended"):
        Command(f"sleep 30 & echo $! > '{tmp_path}/pid'; wait", 0.5).tell({"id": "a"})
    until(lambda: not lives(int((tmp_path / "pid").read_text())))
    with pytest.raises(NotTold, match="does not answer"):
        WebAddress("http://127.0.0.1:9/", 1.0).tell({"id": "a"})


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "http://", "https://a b", "nothing", "http://h:x/", "http://ü/"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="wanted an address such as https://host/path"):
        WebAddress(address)
    with pytest.raises(InputError, match="a name and password before the host"):
        WebAddress("https://me:secret@host/")


def test_a_killed_trainer_is_told_as_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once while its keeper lives and says so, once while it is killed, too."""
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    eye = watcher(tmp_path, tmp_path / "m.json")
    assert eye.look() == []
    for attempt in (1, 2):
        trainer = start("log_for_ever()", tmp_path, interval_s=0.3, attempt=attempt)
        try:
            assert kinds(eye.look()) == [("run", "starts")]
            assert eye.running == {"run"}
            if attempt == 2:
                end(trainer.keeper)
            end(trainer.process.pid)
            found: list[dict[str, Any]] = []
            until(lambda: found.extend(eye.look()) or found)  # noqa: B023
            assert kinds(found) == [("run", "dies")]
            assert eye.running == set()
            assert eye.look() == []
            add_entry(tmp_path / "runs" / "run", {"tags": [f"was dead {attempt}"]})
            assert eye.look() == [], "it is dead only once"
        finally:
            trainer.close()


def test_any_kind_of_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    store = Memory("memory:watched")
    eye = watcher(store, tmp_path / "m.json")
    assert eye.look() == []
    store.put("runs/a/record/00000001", orjson.dumps(RUNNING))
    store.put("runs/a/attempts/1/lease/00000000", b"{}")
    assert kinds(eye.look()) == [("a", "starts")]
    store.put("runs/a/record/00000002", orjson.dumps({"status": "finished"}))
    assert kinds(eye.look()) == [("a", "ends")]


def test_a_home_that_does_not_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    store, notes, pauses = Memory("memory:away"), [], []
    store.put("runs/a/record/00000001", orjson.dumps(finished()))
    eye = watcher(store, tmp_path / "m.json", notes=notes, past=True)
    answers = [ResourceError("home: does not answer")] * 3
    look = eye.look

    def failing() -> list[dict[str, Any]]:
        if answers:
            raise answers.pop()
        return look()

    monkeypatch.setattr(eye, "look", failing)
    assert kinds(list(eye.go_on(until_ended=True, sleep=pauses.append))) == [("a", "ends")]
    assert pauses == [4.0, 8.0, 16.0]
    assert notes == ["home: does not answer; asking again", "the home answers again"]


def test_what_was_seen_is_not_lost_when_the_home_fails_in_between(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    store, memory = Memory("memory:faulty"), tmp_path / "m.json"
    watcher(store, memory).look()
    for name in "abc":
        store.put(f"runs/{name}/record/00000001", orjson.dumps(RUNNING))
        store.put(f"runs/{name}/attempts/1/lease/00000000", b"{}")
    found, failed = [], 0
    for number in range(60):
        eye = watcher(Faulty(store, fail_at=number, verbs=("get", "list")), memory)
        try:
            found += eye.look()
        except ResourceError:
            failed += 1
    assert sorted(kinds(found)) == [(name, "starts") for name in "abc"]
    assert failed > 3


def test_two_watchers_and_damaged_files(home: Path, tmp_path: Path) -> None:
    file = memory_file(Folder(home), [Command("true")], None)
    assert file != memory_file(Folder(home), [Command("false")], None)
    with remembering(file), pytest.raises(InputError, match="another watcher tells the same"), remembering(file):
        pass
    file.write_bytes(b"{")
    with pytest.raises(DamagedFile, match="not what `useg runs watch` remembers"), remembering(file):
        pass


STATUS = st.sampled_from(["running", "finished", "stopped", "failed", None])


@settings(max_examples=20)
@given(words=st.lists(st.tuples(STATUS, st.sampled_from(["", "look", "restart"])), max_size=12))
def test_everything_is_told_once(tmp_path_factory: pytest.TempPathFactory, words) -> None:
    """Whenever it is looked, and however often the watcher is started again."""
    memory = tmp_path_factory.mktemp("m") / "m.json"
    store = Memory(f"memory:{memory}")
    store.put("runs/a/record/00000001", orjson.dumps({"format": 2, "status": "finished"}))
    eye = watcher(store, memory)
    found = eye.look()
    naive = []
    for number, (status, then) in enumerate(words, 2):
        store.put(f"runs/a/record/{number:08d}", orjson.dumps({"status": status} if status else {"note": "x"}))
        if status:
            naive.append({"running": "starts", "failed": "fails"}.get(status, "ends"))
        if then == "restart":
            eye = watcher(store, memory)
        if then:
            found += eye.look()
    found += eye.look()
    assert [event["event"] for event in found if event["event"] != "dies"] == naive
    assert len({event["id"] for event in found}) == len(found)
