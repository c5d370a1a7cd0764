"""The keeper beside real trainers that end, are killed, are suspended; and trainers whose keeper is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from tests.runs.trainers import RUN, Trainer, end, entries, keeper_of, lives, start, until

from useg.errors import InputError, ResourceError
from useg.home.store import Folder, open_store
from useg.runs.journal import read_attempt
from useg.runs.keeper import start_keeper
from useg.runs.lease import MISSED, Watcher, check_free, claim_attempt, status_of, stop_run
from useg.runs.shipping import read_events

Start = Callable[..., Trainer]


@pytest.fixture
def trainer() -> Iterator[Start]:
    """Starts trainers, and ends them and their keepers afterwards."""
    started: list[Trainer] = []

    def begin(*words, **options) -> Trainer:
        started.append(start(*words, **options))
        return started[-1]

    yield begin
    for each in started:
        if (keeper := keeper_of(each.attempt)) is not None:
            end(keeper)
        each.close()


def end_of(attempt: Path) -> dict:
    until((attempt / "end.json").exists)
    return orjson.loads((attempt / "end.json").read_bytes())


def lease_number(home: Path) -> int:
    """How far the lease of the first attempt has risen."""
    return int(max(entries(home, "attempts/1/lease/"))[-8:])


def steps(attempt: Path) -> list[int]:
    return [event["step"] for event in read_attempt(attempt / "journal.jsonl")]


def test_a_trainer_that_is_killed(tmp_path: Path, trainer: Start) -> None:
    running = trainer("print('good-bye', flush=True)\nlog_for_ever()", tmp_path)
    time.sleep(random.Random().uniform(0.05, 0.3))
    running.process.kill()
    killed = time.monotonic()
    found = end_of(running.attempt)
    assert time.monotonic() - killed < 10
    assert (found["exit_code"], found["signal"], found["status"]) == (None, "SIGKILL", None)
    assert not found["out_of_memory"]
    assert found["log_tail"] == ["good-bye"]
    told = running.last_told()
    assert told > 0
    assert steps(running.attempt) in (list(range(told + 1)), list(range(told + 2)))
    assert found["step"] == steps(running.attempt)[-1]
    assert status_of(Folder(tmp_path), RUN) == "dead"
    check_free(Folder(tmp_path), RUN)
    until(lambda: not lives(running.keeper))


def test_a_trainer_that_ends_well(tmp_path: Path, trainer: Start) -> None:
    program = """
journal.close()
folder.update(status="finished")
print("closed", keeper.close("finished"), flush=True)
os.system("echo after")
print("again", keeper.close("failed"))
"""
    running = trainer(program, tmp_path)
    assert running.process.communicate(timeout=30)[0] == b"closed True\nafter\nagain False\n"
    found = end_of(running.attempt)
    assert (found["exit_code"], found["signal"], found["status"]) == (None, None, "finished")
    assert found["out_of_memory"] is False
    assert status_of(Folder(tmp_path), RUN) == "finished"
    until(lambda: not lives(running.keeper))
    assert entries(tmp_path, "attempts/1/lease/")[0].endswith("00000000")


@pytest.mark.parametrize(
    ("program", "exit_code", "name"),
    [
        ("1 / 0", 1, None),
        pytest.param("raise SystemExit(7)", 7, None, marks=pytest.mark.slow),
        pytest.param("os.kill(os.getpid(), 11)", None, "SIGSEGV", marks=pytest.mark.slow),
    ],
)
def test_a_trainer_that_ends_without_a_word(
    tmp_path: Path, trainer: Start, program: str, exit_code: int | None, name: str | None
) -> None:
    running = trainer(program, tmp_path)
    # whoever waits for the end of what it prints does not wait for the keeper
    running.process.communicate(timeout=30)
    found = end_of(running.attempt)
    assert (found["exit_code"], found["signal"], found["status"]) == (exit_code, name, None)
    if program == "1 / 0":
        assert found["log_tail"][-1] == "ZeroDivisionError: division by zero"
    assert status_of(Folder(tmp_path), RUN) == "dead"


def test_neither_ctrl_c_nor_the_end_of_the_group_takes_the_keeper_along(tmp_path: Path, trainer: Start) -> None:
    running = trainer("log_for_ever()", tmp_path, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(running.keeper, number)
    os.killpg(running.process.pid, signal.SIGKILL)
    assert end_of(running.attempt)["signal"] == "SIGKILL"


def test_when_the_keeper_is_killed_training_goes_on_with_another(tmp_path: Path, trainer: Start) -> None:
    program = """
for step in range(1, 100_000):
    log(step)
    if step % 50 == 0:
        print("at", step, flush=True)
    time.sleep(0.002)
    if (local / "enough").exists():
        break
print("closed", keeper.close("finished"), flush=True)
"""
    running = trainer(program, tmp_path)
    killed = []
    for _ in range(2):
        end(keeper := keeper_of(running.attempt))
        killed.append(keeper)
        until(lambda: keeper_of(running.attempt) not in (None, *killed))
    before = running.attempt / "journal.jsonl"
    size = before.stat().st_size
    until(lambda: before.stat().st_size > size)
    (tmp_path / "enough").touch()
    shown = running.process.communicate(timeout=30)[0].decode().splitlines()
    assert shown[-1] == "closed True"
    assert sum("the keeper of run" in line for line in shown) == 1
    last = running.last_told()
    assert [line for line in shown if line.startswith("at")] == [f"at {step}" for step in range(50, last + 1, 50)]
    kept = (running.attempt / "log.txt").read_text().splitlines()
    assert sorted(kept) == sorted(shown[:-1])
    assert steps(running.attempt) == list(range(last + 1))


def test_trainer_and_keeper_killed_together_lose_nothing(tmp_path: Path, trainer: Start) -> None:
    running = trainer("log_for_ever()", tmp_path, interval_s=0.2)
    time.sleep(0.3)
    first, second = random.Random().sample([running.keeper, running.process.pid], 2)
    os.kill(first, 9)
    os.kill(second, 9)
    running.process.wait()
    told = running.last_told()
    assert steps(running.attempt) in (list(range(told + 1)), list(range(told + 2)))
    # nobody wrote down the end; the lease stands still
    watcher, since = Watcher(Folder(tmp_path), RUN), time.monotonic()
    until(lambda: status_of(Folder(tmp_path), RUN) == "dead" or keeper_of(running.attempt))
    until(lambda: watcher.look() == "dead")
    assert time.monotonic() - since < 10


def test_a_suspended_trainer_is_alive_and_a_suspended_keeper_comes_back(tmp_path: Path, trainer: Start) -> None:
    running, store = trainer("log_for_ever()", tmp_path, interval_s=0.2, start_new_session=True), Folder(tmp_path)
    watcher = Watcher(store, RUN)
    os.killpg(running.process.pid, signal.SIGSTOP)
    number = lease_number(tmp_path)
    until(lambda: lease_number(tmp_path) > number + 2 * MISSED)
    until(lambda: status_of(store, RUN) == watcher.look() == "running")
    with pytest.raises(InputError, match=f"by process {running.process.pid} on"):
        check_free(store, RUN)
    os.kill(running.keeper, signal.SIGSTOP)
    until(lambda: status_of(store, RUN) == watcher.look() == "dead")
    os.kill(running.keeper, signal.SIGCONT)
    os.killpg(running.process.pid, signal.SIGCONT)
    until(lambda: status_of(store, RUN) == watcher.look() == "running")


SHIFTED = """
import time
true = time.time
time.time = lambda: true() {shift:+}
"""


@pytest.mark.parametrize("shift", [3600.0, pytest.param(-3600.0, marks=pytest.mark.slow)])
def test_a_host_whose_clock_is_an_hour_off(tmp_path: Path, trainer: Start, shift: float) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHIFTED.format(shift=shift))
    running = trainer(
        "log_for_ever()", tmp_path, interval_s=0.2, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )  # fmt: skip
    store, watcher = Folder(tmp_path), Watcher(Folder(tmp_path), RUN)
    number = lease_number(tmp_path)
    until(lambda: lease_number(tmp_path) > number + 3)
    until(lambda: status_of(store, RUN) == watcher.look() == "running")
    os.kill(running.keeper, signal.SIGSTOP)
    until(lambda: status_of(store, RUN) == watcher.look() == "dead")
    os.kill(running.keeper, signal.SIGCONT)
    running.process.kill()
    assert abs(end_of(running.attempt)["time"] - time.time() - shift) < 60


STOPPING = """
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
step = 0
while not asked:
    log(step := step + 1)
    time.sleep(0.01)
folder.update(status="stopped")
keeper.close("stopped")
"""


def test_a_run_is_stopped_from_elsewhere(tmp_path: Path, trainer: Start) -> None:
    running = trainer(STOPPING, tmp_path / "here", tmp_path / "home", interval_s=0.2)
    until(lambda: entries(tmp_path / "home", "record/"))
    stop_run(Folder(tmp_path / "home"), RUN)
    running.process.communicate(timeout=30)
    assert status_of(Folder(tmp_path / "home"), RUN) == "stopped"
    assert [event["step"] for event in read_events(Folder(tmp_path / "home"), RUN, 1)] == steps(running.attempt)
    assert b"asked to stop" in (tmp_path / "home/runs/run/attempts/1/log.txt").read_bytes()


@pytest.mark.slow
def test_an_attempt_that_another_one_followed_stops(tmp_path: Path, trainer: Start) -> None:
    running = trainer(STOPPING, tmp_path, interval_s=0.2)
    assert claim_attempt(Folder(tmp_path), RUN) == 2
    running.process.communicate(timeout=30)
    assert running.process.returncode == 0


def test_what_a_dead_process_logged_comes_home(tmp_path: Path, trainer: Start) -> None:
    home = tmp_path / "home"
    running = trainer("print('hello', flush=True)\nlog_for_ever()", tmp_path / "here", home)
    until(lambda: len(read_events(Folder(home), RUN, 1)) > 10)
    end(running.keeper)  # the next one goes on where it was
    until(lambda: keeper_of(running.attempt) not in (None, running.keeper))
    count = len(read_events(Folder(home), RUN, 1))
    until(lambda: len(read_events(Folder(home), RUN, 1)) > count)
    running.process.kill()
    until(lambda: "runs/run/attempts/1/journal.jsonl" in entries(home, "") and keeper_of(running.attempt) is None)
    told = running.last_told()
    found = [event["step"] for event in read_events(Folder(home), RUN, 1)]
    assert found in (list(range(told + 1)), list(range(told + 2)))
    assert status_of(Folder(home), RUN) == "dead"
    kept = {key.removeprefix("runs/run/") for key in entries(home, "") if "lease" not in key}
    assert kept == {"attempts/1/journal.jsonl", "attempts/1/end.json", "attempts/1/log.txt", "record/00000001"}
    assert (home / "runs/run/attempts/1/log.txt").read_bytes().startswith(b"hello\n")


def test_a_home_that_is_gone_for_a_while(tmp_path: Path, trainer: Start) -> None:
    home = tmp_path / "home"
    program = "log(1)\nwhile not (local / 'enough').exists(): time.sleep(0.01)\nlog(2)\nprint(keeper.close('finished'))"
    running = trainer(program, tmp_path / "here", home)
    until(lambda: len(read_events(Folder(home), RUN, 1)) == 2)
    home.rename(tmp_path / "moved")
    home.write_text("no folder")
    until((running.attempt / "log.txt").exists)
    assert b"it is tried again" in (running.attempt / "log.txt").read_bytes()
    home.unlink()
    (tmp_path / "moved").rename(home)
    until(lambda: b"answers again" in (running.attempt / "log.txt").read_bytes())
    (tmp_path / "here/enough").touch()
    assert running.process.communicate(timeout=60)[0] == b"True\n"
    assert [event["step"] for event in read_events(Folder(home), RUN, 1)] == [0, 1, 2]
    assert (home / "runs/run/attempts/1/log.txt").read_bytes().endswith(b"[useg: the home answers again]\n")


def test_with_both_killed_a_home_elsewhere_lacks_two_seconds_at_most(tmp_path: Path, trainer: Start) -> None:
    home = tmp_path / "home"
    program = "step = 0\nwhile True:\n    log(step := step + 1)\n    os.write(told, b'at %f\\n' % time.monotonic())\n"
    running = trainer(program + "    time.sleep(0.01)", tmp_path / "here", home)
    until(lambda: len(read_events(Folder(home), RUN, 1)) > 150)
    os.kill(running.keeper, 9)
    os.kill(running.process.pid, 9)
    killed = time.monotonic()
    running.process.wait()
    content = b""
    while piece := os.read(running.told, 65536):
        content += piece
    found = [event["step"] for event in read_events(Folder(home), RUN, 1)]
    assert found == list(range(len(found)))
    times = [float(line[3:]) for line in content.split(b"\n")[:-1] if line.startswith(b"at")]
    lost = [at for at in times[len(found) - 1 :] if at < killed - 2]
    assert lost == []


def test_in_a_real_bucket(tmp_path: Path, trainer: Start, s3_url: str) -> None:
    program = "print('hello', flush=True)\nlog_for_ever()"
    running, store = trainer(program, tmp_path, s3_url), open_store(s3_url)
    until(lambda: len(read_events(store, RUN, 1)) > 10 and entries(s3_url, "record/"))
    assert status_of(store, RUN) == Watcher(store, RUN).look() == "running"
    running.process.kill()
    until(lambda: status_of(store, RUN) == "dead")
    until(lambda: keeper_of(running.attempt) is None)
    told = running.last_told()
    assert [event["step"] for event in read_events(store, RUN, 1)] in (list(range(told + 1)), list(range(told + 2)))
    assert orjson.loads(store.get("runs/run/attempts/1/end.json"))["signal"] == "SIGKILL"
    assert store.get("runs/run/attempts/1/log.txt") == b"hello\n"


def test_the_system_is_sampled(tmp_path: Path, trainer: Start) -> None:
    running = trainer("log_for_ever()", tmp_path, interval_s=0.2)
    file = running.attempt / "system.jsonl"

    def samples() -> list[dict[str, float]]:
        return [orjson.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []

    until(lambda: any(sample["cpu_percent"] > 0 for sample in samples()[1:]))
    assert all(sample["memory_bytes"] > 10 * 2**20 for sample in samples())


def test_the_keeper_is_light() -> None:
    program = "import sys, useg.runs.keeping, psutil; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout
    assert {"torch", "numpy", "pyarrow", "obstore", "duckdb", "pydantic"}.isdisjoint(loaded.split())


def test_a_keeper_of_this_process_that_cannot_be_started(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    monkeypatch.setattr("useg.runs.keeper.MOST_RESTARTS", 1)
    keeper = start_keeper(tmp_path / "runs/run/attempts/1", run=RUN, home=tmp_path)
    os.write(1, b"printed\n")
    keeper._guard.join(10)
    os.write(1, b"and more\n")
    assert keeper.pid is None
    assert not keeper.close("finished")
    shown = []
    until(lambda: shown.append(capfd.readouterr()) or "printed\n" in "".join(each.out for each in shown))
    assert "and more\n" in "".join(each.out for each in shown)
    assert "run run has no keeper any more and may be shown as dead" in "".join(each.err for each in shown)


def test_an_attempt_whose_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        start_keeper(tmp_path / "runs/run/attempts/1", run=RUN, home=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [["trainer"], ["keeper"], ["keeper", "trainer"], ["trainer", "keeper"]])
@pytest.mark.parametrize("seed", range(13))
def test_killed_at_random_moments(tmp_path: Path, trainer: Start, seed: int, victims: list[str]) -> None:
    chance = random.Random(seed)
    running = trainer("log_for_ever()", tmp_path, interval_s=0.2)
    time.sleep(chance.uniform(0, 1.5))
    for victim in victims:
        pid = running.process.pid if victim == "trainer" else keeper_of(running.attempt)
        if pid is not None:
            end(pid)
        time.sleep(chance.choice([0, 0, chance.uniform(0, 0.5)]))
    running.process.kill()
    told = running.last_told()
    assert steps(running.attempt) in (list(range(told + 1)), list(range(told + 2)))
    until(lambda: status_of(Folder(tmp_path), RUN) == "dead")
