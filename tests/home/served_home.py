"""Servers of homes on loopback: in a thread of this process, or as people start them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from useg.home.store import Store

pytest.importorskip("starlette", reason="no server: pip install 'useg[serve]'")
import uvicorn

from useg.web.app import application
from useg.web.serving import listen
from useg.web.users import Users


@contextmanager
def in_thread(store: Store, users: Users | None = None) -> Iterator[str]:
    """The address of a server in this process."""
    with listen("127.0.0.1", 0) as listening:
        app = application(store, users or Users(store), is_open=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


class Process:
    """`useg serve` as a process; `address` is what it says."""

    def __init__(self, home: Path | str, *options: str, port: int = 0) -> None:
        words = [sys.executable, "-m", "useg", "serve", "--home", str(home), "--port", str(port), "--json", *options]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read())
        self.told = json.loads(line)
        self.address = self.told["address"]
        self.port = int(self.address.rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit status, and what it said on stderr."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        said = self.process.communicate(timeout=20)[1]
        return self.process.returncode, said

    def peak_bytes(self) -> int:
        """The most memory it has had so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmHWM")


@contextmanager
def in_process(home: Path | str, *options: str, port: int = 0) -> Iterator[Process]:
    """A server that is ended when nobody needs it any more."""
    server = Process(home, *options, port=port)
    try:
        yield server
    finally:
        server.end(signal.SIGKILL)


def wait_until(condition, timeout_s: float = 10.0) -> None:
    """Until something holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
