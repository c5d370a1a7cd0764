import pytest
from blake3 import blake3
from tests.home.contents import home_of, noise
from tests.home.faults import crashes

from useg.errors import InputError
from useg.home.collect import collect
from useg.home.objects import Objects, Withdrawn
from useg.home.verification import verify
from useg.home.withdrawal import withdraw


def is_anywhere(store, content):
    return any(content in store.get(entry.key) for entry in store.list())


def test_the_bytes_go_and_a_tombstone_stays():
    contents = [noise(1000, number) for number in range(5)]
    store, objects, digests = home_of(contents)
    stale = Objects(store)
    assert stale.get(digests[2]) == contents[2]
    done = withdraw(store, objects, [digests[2]], "the patient asked for it")
    assert (done.packs, done.bytes, done.lost) == (1, 1000, ())
    assert not is_anywhere(store, contents[2][:100])
    for mine in (objects, Objects(store), stale):
        with pytest.raises(Withdrawn, match=f"object {digests[2]} was withdrawn on .*: the patient asked for it"):
            mine.get(digests[2])
        assert mine.has(digests) == [True, True, False, True, True]
        rest = [digest for digest in digests if digest != digests[2]]
        assert len(dict(mine.get_many(rest))) == 4
    assert verify(objects) == []
    assert withdraw(store, objects, [digests[2]], "again").packs == 0


def test_it_cannot_be_put_again():
    store, objects, digests = home_of([b"a", b"b"])
    with objects.writer() as writer:
        writer.put(b"a")
        withdraw(store, Objects(store), digests[:1], "asked for")
        with pytest.raises(Withdrawn):
            writer.commit()
    with objects.writer() as writer, pytest.raises(Withdrawn, match="asked for"):
        writer.put(b"a")


def test_chunks_that_others_share_stay_and_the_others_go():
    body = noise(6 * 2**20)
    patient, other = body[:3_000_000] + b"name" + noise(300_000, 1) + body[3_000_000:], body
    store, objects, digests = home_of([patient, other, b"small"])
    done = withdraw(store, objects, digests[:1], "asked for")
    assert 300_000 < done.bytes < 600_000
    assert not is_anywhere(store, noise(300_000, 1)[100_000:100_100])
    assert objects.get(digests[1]) == other
    with pytest.raises(Withdrawn):
        objects.get(digests[0])
    assert verify(objects) == []
    withdraw(store, objects, digests[1:2], "asked for, too")
    assert sum(entry.size for entry in store.list("packs/")) < 1000


def test_what_a_killed_writer_left_goes_too():
    store, objects, digests = home_of([b"a"])
    with objects.writer() as writer:
        digest = writer.put(b"patient")
        writer._seal()
    assert is_anywhere(store, b"patient")
    withdraw(store, objects, [digest], "asked for")
    assert not is_anywhere(store, b"patient")
    assert objects.get(digests[0]) == b"a"


def test_a_collection_does_not_keep_it():
    clock = [1000.0]
    contents = [noise(500, number) for number in range(4)]
    store, objects, digests = home_of(contents)
    store._clock = lambda: clock[0]
    store.put(f"tombstones/{digests[0]}", b'{"time": "now", "reason": "half done"}')
    assert ["withdrawn" in problem.what for problem in verify(objects)] == [True]
    for _ in range(4):
        clock[0] += 10**10
        collect(store, objects, grace_s=1)
    assert not is_anywhere(store, contents[0][:50])
    assert verify(objects) == []
    assert objects.has(digests) == [False, True, True, True]


def test_killed_at_any_operation_it_loses_nothing_else_and_can_be_repeated():
    body = noise(4 * 2**20 + 100_000)
    contents = [body, body[:2_000_000] + b"x" + body[2_000_000:], *(noise(500, number) for number in range(1, 9))]

    def fresh():
        return home_of(contents)[0]

    digests = [blake3(content).hexdigest() for content in contents]
    going = [digests[0], digests[4]]
    staying = {d: content for d, content in zip(digests, contents, strict=True) if d not in going}
    for left in crashes(fresh, lambda store: withdraw(store, Objects(store), going, "asked for")):
        assert dict(Objects(left).get_many(staying)) == staying
        # that it is not finished is all that is wrong
        assert all("was withdrawn, and its bytes are still here" in each.what for each in verify(Objects(left)))
        withdraw(left, Objects(left), going, "asked for")
        assert not is_anywhere(left, contents[4][:50])
        assert dict(Objects(left).get_many(staying)) == staying
        assert verify(Objects(left)) == []


def test_a_reason_and_digests_are_wanted():
    store, objects, digests = home_of([b"a"])
    with pytest.raises(InputError, match="a reason is wanted"):
        withdraw(store, objects, digests, " ")
    with pytest.raises(InputError, match="no digest"):
        withdraw(store, objects, ["a"], "why")
    assert objects.get(digests[0]) == b"a"
