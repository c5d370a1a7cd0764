"""`useg serve` and `useg users` as people use them: real servers as processes of their own."""

import os
import random
import signal
import socket
import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from tests.cli.calling import SMALL, Told, call, save
from tests.home.served_home import in_process, in_thread, wait_until

from useg.errors import ResourceError
from useg.home import served as served_module
from useg.home.served import Served
from useg.home.store import Folder, Missing, Store
from useg.web.users import ROLES

OPEN = "warning: there is no token: everybody on this machine can read, write and delete; see `useg users token`\n"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("USEG_TOKEN", raising=False)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_server_says_where_it_is_and_ends_when_it_is_told(number: int, status: int, tmp_path: Path) -> None:
    with in_process(tmp_path / "home") as server:
        assert server.told == {"home": str(tmp_path / "home"), "address": server.address, "open": True}
        assert server.address.startswith("http://127.0.0.1:")
        store = Served(server.address)
        assert store.put("a", b"1")
        ended, said = server.end(number)
    assert ended == status
    assert said == OPEN + ("error: interrupted\n" if status else "stopped\n")
    with pytest.raises(ResourceError, match="Is `useg serve` running"):
        Served(server.address, patience_s=0).get("a")


def test_tokens_from_the_first_to_the_last(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    made = told("users", "token", "anna", "--role", "writer", "--home", home)
    assert made["token"].startswith("useg_")
    assert made["token"] not in told.err
    told("users", "token", "ben", "--role", "reader", "--home", home)
    listed = told("users", "list", "--home", home)
    assert [(user["name"], user["role"]) for user in listed["users"]] == [("anna", "writer"), ("ben", "reader")]
    assert made["token"] not in str(listed)
    monkeypatch.setenv("USEG_TOKEN", made["token"])
    with in_process(home) as server:
        assert server.told["open"] is False
        store = Served(server.address)
        assert store.put("runs/a/record/00000001", b"{}")
        told("users", "revoke", "anna", "--home", home)
        with pytest.raises(ResourceError, match="none of its tokens"):
            store.get("runs/a/record/00000001")
        assert server.end() == (0, "stopped\n")


def test_what_is_wrong_with_users_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", tmp_path / "home"]
    assert call("users", "token", "anna", "--role", "boss", *home) == 2
    assert "--role 'boss': wanted one of reader, writer, admin" in capsys.readouterr().err
    assert call("users", "revoke", "anna", *home) == 2
    assert "'anna' has no token for" in capsys.readouterr().err
    assert call("users", "list", *home) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'home'}: nobody has a token\n"
    assert call("users", "token", "anna") == 2


def test_no_port_is_open_beyond_this_machine_without_a_token(
    tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        assert call("serve", "--home", home, "--host", host, "--port", "0") == 2
        said = capsys.readouterr()
        assert f"--host {host}: others could reach this home, and it has no token; make one first" in said.err
        assert said.out == ""
    told("users", "token", "anna", "--role", "reader", "--home", home)
    with in_process(home, "--host", "0.0.0.0") as server:
        assert server.told["open"] is False
        with pytest.raises(ResourceError, match="wants a token"):
            Served(f"http://127.0.0.1:{server.port}").get("a")
    told("users", "revoke", "anna", "--home", home)
    assert call("serve", "--home", home, "--host", "0.0.0.0", "--port", "0") == 2


def test_a_home_that_had_a_token_is_not_open_again(tmp_path: Path, told: Told) -> None:
    home = tmp_path / "home"
    told("users", "token", "anna", "--role", "reader", "--home", home)
    told("users", "revoke", "anna", "--home", home)
    with in_process(home) as server:
        assert server.told["open"] is False
        with pytest.raises(ResourceError, match="wants a token"):
            Served(server.address).get("a")


def test_where_nobody_can_listen_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], told: Told) -> None:
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert call("serve", "--home", home, "--port", port) == 2
        assert f"127.0.0.1, port {port}: something listens there already; stop it, or give" in capsys.readouterr().err
    told("users", "token", "anna", "--role", "reader", "--home", home)
    assert call("serve", "--home", home, "--host", "192.0.2.1", "--port", "0") == 2
    assert "192.0.2.1, port 0: cannot listen there" in capsys.readouterr().err


def test_without_the_extra_the_command_to_install_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert call("serve", "--home", tmp_path) == 2
    assert "serving a home needs the extra `serve`: pip install 'useg[serve]'" in capsys.readouterr().err


def test_a_server_that_is_killed_during_a_put_leaves_nothing_and_the_put_comes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    content = random.Random(1).randbytes(24 * 2**20)
    key = f"packs/{blake3(content).hexdigest()}"
    killed = Event()
    pieces = served_module._Sending.pieces

    def with_a_death(sending: Any) -> Iterator[bytes]:
        for number, piece in enumerate(pieces(sending)):
            if number == 12 and not killed.is_set():
                wait_until(lambda: _open_files(server.process.pid, home) > 0)
                os.kill(server.process.pid, signal.SIGKILL)
                server.process.wait()
                killed.set()
            yield piece

    monkeypatch.setattr(served_module._Sending, "pieces", with_a_death)
    with in_process(home) as server, ThreadPoolExecutor(1) as pool:
        store = Served(server.address)
        putting = pool.submit(store.put, key, content)
        assert killed.wait(20)
        assert [path for path in home.rglob("*") if path.is_file()] == []
        assert [*Folder(home).list()] == []
        with in_process(home, port=server.port):
            assert putting.result(30) is True
            assert store.put(key, content) is False
    assert Folder(home).get(key) == content
    assert [path for path in home.rglob("*") if path.is_file()] == [home / key]


def _open_files(process: int, folder: Path) -> int:
    """How many files of a folder a process has open, also those without a name."""
    found = 0
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            found += os.readlink(link).startswith(str(folder))
        except FileNotFoundError:
            continue
    return found


def test_a_client_that_goes_away_during_a_put_leaves_nothing(tmp_path: Path) -> None:
    home = Folder(tmp_path / "home")
    with in_process(home.root) as server:
        for sent in (10, 3 * 2**20):
            with socket.create_connection(("127.0.0.1", server.port)) as half:
                half.sendall(b"PUT /v1/keys/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n")
                half.sendall(bytes(sent))
                time.sleep(0.2)
        with pytest.raises(Missing):
            Served(server.address).get("a")
        wait_until(lambda: _open_files(server.process.pid, home.root) == 0)
        assert server.end() == (0, f"{OPEN}stopped\n")
    assert [*home.list()] == []


def test_large_contents_go_through_in_bounded_memory(tmp_path: Path) -> None:
    size = 64 * 2**20
    file = tmp_path / "file"
    content = random.Random(2).randbytes(2**20) * 64
    file.write_bytes(content)
    key = f"packs/{blake3(content).hexdigest()}"
    with in_process(tmp_path / "home") as server:
        store = Served(server.address)
        store.time()
        before = server.peak_bytes()
        tracemalloc.start()
        try:
            assert store.put(key, file)
            assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        finally:
            tracemalloc.stop()
        assert store.get(key) == content
        assert store.get(key, 5, size - 5) == content[5:-5]
        assert server.peak_bytes() - before < 24 * 2**20
    assert Folder(tmp_path / "home").get(key) == content


class Afar(Store):
    """A home in a folder that has no files to show, as a bucket has none."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self.url, self.most = folder, "afar", 0

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        found = self._folder.get(key, start, end)
        self.most = max(self.most, len(found))
        return found

    def put(self, key, content):
        return self._folder.put(key, content)

    def list(self, prefix=""):
        return self._folder.list(prefix)

    def delete(self, key):
        self._folder.delete(key)

    def time(self):
        return self._folder.time()


def test_a_large_content_of_a_home_that_is_elsewhere_is_never_whole_in_the_server(tmp_path: Path) -> None:
    content = random.Random(3).randbytes(2**20) * 40 + b"end"
    afar = Afar(Folder(tmp_path / "home"))
    afar.put("a", content)
    afar.put("exact", content[: 16 * 2**20])
    with in_thread(afar) as address:
        store = Served(address)
        assert store.get("a") == content
        assert store.get("a", 7) == content[7:]
        assert store.get("a", 7, 17 * 2**20) == content[7 : 17 * 2**20]
        assert store.get("a", 7, 10**9) == content[7:]
        assert store.get("exact") == content[: 16 * 2**20]
    assert afar.most == 16 * 2**20


@pytest.mark.slow
def test_people_work_on_a_served_home_with_tokens(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A writer adds data, trains and pushes; a reader trains and pulls; neither takes anything away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("USEG_HOME", raising=False)
    home = tmp_path / "server"
    tokens = {role: told("users", "token", role, "--role", role, "--home", home)["token"] for role in ROLES}
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 200, (32, 32))
        mask = np.zeros((32, 32))
        mask[8:20, 5:15] = 255
        save(tmp_path / f"data/images/{number}.png", picture + mask / 5)
        save(tmp_path / f"data/masks/{number}.png", mask)
    with in_process(home) as server:
        there = server.address
        assert call("data", "add", "data", "--name", "cells", "--home", there) == 2
        assert "wants a token, and none was given" in capsys.readouterr().err
        monkeypatch.setenv("USEG_TOKEN", tokens["writer"])
        first = told("data", "add", "data", "--name", "cells", "--home", there)
        run = told("train", "cells", *SMALL, "--home", there)
        (listed,) = told("runs", "list", "--home", there)["runs"]
        assert (listed["run"], listed["status"]) == (run["run"], "finished")
        keys = [entry.key.removeprefix(f"runs/{run['run']}/") for entry in Folder(home).list("runs/")]
        assert {"model.useg", "report.html", "attempts/1/journal.jsonl", "attempts/1/end.json"} <= {*keys}
        assert not [key for key in keys if "/journal/" in key]
        told("data", "branch", "cells", "trial", "--home", there)
        assert call("data", "branch", "cells", "trial", "--delete", "--home", there) == 2
        assert "a writer cannot take a name away" in capsys.readouterr().err

        monkeypatch.setenv("USEG_TOKEN", tokens["reader"])
        monkeypatch.setenv("USEG_CACHE", str(tmp_path / "another cache"))
        assert call("train", "cells", *SMALL, "--home", there) == 2
        assert "a reader cannot write" in capsys.readouterr().err
        told("data", "pull", "cells", there, "--home", tmp_path / "mine")
        assert told("train", "cells", *SMALL, "--home", tmp_path / "mine")["weights"] == run["weights"]
        assert told("data", "verify", "--home", there)["problems"] == []
        told("data", "set", "cells", "stain=HE", "--where", "key = '3'", "--home", tmp_path / "mine")
        assert call("data", "push", "cells", there, "--home", tmp_path / "mine") == 2
        assert "a reader cannot write; use a token of another role" in capsys.readouterr().err
        monkeypatch.setenv("USEG_TOKEN", tokens["writer"])
        assert told("data", "push", "cells", there, "--home", tmp_path / "mine")["digest"] != first["digest"]
        _, said = server.end()
    assert "Traceback" not in said
    assert not [token for token in tokens.values() for path in tmp_path.rglob("*")
                if path.is_file() and token.encode() in path.read_bytes()]  # fmt: skip
