"""`useg runs watch` as people use it: from cron, until a run has ended, and with words that cannot be read."""

import json
import threading
import time
from pathlib import Path

import pytest
from tests.cli.calling import call
from tests.runs.making import add_entry, finished, write_run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("USEG_HOME", str(tmp_path / "home"))
    write_run(tmp_path / "home", "old", finished(80))
    return tmp_path / "home"


def test_once_from_cron(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "told"
    words = ("runs", "watch", "--once", "--run", f"test -e '{tmp_path}/ready' && echo $USEG_TEXT >> '{told}'")
    assert call(*words) == 0
    assert "what happened before is not told (--past tells it)" in capfd.readouterr().err
    add_entry(write_run(home, "a", {"format": 2, "status": "running"}), {"status": "failed", "error": "boom"})
    assert call(*words, "--json") == 2
    captured = capfd.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines()]
    assert [(event["run"], event["event"], event.get("error")) for event in events] == [
        ("a", "starts", "boom"), ("a", "fails", "boom")
    ]  # fmt: skip
    assert "try 1 of 12" in captured.err
    assert "2 not told yet, and told at the next start; 0 given up" in captured.err
    (tmp_path / "ready").touch()
    for _ in range(2):
        assert call(*words) == 0
        assert capfd.readouterr().out == ""
    assert told.read_text() == "run a began\nrun a failed: boom\n"


def test_until_a_run_has_ended(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_run(home, "a", {"format": 2, "status": "running"})
    (folder / "attempts/1/lease").mkdir(parents=True)
    (folder / "attempts/1/lease/00000000").write_bytes(b"{}")

    def finish() -> None:
        time.sleep(0.5)
        add_entry(folder, {"status": "finished"})

    thread = threading.Thread(target=finish)
    thread.start()
    assert call("runs", "watch", "a") == 0
    thread.join()
    assert capfd.readouterr().out.split("  ")[1] == "run a finished\n"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "starts,sleeps"], "--on: wanted some of starts, ends, fails, dies, not 'sleeps'"),
        (["--when", "score >"], "ends too early"),
        (["--when", "scor > 1"], "no run has a field 'scor'; near it: "),
        (["--post", "file:///etc/passwd"], "wanted an address such as https://host/path"),
        (["--run", " "], "--run: wanted a command, not an empty text"),
        (["nothing"], "no run 'nothing' in"),
        (["--remember", "/proc/none/a.json"], "/proc/none/a.json: cannot write"),
    ],
)
def test_what_is_refused_is_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("runs", "watch", "--once", *words) == 2
    assert said in capsys.readouterr().err
