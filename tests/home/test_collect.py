import os

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.home.damage import flip
from tests.home.faults import WRITES, Faulty, Killed, crashes
from tests.home.interleaved import Actor, Inline

from useg.errors import DamagedFile, ResourceError
from useg.home import chunking, unpacking, writer
from useg.home.collect import collect
from useg.home.condemned import Condemned, read_condemned, write_condemned
from useg.home.objects import Objects
from useg.home.packs import CHUNKS, FOOTER_BYTES, PACKED
from useg.home.refs import delete_ref, move_ref, read_ref
from useg.home.store import Memory
from useg.home.verification import verify

GRACE = 100.0


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Packs of 3 KB, objects cut above 700 bytes, no threads but the test's own."""
    make_small(monkeypatch)


def make_small(patch):
    patch.setattr(writer, "PACK_BYTES", 3000)
    patch.setattr(writer, "WHOLE_BYTES", 700)
    patch.setattr(chunking, "average_bytes", lambda length: 256)
    patch.setattr(writer, "ThreadPoolExecutor", Inline)
    patch.setattr(unpacking, "ThreadPoolExecutor", Inline)


def content(number):
    """Objects 0 to 3 share most of their bytes in pairs, and are cut."""
    from blake3 import blake3

    if number < 4:
        body = blake3(bytes([number // 2])).digest(2500)
        return body[:1500] + bytes([number]) + body[1500:]
    return blake3(bytes([number])).digest(40 + 20 * number)


def add(store, name, numbers, *, started=lambda: None):
    """Put objects, and name them in a ref."""
    objects = Objects(store)
    with objects.writer() as transaction:
        named = [transaction.put(content(number)) for number in numbers]
        record = transaction.put(orjson.dumps({"names": named}))
        started()
        transaction.commit()
    entry = read_ref(store, name)
    move_ref(store, name, {"to": record, "records": [record]}, expected=entry.number if entry else 0)


def everything_named_is_there(store):
    """What the refs lead to, read by somebody who comes anew; returns all digests."""
    objects, found = Objects(store), set()
    latest = {}
    for entry in store.list("refs/"):
        latest[entry.key.rpartition("/")[0]] = orjson.loads(store.get(entry.key))
    for record in latest.values():
        for digest in record.get("records", []):
            named = orjson.loads(objects.get(digest))["names"]
            found |= {digest, *named}
            for each in named:
                assert objects.get(each)
    return found


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def settle(store, clock):
    """Collect until nothing changes any more."""
    objects = Objects(store)
    for _ in range(8):
        clock.now += 2 * GRACE
        collect(store, objects, grace_s=GRACE)
    return objects


def assert_tidy(store, clock):
    objects = settle(store, clock)
    named = everything_named_is_there(store)
    snapshot = objects.refresh()
    assert not snapshot.condemned.packs
    assert not snapshot.orphans()
    assert snapshot.index.is_usable.all()
    index, chunks = snapshot.index, set()
    for place in range(len(index)):
        if index.rows["kind"][place] == CHUNKS:
            assert index.digest(place) in named
            words, _ = unpacking.Unpacker(store, index).chunks(place)
            chunks |= {row.tobytes().hex() for row in words}
    live = dict.fromkeys(snapshot.listing, FOOTER_BYTES)
    for place in range(len(index)):
        if index.digest(place) in named | chunks:
            live[index.pack(place)] += int(index.rows["stored"][place]) + PACKED.itemsize
    for pack, entry in snapshot.listing.items():
        assert live[pack] >= 0.5 * entry.size, "a pack is mostly garbage"
    assert verify(objects) == []


def test_garbage_goes_after_two_times_of_grace_and_what_is_named_stays():
    clock = Clock()
    store = Memory(clock=clock)
    objects = Objects(store)
    add(store, "a", [0, 4, 5])
    add(store, "b", [1, 6, 7, 8, 9, 10])
    delete_ref(store, "b")
    assert collect(store, objects, grace_s=GRACE).condemned == 0, "a writer may be about to name it"
    clock.now += GRACE
    done = collect(store, objects, grace_s=GRACE)
    assert done.condemned > 0
    assert done.deleted == 0
    gone = objects.snapshot.index.packs
    assert collect(store, objects, grace_s=GRACE).deleted == 0
    clock.now += GRACE
    done = collect(store, objects, grace_s=GRACE)
    assert done.deleted > 0
    assert done.bytes > 0
    assert not set(gone) <= set(objects.snapshot.index.packs)
    assert_tidy(store, clock)


def test_what_is_condemned_is_stored_again_by_who_wants_it():
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [4])
    delete_ref(store, "a")
    clock.now += GRACE
    objects = Objects(store)
    collect(store, objects, grace_s=GRACE)
    with objects.writer() as transaction:
        digest = transaction.put(content(4))
        assert transaction.commit().bytes_stored == len(content(4))
    assert objects.has([digest]) == [True]


def test_what_is_named_while_condemned_is_rescued():
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [4, 5])
    to = read_ref(store, "a").record
    delete_ref(store, "a")
    clock.now += GRACE
    objects = Objects(store)
    assert collect(store, objects, grace_s=GRACE).condemned == 1
    move_ref(store, "b", {"to": to["to"], "records": to["records"]}, expected=0)
    clock.now += GRACE
    assert collect(store, objects, grace_s=GRACE).rescued == 1
    assert_tidy(store, clock)


def test_a_clock_that_went_back_deletes_nothing():
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [4])
    delete_ref(store, "a")
    clock.now += GRACE
    objects = Objects(store)
    assert collect(store, objects, grace_s=GRACE).condemned == 1
    clock.now -= 5 * GRACE
    assert collect(store, objects, grace_s=GRACE).deleted == 0
    assert_tidy(store, clock)


def test_a_record_that_cannot_be_read_stops_the_collection():
    store = Memory()
    add(store, "a", [4])
    store.put("runs/x/record.json", b"{half")
    with pytest.raises(DamagedFile, match=r"runs/x/record\.json: no JSON record"):
        collect(store, Objects(store), grace_s=0)
    assert everything_named_is_there(store)


def test_a_record_that_is_missing_stops_the_collection():
    store = Memory()
    add(store, "a", [4])
    store.put("refs/b/00000001", orjson.dumps({"to": "0" * 64, "records": ["0" * 64]}))
    with pytest.raises(DamagedFile, match=f"there is no object {'0' * 64}, and a ref or a record leads to it"):
        collect(store, Objects(store), grace_s=0)
    assert [problem.what[:10] for problem in verify(Objects(store))] == ["nobody kno"]


@pytest.mark.parametrize("operations", range(4, 12))
def test_a_collection_that_was_slow_reads_the_refs_again(operations):
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [4])
    slow = Actor(store, lambda actor, mine: collect(mine, Objects(mine), grace_s=GRACE))
    slow.step(operations)  # after some of these it has listed the refs, and not read the record
    add(store, "a", [5])
    settle(store, clock)
    slow.finish()
    assert slow.error is None
    assert_tidy(store, clock)


def test_runs_and_lists_keep_objects():
    clock = Clock()
    store = Memory(clock=clock)
    objects = Objects(store)
    with objects.writer() as transaction:
        listed = [transaction.put(content(number)) for number in (0, 5, 6)]
        gone = transaction.put(os.urandom(1000))
        names = transaction.put(bytes.fromhex("".join(listed)))
        transaction.commit()
    store.put("runs/x/record.json", orjson.dumps({"lists": [names], "names": None}))
    settle(store, clock)
    objects.refresh()
    assert objects.has([*listed, names, gone]) == [True, True, True, True, False]


def test_many_segments_become_one_and_stale_ones_go():
    clock = Clock()
    store = Memory(clock=clock)
    for number in range(4, 44):
        add(store, f"r{number}", [number])
    objects = settle(store, clock)
    assert len(objects.snapshot.segments) == 1
    assert everything_named_is_there(store)
    add(store, "one", [50])
    assert Objects(store).get(objects.writer().put(content(50))) == content(50)


def test_a_writer_slower_than_the_grace_stores_again_what_was_condemned_under_it():
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [0, 4])
    delete_ref(store, "a")
    clock.now += GRACE
    with Objects(store).writer() as slow:
        digests = [slow.put(content(0)), slow.put(content(4))]
        assert collect(store, Objects(store), grace_s=GRACE).condemned > 0
        clock.now += GRACE / 2
        assert slow.commit().bytes_stored >= len(content(4))
    clock.now += GRACE / 2
    assert collect(store, Objects(store), grace_s=GRACE).deleted > 0
    assert [Objects(store).get(digest) for digest in digests] == [content(0), content(4)]


def test_a_writer_overtaken_by_two_collections_is_told():
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [4])
    delete_ref(store, "a")
    clock.now += GRACE
    with Objects(store).writer() as slow:
        slow.put(content(4))
        for _ in range(2):
            collect(store, Objects(store), grace_s=GRACE)
            clock.now += GRACE
        with pytest.raises(ResourceError, match="deleted by a collection while this went on"):
            slow.commit()


def test_a_list_that_may_be_built_upon_keeps_its_chunks():
    """The chunks lie in an old pack, the list in a young one, and nothing leads to either yet."""
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [0])
    delete_ref(store, "a")
    clock.now += GRACE
    objects = Objects(store)
    with objects.writer() as transaction:
        digest = transaction.put(content(1))
        transaction.commit()
    clock.now += 1
    collect(store, objects, grace_s=GRACE)
    clock.now += GRACE
    with objects.writer() as transaction:
        transaction.put(content(1))
        assert transaction.commit().bytes_stored == 0
    collect(store, objects, grace_s=GRACE)
    store.put("runs/x/record.json", orjson.dumps({"names": [digest]}))
    assert Objects(store).get(digest) == content(1)
    assert settle(store, clock).get(digest) == content(1)


def test_a_list_of_a_killed_writer_is_not_built_upon():
    """Nobody has made sure that its chunks stayed; what else lies in its pack is as good as sent."""
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [0])
    delete_ref(store, "a")
    clock.now += GRACE
    killed = Faulty(store, kill_at=0, is_after_effect=True)
    transaction = Objects(killed).writer()
    digest = transaction.put(content(1))
    transaction.put(content(9))
    collect(store, Objects(store), grace_s=GRACE)
    clock.now += 0.9 * GRACE
    with pytest.raises(Killed):
        transaction.commit()
    clock.now += 0.2 * GRACE
    assert collect(store, Objects(store), grace_s=GRACE).deleted > 0
    with Objects(store).writer() as transaction:
        transaction.put(content(9))
        assert transaction.commit().bytes_stored == 0
    assert Objects(store).has([digest]) == [False]
    add(store, "b", [1])
    assert everything_named_is_there(store)


def test_of_two_who_write_the_log_one_knows_that_it_lost():
    store = Memory()
    before = read_condemned(store)
    assert write_condemned(store, before, Condemned(packs={"a": 0}))
    assert not write_condemned(store, before, Condemned(packs={"b": 0}))
    after = read_condemned(store)
    assert (after.number, after.packs) == (1, {"a": 1})
    assert write_condemned(store, after, Condemned(packs={"a": 1, "c": 0}))
    assert read_condemned(store).packs == {"a": 1, "c": 2}


def test_an_answer_that_was_lost_on_its_way_is_no_lost_race():
    class Forgetful(Memory):
        def put(self, key, content):
            super().put(key, content)
            return False

    assert write_condemned(Forgetful(), Condemned(), Condemned(packs={"a": 0}))


def test_a_log_that_is_damaged_stops_writers_and_not_readers():
    clock = Clock()
    store = Memory(clock=clock)
    add(store, "a", [4])
    add(store, "b", [5])
    delete_ref(store, "b")
    clock.now += GRACE
    collect(store, Objects(store), grace_s=GRACE)
    flip(store, "condemned/00000001", 20)
    assert everything_named_is_there(store)
    with pytest.raises(DamagedFile, match="condemned/00000001: not what was written"):
        Objects(store).writer()
    with pytest.raises(DamagedFile, match="delete this file"):
        collect(store, Objects(store), grace_s=GRACE)
    assert [problem.where for problem in verify(Objects(store))] == ["condemned"]
    store.delete("condemned/00000001")
    assert_tidy(store, clock)


def _with_garbage(clock):
    def make():
        clock.now = 1000.0
        store = Memory(clock=clock)
        add(store, "a", [0, 2, 4, 5, 6])
        add(store, "b", [1, 7, 8, 9, 10])
        add(store, "c", [3, 20, 21])
        delete_ref(store, "b")
        delete_ref(store, "a")
        add(store, "a", [0, 4])
        clock.now += GRACE
        return store

    return make


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_collection_killed_at_any_operation_loses_nothing(rounds):
    clock = Clock()

    def work(store):
        for number in range(rounds):
            collect(store, Objects(store), grace_s=GRACE, now=clock.now + GRACE * number)

    for number, left in enumerate(crashes(_with_garbage(clock), work)):
        assert verify(Objects(left)) == []
        assert everything_named_is_there(left)
        if number % 4 == 0:
            assert_tidy(left, clock)


def test_a_full_disk_during_a_collection_loses_nothing():
    clock = Clock()
    make = _with_garbage(clock)
    for number in range(30):
        store = make()
        faulty = Faulty(store, fail_at=number, fail_times=3, verbs=WRITES)
        try:
            collect(faulty, Objects(faulty), grace_s=GRACE)
        except ResourceError:
            assert everything_named_is_there(store)
            assert verify(Objects(store)) == []
        else:
            break
    else:
        raise AssertionError("it never came to its end")


class WritersAgainstCollectors(RuleBasedStateMachine):
    """Writers, collectors and the clock in any order, interleaved at every operation of the store."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        make_small(self.patch)
        self.clock = Clock()
        self.store = Memory(clock=self.clock)
        self.actors = []
        self.moving = {}

    @initialize()
    def something_was_there(self):
        add(self.store, "a", [0, 2, 4, 5])
        add(self.store, "b", [1, 2, 6])
        delete_ref(self.store, "a")
        delete_ref(self.store, "b")
        self.clock.now += 3 * GRACE

    @rule(
        numbers=st.lists(st.integers(0, 6), min_size=1, max_size=3),
        name=st.sampled_from("ab"),
        count=st.integers(0, 25),
    )
    def begin_to_write(self, numbers, name, count):
        def work(actor, store):
            add(store, name, numbers, started=lambda: self.moving.setdefault(actor, self.clock.now))

        self._begin(work, count)

    @rule(count=st.integers(0, 25))
    def begin_to_collect(self, count):
        self._begin(lambda actor, store: collect(store, Objects(store), grace_s=GRACE), count)

    @rule(numbers=st.lists(st.integers(0, 6), min_size=1, max_size=3), name=st.sampled_from("ab"))
    def write(self, numbers, name):
        add(self.store, name, numbers)

    @rule(share=st.sampled_from([0, 0.9, 1.1]))
    def collect(self, share):
        self._tick(share)
        collect(self.store, Objects(self.store), grace_s=GRACE)

    @rule(name=st.sampled_from("ab"), share=st.sampled_from([0, 1.1]))
    def delete(self, name, share):
        delete_ref(self.store, name)
        self._tick(share)

    def _begin(self, work, count):
        if sum(not actor.is_done for actor in self.actors) < 4:
            self.actors.append(Actor(self.store, work))
            self.actors[-1].step(count)

    @precondition(lambda self: self._running())
    @rule(data=st.data(), count=st.integers(1, 30))
    def step(self, data, count):
        data.draw(st.sampled_from(self._running())).step(count)

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def kill(self, data):
        data.draw(st.sampled_from(self._running())).kill()

    def _running(self):
        return [actor for actor in self.actors if not actor.is_done]

    def _tick(self, share):
        # whoever commits has to name what it stored within the time of grace
        for actor, since in self.moving.items():
            if self.clock.now + share * GRACE - since >= GRACE:
                actor.finish()
        self.clock.now += share * GRACE

    @invariant()
    def nothing_named_is_lost(self):
        everything_named_is_there(self.store)

    def teardown(self):
        try:
            for actor in self.actors:
                actor.finish()
                # moved under it, or overtaken by a collection: it was told so
                assert isinstance(actor.error, (Killed, ResourceError, type(None))) or "moved under" in str(
                    actor.error
                ), repr(actor.error)
            everything_named_is_there(self.store)
            assert_tidy(self.store, self.clock)
        finally:
            self.patch.undo()


TestWritersAgainstCollectors = WritersAgainstCollectors.TestCase
TestWritersAgainstCollectors.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
