import http.client
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import Mock
from urllib.parse import urlsplit

import httpx
import obstore
import pytest
from tests.home.s3_server import S3Server

from useg.errors import InputError, ResourceError
from useg.home import bucket
from useg.home.bucket import Bucket
from useg.home.contract import StoreContract
from useg.home.store import Missing, Store, open_store

LARGE = 18 * 2**20


class TestS3(StoreContract):
    # the server holds up those who race for a key by whole seconds
    races = 2
    writers = 3

    @pytest.fixture
    def store(self, s3_url: str) -> Store:
        return open_store(s3_url)


class Between(ThreadingHTTPServer):
    """Stands between a client and the server, and spoils requests as it is told.

    Attributes:
        faults: taken from the front, one a request that `spoils` chooses: a status to answer, "drop" the request,
            or pass it on and "lose" the answer.
        requests: methods and paths of all requests so far.
    """

    daemon_threads = True

    def __init__(self, server: S3Server) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(server.endpoint).netloc
        self.faults: list[int | str] = []
        self.spoils: Callable[[str, str], bool] = lambda method, path: True
        self.requests: list[tuple[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.path))
        is_spoiled = bool(self.server.faults) and self.server.spoils(self.command, self.path)
        fault = self.server.faults.pop(0) if is_spoiled else None
        if isinstance(fault, int):
            self.answer(fault, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        if fault != "drop":
            target = http.client.HTTPConnection(self.server.target)
            target.request(self.command, self.path, body, dict(self.headers.items()))
            got = target.getresponse()
            content = got.read()
            target.close()
            if fault is None:
                self.answer(got.status, dict(got.getheaders()), content)
                return
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        is_bodiless = self.command == "HEAD" or status in (204, 304)
        for name, value in headers.items():
            if name.lower() != "transfer-encoding" and (is_bodiless or name.lower() != "content-length"):
                self.send_header(name, value)
        if not is_bodiless:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not is_bodiless:
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def between(s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    with Between(s3_environment) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


@pytest.fixture
def store(between: Between, s3_url: str) -> Bucket:
    return Bucket(s3_url, patience_s=5)


def test_a_bucket_that_answers_503_for_a_while_is_asked_again(store: Bucket, between: Between) -> None:
    verbs: list[Callable[[], object]] = [
        lambda: store.put("a", b"1"),
        lambda: store.get("a"),
        lambda: store.get_ranges("a", [(0, 1), (10**6, 10**6 + 1)]),
        lambda: list(store.list()),
        store.time,
        lambda: store.delete("a"),
    ]
    for verb in verbs:
        between.faults = [503, "drop"]
        verb()
        assert between.faults == []


def test_a_bucket_that_goes_on_answering_503_is_told(between: Between, s3_url: str) -> None:
    store = Bucket(s3_url, patience_s=0.3)
    verbs: list[Callable[[], object]] = [
        lambda: store.put("a", b"1"),
        lambda: store.get("a"),
        lambda: list(store.list()),
    ]
    for verb in verbs:
        between.faults = [503] * 1000
        began = time.monotonic()
        with pytest.raises(ResourceError, match=r"no answer within 0.3 s \(.*503.*repeat the command"):
            verb()
        assert time.monotonic() - began < 4


def test_a_server_that_is_not_there_is_told(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    store = Bucket(s3_url, patience_s=0.3)
    for verb in (store.time, lambda: store.get("a"), lambda: store.put("a", b"")):
        with pytest.raises(ResourceError, match=r"no answer within 0\.3 s"):
            verb()


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_writer_whose_answer_was_lost_knows_that_it_has_won(
    size: int, store: Bucket, between: Between, tmp_path: Path
) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    for key, given in (("bytes", content), ("file", tmp_path / "file")):
        # of a large one it is the last request, which completes the copy, that counts
        between.spoils = lambda method, path: (
            ("/bytes" in path or "/file" in path)
            and (method == "PUT" if size == 100 else method == "POST" and "uploadId" in path)
        )
        between.faults = ["lose"]
        assert store.put(key, given) is True
        assert between.faults == []
        assert store.get(key) == content
        assert store.put(key, given) is False


def test_a_writer_that_is_late_knows_that_it_has_lost(store: Bucket, between: Between, s3_url: str) -> None:
    between.spoils = lambda method, path: method == "PUT"
    between.faults = [503]
    other = Bucket(s3_url)
    sent = obstore.put

    def send(*given: object, **more: object) -> object:
        try:
            return sent(*given, **more)
        finally:
            if not between.faults:
                obstore.put = sent
                assert other.put("a", b"other")

    obstore.put = send
    try:
        assert store.put("a", b"mine!") is False
    finally:
        obstore.put = sent
    assert store.get("a") == b"other"


def test_a_conflict_is_no_defeat(store: Bucket, between: Between) -> None:
    between.faults = [409]
    assert store.put("a", b"1") is True


def test_a_large_object_goes_in_parts_and_is_put_once(store: Bucket, between: Between, tmp_path: Path) -> None:
    content = os.urandom(LARGE)
    (tmp_path / "file").write_bytes(content)
    assert store.put("a", tmp_path / "file") is True
    assert sum("partNumber" in path and method == "PUT" for method, path in between.requests) >= 3
    assert store.get("a") == content
    between.requests.clear()
    assert store.put("a", b"x" * LARGE) is False
    assert len(between.requests) == 1
    assert store.get("a", 5, 10) == content[5:10]
    assert [each["path"] for page in obstore.list(store._client) for each in page] == ["a"]


def test_of_two_large_uploads_at_once_the_later_one_loses(store: Bucket, s3_url: str) -> None:
    other = Bucket(s3_url)
    copy = obstore.copy

    def late(*given: object, **more: object) -> None:
        obstore.copy = copy
        assert other.put("a", b"first")
        copy(*given, **more)

    obstore.copy = late
    try:
        assert store.put("a", bytes(LARGE)) is False
    finally:
        obstore.copy = copy
    assert store.get("a") == b"first"


def test_the_remains_of_crashed_uploads_are_not_listed_and_go_when_they_are_old(
    store: Bucket, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstore.put(store._client, ".parts/old", b"part")
    assert list(store.list()) == []
    assert store.put("a", bytes(LARGE))
    assert obstore.head(store._client, ".parts/old")["size"] == 4
    monkeypatch.setattr(bucket, "ABANDONED_S", -10.0)
    assert Bucket(s3_url).put("b", bytes(LARGE))
    with pytest.raises(FileNotFoundError):
        obstore.head(store._client, ".parts/old")


def test_a_full_range_beyond_a_truncated_object_gives_what_is_there(store: Bucket) -> None:
    store.put("a", b"12345")
    assert store.get_ranges("a", [(3, 9), (2_000_000, 2_000_010)]) == [b"45", b""]


def test_ranges_near_each_other_make_one_request(store: Bucket, between: Between) -> None:
    content = os.urandom(2_000_000)
    store.put("a", content)
    between.requests.clear()
    ranges = [(start, start + 1000) for start in range(0, 200_000, 2000)] + [(1_900_000, 1_900_010)]
    assert store.get_ranges("a", ranges) == [content[start:end] for start, end in ranges]
    assert len(between.requests) == 2


def test_a_bucket_that_is_not_there_is_named(s3_server: S3Server, s3_environment: S3Server) -> None:
    store = open_store("s3://no-such-bucket/home")
    for verb in (lambda: store.get("a"), lambda: list(store.list())):
        with pytest.raises(InputError, match="s3://no-such-bucket/home: there is no such bucket; make it first"):
            verb()
    with pytest.raises(ResourceError, match="the bucket refuses this"):
        store.put("a", b"")


def test_wrong_credentials_are_told(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_store(s3_url)
    for verb in (store.time, lambda: store.get("a"), lambda: store.put("a", b""), lambda: list(store.list())):
        with pytest.raises(ResourceError, match=r"refuses this \(SignatureDoesNotMatch\); check the credentials"):
            verb()


def test_without_credentials_it_says_which_to_set(
    between: Between, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # where the machine's own credentials would be asked for
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{between.server_port}/169.254.169.254")
    between.faults = [403] * 100
    with pytest.raises(ResourceError, match="no credentials in the environment; set AWS_ACCESS_KEY_ID"):
        Bucket(s3_url, patience_s=0.3).get("a")


def test_unprotected_addresses_are_for_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.1.2.3:9000")
    with pytest.raises(InputError, match="unprotected; use https, or set AWS_ALLOW_HTTP=true"):
        open_store("s3://bucket/home")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    open_store("s3://bucket/home")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    for address in ("http://localhost:9000", "http://127.0.0.1:9000", "http://[::1]:9000", "https://minio.example.org"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        open_store("s3://bucket/home")


def test_settings_that_cannot_be_used_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "nonsense")
    with pytest.raises(InputError, match=r"s3://bucket/home: cannot be used as the environment is set: .*nonsense"):
        open_store("s3://bucket/home")


def test_too_large_an_object_is_refused_before_it_is_sent(s3_url: str, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(5 * 2**30 + 1)
    with pytest.raises(InputError, match="a bucket takes at most"):
        open_store(s3_url).put("a", tmp_path / "file")
    with pytest.raises(InputError, match="missing: cannot read"):
        open_store(s3_url).put("a", tmp_path / "missing")


def test_google_and_azure_are_opened_by_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    assert repr(open_store("az://container/home")) == "Bucket('az://container/home')"
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("HOME", str(tmp_path))
        elsewhere.setattr("socket.create_connection", Mock(side_effect=OSError("no such host")))
        with pytest.raises(ResourceError, match="set GOOGLE_APPLICATION_CREDENTIALS"):
            open_store("gs://bucket")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert repr(open_store("gs://bucket")) == "Bucket('gs://bucket')"


def test_a_store_goes_to_another_process_without_credentials(s3_url: str) -> None:
    content = pickle.dumps(open_store(s3_url))
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in content
    store = pickle.loads(content)
    assert store.put("a", b"1")
    with pytest.raises(Missing):
        store.get("b")


FORKED = """
import os, sys
from useg.home.store import open_store
store = open_store(sys.argv[1])
store.put("a", b"1")
if not (child := os.fork()):
    try:
        open_store(sys.argv[1]).get("a")
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(store.get("a"))
"""


def test_a_forked_process_is_told_instead_of_waiting_for_ever(s3_url: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FORKED, s3_url], capture_output=True, text=True, timeout=30, check=True
    )
    assert "cannot be used in a forked process; start processes by `spawn`" in told.stdout
    assert told.stdout.endswith("b'1'\n")


def test_the_server_of_the_tests_wants_credentials(s3_server: S3Server) -> None:
    assert httpx.get(f"{s3_server.endpoint}/{s3_server.bucket}").status_code == 403
