import os
from pathlib import Path

import orjson
import pytest
from blake3 import blake3
from tests.home.faults import Killed

from useg.home import sharing
from useg.home.collect import collect
from useg.home.objects import Objects
from useg.home.store import Folder, Memory
from useg.home.transfer import copy_objects
from useg.home.verification import verify
from useg.home.withdrawal import withdraw

NOISE = blake3(b"large").digest(5 * 2**20)


@pytest.fixture
def can_share(monkeypatch):
    """As if the file system could share bytes; here it copies them."""

    def clone(file, place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.pread(file, 10**8, 0))
        return True

    monkeypatch.setattr(sharing, "_clone", clone)


def put(store, path):
    with Objects(store).writer() as writer:
        stored = writer.put_file(path)
        writer.commit()
    return stored


def packs(store):
    return [entry.key.removeprefix("packs/") for entry in store.list("packs/")]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(NOISE)
    return path


@pytest.fixture
def store(tmp_path):
    return Folder(tmp_path / "home")


@pytest.mark.usefixtures("can_share")
def test_a_large_file_that_is_compressed_already_is_kept_whole(store, file):
    stored = put(store, file)
    assert (stored.digest, stored.bytes, stored.stored) == (blake3(NOISE).hexdigest(), len(NOISE), 0)
    assert packs(store) == [stored.digest]
    file.write_bytes(b"changed")
    assert Objects(store).get(stored.digest) == NOISE
    assert b"".join(Objects(store).stream(stored.digest)) == NOISE
    assert verify(Objects(store)) == []
    assert not list((store.root / ".tmp").iterdir())
    file.write_bytes(NOISE)
    assert put(store, file).digest == stored.digest
    assert packs(store) == [stored.digest]
    target = Objects(Memory())
    copy_objects(Objects(store), target, [stored.digest])
    assert target.get(stored.digest) == NOISE


@pytest.mark.usefixtures("can_share")
@pytest.mark.parametrize("content", [NOISE[:-9] + b"USEGPACK1", bytes(5 * 2**20), NOISE[: 2**20]])
def test_other_files_are_packed(store, file, content):
    file.write_bytes(content)
    stored = put(store, file)
    assert stored.digest not in packs(store)
    assert Objects(store).get(stored.digest) == content


def test_where_it_is_not_possible_it_is_cut(file):
    store = Memory()
    stored = put(store, file)
    assert stored.digest not in packs(store)
    assert Objects(store).get(stored.digest) == NOISE


@pytest.mark.usefixtures("can_share")
def test_a_name_that_was_deleted_does_not_come_back(store, file):
    stored = put(store, file)
    objects = Objects(store)
    now = store.time()
    for number in range(4):
        collect(store, objects, grace_s=10, now=now + 100 * number)
        now = max(now, store.time())
    # entries of the log are as old as the clock says: jump over their time of grace
    for number in range(4):
        collect(store, objects, grace_s=10, now=now + 1000 * (number + 1))
    assert packs(store) == []
    again = put(store, file)
    assert again.digest == stored.digest
    assert packs(store) != [stored.digest]
    assert Objects(store).get(stored.digest) == NOISE


@pytest.mark.usefixtures("can_share")
def test_a_damaged_one_is_stored_again_in_another_pack(store, file):
    stored = put(store, file)
    with (store.root / "packs" / stored.digest).open("r+b") as pack:
        pack.write(b"damage")
    store.put("runs/x/record.json", orjson.dumps({"names": [stored.digest]}))
    assert [problem.where for problem in verify(Objects(store))] == [f"packs/{stored.digest}"]
    put(store, file)
    assert len(packs(store)) == 2
    assert Objects(store).get(stored.digest) == NOISE
    assert verify(Objects(store)) == []


@pytest.mark.usefixtures("can_share")
def test_it_can_be_withdrawn(store, file):
    stored = put(store, file)
    withdraw(store, Objects(store), [stored.digest], "asked for")
    assert packs(store) == []


@pytest.mark.usefixtures("can_share")
def test_what_a_killed_writer_has_kept_is_found(tmp_path, file):
    class Killing(Folder):
        def put(self, key, content):
            if key.startswith("index/"):
                raise Killed
            return super().put(key, content)

    left = Folder(tmp_path / "home")
    with pytest.raises(Killed):
        put(Killing(left.root), file)
    assert verify(Objects(left)) == []
    stored = put(left, file)
    assert packs(left) == [stored.digest]
    assert Objects(left).get(stored.digest) == NOISE
