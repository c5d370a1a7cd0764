import orjson
import pytest
from blake3 import blake3
from tests.home.damage import flip, truncate
from tests.home.faults import Faulty, Killed

from useg.errors import DataError
from useg.home import transfer
from useg.home import writer as writing
from useg.home.objects import Objects, Withdrawn
from useg.home.packs import texts_of
from useg.home.reaching import closure, reachable
from useg.home.store import Folder, Memory
from useg.home.transfer import copy_objects
from useg.home.verification import verify
from useg.home.withdrawal import withdraw


def noise(length, seed=0):
    return blake3(seed.to_bytes(4, "little")).digest(length)


def home(contents):
    objects = Objects(Memory())
    with objects.writer() as writer:
        digests = [writer.put(content) for content in contents]
        writer.commit()
    return objects, digests


def test_only_what_is_lacking_is_sent():
    large = noise(6 * 2**20, 99)
    contents = [*(noise(1000, number) for number in range(20)), large, bytes(10_000)]
    source, digests = home(contents)
    target, _ = home([*contents[:5], large[:3_000_000] + b"x" + large[3_000_000:]])
    told = []
    copied = copy_objects(source, target, digests, progress=lambda done, total=None: told.append((done, total)))
    assert 15 * 1000 < copied.bytes < 15 * 1000 + 300_000
    assert told[-1][0] == told[-1][1] == copied.bytes
    assert dict(target.get_many(digests)) == dict(zip(digests, contents, strict=True))
    assert copy_objects(source, target, digests) == transfer.Copied(0, 0)
    assert verify(target) == []


def test_many_small_objects_are_few_requests(tmp_path):
    source = Objects(Faulty(Folder(tmp_path / "a"), verbs=()))
    target = Objects(Faulty(Folder(tmp_path / "b"), verbs=()))
    with source.writer() as writer:
        digests = [writer.put(noise(200, number)) for number in range(20_000)]
        writer.commit()
    source.store.calls.clear()
    copy_objects(source, target, digests)
    assert source.store.requests() + target.store.requests() < 40
    assert sum(target.has(digests)) == 20_000


def test_what_was_sent_is_not_sent_again_after_a_kill_at_any_put(monkeypatch):
    monkeypatch.setattr(writing, "PACK_BYTES", 4000)
    monkeypatch.setattr(transfer, "_COMMIT_BYTES", 10_000)
    contents = [noise(500, number) for number in range(60)]
    source, digests = home(contents)
    kill_at = 0
    while True:
        store = Memory()
        faulty = Faulty(store, kill_at=kill_at, is_after_effect=True, verbs=("put",))
        try:
            copy_objects(source, Objects(faulty), digests)
        except Killed:
            sent = sum(entry.size for entry in store.list("packs/")) * 500 / 560
            assert verify(Objects(store)) == []
            left = copy_objects(source, Objects(store), digests).bytes
            assert left + sent <= 30_000 * 1.1
            assert dict(Objects(store).get_many(digests)) == dict(zip(digests, contents, strict=True))
        else:
            break
        kill_at += 1
    assert kill_at > 8


def test_whatever_is_missing_or_damaged_in_the_source_is_named_and_the_rest_is_sent():
    source, digests = home([noise(1000, number) for number in range(10)])
    (pack,) = [entry.key for entry in source.store.list("packs/")]
    flip(source.store, pack, 3500)
    target = Objects(Memory())
    with pytest.raises(DataError, match="2 objects could not be copied; the others were") as raised:
        copy_objects(source, target, [*digests, "0" * 64])
    told = str(raised.value)
    assert f"object {'0' * 64}: is not there" in told
    assert f"object {digests[3]}: is damaged in {pack}" in told
    assert sum(target.has(digests)) == 9


def test_a_damaged_large_object_in_the_source_is_not_sent():
    source, digests = home([noise(6 * 2**20), b"small"])
    (pack,) = [entry.key for entry in source.store.list("packs/")]
    flip(source.store, pack, 3_000_000)
    target = Objects(Memory())
    with pytest.raises(DataError, match=f"object {digests[0]}: is damaged, or chunks of it are"):
        copy_objects(source, target, digests)
    assert target.has(digests) == [False, True]
    assert verify(target) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_another_home_heals_what_verification_found(damage):
    contents = [noise(6 * 2**20, 1), *(noise(1000, number) for number in range(10)), bytes(5000)]
    healthy, digests = home(contents)
    broken, _ = home(contents)
    named = orjson.dumps({"names": digests})
    broken.store.put("runs/x/record.json", named)
    (pack,) = [entry.key for entry in broken.store.list("packs/")]
    if damage == "flip":
        flip(broken.store, pack, 100)
        flip(broken.store, pack, 6 * 2**20 + 50)
    elif damage == "truncate":
        truncate(broken.store, pack, 5 * 2**20)
    else:
        broken.store.delete(pack)
    found = verify(broken)
    assert found
    # another process knows it, too
    broken = Objects(broken.store)
    assert broken.has(digests[:1]) == [False]
    copied = copy_objects(healthy, broken, digests)
    if damage == "flip":
        assert copied.bytes < 200_000
    assert verify(broken) == []
    assert dict(broken.get_many(digests)) == dict(zip(digests, contents, strict=True))


def test_what_was_withdrawn_is_passed_over():
    source, digests = home([b"a", b"b", b"c"])
    target = Objects(Memory())
    withdraw(source.store, source, digests[:1], "asked for")
    withdraw(target.store, target, digests[1:2], "asked for")
    assert copy_objects(source, target, digests).objects == 1
    assert target.has(digests) == [False, False, True]


def test_a_tombstone_goes_along_where_the_object_is_lacking():
    source, digests = home([b"a", b"b"])
    target, kept = home([b"b"])
    withdraw(source.store, source, digests, "asked for")
    copy_objects(source, target, digests)
    with pytest.raises(Withdrawn, match="asked for"):
        target.get(digests[0])
    assert target.get(kept[0]) == b"b", "what is there is not taken away from here"


def test_a_pack_that_is_one_raw_object_is_copied_piece_by_piece(monkeypatch):
    content = noise(6 * 2**20)
    store = Memory()
    name = blake3(content).hexdigest()
    store.put(f"packs/{name}", content)
    source, target = Objects(store), Objects(Memory())
    with source.writer() as writer:  # finds it
        assert writer.put_packed(bytes.fromhex(name), 0, content, len(content)) is False
        writer.commit()
    monkeypatch.setattr("useg.home.transfer.PACK_BYTES", 2**20)
    monkeypatch.setattr("useg.home.unpacking.PACK_BYTES", 2**20)
    copy_objects(source, target, [name])
    assert target.get(name) == content
    flip(store, f"packs/{name}", 5_000_000)
    with pytest.raises(DataError, match="is damaged"):
        copy_objects(source, Objects(Memory()), [name])


def test_closure_is_what_records_lead_to():
    objects, (a, b, c, unnamed) = home([b"a", b"b", b"c", b"unnamed"])
    with objects.writer() as writer:
        listed = writer.put(bytes.fromhex(b + c))
        parent = writer.put(orjson.dumps({"names": [a]}))
        record = writer.put(orjson.dumps({"records": [parent], "lists": [listed], "other": 1}))
        writer.commit()
    assert set(closure(objects, [record])) == {a, b, c, listed, parent, record}
    objects.store.put("refs/x/00000001", orjson.dumps({"to": record, "records": [record]}))
    assert set(texts_of(reachable(objects.store, objects))) == {a, b, c, listed, parent, record}
    objects.store.put("refs/x/00000002", orjson.dumps({"to": unnamed, "names": [unnamed]}))
    assert texts_of(reachable(objects.store, objects)) == [unnamed]
