"""Machines that fetch from each other: each byte leaves the home about once, whatever becomes of the others."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from blake3 import blake3
from tests.home.test_fetching import contents, read

from useg.errors import ConfigError
from useg.home import fetching as fetching_module
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.moved import moved
from useg.home.objects import Objects
from useg.home.offering import offered
from useg.home.peers import HERE, PEERS, PEERS_TOKEN, Peers, known_peers
from useg.home.store import Memory


class Counted(Memory):
    """A home that knows what it has sent of its packs."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []

    @property
    def sent(self) -> int:
        return sum(self.answers)

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        content = super().get(key, start, end)
        self.answers.append(len(content) * key.startswith("packs/"))
        return content


@pytest.fixture
def home() -> Counted:
    return Counted()


def filled(home: Counted, count: int, length: int) -> tuple[list[bytes], list[tuple[str, str]]]:
    """Contents in a home, and what to want for them; several packs' stretches long."""
    made = contents(count, length)
    with Objects(home).writer() as writer:
        digests = [writer.put(each) for each in made]
        writer.commit()
    home.answers.clear()
    return made, [(digest, ".bin") for digest in digests]


class Nodes:
    """Machines with caches of their own, that offer what they have."""

    def __init__(self, home: Counted, place: Path, count: int) -> None:
        self.caches = [Cache(place / f"cache{number}", max_bytes=10**9) for number in range(count)]
        self.objects = [Objects(home) for _ in range(count)]
        self.stack = ExitStack()
        self.addresses = {
            f"n{number}": self.stack.enter_context(offered(Fetcher(objects, cache), "127.0.0.1", "secret"))
            for number, (objects, cache) in enumerate(zip(self.objects, self.caches, strict=True))
        }

    def fetcher(self, number: int, token: str = "secret") -> Fetcher:
        peers = Peers(self.addresses, f"n{number}", token)
        return Fetcher(self.objects[number], self.caches[number], peers)


def test_each_byte_leaves_the_home_once_however_many_machines_want_it(home: Counted, tmp_path: Path) -> None:
    made, wanted = filled(home, 300, 100_000)
    nodes = Nodes(home, tmp_path, 4)
    with nodes.stack, ThreadPoolExecutor(4) as pool:
        found = [pool.submit(nodes.fetcher(number).files, wanted) for number in range(4)]
        assert all(read(each.result(60)) == made for each in found)
    total = sum(map(len, made))
    assert total <= home.sent <= 1.02 * total
    assert {file.name for cache in nodes.caches for file in cache.folder.glob("??/*")} == {d + s for d, s in wanted}
    came = [moved(cache.folder) for cache in nodes.caches]
    assert total <= sum(from_home for from_home, _ in came) <= 1.02 * total
    assert all(total <= sum(each) <= 1.02 * total for each in came)


def test_what_is_too_large_for_memory_goes_by_pieces(home: Counted, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fetching_module, "LOT_BYTES", 150_000)
    made, wanted = filled(home, 12, 400_000)
    nodes = Nodes(home, tmp_path, 3)
    with nodes.stack:
        for number in range(3):
            assert read(nodes.fetcher(number).files(wanted)) == made
    assert home.sent <= 1.02 * sum(map(len, made))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("fault", ["gone", "silent", "wrong token", "cut off", "other bytes"])
def test_a_machine_that_does_not_do_its_part_is_passed_over(
    fault: str, large: bool, home: Counted, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("useg.home.peers._ANSWER_S", 0.5)
    monkeypatch.setattr(fetching_module, "LOT_BYTES", 150_000 if large else 10**9)
    made, wanted = filled(home, 60, 200_000)
    nodes = Nodes(home, tmp_path, 2)
    with nodes.stack, socket.create_server(("127.0.0.1", 0)) as listening:
        if fault == "gone":
            nodes.addresses["n1"] = "http://127.0.0.1:1"
        elif fault != "wrong token":
            nodes.addresses["n1"] = f"http://127.0.0.1:{listening.getsockname()[1]}"
            threading.Thread(target=_answer, args=(listening, fault), daemon=True).start()
        fetcher = nodes.fetcher(0, "wrong" if fault == "wrong token" else "secret")
        assert read(fetcher.files(wanted)) == made
        assert not nodes.caches[1].folder.exists()


def _answer(listening: socket.socket, fault: str) -> None:
    with ExitStack() as held:
        while True:
            try:
                connection = held.enter_context(listening.accept()[0])
            except OSError:
                return
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(65536)
            if fault != "silent":
                body = blake3(b"x").digest() + (1000).to_bytes(8) + bytes(1000)
                length = 5000 if fault == "cut off" else len(body)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body)
                connection.close()


def test_nothing_is_given_without_the_token_or_for_another_question(home: Counted, tmp_path: Path) -> None:
    _, wanted = filled(home, 3, 1000)
    nodes = Nodes(home, tmp_path, 1)
    url, right = f"{nodes.addresses['n0']}/v1/objects", {"Authorization": "Bearer secret"}
    with nodes.stack:
        assert httpx.post(url, content=wanted[0][0]).status_code == 401
        assert httpx.post(url, content=wanted[0][0], headers={"Authorization": "Bearer secre"}).status_code == 401
        assert httpx.post(url[:-1], content=wanted[0][0], headers=right).status_code == 400
        assert httpx.post(url, content="0" * 64, headers=right).status_code == 404
        assert httpx.post(url, content="../../etc/passwd", headers=right).content == b""
        assert httpx.get(url, headers=right).status_code == 501
        assert httpx.post(url, content=wanted[0][0] + ".bin", headers=right).content[32:40] == (1000).to_bytes(8)


def test_the_environment_names_them(monkeypatch) -> None:
    monkeypatch.delenv(PEERS, raising=False)
    assert known_peers() is None
    monkeypatch.setenv(PEERS, "a=http://10.0.0.1:5 b=http://[::1]:6")
    monkeypatch.setenv(PEERS_TOKEN, "x")
    monkeypatch.setenv(HERE, "b")
    peers = known_peers()
    assert {peers._owner(f"pack/{number}") for number in range(20)} == {"a", None}
    monkeypatch.setenv(PEERS, "10.0.0.1:5")
    with pytest.raises(ConfigError, match="wanted NAME=http://host:port for each machine"):
        known_peers()
