"""Runs sent to a real MLflow server on loopback, with SQLite and with PostgreSQL: the same as to the naive one."""

import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tests.cli.calling import call
from tests.runs.making import add_entry, finished, write_run
from tests.runs.mlflow_servers import Naive, Real, curve, missing, no_postgres, postgres, real_server
from tests.runs.test_mirror import STARTED, append, mirror, step

from useg.errors import InputError, ResourceError
from useg.runs.mirror_server import Server
from useg.runs.pictures import keep_picture

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=f"no MLflow server: {missing()} not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlflow and what it is made of
]
Points = set[tuple[str, str, int, int]]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("mlflow")
    if request.param == "sqlite":
        with real_server(folder) as server:
            yield server
        return
    if no_postgres():
        pytest.skip(no_postgres())
    with postgres() as database, real_server(folder, database) as server:
        yield server


@pytest.fixture(autouse=True)
def own_cache_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))


def there(real: Real, experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(real.url)
    found = client.get_experiment_by_name(experiment)
    return sorted(client.search_runs([found.experiment_id]), key=lambda run: run.data.tags["useg.run"])


def points(real: Real, run: Any) -> Points:
    from mlflow import MlflowClient

    client, found = MlflowClient(real.url), []
    for name in run.data.metrics:
        found += [(m.key, repr(m.value), m.timestamp, m.step) for m in client.get_metric_history(run.info.run_id, name)]
    assert len(found) == len(set(found))
    return set(found)


def files(real: Real, run: Any) -> dict[str, int]:
    from mlflow import MlflowClient

    client = MlflowClient(real.url)
    found = [*client.list_artifacts(run.info.run_id), *client.list_artifacts(run.info.run_id, "images")]
    return {each.path: each.file_size for each in found if not each.is_dir}


def as_mlflow(naive: Points) -> Points:
    """Infinities as MLflow keeps them."""
    largest = repr(sys.float_info.max)
    return {(name, value.replace("inf", largest), time_ms, step) for name, value, time_ms, step in naive}


def odd_home(home: Path) -> None:
    """A run with everything that MLflow has trouble with, and a plain one."""
    events = [step(1, **{"a\nb": 1, "x@y": 2, "a/b": 3, "x" * 300: 4, "../..": 5, "": 6, "ü": 7, "a b": 8, "c:d": 9})]
    events += [step(2, loss="NaN"), step(3, loss="Infinity"), step(4, loss="-Infinity"), step(5, loss=1e300)]
    events += [{"event": "step", "step": -3, "loss": 1}, {"event": "step", "step": 0.5, "loss": 1, "time": -5}]
    events += [step(number) for number in range(6, 1500)]
    config = {"long": "ä" * 20_000, "zero": "a\0b", "empty": "", "none": None, "list": [1, 2], "bad\nname": 1}
    config |= {"more": {f"n{number}": "日本" * 1000 for number in range(150)}, "nan": math.nan}
    more = {"started": STARTED, "note": "x" * 20_000, "user": "ann", "tags": ["a", "b"]}
    folder = write_run(home, "odd", finished(1, config=config, **more), journal=events)
    (folder / "model.useg").write_bytes(b"weights" * 1000)
    (folder / "report.html").write_text("<p>page</p>")
    for number in range(3):
        keep_picture(folder, f"images/{number} ü+", number, np.zeros((8, 8, 3), np.uint8))
    write_run(home, "plain", finished(2, status="failed", error="the loss became NaN", started=STARTED))


def test_the_same_as_the_naive_server(real: Real, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home, name = tmp_path / "home", f"odd {time.time_ns()}"
    odd_home(home)
    naive = Naive()
    assert mirror(home, naive, tmp_path / "naive").problems == {}
    words = ("runs", "mirror", "--home", home, "--to", real.url, "--experiment", name, "--json")
    assert call(*words) == 0
    first = orjson.loads(capfd.readouterr().out.splitlines()[-1])
    assert (first["runs"], first["metrics"], first["pictures"]) == (2, naive.points_sent, 3)
    runs = there(real, name)
    assert [run.data.tags["useg.run"] for run in runs] == ["odd", "plain"]
    for run in runs:
        same = next(each for each in naive.runs.values() if each.tags["useg.run"] == run.data.tags["useg.run"])
        assert points(real, run) == as_mlflow(naive.points[same.id])
        assert run.data.params == same.params
        assert same.tags.items() <= run.data.tags.items()
        assert run.info.status == same.status
        assert files(real, run) == {each: len(content) for each, content in naive.stored[same.id].items()}
    assert (runs[0].info.start_time, runs[0].info.end_time) == (1793527200000, 1793613690000)
    assert all(re.search(r"\+step\+\d+\+timestamp\+\d+\+", each) for each in files(real, runs[0]) if "images/" in each)

    assert call(*words) == 0
    second = orjson.loads(capfd.readouterr().out.splitlines()[-1])
    assert [second[each] for each in ("runs", "metrics", "params", "pictures", "files")] == [0] * 5
    for file in (tmp_path / "cache").glob("mirror/*/*.json"):
        file.unlink()
    assert call(*words) == 0
    third = orjson.loads(capfd.readouterr().out.splitlines()[-1])
    assert (third["runs"], third["metrics"], third["params"]) == (2, 0, 0), "known by what the server remembers"
    again = there(real, name)
    assert [run.info.run_id for run in again] == [run.info.run_id for run in runs]
    assert [files(real, run) for run in again] == [files(real, run) for run in runs]


@pytest.mark.slow
def test_killed_in_the_middle(real: Real, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By kill -9, at random moments, until it comes through."""
    home, name = tmp_path / "home", f"killed {time.time_ns()}"
    folder = write_run(home, "a", finished(1, started=STARTED), journal=[step(n) for n in range(1, 15_001)])
    keep_picture(folder, "x", 1, np.zeros((8, 8)))
    words = ["-m", "useg", "runs", "mirror", "--home", str(home), "--to", real.url, "--experiment", name]
    kills = 0
    for wait_s in (2.0, 2.7, 3.4, 4.1):
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert kills > 0
    assert call(*words[2:]) == 0
    (run,) = there(real, name)
    naive = Naive()
    mirror(home, naive, tmp_path / "naive")
    assert points(real, run) == naive.points["m0"]
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_goes_and_comes(real: Real, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home, name = tmp_path / "home", f"down {time.time_ns()}"
    write_run(home, "a", finished(1, started=STARTED), journal=[step(n) for n in range(1, 3000)])
    words = ("runs", "mirror", "--home", home, "--to", real.url, "--experiment", name)
    real.kill()
    # aborted, where a connection was still open
    gone = r"Connection (refused|aborted)"
    thread = threading.Thread(target=real.start)
    try:
        assert call(*words, "--patience", "0") == 2
        said = capfd.readouterr().err
        assert re.search(f"error: {real.url} does not answer: {gone}. What was sent is kept", said), said
    finally:
        thread.start()
    assert call(*words, "--patience", "90") == 0
    thread.join()
    said = capfd.readouterr().err
    assert len(re.findall(rf"does not answer \({gone}\); trying again", said)) == 1
    assert "answers again" in said
    (run,) = there(real, name)
    assert len(curve(points(real, run), "loss")) == 2999


def test_resumed_while_it_is_followed(real: Real, tmp_path: Path) -> None:
    """The latest value is that of the later attempt."""
    home, name = tmp_path / "home", f"resumed {time.time_ns()}"
    folder = write_run(home, "a", finished(1, started=STARTED), journal=[step(n) for n in range(1, 11)])
    words = ("runs", "mirror", "--home", home, "--to", real.url, "--experiment", name)
    assert call(*words) == 0
    append(folder, {"event": "resumed", "step": 7}, step(8), step(9, loss=5.0), step(10, loss=0.01), attempt=2)
    add_entry(folder, {"status": "stopped", "plan": {"steps": 99}})
    assert call(*words) == 0
    (run,) = there(real, name)
    assert [s for s, _ in curve(points(real, run), "loss")] == [*range(1, 10), 9, 10, 10]
    assert run.data.metrics["loss"] == 0.01
    assert run.data.tags["useg.replaced"].startswith("steps 8 to 10 ")
    assert (run.data.params["plan.steps"], run.data.tags["useg.changed.plan.steps"]) == ("100", "99")
    assert run.info.status == "KILLED"


def test_what_the_server_refuses(real: Real, tmp_path: Path) -> None:
    server = Server(real.url, 0, lambda text: None)
    with pytest.raises(InputError, match=r"experiment 'x{600}': .*exceeds the maximum length"):
        server.experiment("x" * 600)
    with pytest.raises(ResourceError, match="does not answer"):
        Server("http://127.0.0.1:9", 0, lambda text: None).experiment("useg")
    with pytest.raises(InputError, match="wanted the address of an MLflow server"):
        Server("mlruns", 0, lambda text: None)
    from mlflow import MlflowClient

    gone = server.experiment(f"gone {time.time_ns()}")[0]
    client = MlflowClient(real.url)
    client.delete_experiment(gone)
    with pytest.raises(InputError, match="was deleted there; restore it"):
        server.experiment(client.get_experiment(gone).name)
