"""Leases: attempts belong to one process, the dead are told from the living without comparing machines' clocks."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from tests.home.faults import Faulty

from useg.errors import InputError, ResourceError
from useg.home.store import Entry, Folder, Memory, Store
from useg.runs.lease import (
    INTERVAL_S,
    MISSED,
    Lease,
    Watcher,
    check_free,
    claim_attempt,
    holder_of,
    status_of,
    stop_run,
)

LIMIT_S = MISSED * INTERVAL_S


class Clock:
    """A clock that a test moves; it starts an hour after the truth."""

    def __init__(self) -> None:
        self.now = 3600.0 + 1e9

    def __call__(self) -> float:
        return self.now


def begun(clock: Clock | None = None, status: str = "running", attempt: bool = True) -> Store:
    store = Memory(clock=clock or Clock())
    store.put("runs/run/record/00000001", orjson.dumps({"status": status, "run": "run"}))
    if attempt:
        assert claim_attempt(store, "run") == 1
    return store


def lease_entries(store: Store, attempt: int = 1) -> list[str]:
    return [entry.key.rpartition("/")[2] for entry in store.list(f"runs/run/attempts/{attempt}/lease/")]


def _claim(home: Path, start, results) -> None:
    start.wait()
    results.put(claim_attempt(Folder(home), "run"))


def test_of_64_processes_that_claim_at_once_each_has_its_own_attempt(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(64), context.Queue()
    processes = [context.Process(target=_claim, args=(tmp_path / "new", start, results)) for _ in range(64)]
    for process in processes:
        process.start()
    claimed = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert claimed == list(range(1, 65))


def test_threads_and_attempts_of_before_are_told_apart() -> None:
    store = Memory()
    store.put("runs/run/attempts/3/journal.jsonl", b"")
    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(lambda _: claim_attempt(store, "run"), range(16))) == list(range(4, 20))


def test_a_claim_says_who_and_is_never_deleted() -> None:
    store = begun()
    lease = Lease(store, "run", 1)
    for number in range(1, 5):
        lease.renew()
        assert lease_entries(store) == ["00000000", f"{number:08d}"]
    assert orjson.loads(store.get("runs/run/attempts/1/lease/00000004")) == {"interval_s": INTERVAL_S}
    holder = holder_of(store, "run")
    assert holder is not None
    assert (holder.attempt, holder.host, holder.pid) == (1, os.uname().nodename, os.getpid())


def test_a_new_keeper_counts_on_from_the_last() -> None:
    store = begun()
    for number in range(1, 4):
        Lease(store, "run", 1).renew()
        assert lease_entries(store) == ["00000000", f"{number:08d}"]


@pytest.mark.parametrize("is_after_effect", [False, True])
@pytest.mark.parametrize("fail_at", range(4))
def test_a_lease_rises_again_after_an_error(fail_at: int, is_after_effect: bool) -> None:
    store = Faulty(begun(), fail_at=fail_at, is_after_effect=is_after_effect)
    lease, failures, highest = Lease(store, "run", 1), 0, 0
    for _ in range(5):
        try:
            lease.renew()
        except ResourceError:
            failures += 1
        else:
            assert int(lease_entries(store)[-1]) > highest
        highest = int(lease_entries(store)[-1])
    assert failures == 1
    assert len(lease_entries(store)) == 2


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_what_the_record_says_last_counts(status: str) -> None:
    clock = Clock()
    store = begun(clock)
    store.put("runs/run/record/00000002", orjson.dumps({"status": status}))
    store.put("runs/run/record/00000003", orjson.dumps({"tags": ["good"]}))
    clock.now += 1e6
    assert status_of(store, "run") == Watcher(store, "run").look() == status


def test_a_lease_that_stands_still_by_the_stores_clock_is_of_a_dead_run() -> None:
    clock = Clock()
    store = begun(clock)
    lease = Lease(store, "run", 1)
    assert status_of(store, "run") == "running"
    for _ in range(3):
        clock.now += LIMIT_S
        assert status_of(store, "run") == "running"
        clock.now += 0.1
        assert status_of(store, "run") == "dead"
        lease.renew()
        assert status_of(store, "run") == "running"
    assert LIMIT_S + INTERVAL_S < 30


def test_before_the_first_attempt_the_record_counts() -> None:
    clock = Clock()
    store = begun(clock, attempt=False)
    assert status_of(store, "run") == "running"
    clock.now += LIMIT_S + 1
    assert status_of(store, "run") == "dead"
    claim_attempt(store, "run")
    assert status_of(store, "run") == "running"


def test_clocks_that_go_back_kill_nobody() -> None:
    clock = Clock()
    store = begun(clock)
    clock.now -= 3600
    assert status_of(store, "run") == "running"
    Lease(store, "run", 1).renew()
    assert status_of(store, "run") == "running"


def test_the_end_counts_at_once_and_only_that_of_the_newest_attempt() -> None:
    store = begun()
    store.put("runs/run/attempts/1/end.json", b"{}")
    assert status_of(store, "run") == Watcher(store, "run").look() == "dead"
    assert claim_attempt(store, "run") == 2
    assert status_of(store, "run") == Watcher(store, "run").look() == "running"


def test_a_watcher_needs_only_its_own_clock() -> None:
    here, there = Clock(), Clock()
    there.now = 0.0
    store = begun(there)
    lease, watcher = Lease(store, "run", 1), Watcher(store, "run", here)
    for shift in (0.0, 1e7, -1e7):
        there.now += shift
        lease.renew()
        assert watcher.look() == "running"
        here.now += LIMIT_S
        assert watcher.look() == "running"
        here.now += 0.1
        assert watcher.look() == "dead"
    claim_attempt(store, "run")
    assert watcher.look() == "running"


def test_a_watcher_that_was_suspended_looks_before_it_judges() -> None:
    here, store = Clock(), begun()
    lease, watcher = Lease(store, "run", 1), Watcher(store, "run", here)
    assert watcher.look() == "running"
    here.now += 1000
    lease.renew()
    assert watcher.look() == "running"


def test_intervals_are_those_of_the_keeper() -> None:
    clock = Clock()
    store = begun(clock, attempt=False)
    claim_attempt(store, "run", interval_s=1)
    clock.now += MISSED + 0.1
    assert status_of(store, "run") == "dead"


def test_runs_of_older_versions_have_no_lease() -> None:
    clock = Clock()
    store = Memory(clock=clock)
    store.put("runs/old/record.json", orjson.dumps({"status": "running"}))
    store.put("runs/old/attempts/1/journal.jsonl", b"")
    assert status_of(store, "old") == "running"
    check_free(store, "old")
    with pytest.raises(InputError, match="of an older version"):
        stop_run(store, "old")
    clock.now += LIMIT_S + 1
    assert status_of(store, "old") == "dead"


def test_there_is_no_such_run() -> None:
    for ask in (status_of, check_free, stop_run, lambda store, run: Watcher(store, run).look()):
        with pytest.raises(InputError, match="no run 'other' in memory:"):
            ask(begun(), "other")


def test_nobody_goes_on_with_a_run_that_is_held() -> None:
    clock = Clock()
    store = begun(clock)
    with pytest.raises(InputError) as error:
        check_free(store, "run")
    assert f"process {os.getpid()} on {os.uname().nodename}" in str(error.value)
    assert "`useg runs stop run`" in str(error.value)
    assert "try again in 20 s" in str(error.value)
    clock.now += LIMIT_S + 1
    check_free(store, "run")


def _claim_once(home: Path) -> None:
    claim_attempt(Folder(home), "run")


def test_a_run_whose_process_is_gone_from_this_machine_is_soon_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("useg.runs.lease._ENDING_S", 0.3)
    store = Folder(tmp_path)
    store.put("runs/run/record/00000001", b'{"status": "running"}')
    process = multiprocessing.get_context("fork").Process(target=_claim_once, args=(tmp_path,))
    process.start()
    process.join()
    assert status_of(store, "run") == "running"
    check_free(store, "run")


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_runs_that_ended_are_free_and_cannot_be_stopped(status: str) -> None:
    store = begun(status=status)
    check_free(store, "run")
    with pytest.raises(InputError, match=f"run does not run: it is {status}"):
        stop_run(store, "run")


def test_stopping_reaches_the_attempt_that_is_running() -> None:
    store = begun()
    first = Lease(store, "run", 1)
    assert not first.is_asked_to_stop()
    stop_run(store, "run")
    stop_run(store, "run")
    assert first.is_asked_to_stop()
    claim_attempt(store, "run")
    assert not Lease(store, "run", 2).is_asked_to_stop()


def test_an_attempt_that_was_thought_dead_is_asked_to_stop_when_there_is_a_next_one() -> None:
    store = begun()
    claim_attempt(store, "run")
    assert Lease(store, "run", 1).is_asked_to_stop()


class Halved(Memory):
    """A home of which a listing shows only some."""

    def list(self, prefix: str = ""):
        return iter([entry for entry in super().list(prefix) if "lease" not in entry.key])


def test_a_run_folder_half_deleted_is_dead() -> None:
    clock = Clock()
    store = Halved(clock=clock)
    store.put("runs/run/record/00000001", b'{"status": "running"}')
    store.put("runs/run/record/00000002", b'{"stat')
    store.put("runs/run/attempts/1/log.txt", b"")
    clock.now += LIMIT_S + 1
    assert status_of(store, "run") == "dead"
    assert [*store.list("runs/run/attempts/")] == [Entry("runs/run/attempts/1/log.txt", 0, clock.now - LIMIT_S - 1)]
