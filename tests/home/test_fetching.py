"""Objects of a home become files of the cache: once, together, before somebody asks, whoever is killed meanwhile."""

import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import pytest
from blake3 import blake3

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home import ahead as ahead_module
from useg.home import fetching as fetching_module
from useg.home.ahead import Ahead
from useg.home.cache import Cache
from useg.home.fetching import Fetcher, Stopped
from useg.home.objects import Objects
from useg.home.store import Folder, Memory, Missing


class Gone(InputError):
    pass


class Home:
    """The objects of a home, in memory, that remembers what was asked of it."""

    def __init__(self, contents: list[bytes], whole: Path | None = None) -> None:
        self.contents = {blake3(content).hexdigest(): content for content in contents}
        self.digests = [blake3(content).hexdigest() for content in contents]
        self.asked: list[list[str]] = []
        self.store = self
        self.whole = whole
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None

    def path(self, key: str) -> Path | None:
        return None if self.whole is None else self.whole / key

    def length(self, digest: str) -> int:
        if digest not in self.contents:
            raise Gone(f"no object {digest}")
        return len(self.contents[digest])

    def get_many(self, digests):
        self.asked.append(list(digests))
        for digest in sorted(digests):
            self.gate.wait(10)
            if self.fault:
                raise self.fault
            yield digest, self.contents[digest]

    def stream(self, digest):
        self.asked.append([digest])
        content = self.contents[digest]
        yield from (content[at : at + 1000] for at in range(0, len(content), 1000))

    def wanted(self, *numbers: int) -> list[tuple[str, str]]:
        return [(self.digests[number], ".bin") for number in numbers]


def contents(count: int, length: int = 1000) -> list[bytes]:
    return [random.Random(number).randbytes(length + number) for number in range(count)]


@pytest.fixture
def home() -> Home:
    return Home(contents(100))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", max_bytes=10**7)


def read(files: list[Path]) -> list[bytes]:
    return [file.read_bytes() for file in files]


def held(ahead: Ahead, wanted: list[tuple[str, str]]) -> list[bytes]:
    with ahead.holding(wanted) as files:
        return read(files)


def until(claim) -> None:
    """Wait for what another thread is about to do."""
    for _ in range(1000):
        if claim():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come about")


def test_files_come_together_in_the_order_asked_for_and_once(home: Home, cache: Cache) -> None:
    fetcher = Fetcher(home, cache)
    numbers = [3, 1, 4, 1, 5, 9]
    assert read(fetcher.files(home.wanted(*numbers))) == [contents(10)[n] for n in numbers]
    assert len(home.asked) == 1
    assert sorted(home.asked[0]) == sorted({home.digests[n] for n in numbers})
    fetcher.files(home.wanted(9, 2, 6, 5))
    assert sorted(home.asked[1]) == sorted([home.digests[2], home.digests[6]])
    fetcher.files(home.wanted(*range(7)[1:]))
    assert len(home.asked) == 2
    assert fetcher.files([]) == []


def test_one_object_under_two_suffixes_is_fetched_once(home: Home, cache: Cache) -> None:
    name = home.digests[0]
    one, two = Fetcher(home, cache).files([(name, ".png"), (name, ".tif")])
    assert (one.suffix, two.suffix) == (".png", ".tif")
    assert one.read_bytes() == two.read_bytes() == contents(1)[0]
    assert home.asked == [[name]]


def test_lots_are_bounded_and_large_objects_never_lie_in_memory(home: Home, cache: Cache, monkeypatch) -> None:
    monkeypatch.setattr(fetching_module, "LOT_BYTES", 5000)
    monkeypatch.setattr("useg.home.objects.LOT_BYTES", 5000)
    monkeypatch.setattr("useg.home.objects.LOT_OBJECTS", 3)
    large = Home([*contents(10), b"x" * 20_000])
    assert read(Fetcher(large, cache).files(large.wanted(*range(11))))[-1] == b"x" * 20_000
    assert [len(lot) for lot in large.asked] == [3, 3, 3, 1, 1]


def test_a_whole_file_of_a_folder_home_is_not_copied(tmp_path: Path, cache: Cache) -> None:
    home = Home(contents(3), whole=tmp_path)
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / home.digests[1]).write_bytes(contents(3)[1])
    files = Fetcher(home, cache).files(home.wanted(0, 1, 2))
    assert read(files) == contents(3)
    assert files[1].resolve() == (tmp_path / "packs" / home.digests[1])
    assert home.digests[1] not in home.asked[0]
    (tmp_path / "packs" / home.digests[2]).write_bytes(b"flipped")
    cache.remove([home.digests[2]])
    with pytest.raises(DamagedFile, match=f"packs/{home.digests[2]}: its bytes are not object"):
        Fetcher(home, cache).files(home.wanted(2))


def test_errors_reach_the_one_who_asks_and_leave_no_claim(home: Home, cache: Cache) -> None:
    fetcher = Fetcher(home, cache)
    with pytest.raises(Gone, match="no object 00"):
        fetcher.files([("0" * 64, "")])
    home.fault = ResourceError("the bucket answers 503")
    with pytest.raises(ResourceError, match="503"):
        fetcher.files(home.wanted(0, 1))
    home.fault = None
    assert read(fetcher.files(home.wanted(0, 1))) == contents(2)
    home.contents[home.digests[2]] = b"damaged"
    with pytest.raises(DamagedFile, match="what came has digest"):
        fetcher.files(home.wanted(2))
    assert list((cache.folder / ".pins").iterdir()) == []


def test_more_at_once_than_the_cache_may_hold(home: Home, tmp_path: Path) -> None:
    small = Cache(tmp_path / "small", max_bytes=5 * 4096)
    with pytest.raises(ResourceError, match="is full: 20,480 of its 20,480 bytes"):
        Fetcher(home, small).files(home.wanted(*range(6)))
    assert read(Fetcher(home, small).files(home.wanted(*range(6, 11)))) == contents(11)[6:]


def test_threads_that_want_the_same_fetch_it_once(home: Home, cache: Cache) -> None:
    home.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(Fetcher(home, cache).files, home.wanted(n, 50, 60)) for n in range(8)]
        until(lambda: home.asked)
        home.gate.set()
        for number, files in enumerate(waiting):
            assert read(files.result()) == [contents(100)[n] for n in (number, 50, 60)]
    asked = [digest for lot in home.asked for digest in lot]
    assert sorted(asked) == sorted(home.digests[n] for n in (*range(8), 50, 60))


def test_a_fetch_that_fails_is_taken_up_by_another_who_waits(home: Home, cache: Cache) -> None:
    home.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Fetcher(home, cache).files, home.wanted(0))
        until(lambda: home.asked)
        second = pool.submit(Fetcher(home, cache).files, home.wanted(0))
        home.fault = ResourceError("cut")
        home.gate.set()
        with pytest.raises(ResourceError, match="cut"):
            first.result()
        with pytest.raises(ResourceError, match="cut"):
            second.result()
    assert len(home.asked) == 2


def test_a_fetch_can_be_stopped(home: Home, cache: Cache) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        Fetcher(home, cache).files(home.wanted(0), stop=stop)


def test_what_was_told_lies_ready_in_few_requests(home: Home, cache: Cache) -> None:
    order = [home.wanted(n, n + 50) for n in range(50)]
    with Ahead(Fetcher(home, cache), order) as ahead:
        until(lambda: len(list(cache.folder.glob("??/*.bin"))) == 100)
        before = len(home.asked)
        assert before <= 7  # 1, 2, 4, ... groups
        for n in range(50):
            assert held(ahead, order[n]) == [contents(100)[n], contents(100)[n + 50]]
        assert len(home.asked) == before
        assert held(ahead, home.wanted(7)) == [contents(100)[7]]  # what was not foreseen
    assert list((cache.folder / ".pins").iterdir()) == []


def test_no_more_than_the_depth_lies_ready_and_it_goes_on_as_it_is_taken(home: Home, cache: Cache) -> None:
    order = [home.wanted(n) for n in range(100)]
    with Ahead(Fetcher(home, cache), order, depth_bytes=5 * 4096) as ahead:
        until(lambda: ahead._room >= 5 * 4096)
        time.sleep(0.05)
        fetched = sum(len(lot) for lot in home.asked)
        assert 5 <= fetched <= 8
        held(ahead, order[0])
        until(lambda: sum(len(lot) for lot in home.asked) > fetched)
        for number, group in enumerate(order):
            assert held(ahead, group) == [contents(100)[number]]
            assert ahead._room <= 8 * 4096


def test_asking_in_another_order_skipping_and_asking_before_it_came(home: Home, cache: Cache, monkeypatch) -> None:
    monkeypatch.setattr(ahead_module, "_SLACK", 4)
    draw = random.Random(1)
    order = [home.wanted(n) for n in range(100)]
    asked = [n for n in range(100) if draw.random() < 0.4]
    for at in range(0, len(asked) - 1, 2):
        asked[at], asked[at + 1] = asked[at + 1], asked[at]
    with Ahead(Fetcher(home, cache), cycle(order), depth_bytes=8 * 4096) as ahead:
        for number in asked * 3:
            assert held(ahead, order[number]) == [contents(100)[number]]
        assert ahead._thread.is_alive()
        # nothing is kept for those who never ask: the thread goes on, round and round
        place = next(reversed(ahead._ready), 0)
        for number in asked * 3:
            held(ahead, order[number])
        until(lambda: next(reversed(ahead._ready)) > place)


def test_a_cache_smaller_than_the_data_turns_over(home: Home, tmp_path: Path) -> None:
    small = Cache(tmp_path / "small", max_bytes=20 * 4096)
    order = [home.wanted(n) for n in range(100)]
    with Ahead(Fetcher(home, small), order * 2) as ahead:
        for number, group in enumerate(order * 2):
            assert held(ahead, group) == [contents(100)[number % 100]]
    assert small.used() <= small.max_bytes


@pytest.mark.parametrize("told", [True, False], ids=["told", "not foreseen"])
def test_what_is_held_stays_while_others_take_all_the_room(home: Home, tmp_path: Path, told: bool) -> None:
    small = Cache(tmp_path / "small", max_bytes=8 * 4096)
    order = [home.wanted(n, n + 50) for n in range(50)]
    gone = []

    def slowly(ahead: Ahead, numbers: range) -> None:
        for number in numbers:
            with ahead.holding(order[number]) as files:
                time.sleep(0.002)
                gone.extend(file for file in files if not file.exists())
                assert read(files) == [contents(100)[number], contents(100)[number + 50]]

    with Ahead(Fetcher(home, small), order if told else []) as ahead, ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(slowly, ahead, range(start, 50, 3)) for start in range(3)]:
            done.result()
    assert gone == []
    assert small.used() <= small.max_bytes
    assert list((small.folder / ".pins").iterdir()) == []


def test_what_failed_ahead_is_told_to_the_one_who_asks_and_the_rest_goes_on(home: Home, cache: Cache) -> None:
    lost = contents(100)[2]
    del home.contents[blake3(lost).hexdigest()]
    order = [home.wanted(n) for n in range(10)]
    with Ahead(Fetcher(home, cache), order) as ahead:
        for number in range(10):
            if number == 2:
                with pytest.raises(Gone, match=f"no object {home.digests[2]}"):
                    held(ahead, order[number])
            else:
                assert held(ahead, order[number]) == [contents(100)[number]]


def test_a_home_that_is_away_for_a_while(home: Home, cache: Cache) -> None:
    home.fault = ResourceError("the bucket answers 503")
    order = [home.wanted(n) for n in range(20)]
    with Ahead(Fetcher(home, cache), order) as ahead:
        until(lambda: home.asked)
        time.sleep(0.05)
        assert len(home.asked) == 1  # it does not storm a home that fails
        with pytest.raises(ResourceError, match="503"):
            held(ahead, order[0])
        home.fault = None
        assert [held(ahead, group)[0] for group in order] == contents(20)


def test_an_order_that_breaks_is_told(home: Home, cache: Cache) -> None:
    def order():
        yield home.wanted(0)
        raise ValueError("no such epoch")

    with Ahead(Fetcher(home, cache), order()) as ahead:
        until(lambda: not ahead._thread.is_alive())
        with pytest.raises(ValueError, match="no such epoch"):
            held(ahead, home.wanted(0))


def test_closing_does_not_wait_for_what_is_left(home: Home, cache: Cache) -> None:
    home.gate.clear()
    with Ahead(Fetcher(home, cache), [home.wanted(*range(100))]):
        until(lambda: home.asked)
        threading.Timer(0.05, home.gate.set).start()
    assert len(list(cache.folder.glob("??/*.bin"))) < 100


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_real_home_with_small_and_large_objects_and_a_damaged_one(tmp_path: Path, cache: Cache, kind: str) -> None:
    store = Folder(tmp_path / "home") if kind == "folder" else Memory()
    large = random.Random(7).randbytes(20 * 2**20)
    with Objects(store).writer() as writer:
        digests = [writer.put(content) for content in (*contents(50), large, b"")]
        writer.commit()
    big = Cache(tmp_path / "big", max_bytes=10**8)
    fetcher = Fetcher(Objects(store), big)
    wanted = [(digest, ".bin") for digest in reversed(digests)]
    with Ahead(fetcher, [[each] for each in wanted]) as ahead:
        assert [held(ahead, [each])[0] for each in wanted] == [b"", large, *reversed(contents(50))]
    with pytest.raises(Missing, match="0000"):
        fetcher.files([("0" * 64, "")])


def test_a_pack_with_a_flipped_bit_is_named(tmp_path: Path, cache: Cache) -> None:
    with Objects(Folder(tmp_path / "home")).writer() as writer:
        digests = [writer.put(content) for content in contents(3)]
        writer.commit()
    (pack,) = (tmp_path / "home" / "packs").iterdir()
    flipped = bytearray(pack.read_bytes())
    flipped[500] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(flipped)
    fetcher = Fetcher(Objects(Folder(tmp_path / "home")), cache)
    with pytest.raises(DamagedFile, match=pack.name):
        fetcher.files([(digest, "") for digest in digests])
    assert len(list(cache.folder.glob("??/*"))) < 3


WORKER = textwrap.dedent(
    """
    import os, random, sys, time
    from pathlib import Path
    from blake3 import blake3
    from useg.home.cache import Cache
    from useg.home.fetching import Fetcher

    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    contents = [random.Random(number).randbytes(2000) for number in range(60)]
    digests = [blake3(content).hexdigest() for content in contents]
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    class Home:
        def path(self, key): return None
        def length(self, digest): return 2000
        def get_many(self, wanted):
            for digest in wanted:
                time.sleep(0.005)
                os.write(log, digest.encode() + b"\\n")
                yield digest, contents[digests.index(digest)]
    Home.store = Home()

    fetcher = Fetcher(Home(), Cache(folder / "cache", max_bytes=10**7))
    print("ready", flush=True)
    draw = random.Random(seed)
    order = draw.sample(range(60), 60)
    for at in range(0, 60, 6):
        numbers = order[at:at + 6]
        files = fetcher.files([(digests[n], ".x") for n in numbers])
        assert [file.read_bytes() for file in files] == [contents[n] for n in numbers]
    """
)


def worker(folder: Path, seed: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, str(folder), str(seed)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "ready\n", started.communicate()[1]
    return started


def test_processes_that_want_the_same_fetch_it_once(tmp_path: Path) -> None:
    for started in [worker(tmp_path, seed) for seed in range(4)]:
        assert (started.communicate(timeout=30)[1], started.returncode) == ("", 0)
    fetched = (tmp_path / "log").read_text().split()
    assert len(fetched) == len(set(fetched)) == 60


def test_what_a_killed_process_was_fetching_is_fetched_by_the_next(tmp_path: Path) -> None:
    first = worker(tmp_path, 1)
    second = worker(tmp_path, 1)
    until(lambda: (tmp_path / "log").stat().st_size > 65 * 3)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (second.communicate(timeout=30)[1], second.returncode) == ("", 0)
    fetched = (tmp_path / "log").read_text().split()
    assert len(set(fetched)) == 60
    assert len(fetched) <= 81  # what the killed process had for a tenth of a second, and did not keep
