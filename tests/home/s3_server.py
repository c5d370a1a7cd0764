"""A real S3 server on loopback for all processes of a test session; it ends with the last of them, even if killed.

Started as a program it is the supervisor: it runs SeaweedFS for as long as anybody holds the lock on `users`.
"""

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from obstore.exceptions import BaseError
from obstore.store import S3Store

START_S = 60.0
STARTED: list["subprocess.Popen[bytes]"] = []
PORTS = (
    "-master.port",
    "-master.port.grpc",
    "-volume.port",
    "-volume.port.grpc",
    "-filer.port",
    "-filer.port.grpc",
    "-s3.port",
    "-s3.port.grpc",
)


@dataclass(frozen=True)
class S3Server:
    """Where it answers, and who may ask."""

    endpoint: str
    filer: str
    access_key: str
    secret_key: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }


def weed() -> str | None:
    """The server's program, if it is installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def shared_server(folder: Path) -> Iterator[S3Server]:
    """The server of all that name this folder; the first one starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "users").open("a") as users:
        with (folder / "start").open("a") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            # held from here on: the supervisor, which wants it alone, now waits for us
            fcntl.flock(users, fcntl.LOCK_SH)
            told = folder / "server.json"
            if not told.exists():
                _start(folder, told)
            server = S3Server(**json.loads(told.read_text()))
        yield server


def _start(folder: Path, told: Path) -> None:
    log = folder / "supervisor.log"
    with log.open("w") as output:
        supervisor = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdout=output, stderr=output, start_new_session=True
        )
    STARTED.append(supervisor)  # it outlives us when others use the server
    end = time.monotonic() + START_S
    while not told.exists():
        if supervisor.poll() is not None or time.monotonic() > end:
            supervisor.terminate()
            raise RuntimeError(f"the S3 server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def _supervise(folder: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    data = folder / "data"
    data.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        ports = _free_ports(len(PORTS))
        server = S3Server(
            endpoint=f"http://127.0.0.1:{ports[6]}",
            filer=f"http://127.0.0.1:{ports[4]}",
            access_key=secrets.token_hex(10).upper(),
            secret_key=secrets.token_hex(20),
            bucket=f"useg-{secrets.token_hex(4)}",
        )
        identity = {
            "name": "test",
            "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
            # not "Admin": an administrator's upload makes a bucket that is not there
            "actions": ["Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        process = subprocess.Popen(
            [
                str(weed()),
                "server",
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-master.telemetry=false"),
                *("-master.volumeSizeLimitMB=64", "-volume.max=40", "-filer.localSocket=", "-s3.localSocket="),
                *("-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *(f"{option}={port}" for option, port in zip(PORTS, ports, strict=True)),
            ],
            cwd=folder,
            preexec_fn=_end_with_parent,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_for_bucket(server, process)
        (folder / "server.part").write_text(json.dumps(vars(server)))
        (folder / "server.part").rename(folder / "server.json")
        with (folder / "start").open("a") as start, (folder / "users").open("a") as users:
            while process.poll() is None:
                time.sleep(0.5)
                fcntl.flock(start, fcntl.LOCK_EX)
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    fcntl.flock(start, fcntl.LOCK_UN)
                    continue
                break
            (folder / "server.json").unlink()


def _wait_for_bucket(server: S3Server, process: "subprocess.Popen[bytes]") -> None:
    store = S3Store(
        server.bucket,
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.post(f"{server.filer}/buckets/{server.bucket}/").status_code in (201, 409):
                store.put("ready", b"")
                return
        except (httpx.HTTPError, BaseError):
            pass
        time.sleep(0.1)
    raise RuntimeError("no answer")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            os._exit(1)


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]))
