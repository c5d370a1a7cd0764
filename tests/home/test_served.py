import http.client
import os
import pickle
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from blake3 import blake3
from tests.home.served_home import in_thread

from useg.errors import ConfigError, DamagedFile, InputError, ResourceError
from useg.home import served as served_module
from useg.home.contract import StoreContract
from useg.home.refs import Moved, delete_ref, move_ref, read_ref
from useg.home.served import Served
from useg.home.store import Folder, Memory, Missing, Store, open_store
from useg.web import app
from useg.web.users import Users


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the tokens that this machine's user has."""
    monkeypatch.setenv("USEG_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("USEG_TOKEN", raising=False)


class TestServedFolder(StoreContract):
    clock_s = 0.02

    @pytest.fixture
    def store(self, tmp_path: Path):
        with in_thread(Folder(tmp_path / "home")) as address:
            yield open_store(address)


class TestServedMemory(StoreContract):
    """A home without files, as a bucket is."""

    clock_s = 0.0

    @pytest.fixture
    def store(self):
        with in_thread(Memory()) as address:
            yield open_store(address)


def served(store: Store, users: Users | None = None, **more: float) -> AbstractContextManager[Served]:
    @contextmanager
    def opened() -> Iterator[Served]:
        with in_thread(store, users) as address:
            yield Served(address, **more)

    return opened()


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "home")


def test_a_token_is_wanted_as_soon_as_there_is_one(home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users(home)
    with served(home, users) as store:
        assert store.put("runs/a", b"1")
        token = users.add("anna", "reader")
        with pytest.raises(ResourceError, match=r"wants a token, and none was given; .*put it into USEG_TOKEN"):
            store.get("runs/a")
        monkeypatch.setenv("USEG_TOKEN", token + "x")
        wrong = Served(store.url)
        verbs = (wrong.time, lambda: wrong.get("a"), lambda: wrong.get("a", 1, 1), lambda: [*wrong.list()],
                 lambda: wrong.put("a", b"1"), lambda: wrong.put("a", bytes(5 * 2**20)), wrong.time)  # fmt: skip
        for verb in verbs:
            with pytest.raises(ResourceError, match="the token given is none of its tokens"):
                verb()
        monkeypatch.setenv("USEG_TOKEN", token)
        assert Served(store.url).get("runs/a") == b"1"
        users.revoke("anna")
        with pytest.raises(ResourceError, match="the token given is none of its tokens"):
            Served(store.url).get("runs/a")
        monkeypatch.delenv("USEG_TOKEN")
        with pytest.raises(ResourceError, match="wants a token"):
            Served(store.url).get("runs/a")


def test_roles(home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users(home)
    tokens = {role: users.add(role, role) for role in ("reader", "writer", "admin")}
    with in_thread(home, users) as address:
        as_role = {}
        for role, token in tokens.items():
            monkeypatch.setenv("USEG_TOKEN", token)
            as_role[role] = Served(address)
        reader, writer, admin = as_role.values()
        assert writer.put("runs/a/x", b"1")
        assert reader.get("runs/a/x") == b"1"
        assert [entry.key for entry in reader.list()] == ["runs/a/x"]
        assert abs(reader.time() - home.time()) < 5
        for size in (1, 3 * 2**20):
            with pytest.raises(ResourceError, match="a reader cannot write; use a token of another role"):
                reader.put(f"runs/a/y{size}", bytes(size))
            with pytest.raises(ResourceError, match="a writer can put what begins with packs/"):
                writer.put(f"condemned/{size}", bytes(size))
        with pytest.raises(ResourceError, match="a reader cannot delete"):
            reader.delete("runs/a/x")
        with pytest.raises(ResourceError, match="a writer cannot delete; an admin can"):
            writer.delete("runs/a/x")
        move_ref(writer, "a", {"to": "0" * 64}, expected=0)
        with pytest.raises(ResourceError, match="a writer cannot take a name away"):
            delete_ref(writer, "a")
        delete_ref(admin, "a")
        admin.delete("runs/a/x")
        assert admin.put("condemned/00000001", b"{}")
        assert [entry.key for entry in home.list("runs/")] == []


@pytest.mark.parametrize("size", [10, 5 * 2**20])
@pytest.mark.parametrize("folder", ["packs", "index"])
def test_what_is_named_by_a_digest_has_it(home: Folder, folder: str, size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    digest = blake3(content).hexdigest()
    with served(home) as store:
        for wrong in (content + b"x", content[:-1], b""):
            with pytest.raises(DamagedFile, match=r"what came is .*; nothing was stored"):
                store.put(f"{folder}/{digest}", wrong)
        with pytest.raises(InputError, match="named by a digest of 64"):
            store.put(f"{folder}/x", content)
        assert [*home.list()] == []
        assert store.put(f"{folder}/{digest}", content)
        assert home.get(f"{folder}/{digest}") == content
    assert [path for path in home.root.rglob("*") if path.is_file()] == [home.root / folder / digest]


def test_an_entry_of_a_name_is_looked_into(home: Folder) -> None:
    with served(home) as store:
        with pytest.raises(DamagedFile, match="no entry of a name"):
            store.put("refs/a/00000001", bytes(2 * 2**20))
        with pytest.raises(InputError, match="the entry before it is not there"):
            store.put("refs/a/00000007", b'{"to": null}')


def test_two_who_move_a_name_at_once(home: Folder) -> None:
    with in_thread(home) as address:
        stores = [Served(address), Served(address)]
        with ThreadPoolExecutor(2) as pool:
            for number in range(20):
                digests = [f"{number:063}{each}" for each in range(2)]

                def move(each: int, number: int = number, digests: list[str] = digests) -> bool:
                    try:
                        move_ref(stores[each], "a/b", {"to": digests[each]}, expected=number)
                    except Moved:
                        return False
                    return True

                won = list(pool.map(move, range(2)))
                assert sorted(won) == [False, True]
                assert read_ref(home, "a/b").record["to"] == digests[won.index(True)]


class Between(ThreadingHTTPServer):
    """Passes requests on, and spoils them as it is told: a status, "drop", "lose" the answer, or "cut" it so far on."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = target.removeprefix("http://")
        self.faults: list[int | str | None] = []
        self.knows_ranges = True
        self.requests: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.headers.get("range", "")))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.answer(fault, {}, b"<html>busy</html>")
            return
        if fault != "drop":
            target = http.client.HTTPConnection(self.server.target)
            headers = {k: v for k, v in self.headers.items() if self.server.knows_ranges or k.lower() != "range"}
            target.request(self.command, self.path, body, headers)
            got = target.getresponse()
            content = got.read()
            target.close()
            if fault is None:
                self.answer(got.status, dict(got.getheaders()), content)
                return
            if fault != "lose":
                self.answer(got.status, dict(got.getheaders()), content, cut=int(fault.removeprefix("cut")))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "content-length"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:cut])

    do_GET = do_PUT = do_HEAD = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def between(home: Folder) -> Iterator[Between]:
    with in_thread(home) as address, Between(address) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def test_what_fails_for_a_while_is_sent_again(between: Between) -> None:
    store = Served(between.address)
    verbs: list[Callable[[], object]] = [
        lambda: store.put("a", b"1"),
        lambda: store.get("a"),
        lambda: store.get("a", 1, 1),
        lambda: [*store.list()],
        store.time,
        lambda: store.delete("a"),
    ]
    for number, verb in enumerate(verbs):
        between.faults = [(503, 502, "drop")[number % 3], "lose"]
        verb()
        assert between.faults == []
    assert [*store.list()] == []


@pytest.mark.parametrize("size", [5, 3 * 2**20])
def test_a_repeated_put_knows_its_own_success(between: Between, home: Folder, size: int, tmp_path: Path) -> None:
    store, content = Served(between.address), os.urandom(size)
    before: list[None] = [None] if size > 2**20 else []
    (tmp_path / "file").write_bytes(content)
    for number, given in enumerate((content, [content[:3], content[3:]], tmp_path / "file")):
        between.faults = [*before, "lose"]
        assert store.put(f"key{number}", given) is True
        assert home.get(f"key{number}") == content
        assert between.faults == []
        assert store.put(f"key{number}", given) is False
    theirs = bytes(size)
    home.put("theirs", theirs)
    between.faults = ["lose"]
    assert store.put("theirs", content) is False
    assert home.get("theirs") == theirs


def test_a_put_that_came_too_late_after_a_lost_request_says_so(between: Between, home: Folder) -> None:
    store = Served(between.address)
    between.faults = ["drop"]
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(store.put, "a", b"second")
        while not between.requests:
            time.sleep(0.001)
        home.put("a", b"first")
        assert put.result() is False


def test_what_breaks_off_goes_on_where_it_was(between: Between, home: Folder) -> None:
    content = random.Random(1).randbytes(3_000_000)
    home.put("a", content)
    store = Served(between.address)
    for start, end in ((0, None), (5, None), (7, 2_900_000)):
        between.faults, between.requests = ["cut1000000", "cut500000"], []
        assert store.get("a", start, end) == content[start:end]
        ranges = [asked for _, asked in between.requests]
        assert len(ranges) == 3
        assert ranges[1].startswith(f"bytes={start + 1_000_000}-")
        assert ranges[2].startswith(f"bytes={start + 1_500_000}-")


def test_what_was_changed_meanwhile_is_read_from_its_beginning(between: Between, home: Folder) -> None:
    old, new = bytes(2_000_000), b"1" * 2_000_000
    home.put("a", old)
    store = Served(between.address)
    between.faults = ["cut1000000", "drop"]
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(store.get, "a")
        while len(between.requests) < 2:
            time.sleep(0.001)
        home.delete("a")
        home.put("a", new)
        assert got.result() == new


def test_a_listing_that_breaks_off_goes_on(between: Between, home: Folder) -> None:
    keys = [f"many/{number:04}" for number in range(300)]
    for key in keys:
        home.put(key, b"1")
    store = Served(between.address)
    for cut in ("cut4000", "cut10", "cut0"):
        between.faults = [cut, cut]
        assert [entry.key for entry in store.list("many/")] == keys
        assert between.faults == []


def test_a_listing_in_pages(home: Folder) -> None:
    for number in range(2500):
        Path(home.root, "many").mkdir(parents=True, exist_ok=True)
        Path(home.root, "many", f"{number:05}").touch()
    with in_thread(home) as address:
        for limit in (1, 999, 1000, 1001, 2499, 2500, 2501):
            found, after = [], ""
            for _ in range(4):
                asked = {"prefix": "many/", "after": after, "limit": limit}
                *lines, last = httpx.get(f"{address}/v1/keys", params=asked).text.splitlines()
                assert len(lines) <= limit
                found += lines
                if "end" in last:
                    break
                after = last.split('"')[3]
            wanted = min(2500, 4 * limit)
            assert len(found) == wanted
            assert len({*found}) == wanted
        assert "limit" in httpx.get(f"{address}/v1/keys", params={"limit": "x"}).json()["message"]


def test_no_answer_is_told(home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    store = Served(f"http://127.0.0.1:{port}", patience_s=0.3)
    for verb in (store.time, lambda: store.get("a"), lambda: store.put("a", b""), lambda: [*store.list()]):
        with pytest.raises(ResourceError, match=r"no answer within 0.3 s \(.*refused.*\)\. Is `useg serve` running"):
            verb()
    monkeypatch.setattr(served_module, "_REQUEST_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = Served(f"http://127.0.0.1:{silent.getsockname()[1]}", patience_s=0.3)
        with pytest.raises(ResourceError, match=r"no answer within 0.3 s .*timed out"):
            store.get("a")


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_another_server_is_told(status: int, between: Between) -> None:
    store = Served(between.address)
    for verb in (store.time, lambda: store.get("a"), lambda: store.put("a", b""), lambda: [*store.list()]):
        between.faults = [status]
        with pytest.raises(InputError, match=f"something else than `useg serve` answers there .status {status}, no "):
            verb()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("http://", "wanted http://host:port or https://host"),
        ("http://host:99999", "wanted http://host:port"),
        ("http://ho st:1", "wanted http://host:port"),
        ("http://anna:secret@host:1", "has no name, password or query"),
        ("https://host/?token=secret", "has no name, password or query"),
    ],
)
def test_addresses_that_are_none(address: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as raised:
        open_store(address)
    assert "secret" not in str(raised.value)


def test_the_token_of_an_address_may_stand_in_a_file(
    home: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = Users(home)
    token = users.add("anna", "admin")
    file = tmp_path / "config/useg/tokens.toml"
    file.parent.mkdir(parents=True)
    with in_thread(home, users) as address:
        file.write_text(f'"{address}/" = "{token}"\n"http://other" = "x"\n')
        file.chmod(0o644)
        with pytest.raises(ConfigError, match="others can read it; chmod 600"):
            open_store(address)
        file.chmod(0o600)
        store = open_store(address)
        assert store.put("a", b"1")
        content = pickle.dumps(store)
        assert token.encode() not in content
        assert pickle.loads(content).get("a") == b"1"
        assert token not in repr(store)
        monkeypatch.setenv("USEG_TOKEN", "wrong")
        with pytest.raises(ResourceError, match="none of its tokens"):
            open_store(address).get("a")
        monkeypatch.setenv("USEG_TOKEN", "two\nlines")
        with pytest.raises(ConfigError, match="no token; wanted what `useg users token` printed"):
            open_store(address)
        monkeypatch.delenv("USEG_TOKEN")
        file.write_text("no toml")
        with pytest.raises(ConfigError, match=r"tokens\.toml: .*wanted lines such as"):
            open_store(address)


def test_a_home_without_tokens_is_for_this_machine_only(home: Folder) -> None:
    home.put("a", b"1")
    with in_thread(home) as address:
        assert httpx.get(f"{address}/v1/keys/a", headers={"Host": "localhost:1"}).status_code == 200
        answer = httpx.get(f"{address}/v1/keys/a", headers={"Host": "evil.example.org"})
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")


def test_a_full_or_unreadable_home_is_told(home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    home.put("a/b", b"1")
    with served(home) as store:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(ResourceError, match=r"cannot write: No space left on device\. Free space"):
                store.put("a/c", b"1")
        with pytest.raises(InputError, match="a key cannot lie below another key"):
            store.put("a/b/c", b"1")
        assert store.put("a/c", b"1")


FORKED = """
import os, sys
from useg.home.store import open_store
store = open_store(sys.argv[1])
store.put("a", b"1")
if not (child := os.fork()):
    print(store.get("a"), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(store.get("a"))
"""


def test_a_forked_process_has_connections_of_its_own(home: Folder) -> None:
    with in_thread(home) as address:
        told = subprocess.run(
            [sys.executable, "-c", FORKED, address], capture_output=True, text=True, timeout=30, check=True
        )
    assert told.stdout == "b'1'\n" * 2
    assert told.stderr == ""


def test_a_bucket_may_be_served(s3_url: str, tmp_path: Path) -> None:
    content = random.Random(4).randbytes(20 * 2**20)
    digest = blake3(content).hexdigest()
    with in_thread(open_store(s3_url)) as address:
        store = open_store(address)
        assert store.put(f"packs/{digest}", [content[: 2**20], content[2**20 :]])
        assert store.put("runs/a", b"1")
        assert store.put("runs/a", b"2") is False
        assert store.get(f"packs/{digest}") == content
        assert store.get_ranges(f"packs/{digest}", [(5, 9), (17 * 2**20, 19 * 2**20)]) == [
            content[5:9], content[17 * 2**20 : 19 * 2**20]
        ]  # fmt: skip
        assert [(entry.key, entry.size) for entry in store.list()] == [(f"packs/{digest}", len(content)), ("runs/a", 1)]
        store.delete("runs/a")
        with pytest.raises(Missing, match=f"{address}: there is no runs/a"):
            store.get("runs/a")
        assert abs(store.time() - time.time()) < 60


def test_a_head_tells_the_length(home: Folder) -> None:
    home.put("a", bytes(3_000_000))
    with in_thread(home) as address:
        answer = httpx.head(f"{address}/v1/keys/a")
        assert (answer.status_code, answer.headers["content-length"]) == (200, "3000000")
        assert httpx.head(f"{address}/v1/keys/b").status_code == 404
        assert httpx.get(f"{address}/v1/keys/a", headers={"Range": "bytes=2999990-"}).content == bytes(10)
        answer = httpx.get(f"{address}/v1/keys/a", headers={"Range": "bytes=5-9"})
        assert (answer.status_code, answer.headers["content-range"]) == (206, "bytes 5-9/3000000")
        for unheeded in ("bytes=-5", "bytes=1-2,4-5", "bytes=9-5", "lines=1-2"):
            assert httpx.get(f"{address}/v1/keys/a", headers={"Range": unheeded}).status_code == 200
        for path in ("/", "/v1", "/v1/keys/", "/v2/keys/a", "/v1/keys/../../etc/passwd", "/v1/keys/%2e%2e/a"):
            assert httpx.get(f"{address}{path}").status_code in (400, 404)


def test_a_file_that_is_gone_is_told(home: Folder, tmp_path: Path) -> None:
    with served(home) as store, pytest.raises(InputError, match="gone: cannot read: No such file"):
        store.put("a", tmp_path / "gone")


def test_a_proxy_that_knows_no_ranges_gives_no_wrong_bytes(between: Between, home: Folder) -> None:
    content = random.Random(5).randbytes(300_000)
    home.put("a", content)
    store = Served(between.address)
    between.knows_ranges = False
    for start, end in ((5, 9), (7, None), (299_990, 400_000), (300_000, 300_001), (0, 3)):
        assert store.get("a", start, end) == content[start:end]
    between.faults = ["cut1000"]
    assert store.get("a", 5, 200_000) == content[5:200_000]
    between.faults = ["cut1000", "cut2000"]
    assert store.get("a") == content


def test_a_client_that_stands_still_is_given_up(home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "STALLED_S", 0.2)
    with in_thread(home) as address, socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as half:
        half.settimeout(10)
        half.sendall(b"PUT /v1/keys/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        assert half.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert [*home.list()] == []
        assert Served(address).put("a", b"whole")
