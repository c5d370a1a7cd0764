import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.home.contents import home_of, noise
from tests.home.damage import flip, truncate
from tests.home.faults import Faulty

from useg.home.collect import collect
from useg.home.objects import Objects
from useg.home.store import Folder, Memory
from useg.home.verification import verify


@given(st.lists(st.integers(0, 6000), max_size=4, unique=True))
def test_exactly_what_is_damaged_is_named(places):
    store, objects, _ = home_of([noise(400, number) for number in range(12)])
    (pack,) = [entry.key for entry in store.list("packs/")]
    index, size = objects.snapshot.index, len(store.get(pack))
    places = {place % size for place in places}
    for place in places:
        flip(store, pack, place)
    hit = {
        index.digest(row)
        for row in range(len(index))
        for place in places
        if 0 <= place - int(index.rows["offset"][row]) < int(index.rows["stored"][row])
    }
    problems = verify(Objects(store))
    assert {problem.where for problem in problems} <= {pack}
    if hit:
        assert {problem.what for problem in problems} == {f"object {each} is not what was written" for each in hit}
    else:
        assert [problem.what[:10] for problem in problems] == (["its footer"] if places else [])
    assert Objects(store).has([index.digest(row) for row in range(12)]) == [
        index.digest(row) not in hit for row in range(12)
    ]


def test_a_cut_pack_and_a_missing_one():
    store, objects, digests = home_of([noise(400, number) for number in range(12)])
    (pack,) = [entry.key for entry in store.list("packs/")]
    told = []
    assert verify(objects, progress=lambda done, total=None: told.append(done == total)) == []
    assert told == [True]
    truncate(store, pack, 400 * 9)
    problems = verify(objects)
    assert sorted(problem.what for problem in problems) == sorted(
        f"object {digest} is not what was written" for digest in digests[9:]
    )
    store.delete(pack)
    problems = verify(objects)
    assert {problem.where for problem in problems} == {f"object {digest}" for digest in digests}
    assert {problem.what for problem in problems} == {"is named by a ref or a record, and is not there"}


def test_a_chunk_that_is_damaged_and_the_object_that_is_not_complete():
    large = noise(5 * 2**20)
    store, objects, (digest, small) = home_of([large, b"small"])
    (pack,) = [entry.key for entry in store.list("packs/")]
    flip(store, pack, 2_000_000)
    problems = verify(objects)
    assert {problem.where for problem in problems} == {pack}
    assert any(problem.what.startswith(f"object {digest}") for problem in problems)
    assert objects.has([digest, small]) == [False, True]
    with objects.writer() as writer:
        writer.put(large)
        assert writer.commit().bytes_stored < 200_000
    assert verify(objects) == []
    assert objects.get(digest) == large


def test_what_nobody_made_visible_is_no_damage():
    store, objects, _ = home_of([b"a"])
    store.put("packs/" + "0" * 64, b"what a crash of another program left")
    with objects.writer() as writer:
        writer.put(b"never")
        writer._seal()
    assert verify(objects) == []


def test_a_damaged_footer_goes_with_the_next_collections():
    clock = [1000.0]
    store, objects, digests = home_of([noise(400, number) for number in range(4)], Memory(clock=lambda: clock[0]))
    (pack,) = [entry.key for entry in store.list("packs/")]
    flip(store, pack, store.list(pack).__next__().size - 30)
    assert [problem.what[:10] for problem in verify(objects)] == ["its footer"]
    for _ in range(3):
        clock[0] += 100
        collect(store, objects, grace_s=10)
    assert verify(objects) == []
    assert objects.has(digests) == [True] * 4


def test_a_record_that_cannot_be_read_is_named():
    store, objects, _ = home_of([b"a"])
    store.put("runs/y/record.json", b"\0")
    (problem,) = verify(objects)
    assert "runs/y/record.json: no JSON record" in problem.what


def test_a_home_that_can_only_be_read_is_verified():
    store, _, digests = home_of([noise(400, number) for number in range(4)])
    (pack,) = [entry.key for entry in store.list("packs/")]
    flip(store, pack, 10)
    objects = Objects(Faulty(store, fail_at=0, fail_times=10**9))
    assert len(verify(objects)) == 1
    assert not list(store.list("condemned/"))
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["index/" + "0" * 64, "index/readme"])
def test_a_segment_that_is_none(name, tmp_path):
    store, objects, digests = home_of([b"a", b"b"], Folder(tmp_path / "home"))
    store.put(name, b"what is this")
    assert [problem.where for problem in verify(Objects(store))] == [name]
    assert Objects(store).has(digests) == [True, True]
    collect(store, objects, grace_s=1000)
    assert verify(Objects(store)) == []
