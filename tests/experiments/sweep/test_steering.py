"""The course of a sweep: complete, without doubles, and the same wherever it was cut off."""

import json
from pathlib import Path

import pytest
from tests.experiments.sweep.asking import LR, FakeTrials, steer, sweep_of

from useg.errors import InputError
from useg.experiments.listening import Listener, Stop
from useg.experiments.sweep.log import SweepLog
from useg.experiments.sweep.outcome import outcome
from useg.home.store import Folder
from useg.runs.journal import read_attempt

GRID = """
method = "grid"
seeds = 2
folds = 3
[settings]
seed = 5
[search]
train.lr = [0.001, 0.01, 0.1]
network.base = [8, 16]
"""
RANDOM = f"seeds = 2\n[budget]\ntrials = 14\n[early_stopping]\nmethod = 'asha'\n[search]\n{LR}"


@pytest.mark.parametrize("slots", [1, 4])
def test_grid_times_seeds_times_folds_is_complete_and_without_doubles(tmp_path: Path, slots: int) -> None:
    sweep, trials = sweep_of(GRID), FakeTrials(slots)
    status, log = steer(sweep, tmp_path, trials)
    assert status == "finished"
    assert trials.begun == list(range(6 * 2 * 3))
    assert trials.most == slots
    combinations = set()
    for event in read_attempt(log.file):
        if event["event"] == "begun":
            settings = sweep_trial(sweep, log, event["trial"])
            assert settings["data.split_seed"] == 5
            assert settings["folds"] == 3
            combinations.add(tuple(settings[key] for key in ("train.lr", "network.base", "seed", "fold")))
    assert combinations == {
        (lr, base, seed, fold) for lr in (0.001, 0.01, 0.1) for base in (8, 16) for seed in (5, 6) for fold in range(3)
    }


def sweep_trial(sweep, log, number):
    from useg.experiments.sweep.steering import Course

    return Course(sweep, log, FakeTrials(), Listener())._trial(number).settings


def told(log: SweepLog) -> dict:
    return {
        number: (end["state"], end["score"], log.known.drawn[end["configuration"]])
        for number, end in sorted(log.known.ended.items())
    }


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_a_sweep_goes_on_wherever_it_was_killed(tmp_path: Path, method: str) -> None:
    if method == "tpe":
        pytest.importorskip("optuna")
    text = GRID if method == "grid" else f'method = "{method}"\n{RANDOM}'
    sweep = sweep_of(text.replace("folds = 3", "folds = 1"))
    crashing = {1}
    _, log = steer(sweep, tmp_path / "whole", FakeTrials(crashing=crashing))
    wanted, lines = told(log), log.file.read_bytes().splitlines(keepends=True)
    assert {state for state, _, _ in wanted.values()} >= {"finished", "failed"}
    if method == "random":
        assert "given up" in {state for state, _, _ in wanted.values()}
    for cut in range(1, len(lines), 6 if method == "tpe" else 1):
        for torn in (b"", lines[cut][:-5]):
            folder = tmp_path / f"{cut}-{len(torn)}"
            folder.mkdir()
            (folder / "log.jsonl").write_bytes(b"".join(lines[:cut]) + torn)
            before = {e["trial"] for e in map(json.loads, lines[:cut]) if e["event"] == "ended"}
            trials = FakeTrials(crashing=crashing)
            _, again = steer(sweep, folder, trials)
            assert told(again) == wanted
            assert not before & set(trials.begun)
            assert len(trials.begun) == len(set(trials.begun))
            events = read_attempt(again.file)
            for kind in ("ended", "begun"):
                numbers = [event["trial"] for event in events if event["event"] == kind]
                assert sorted(numbers) == sorted(set(numbers)) == sorted(wanted)


def test_the_same_sweep_draws_the_same_and_another_does_not(tmp_path: Path) -> None:
    runs = [steer(sweep_of(RANDOM), tmp_path / name, FakeTrials())[1].known.drawn for name in "ab"]
    other = steer(sweep_of(RANDOM.replace("seeds = 2", "seeds = 1")), tmp_path / "c", FakeTrials())[1].known.drawn
    assert runs[0] == runs[1] != other


def test_a_larger_budget_goes_on_with_what_was_done(tmp_path: Path) -> None:
    small, large = (sweep_of(f"[budget]\ntrials = {count}\n[search]\n{LR}") for count in (3, 5))
    assert steer(small, tmp_path, FakeTrials())[1].known.ended.keys() == {0, 1, 2}
    trials = FakeTrials()
    steer(large, tmp_path, trials)
    assert trials.begun == [3, 4]
    assert SweepLog(tmp_path).sweep() == large


@pytest.mark.parametrize(("budget", "wanted"), [("minutes = 3.5", 3), ("machine_hours = 0.1", 6), ("minutes = 0.5", 1)])
def test_no_trial_is_begun_that_would_go_beyond_the_time(tmp_path: Path, budget: str, wanted: int) -> None:
    sweep, trials = sweep_of(f"[budget]\n{budget}\n[search]\n{LR}"), FakeTrials()
    steer(sweep, tmp_path, trials)  # each takes a minute
    assert len(trials.begun) == wanted
    again = FakeTrials()
    steer(sweep, tmp_path, again)
    assert again.begun == []  # the time of the first session counts


def test_what_is_given_up_gets_no_more_seeds_and_saves_time(tmp_path: Path) -> None:
    text = "method = 'grid'\nseeds = 3\n[early_stopping]\n[search]\ntrain.lr = [0.01, 0.02, 0.0001, 0.1, 0.015]"
    trials = FakeTrials()
    _, log = steer(sweep_of(text), tmp_path, trials)
    assert log.known.given_up == {6, 9, 12}  # of three and more, one in three goes on
    assert trials.begun == [0, 1, 2, 3, 4, 5, 6, 9, 12]
    found = outcome(sweep_of(text), log.known, Folder(tmp_path), "finished")
    assert found["best"]["settings"] == {"train.lr": 0.01}
    assert found["trials"] == {"finished": 6, "given up": 3, "failed": 0, "stopped": 0}


def test_trials_of_one_configuration_do_not_compete(tmp_path: Path) -> None:
    text = "method = 'grid'\nseeds = 9\n[early_stopping]\n[search]\ntrain.lr = [0.01]"
    _, log = steer(sweep_of(text), tmp_path, FakeTrials(slots=9))
    assert not log.known.given_up


def test_a_stop_lets_trials_save_and_they_go_on(tmp_path: Path) -> None:
    sweep, stop, trials = sweep_of(GRID), Stop(), FakeTrials(2)
    wait = trials.wait

    def soon() -> None:
        wait()
        stop.asked = trials.time > 150

    trials.wait = soon
    status, log = steer(sweep, tmp_path, trials, Listener(stop=stop))
    assert status == "stopped"
    open_ = log.known.begun - log.known.ended.keys()
    assert trials.stopped == open_ == {4, 5}
    again = FakeTrials(2)
    assert steer(sweep, tmp_path, again)[0] == "finished"
    assert again.begun == [4, 5, *range(6, 36)]


def test_a_crash_is_told_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep, trials = sweep_of(GRID), FakeTrials(crashing={7, 8})
    notes: list[str] = []
    status, log = steer(sweep, tmp_path, trials, Listener(note=notes.append))
    found = outcome(sweep, log.known, Folder(tmp_path), status)
    assert found["failed"] == [{"trial": n, "run": f"run{n}", "lines": ["no memory"]} for n in (7, 8)]
    assert found["trials"]["finished"] == 34
    assert "warning: trial 7 failed\n  no memory" in notes
    assert next(row for row in found["configurations"] if row["configuration"] == 1)["finished"] == 4
    assert found["configurations"][-1]["configuration"] == 1  # not all of it is there, so it is not ranked


def test_a_metric_that_runs_do_not_have_is_refused_with_what_they_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pixl_error.*scores\.pixel_error"):
        steer(sweep_of('metric = "scores.pixl_error"\n' + GRID), tmp_path, FakeTrials())


def test_less_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    found = {}
    for metric in ("scores.pixel_error", "score.dice"):
        sweep = sweep_of(f'metric = "{metric}"\n{GRID}')
        _, log = steer(sweep, tmp_path / metric, FakeTrials())
        found[metric] = outcome(sweep, log.known, Folder(tmp_path), "finished")
    first, second = (each["best"]["settings"] for each in found.values())
    assert first == second == {"train.lr": 0.01, "network.base": 16}


def test_two_processes_do_not_go_on_with_one_sweep(tmp_path: Path) -> None:
    sweep = sweep_of(GRID)
    with SweepLog(tmp_path).opened(sweep), pytest.raises(InputError, match="running already"):
        steer(sweep, tmp_path, FakeTrials())
