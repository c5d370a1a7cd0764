"""The cache against a naive twin, against what a disk can do to it, and under processes that are killed."""

import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home import cache as cache_module
from useg.home.cache import Cache, cache_folder

BLOCK = 4096


def content(number: int, length: int = 100) -> bytes:
    return random.Random(number).randbytes(length)


def digest(bytes_: bytes) -> str:
    return blake3(bytes_).hexdigest()


def names(cache: Cache) -> set[str]:
    return {file.name for file in cache.folder.glob("[0-9a-f][0-9a-f]/*")}


def counted(cache: Cache) -> int:
    return int((cache.folder / ".used").read_text())


@pytest.fixture
def touch_always(monkeypatch):
    monkeypatch.setattr(cache_module, "_TOUCH_S", -1)


def test_an_object_is_a_file_with_its_bytes_that_nobody_changes_by_mistake(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "deep" / "cache", max_bytes=10**6)
    name = digest(b"image")
    assert cache.path(name, ".png") is None
    assert not cache.folder.exists()
    file = cache.add(name, b"image", ".png")
    assert file == cache.path(name, ".png") == cache.folder / name[:2] / f"{name}.png"
    assert file.read_bytes() == b"image"
    assert not file.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    assert cache.path(name) is None
    assert cache.add(name, iter([b"im", b"", b"age"])).read_bytes() == b"image"
    assert cache.used() == counted(cache) == 2 * BLOCK
    assert (cache.folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_empty_and_many_pieces(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    assert cache.add(digest(b""), b"").read_bytes() == b""
    pieces = [content(n, 10_000) for n in range(20)]
    assert cache.add(digest(b"".join(pieces)), pieces).read_bytes() == b"".join(pieces)


def test_bytes_of_another_digest_never_come_in(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    name = digest(b"right")
    with pytest.raises(DamagedFile, match=rf"object {name}: what came has digest {digest(b'wrong')}; fetch it again"):
        cache.add(name, b"wrong")
    with pytest.raises(OSError, match="line cut"):
        cache.add(name, _cut())
    (tmp_path / "whole").write_bytes(b"wrong")
    with pytest.raises(DamagedFile, match="whole: its bytes are not object"):
        cache.lend(name, tmp_path / "whole")
    assert cache.path(name) is None
    assert list((cache.folder / ".parts").iterdir()) == []
    assert cache.add(name, b"right").read_bytes() == b"right"


def _cut():
    yield b"ri"
    raise OSError("line cut")


@pytest.mark.parametrize("name", ["", "a" * 63, "../" * 21 + "a", "A" * 64, "g" * 64])
def test_names_that_are_no_digests(tmp_path: Path, name: str) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    with pytest.raises(InputError, match="64 hexadecimal digits and the suffix of a file were wanted"):
        cache.path(name)


@pytest.mark.parametrize("suffix", ["png", "/../x", "./x", ".a\0", "." + "x" * 50])
def test_suffixes_that_are_none(tmp_path: Path, suffix: str) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    with pytest.raises(InputError, match="the suffix of a file"):
        cache.add(digest(b""), b"", suffix)


def test_suffixes_of_odd_files_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    for suffix in (".nii.gz", ".PNG", ".tif (copy)", ".bild ä"):
        assert cache.add(digest(b"x"), b"x", suffix).name.endswith(suffix)
    assert cache.remove([digest(b"x")]) == 4


def test_the_place_as_given_then_by_the_environment(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there"
    monkeypatch.delenv("USEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "useg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "useg"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file; a folder was wanted"):
        Cache(tmp_path / "file" / "cache")


def test_the_bound_without_one_given_is_half_of_what_is_free(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert Cache(tmp_path / "cache").max_bytes == pytest.approx(free / 2, rel=0.05)


def test_the_least_recently_used_go_first_and_a_tenth_at_once(tmp_path: Path, touch_always) -> None:
    cache = Cache(tmp_path, max_bytes=20 * BLOCK)
    files = [digest(content(n)) for n in range(21)]
    for number in range(20):
        cache.add(files[number], content(number))
    assert cache.path(files[0])
    cache.add(files[20], content(20))
    # 18 of 20 blocks are left before it came: 1 and 2 went, 0 was just used
    assert [n for n in range(21) if cache.path(files[n]) is None] == [1, 2]
    assert counted(cache) == cache.used() == 19 * BLOCK


def test_a_use_is_written_down_at_most_once_a_minute(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    file = cache.add(digest(b"x"), b"x")
    written = file.stat().st_mtime_ns
    for ago, moved in ((30, False), (90, True), (-90, True)):  # the last: the clock went back
        os.utime(file, ns=(time.time_ns() - ago * 10**9, written))
        before = file.stat().st_atime_ns
        cache.path(digest(b"x"))
        assert (file.stat().st_atime_ns != before) == moved
        assert file.stat().st_mtime_ns == written


def test_pinned_objects_stay_and_fill_it_with_a_clear_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=5 * BLOCK)
    held = [digest(content(n)) for n in range(5)]
    with cache.pin(held[:4]) as pin:
        for number in range(5):
            cache.add(held[number], content(number))
        cache.add(digest(b"other"), b"other")
        assert cache.path(held[4]) is None
        pin.hold([*held[:4], digest(b"other")])
        with pytest.raises(
            ResourceError,
            match=r"is full: 20,480 of its 20,480 bytes are objects that running jobs hold, "
            r"and 4,096 more were wanted; give it more with --cache-size",
        ):
            cache.add(held[4], content(4))
        assert cache.evict(0) == 0
        assert all(cache.path(name) for name in (*held[:4], digest(b"other")))
        assert list((cache.folder / ".parts").iterdir()) == []
    assert cache.evict(0) == 5 * BLOCK
    assert names(cache) == set()


def test_an_object_larger_than_the_cache_pushes_nothing_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=3 * BLOCK)
    cache.add(digest(b"x"), b"x")
    large = content(1, 4 * BLOCK)
    with pytest.raises(ResourceError, match=r"may hold 12,288 bytes, and object [0-9a-f]{64} alone is larger"):
        cache.add(digest(large), [large[i : i + 1000] for i in range(0, len(large), 1000)])
    assert cache.path(digest(b"x"))


def test_what_is_lent_takes_no_room_and_goes_with_its_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=2 * BLOCK)
    whole = tmp_path / "whole"
    whole.write_bytes(content(1, 10 * BLOCK))
    name = digest(whole.read_bytes())
    lent = cache.lend(name, whole, ".raw")
    assert cache.lend(name, whole, ".raw") == lent
    assert lent.read_bytes() == whole.read_bytes()
    assert cache.used() == 0
    cache.evict(0)
    assert cache.path(name, ".raw") == lent
    whole.unlink()
    assert cache.path(name, ".raw") is None
    cache.add(digest(b"x"), b"x")
    cache.evict(0)
    assert names(cache) == set()
    whole.write_bytes(b"")
    assert cache.lend(digest(b""), whole).read_bytes() == b""


def test_a_lost_or_broken_count_is_counted_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=10 * BLOCK)
    for number in range(5):
        cache.add(digest(content(number)), content(number))
    for broken in (b"", b"00000\0\0", b"many"):
        (cache.folder / ".used").write_bytes(broken)
        cache.add(digest(broken), broken)
        assert counted(cache) == cache.used()
    (cache.folder / ".used").unlink()
    cache.add(digest(b"last"), b"last")
    assert counted(cache) == cache.used() == 8 * BLOCK


def test_parts_of_killed_writers_go_when_they_are_old(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=10 * BLOCK)
    cache.add(digest(b"x"), b"x")
    parts = cache.folder / ".parts"
    (parts / "old").write_bytes(b"half")
    (parts / "young").write_bytes(b"half")
    (parts / "link").symlink_to("nowhere")
    with open(parts / "slow", "wb") as slow:
        cache_module.fcntl.flock(slow, cache_module.fcntl.LOCK_EX)
        for name in ("old", "slow", "link"):
            os.utime(parts / name, (0, 0), follow_symlinks=False)
        cache.evict()
        assert {part.name for part in parts.iterdir()} == {"young", "slow"}


def test_what_the_disk_did_not_get_before_a_power_cut_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    good, torn, old = (cache.add(digest(content(n)), content(n)) for n in range(3))
    os.utime(old, (0, 0))
    for file in (torn, old):
        file.chmod(0o644)
        file.write_bytes(b"\0" * 100) if file == torn else None
    assert Cache(tmp_path, max_bytes=10**6).path(torn.name) == torn  # the machine did not stop
    (tmp_path / ".boot").write_text("before")
    again = Cache(tmp_path, max_bytes=10**6)
    assert again.path(torn.name) is None
    assert again.path(good.name) == good
    assert again.path(old.name) == old
    assert again.add(torn.name, content(1)).read_bytes() == content(1)
    assert counted(again) == again.used() == 3 * BLOCK


def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    import shutil

    cache = Cache(tmp_path / "cache", max_bytes=10**6)
    with cache.pin([digest(b"x")]):
        cache.add(digest(b"x"), b"x")
        shutil.rmtree(cache.folder)
        assert cache.path(digest(b"x")) is None
        assert cache.add(digest(b"x"), b"x").read_bytes() == b"x"
    assert cache.used() == BLOCK


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch) -> None:
    cache = Cache(tmp_path, max_bytes=10**6)
    cache.add(digest(b"x"), b"x")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "rename", full)
    with pytest.raises(ResourceError, match=r"cannot write: No space left on device. Free space"):
        cache.add(digest(b"y"), b"y")
    assert names(cache) == {digest(b"x")}
    assert list((cache.folder / ".parts").iterdir()) == []
    assert counted(cache) >= cache.used()


class Twin(RuleBasedStateMachine):
    """The cache does what a list sorted by last use would do."""

    objects = st.integers(0, 9)

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.bound = 12 * BLOCK
        self.cache = Cache(Path(self.temporary.name), max_bytes=self.bound)
        self.uses: list[tuple[int, str]] = []  # the least recently used first
        self.pins: list[tuple[object, set[int]]] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(cache_module, "_TOUCH_S", -1)

    def teardown(self) -> None:
        for pin, _ in self.pins:
            pin.close()
        self.patch.undo()
        self.temporary.cleanup()

    @staticmethod
    def bytes_of(number: int) -> bytes:
        return content(number, number * BLOCK // 2)  # 0 to 5 blocks

    def room(self, number: int) -> int:
        return -(-len(self.bytes_of(number)) // BLOCK) * BLOCK

    def used(self) -> int:
        return sum(self.room(number) for number, _ in self.uses)

    def shrink(self, target: int) -> None:
        held = set().union(*(numbers for _, numbers in self.pins))
        for use in list(self.uses):
            if self.used() > target and use[0] not in held and self.room(use[0]):
                self.uses.remove(use)

    @rule(number=objects, suffix=st.sampled_from(["", ".png"]))
    def add(self, number: int, suffix: str) -> None:
        use = (number, suffix)
        data = self.bytes_of(number)
        if use in self.uses:
            self.uses.remove(use)
        else:
            room = self.room(number)
            if self.used() + room > self.bound:
                self.shrink(min(int(0.9 * self.bound), self.bound - room))
            if self.used() + room > self.bound:
                with pytest.raises(ResourceError, match="is full"):
                    self.cache.add(digest(data), data, suffix)
                return
        self.uses.append(use)
        assert self.cache.add(digest(data), iter([data]), suffix).read_bytes() == data

    @rule(number=objects, suffix=st.sampled_from(["", ".png"]))
    def path(self, number: int, suffix: str) -> None:
        use = (number, suffix)
        found = self.cache.path(digest(self.bytes_of(number)), suffix)
        assert (found is not None) == (use in self.uses)
        if found:
            self.uses.remove(use)
            self.uses.append(use)

    @rule(numbers=st.sets(objects, max_size=3))
    def pin(self, numbers: set[int]) -> None:
        self.pins.append((self.cache.pin(digest(self.bytes_of(n)) for n in numbers), numbers))

    @rule(at=st.integers(0, 5))
    def unpin(self, at: int) -> None:
        if self.pins:
            self.pins.pop(at % len(self.pins))[0].close()

    @rule(at=st.integers(0, 5), numbers=st.sets(objects, max_size=3))
    def pin_others(self, at: int, numbers: set[int]) -> None:
        if self.pins:
            at %= len(self.pins)
            self.pins[at][0].hold(digest(self.bytes_of(n)) for n in numbers)
            self.pins[at] = (self.pins[at][0], numbers)

    @rule(at=st.integers(0, 5), numbers=st.sets(objects, max_size=3))
    def pin_more(self, at: int, numbers: set[int]) -> None:
        if self.pins:
            pin, held = self.pins[at % len(self.pins)]
            pin.hold_also(digest(self.bytes_of(n)) for n in numbers)
            held |= numbers

    @rule(blocks=st.integers(0, 12))
    def evict(self, blocks: int) -> None:
        before = self.used()
        self.shrink(blocks * BLOCK)
        assert self.cache.evict(blocks * BLOCK) == before - self.used()

    @rule(numbers=st.sets(objects, max_size=2))
    def remove(self, numbers: set[int]) -> None:
        left = [use for use in self.uses if use[0] not in numbers]
        assert self.cache.remove([digest(self.bytes_of(n)) for n in numbers]) == len(self.uses) - len(left)
        self.uses = left

    @rule()
    def another_process(self) -> None:
        self.cache = Cache(self.cache.folder, max_bytes=self.bound)

    @invariant()
    def same(self) -> None:
        assert names(self.cache) == {digest(self.bytes_of(n)) + suffix for n, suffix in self.uses}
        assert self.cache.used() == self.used() <= self.bound
        if (self.cache.folder / ".used").exists():
            assert counted(self.cache) == self.used()


TestTwin = Twin.TestCase
TestTwin.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


WORKER = textwrap.dedent(
    """
    import os, random, sys, time
    from pathlib import Path
    from blake3 import blake3
    from useg.home.cache import Cache

    folder, bound, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)
    cache = Cache(folder, max_bytes=bound)
    print("ready", flush=True)

    def content(number):
        return random.Random(number).randbytes(1000 + 37 * number)

    digests = [blake3(content(n)).hexdigest() for n in range(200)]
    until = time.monotonic() + float(sys.argv[4])
    while time.monotonic() < until:
        held = draw.sample(range(200), 8)
        with cache.pin(digests[n] for n in held):
            for n in held:
                cache.add(digests[n], iter([content(n)[:500], content(n)[500:]]), ".bin")
            for _ in range(20):
                n = draw.randrange(200)
                file = cache.path(digests[n], ".bin")
                try:
                    found = file.read_bytes() if file else content(n)
                except FileNotFoundError:
                    assert n not in held
                    continue
                assert found == content(n), "half a file was seen"
                cache.add(digests[n], content(n), ".bin")
            for n in held:
                assert cache.path(digests[n], ".bin").read_bytes() == content(n), "a pinned object went"
    """
)


def stress(folder: Path, seconds: float, workers: int = 4) -> int:
    """Workers at once for a while, killed and started again; returns how many were killed."""
    bound = 120 * 8192
    draw = random.Random(5)
    until = time.monotonic() + seconds
    running: list[subprocess.Popen] = []
    killed = 0

    def start(seed: int) -> None:
        left = max(0.1, until - time.monotonic())
        command = [sys.executable, "-c", WORKER, str(folder), str(bound), str(seed), str(left)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "ready\n", running[-1].communicate()[1]

    for seed in range(workers):
        start(seed)
    while time.monotonic() < until:
        time.sleep(draw.uniform(0.05, 0.2))
        victim = running.pop(draw.randrange(len(running)))
        victim.send_signal(signal.SIGKILL)
        assert "Error" not in victim.communicate()[1]
        killed += 1
        start(100 + killed)
    for worker in running:
        _, said = worker.communicate(timeout=30)
        assert worker.returncode == 0, said
    return killed


@pytest.mark.parametrize("seconds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_processes_killed_at_any_point_leave_it_whole(tmp_path: Path, seconds: float) -> None:
    killed = stress(tmp_path, seconds)
    assert killed >= seconds
    cache = Cache(tmp_path, max_bytes=120 * 8192)
    files = list(cache.folder.glob("[0-9a-f][0-9a-f]/*"))
    assert len(files) > 20
    assert all(digest(file.read_bytes()) + ".bin" == file.name for file in files)
    assert cache.used() <= counted(cache)
    assert cache.used() <= cache.max_bytes
    assert cache.evict(0) > 0  # the pins of the dead hold nothing
    assert names(cache) == set()
    assert list((cache.folder / ".pins").iterdir()) == []
    for part in (cache.folder / ".parts").iterdir():
        os.utime(part, (0, 0))
    cache.evict()
    assert list((cache.folder / ".parts").iterdir()) == []


def test_of_many_objects_those_before_a_damaged_one_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=300 * BLOCK)
    contents = [content(number, BLOCK + 1) for number in range(100)]
    given = [(digest(each), ".raw", each) for each in contents]
    cache.add(given[3][0], contents[3], ".raw")
    damaged = (*given[80][:2], contents[80][:-1])
    with pytest.raises(DamagedFile, match=f"object {given[80][0]}: what came has digest"):
        cache.add_many([*given[:80], damaged, *given[81:]])
    assert names(cache) == {name + suffix for name, suffix, _ in given[:80]}
    assert cache.used() == 160 * BLOCK == cache._counted()
    cache.add_many(given)
    assert [cache.path(name, ".raw") is not None for name, _, _ in given] == [True] * 100
    assert not list((tmp_path / ".parts").iterdir())
