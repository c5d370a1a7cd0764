import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.home.faults import Faulty, Killed, crashes

from useg.errors import InputError, ResourceError
from useg.home.contract import StoreContract
from useg.home.keys import is_key, merged
from useg.home.store import ABANDONED_S, Folder, Memory, Missing, Store, open_store


class TestFolder(StoreContract):
    clock_s = 0.02

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Folder(tmp_path / "not" / "there yet")


class TestMemory(StoreContract):
    clock_s = 0.0

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(f"memory:{tmp_path}")


class TestFaultyWithoutFaults(StoreContract):
    clock_s = 0.0

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Faulty(Memory())

    def another(self, store: Store) -> Store:
        return store


def test_a_folder_that_is_not_there_is_empty_until_the_first_put(tmp_path: Path) -> None:
    store = Folder(tmp_path / "home")
    assert list(store.list()) == []
    assert abs(store.time() - time.time()) < 1
    store.delete("a")
    with pytest.raises(Missing, match="there is no a/b"):
        store.get("a/b")
    assert not (tmp_path / "home").exists()
    store.put("a/b", b"1")
    assert (tmp_path / "home" / "a" / "b").read_bytes() == b"1"
    assert store.path("a/b") == tmp_path / "home" / "a" / "b"


def test_a_home_that_was_removed_is_made_again(tmp_path: Path) -> None:
    store = Folder(tmp_path / "home")
    store.put("a/b", b"1")
    (tmp_path / "home").rename(tmp_path / "away")
    assert store.put("a/b", b"2")
    assert store.get("a/b") == b"2"


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(InputError, match="is a file; a home is a folder"):
        Folder(tmp_path / "home")


@pytest.mark.parametrize("key", ["a", "a/b/c"])
def test_no_key_lies_below_another(key: str, tmp_path: Path) -> None:
    store = Folder(tmp_path)
    store.put("a/b", b"")
    with pytest.raises(InputError, match="cannot lie below another key"):
        store.put(key, b"")


def test_links_that_lead_out_are_refused_by_every_verb(tmp_path: Path) -> None:
    home, outside = Folder(tmp_path / "home"), tmp_path / "outside"
    home.put("a/real", b"1")
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (home.root / "file").symlink_to(outside / "secret")
    (home.root / "folder").symlink_to(outside)
    (home.root / "up").symlink_to("..")
    for key in ("file", "folder/secret", "folder/new", "up/outside/secret"):
        verbs: list[Callable[[str], object]] = [home.get, home.delete, home.path, lambda key: home.put(key, b"")]
        for verb in verbs:
            with pytest.raises(InputError, match=r"leads out of the home, to .*outside"):
                verb(key)
    for prefix in ("", "file", "folder", "folder/", "up/"):
        with pytest.raises(InputError, match="leads out of the home"):
            list(home.list(prefix))
    assert os.listdir(outside) == ["secret"]


def test_links_within_are_followed_and_listed_once(tmp_path: Path) -> None:
    home = Folder(tmp_path / "link to home")
    (tmp_path / "home").mkdir()
    (tmp_path / "link to home").symlink_to("home")
    home = Folder(tmp_path / "link to home")
    home.put("runs/1/record", b"1")
    (tmp_path / "home/runs/latest").symlink_to("1")
    (tmp_path / "home/runs/round").symlink_to("../runs")
    assert home.get("runs/latest/record") == b"1"
    assert [entry.key for entry in home.list()] == ["runs/1/record"]


def test_what_is_no_file_is_not_there(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for key in ("pipe", "loop"):
        with pytest.raises(Missing):
            store.get(key)
    assert list(store.list()) == []


def refuse(code: int) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refused


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        ("fsync", errno.ENOSPC, r"home/a/b: cannot write: No space left on device. Free space"),
        ("fsync", errno.EIO, "cannot write: Input/output error"),
        ("link", errno.EPERM, "no hard links"),
        ("link", errno.EROFS, "cannot write: Read-only file system"),
        ("mkdir", errno.EACCES, "cannot write: Permission denied"),
    ],
)
def test_a_failing_put_names_the_place_and_leaves_nothing(
    call: str, code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Folder(tmp_path / "home")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse(code))
        with pytest.raises(ResourceError, match=text):
            store.put("a/b", b"1")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.put("a/b", b"1")


@pytest.mark.parametrize("call", ["open", "pread", "scandir"])
def test_a_failing_read_names_the_place(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Folder(tmp_path / "home")
    store.put("a/b", b"1")
    monkeypatch.setattr(os, call, refuse(errno.EACCES))
    with pytest.raises(ResourceError, match=r"home/.*: cannot read: Permission denied"):
        _ = store.get("a/b"), list(store.list())


def test_a_home_without_permission_is_told(tmp_path: Path) -> None:
    # the administrator may write everything, except below what is no folder of a disk
    with pytest.raises(ResourceError, match="/proc/useg-home/a: cannot write"):
        Folder(Path("/proc/useg-home")).put("a", b"1")


def test_the_file_to_put_must_be_there(tmp_path: Path) -> None:
    store = Folder(tmp_path / "home")
    with pytest.raises(InputError, match="missing: cannot read: No such file"):
        store.put("a", tmp_path / "missing")
    assert list(store.list()) == []


def test_what_network_file_systems_answer_to_a_link_sent_twice_is_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def twice(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", twice)
    assert Folder(tmp_path).put("a", b"1")


@pytest.mark.parametrize("call", ["open", "fsync", "link", "unlink", "mkdir"])
@pytest.mark.parametrize("number", range(4))
def test_a_put_that_is_killed_is_done_or_not_begun(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Folder(tmp_path / "home")
    real, calls = getattr(os, call), []

    def killed(*given: object, **more: object) -> object:
        calls.append(given)
        if len(calls) > number:
            raise Killed
        return real(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, killed)
        with contextlib.suppress(Killed):
            store.put("packs/x", b"whole")
    again = Folder(tmp_path / "home")
    assert [entry.size for entry in again.list()] in ([], [5])
    again.put("packs/x", b"whole")
    assert again.get("packs/x") == b"whole"
    assert [entry.key for entry in again.list()] == ["packs/x"]


KILLED = """
import os, sys
from pathlib import Path
from useg.home.store import Folder
store = Folder(Path(sys.argv[1]))
for number in range(10**6):
    store.put(f"k/{number}", number.to_bytes(4, "big") * 5000)
    os.write(1, b"%d\\n" % number)
"""


def test_what_was_put_before_kill_9_is_whole_and_nothing_else_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        told = 20 + process.stdout.read().count(b"\n")
    store = Folder(tmp_path / "home")
    keys = {entry.key for entry in store.list()}
    assert {f"k/{number}" for number in range(told)} <= keys
    assert len(keys) <= told + 1
    for key in keys:
        assert store.get(key) == int(key[2:]).to_bytes(4, "big") * 5000


def test_the_remains_of_crashed_puts_are_never_listed_and_go_when_they_are_old(tmp_path: Path) -> None:
    Folder(tmp_path).put("a", b"1")
    old, young = tmp_path / ".tmp" / "1-old", tmp_path / ".tmp" / "1-young"
    for file, age in ((old, ABANDONED_S + 60), (young, ABANDONED_S - 60)):
        file.write_bytes(b"part")
        os.utime(file, (time.time() - age, time.time() - age))
    store = Folder(tmp_path)
    assert [entry.key for entry in store.list()] == ["a"]
    assert old.exists()
    store.put("b", b"2")
    assert not old.exists()
    assert young.exists()


def test_the_clock_of_a_folder_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Folder(tmp_path)
    store.put("a", b"1")
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert store.time() > 1e9
    monkeypatch.setattr(os, "utime", refuse(errno.EROFS))
    assert store.time() == 5.0
    monkeypatch.setattr(os, "utime", refuse(errno.EIO))
    with pytest.raises(ResourceError, match="Input/output error"):
        store.time()


def test_a_listing_goes_on_while_things_are_deleted(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    for number in range(20):
        store.put(f"{number % 2}/{number:02}", b"")
    seen = []
    for entry in store.list():
        seen.append(entry.key)
        for number in range(20):
            store.delete(f"{number % 2}/{number:02}")
    assert seen == ["0/00"]


def test_names_that_are_no_keys_are_not_listed(tmp_path: Path) -> None:
    for name in (".hidden", "a?b", "x.", "ok"):
        (tmp_path / name).write_text("")
    assert [entry.key for entry in Folder(tmp_path).list()] == ["ok"]


def test_stores_are_opened_by_their_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for address in (tmp_path / "a b", str(tmp_path / "a b"), "a b", "~/a b", f"file://{tmp_path}/a%20b"):
        store = open_store(address)
        assert isinstance(store, Folder)
        assert store.url == str(tmp_path / "a b")
        assert repr(pickle.loads(pickle.dumps(store))) == repr(store)
    assert open_store("memory:x") is open_store("memory:x")
    assert open_store("memory:x") is not open_store("memory:y")


@pytest.mark.parametrize(
    "address",
    ["http://", "https://a@b", "ftp://x", "file://host/x", "file:x", "s3://", "s3:///x", "s3://b?x", "s3://b/../c"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"wanted|a home is|cannot be a key|has no name, password"):
        open_store(address)


def test_a_missing_key_survives_being_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(Missing("memory:", "a")))
    assert (str(error), error.url, error.key) == ("memory:: there is no a", "memory:", "a")


@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**6)), max_size=30))
def test_merged_ranges_cover_what_was_asked_and_little_else(pairs: list[tuple[int, int]]) -> None:
    ranges = [(start, start + length) for start, length in pairs]
    requests = merged(ranges)
    assert sorted(member for _, _, members in requests for member in members) == list(range(len(ranges)))
    for start, end, members in requests:
        assert start == min(ranges[member][0] for member in members)
        assert end == max(ranges[member][1] for member in members)
        assert end - start <= max(16 * 2**20, *(ranges[member][1] - ranges[member][0] for member in members), 0)
    assert [request[0] for request in requests] == sorted(request[0] for request in requests)


def test_near_ranges_make_one_request_and_far_ones_two() -> None:
    assert merged([(300_000, 300_010), (0, 100_000), (5, 10)]) == [(0, 300_010, [1, 2, 0])]
    assert merged([(0, 100), (400_000, 400_001)]) == [(0, 100, [0]), (400_000, 400_001, [1])]


@given(st.text(max_size=30))
def test_every_key_is_a_path_below_the_home(text: str) -> None:
    if is_key(text):
        path = os.path.normpath(os.path.join("/home", text))
        assert path == f"/home/{text}"


def test_a_batch_from_many_threads_is_written_whole(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: store.put(f"{number % 7}/{number}", b"%d" % number), range(300)))
    assert {entry.key: store.get(entry.key) for entry in store.list()} == {
        f"{n % 7}/{n}": b"%d" % n for n in range(300)
    }
    assert os.listdir(tmp_path / ".tmp") == []


def two_puts(store: Store) -> None:
    store.put("a", b"1")
    store.put("b", b"2")


def test_crashes_tries_each_moment() -> None:
    assert [[entry.key for entry in left.list()] for left in crashes(Memory, two_puts)] == [
        [],
        ["a"],
        ["a"],
        ["a", "b"],
    ]


def test_a_faulty_store_does_as_it_is_told() -> None:
    store = Faulty(Memory(), fail_at=1, fail_times=2, truncated={"a": 3})
    assert store.put("a", b"12345")
    for _ in range(2):
        with pytest.raises(ResourceError, match="No space left"):
            store.put("b", b"")
    assert store.put("b", b"")
    assert store.get("a", 1) == b"23"
    assert store.get_ranges("a", [(0, 2), (2, 9)]) == [b"12", b"3"]
    before = store.time()
    store.clock_shift_s = -3600
    assert store.time() < before - 3000
    assert (store.requests("put"), store.requests("time"), store.requests()) == (4, 2, 8)
    dead = Faulty(Memory(), kill_at=0, is_after_effect=True)
    for _ in range(2):
        with pytest.raises(Killed):
            dead.put("x", b"1")
    with pytest.raises(Killed):
        dead.get("x")
    assert [entry.key for entry in dead.inner.list()] == ["x"]
