"""MLflow servers for tests: a naive one in memory, and the real one with SQLite or PostgreSQL."""

import contextlib
import importlib.util
import os
import posixpath
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from tests.home.faults import Killed

from useg.errors import ResourceError
from useg.runs.mirror_server import Metric, Refused, There

NEEDED = ("mlflow", "sqlalchemy", "alembic", "sqlparse", "flask", "flask_cors", "graphene", "aiohttp", "pandas")
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
START_S = 90


class Naive:
    """What a server keeps, with MLflow's limits; each request can be where the sender is killed.

    Attributes:
        runs: by MLflow's id. points: of each, as MLflow's table has them: (name, value, time, step), each once.
        kill_at: at this request the sender is killed; is_after: after it was done. down: so many requests fail.
    """

    def __init__(self) -> None:
        self.runs: dict[str, There] = {}
        self.points: dict[str, set[tuple[str, str, int, int]]] = {}
        self.stored: dict[str, dict[str, bytes]] = {}
        self.requests = 0
        self.points_sent = 0
        self.largest = 0
        self.kill_at: int | None = None
        self.is_after = False
        self.down = 0

    shown = "naive"

    def _request(self, change=lambda: None):
        self.requests += 1
        if self.down > 0:
            self.down -= 1
            raise ResourceError("naive does not answer")
        is_killed = self.kill_at is not None and self.requests > self.kill_at
        if is_killed and not self.is_after:
            raise Killed
        found = change()
        if is_killed:
            raise Killed
        return found

    def experiment(self, name: str) -> tuple[str, str]:
        return self._request(lambda: ("0", "0:1"))

    def find(self, experiment: str, run: str) -> There | None:
        return self._request(lambda: next((deepcopy(r) for r in self.runs.values() if r.tags["useg.run"] == run), None))

    def get(self, there: str) -> There | None:
        return self._request(lambda: deepcopy(self.runs.get(there)))

    def create(self, experiment: str, run: str, started_ms: int) -> There:
        def change() -> There:
            made = There(f"m{len(self.runs)}", "RUNNING", tags={"useg.run": run}, files_at="naive:")
            self.runs[made.id], self.points[made.id], self.stored[made.id] = made, set(), {}
            return deepcopy(made)

        return self._request(change)

    def send(self, there: str, metrics=(), params=None, tags=None) -> None:
        params, tags = params or {}, tags or {}
        assert len(metrics) + len(params) + len(tags) <= 1000
        assert len(params) <= 100
        assert len(tags) <= 100
        for name in [*params, *tags, *(metric[0] for metric in metrics)]:
            if (
                not re.fullmatch(r"[/\w.\- :]+", name)
                or posixpath.normpath(name) != name
                or name[0] in "/"
                or len(name) > 250
            ):
                raise Refused(f"Invalid name {name!r}", "INVALID_PARAMETER_VALUE")
        assert all("\0" not in text for text in (*params.values(), *tags.values()))
        assert all(len(text) <= 6000 for text in params.values())
        run = self.runs[there]

        def change() -> None:
            if any(run.params.get(name, text) != text for name, text in params.items()):
                raise Refused("Changing param values is not allowed", "INVALID_PARAMETER_VALUE")
            run.params |= params
            for name, value, step, time_ms in metrics:
                self.points[there].add((name, repr(value), time_ms, step))
                run.metrics[name] = value
            self.points_sent += len(metrics)
            self.largest = max(self.largest, len(metrics))
            run.tags |= tags

        self._request(change)

    def send_params(self, there: str, params) -> None:
        for name, text in params.items():
            self.send(there, params={name: text})

    def send_tags(self, there: str, tags) -> None:
        for name, text in tags.items():
            self.send(there, tags={name: text})

    def set_status(self, there: str, status: str, ended_ms: int | None) -> None:
        self._request(lambda: setattr(self.runs[there], "status", status))

    def send_file(self, there: There, file: Path, folder: str = "") -> None:
        content = file.read_bytes()
        self._request(lambda: self.stored[there.id].update({posixpath.join(folder, file.name): content}))


def curve(points: set[tuple[str, str, int, int]], name: str) -> list[tuple[int, str]]:
    """Step and value of the points of a curve."""
    return sorted((step, value) for each, value, _, step in points if each == name)


def missing() -> str:
    """What is not installed of what the real server needs; "" when all is there."""
    return ", ".join(name for name in NEEDED if importlib.util.find_spec(name) is None)


@contextlib.contextmanager
def real_server(folder: Path, database: str | None = None, port: int | None = None) -> Iterator["Real"]:
    """An MLflow server on loopback, with SQLite in this folder, or with another database."""
    server = Real(folder, database or f"sqlite:///{folder}/mlflow.db", port or free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Real:
    """A real server that can be killed and started again."""

    def __init__(self, folder: Path, database: str, port: int) -> None:
        self._folder, self._database, self.port = folder, database, port
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
                                    "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
        with (self._folder / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
            command += ["--workers", "1", "--backend-store-uri", self._database]
            command += ["--artifacts-destination", str(self._folder / "artifacts")]
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError((self._folder / "server.log").read_text()[-3000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and what it started, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def no_postgres() -> str:
    """Why there can be no PostgreSQL here; "" when there can."""
    if not (POSTGRES / "initdb").exists():
        return f"no PostgreSQL in {POSTGRES}"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return "" if importlib.util.find_spec("psycopg") else "no psycopg: pip install 'psycopg[binary]'"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL on loopback; the address of a database in it."""
    as_owner = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    # not below the tests' folder, which only their user may enter
    folder = Path(tempfile.mkdtemp(prefix="useg-postgres-"))
    if as_owner:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_port()

    def run(program: str, *words: str) -> None:
        command = [*as_owner, str(POSTGRES / program), "-D", str(data), *words]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    try:
        run("initdb", "-U", "useg", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        run("pg_ctl", "-o", f"-h 127.0.0.1 -p {port} -k {folder} -F", "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql://useg@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["Metric", "Naive", "Real", "curve", "missing", "no_postgres", "postgres", "real_server"]
