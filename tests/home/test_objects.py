import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from tests.home.damage import flip, truncate
from tests.home.faults import Faulty, Killed, crashes

from useg.errors import DamagedFile, InputError, ResourceError
from useg.home import writer as writing
from useg.home.objects import Objects
from useg.home.store import Folder, Memory, Missing
from useg.home.verification import verify


def noise(length, seed=0):
    return blake3(seed.to_bytes(4, "little")).digest(length)


def store_all(store, contents):
    with Objects(store).writer() as writer:
        digests = [writer.put(content) for content in contents]
        writer.commit()
    return digests


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        from useg.home.bucket import Bucket

        return Bucket(request.getfixturevalue("s3_url"))
    return Folder(tmp_path / "home") if request.param == "folder" else Memory()


def test_what_was_put_is_got(store):
    contents = [noise(length, length) for length in (0, 1, 1000, 70_000, 5 * 2**20)] + [bytes(6 * 2**20), b"a" * 300]
    objects = Objects(store)
    with objects.writer() as writer:
        digests = [writer.put(content) for content in contents]
        assert digests == [blake3(content).hexdigest() for content in contents]
        stored = writer.commit()
    assert (stored.objects, stored.bytes_in) == (7, sum(map(len, contents)))
    assert stored.bytes_stored < 5.5 * 2**20
    for mine in (objects, Objects(store)):
        assert mine.has([*digests, "0" * 64]) == [True] * 7 + [False]
        assert [mine.length(digest) for digest in digests] == [len(content) for content in contents]
        assert [mine.get(digest) for digest in digests] == contents
        assert dict(mine.get_many(digests)) == dict(zip(digests, contents, strict=True))
        assert [b"".join(mine.stream(digest)) for digest in digests] == contents
    with objects.writer() as writer:
        assert [writer.put(content) for content in contents] == digests
        assert writer.commit().bytes_stored == 0
    assert len(list(store.list("packs/"))) == 1
    assert len(list(store.list("index/"))) == 1


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_two_transactions_are_a_dictionary(first, second):
    store = Memory()
    twin = {}
    for numbers in (first, second):
        contents = [noise(100 * number, number) for number in numbers]
        twin |= dict(zip(store_all(store, contents), contents, strict=True))
    objects = Objects(store)
    assert dict(objects.get_many(twin)) == twin
    assert len(objects.snapshot.index) == len(twin)


def test_files_are_stored_as_their_bytes(tmp_path):
    contents = {"empty": b"", "small": noise(1000), "large": noise(9 * 2**20), "flat": bytes(100_000)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    objects = Objects(Memory())
    with objects.writer() as writer:
        stored = {name: writer.put_file(tmp_path / name) for name in contents}
        assert writer.put_file(tmp_path / "flat").stored == 0
        with pytest.raises(FileNotFoundError):
            writer.put_file(tmp_path / "absent")
        writer.commit()
    for name, content in contents.items():
        assert (stored[name].digest, stored[name].bytes) == (blake3(content).hexdigest(), len(content))
        assert objects.get(stored[name].digest) == content
    assert stored["small"].stored == 1000
    assert stored["flat"].stored < 100


def test_what_was_prepared_may_be_stored_by_the_next_transaction():
    store = Memory()
    objects = Objects(store)
    contents = [noise(1000), bytes(100_000), b""]
    with objects.writer() as writer, ThreadPoolExecutor(2) as pool:
        digests = [writer.put_prepared(each) for each in pool.map(writer.prepare, contents)]
        again = list(pool.map(writer.prepare, contents))
        assert [each.stored for each in again] == [None] * 3
        # this one is given up, and with it what the second ones were built upon
    with objects.writer() as writer:
        assert [writer.put_prepared(each) for each in again] == digests
        writer.commit()
    assert [objects.get(digest) for digest in digests] == contents


def test_nothing_is_visible_without_commit():
    store = Memory()
    objects = Objects(store)
    with objects.writer() as writer:
        digest = writer.put(b"never")
    assert Objects(store).has([digest]) == [False]
    with pytest.raises(Missing, match=f"there is no object {digest}"):
        objects.get(digest)
    with pytest.raises(Missing):
        objects.length(digest)
    with pytest.raises(InputError, match="is no digest"):
        objects.get("../../etc/passwd")


def test_packs_are_bounded_and_read_in_few_requests(monkeypatch):
    monkeypatch.setattr(writing, "PACK_BYTES", 100_000)
    store = Faulty(Memory(), verbs=())
    contents = [noise(1000, number) for number in range(1000)]
    digests = store_all(store, contents)
    assert all(entry.size < 110_000 for entry in store.list("packs/"))
    assert store.requests("put") == 10 + 1
    objects = Objects(store)
    objects.refresh()
    store.calls.clear()
    found = list(objects.get_many(reversed(digests)))
    assert dict(found) == dict(zip(digests, contents, strict=True))
    assert store.requests() == 10
    places = objects.find([digest for digest, _ in found])
    packs = [objects.snapshot.index.pack(place) for place in places]
    assert len(list(groupby(packs))) == 10


def test_what_others_wrote_is_found_when_it_is_asked_for():
    store = Memory()
    objects = Objects(store)
    assert objects.has(["0" * 64]) == [False]
    (digest,) = store_all(store, [b"from elsewhere"])
    assert objects.has([digest]) == [False]
    assert objects.get(digest) == b"from elsewhere"
    assert objects.has([digest]) == [True]


def test_the_index_is_kept_on_this_machine(tmp_path):
    store = Faulty(Memory(), verbs=())
    digests = store_all(store, [b"a", b"b"])
    for number in range(3):
        store.calls.clear()
        assert Objects(store, index_cache=tmp_path / "cache").has(digests) == [True, True]
        assert store.requests("get") == (number == 0)
        if number == 1:
            (kept,) = (tmp_path / "cache").iterdir()
            kept.write_bytes(b"damaged")
            store.calls.clear()
            assert Objects(store, index_cache=tmp_path / "cache").get(digests[1]) == b"b"
            assert ("get", f"index/{kept.name}") in store.calls


def test_an_index_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = Memory()
    (digest,) = store_all(store, [b"a"])
    assert Objects(store, index_cache=tmp_path / "file" / "cache").get(digest) == b"a"


def test_every_flipped_bit_and_every_cut_of_a_pack_is_noticed():
    contents = [noise(60, 1), b"a" * 200, noise(50, 2)]
    store = Memory()
    digests = store_all(store, contents)
    (pack,) = [entry.key for entry in store.list("packs/")]
    whole = store.get(pack)
    index = Objects(store).snapshot.index
    for place in range(len(whole)):
        flip(store, pack, place)
        damaged = {
            index.digest(row)
            for row in range(3)
            if 0 <= place - int(index.rows["offset"][row]) < int(index.rows["stored"][row])
        }
        for digest, content in zip(digests, contents, strict=True):
            if digest in damaged:
                with pytest.raises(DamagedFile, match=f"{pack}: object {digest} is not what was written"):
                    Objects(store).get(digest)
            else:
                assert Objects(store).get(digest) == content
        flip(store, pack, place)
    for length in range(0, 130, 7):
        truncate(store, pack, length)
        with pytest.raises(DamagedFile, match="verify"):
            Objects(store).get(digests[2])
        assert Objects(store).has(digests[2:]) == [False]
    store.delete(pack)
    with pytest.raises(Missing):
        Objects(store).get(digests[0])


def test_a_damaged_segment_is_replaced_by_what_packs_say_of_themselves():
    store = Memory()
    digests = store_all(store, [b"a", noise(5 * 2**20)])
    (segment,) = [entry.key for entry in store.list("index/")]
    for damage in (lambda: flip(store, segment, 30), lambda: truncate(store, segment, 50)):
        damage()
        objects = Objects(store)
        assert [len(content) for _, content in objects.get_many(digests)] == [1, 5 * 2**20]
        assert [problem.where for problem in verify(objects)] == [segment]


def test_a_large_object_with_a_damaged_chunk_says_so():
    store = Memory()
    (digest,) = store_all(store, [noise(5 * 2**20)])
    (pack,) = [entry.key for entry in store.list("packs/")]
    flip(store, pack, 3_000_000)
    with pytest.raises(DamagedFile, match=pack):
        Objects(store).get(digest)
    with pytest.raises(DamagedFile, match=pack):
        list(Objects(store).stream(digest))


def test_a_commit_killed_at_any_operation_leaves_what_was_before_and_is_taken_up_again(monkeypatch):
    monkeypatch.setattr(writing, "PACK_BYTES", 3000)
    before, after = [noise(500, n) for n in range(10)], [noise(500, n) for n in range(5, 30)]

    def fresh():
        store = Memory()
        store_all(store, before)
        return store

    for left in crashes(fresh, lambda store: store_all(store, after)):
        assert verify(Objects(left)) == []
        assert [content for _, content in Objects(left).get_many(blake3(each).hexdigest() for each in before)] == before
        sent = sum(entry.size for entry in left.list("packs/"))
        with Objects(left).writer() as writer:
            digests = [writer.put(content) for content in after]
            stored = writer.commit().bytes_stored
        # what was sent is not sent again
        assert sent + stored == pytest.approx(30 * 500, rel=0.2)
        assert dict(Objects(left).get_many(digests)) == dict(zip(digests, after, strict=True))


@pytest.mark.parametrize("is_after_effect", [False, True])
def test_a_full_disk_is_told_and_leaves_what_was_before(is_after_effect):
    store = Memory()
    (kept,) = store_all(store, [b"kept"])
    for number in range(2):
        faulty = Faulty(store, fail_at=number, is_after_effect=is_after_effect)
        with pytest.raises(ResourceError, match="No space left"):
            store_all(faulty, [noise(100, 10 + number)])
        assert Objects(store).get(kept) == b"kept"
        assert verify(Objects(store)) == []


def test_writers_at_once_all_succeed(tmp_path):
    folder = tmp_path / "home"
    contents = [[noise(300, n) for n in range(start, start + 40)] for start in range(0, 80, 20)]
    threads = [threading.Thread(target=store_all, args=(Folder(folder), some)) for some in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    objects = Objects(Folder(folder))
    wanted = {blake3(content).hexdigest(): content for some in contents for content in some}
    assert dict(objects.get_many(wanted)) == wanted
    assert verify(objects) == []


KILLED = """
import sys
from pathlib import Path
from blake3 import blake3
from useg.home import writer
from useg.home.objects import Objects
from useg.home.store import Folder
writer.PACK_BYTES = 200_000
with Objects(Folder(Path(sys.argv[1]))).writer() as transaction:
    for number in range(10**9):
        transaction.put(blake3(number.to_bytes(4, "little")).digest(10_000))
        if number == 100:
            print("going", flush=True)
"""


@pytest.mark.slow
def test_a_process_killed_while_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PACK_BYTES", 200_000)
    store = Folder(tmp_path / "home")
    (kept,) = store_all(store, [b"kept"])
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(store.root)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert Objects(store).get(kept) == b"kept"
    assert verify(Objects(store)) == []
    with Objects(store).writer() as writer:
        digests = [writer.put(noise(10_000, number)) for number in range(100)]
        assert writer.commit().bytes_stored < 600_000
    assert len(dict(Objects(store).get_many(digests))) == 100


def test_a_million_digests_are_looked_up_well_below_a_second():
    import time

    from useg.home.index import Index
    from useg.home.packs import PLACED

    rows = np.zeros(1_000_000, PLACED)
    rows["digest"] = np.frombuffer(noise(32_000_000), "<u8").reshape(-1, 4)
    index = Index().with_segments([(["p"], rows)])
    begin = time.process_time()
    assert index.holds(rows["digest"]).all()
    assert time.process_time() - begin < 2.0
    assert not index.holds(rows["digest"][:1000] ^ 1).any()


def test_killed_is_killed():
    with pytest.raises(Killed):
        store_all(Faulty(Memory(), kill_at=0), [b"a"])


def test_a_folder_that_may_not_be_written(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    root = Path(tmp_path / "home")
    (digest,) = store_all(Folder(root), [b"a"])
    for folder in (root, root / "packs"):
        folder.chmod(0o555)
    with pytest.raises(ResourceError):
        store_all(Folder(root), [b"b"])
    assert Objects(Folder(root)).get(digest) == b"a"
    for folder in (root, root / "packs"):
        folder.chmod(0o755)
