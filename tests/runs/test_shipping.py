"""Shipping: a run is in its home once and whole in the end, whatever fails, and nothing of others is lost."""

import random
from pathlib import Path

import orjson
import pytest
from tests.home.faults import Faulty

from useg.errors import ResourceError
from useg.home.store import Folder, Memory, Missing, Store, open_store
from useg.runs import pieces
from useg.runs.lease import Lease, claim_attempt
from useg.runs.shipping import Shipper, read_events


def a_run(folder: Path) -> Path:
    """A run's folder as a training leaves it."""
    files = {
        "record/00000001": b'{"status":"running"}',
        "plan.toml": b"steps = 3",
        "model.useg": b"weights",
        "report.html": b"<html>",
        "pictures/cell/00000001.webp": b"picture",
        "attempts/1/journal.jsonl": b'{"step":1}\n',
        "attempts/1/log.txt": b"first\n",
        "attempts/2/journal.jsonl": b'{"step":2}\n',
        "attempts/2/system.jsonl": b"{}\n",
        "attempts/2/checkpoints/step-1.safetensors": b"large",
        "before-cooldown/step-1.safetensors": b"large",
        "attempts/2/.log.txt-last": b"hidden",
        ".plan.toml.7.part": b"half",
        "folds/0/attempts/1/journal.jsonl": b'{"step":3}\n',
        "folds/0/plan.toml": b"",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def keys(store: Store) -> list[str]:
    return [entry.key.removeprefix("runs/run/") for entry in store.list("runs/run/")]


def test_a_run_is_brought_home(tmp_path: Path) -> None:
    folder, store = a_run(tmp_path / "run"), Memory()
    shipper = Shipper(folder, 2, store, "run")
    shipper.ship_growing()
    grown = ["attempts/1/journal.jsonl", "attempts/1/log.txt", "attempts/2/journal/000000000011.jsonl",
             "attempts/2/system/000000000003.jsonl", "folds/0/attempts/1/journal/000000000011.jsonl"]  # fmt: skip
    assert keys(store) == sorted(grown)
    shipper.ship_files()
    small = ["folds/0/plan.toml", "plan.toml", "record/00000001"]
    assert keys(store) == sorted(grown + small)
    shipper.ship_files()
    assert keys(store) == sorted([*grown, *small, "pictures/cell/00000001.webp"])
    (folder / "record/00000002").write_bytes(b'{"status":"finished"}')
    shipper.ship_files()
    assert "record/00000002" not in keys(store)
    shipper.finish()
    assert keys(store) == sorted(
        ["attempts/1/journal.jsonl", "attempts/1/log.txt", "attempts/2/journal.jsonl", "attempts/2/system.jsonl",
         "folds/0/attempts/1/journal.jsonl", "folds/0/plan.toml", "model.useg", "pictures/cell/00000001.webp",
         "plan.toml", "record/00000001", "record/00000002", "report.html"]
    )  # fmt: skip
    for name in keys(store):
        assert store.get(f"runs/run/{name}") == (folder / name).read_bytes()


def test_nothing_is_put_twice(tmp_path: Path) -> None:
    folder, store = a_run(tmp_path / "run"), Faulty(Memory())
    shipper = Shipper(folder, 2, store, "run")
    for _ in range(3):
        shipper.ship_growing()
        shipper.ship_files()
    shipper.finish()
    count = store.requests("put")
    shipper.finish()
    again = Shipper(folder, 2, store, "run")
    again.ship_growing()
    again.ship_files()
    assert store.requests("put") == count
    again.finish()
    written = [key for verb, key in store.calls if verb == "put"]
    # a put of what is there writes nothing, and says so
    assert {key for key in written if written.count(key) > 1} <= {f"runs/run/{name}" for name in keys(store)}


def test_what_a_resumed_run_makes_anew_replaces_the_old(tmp_path: Path) -> None:
    folder, store = a_run(tmp_path / "run"), Memory()
    Shipper(folder, 2, store, "run").finish()
    (folder / "model.useg").write_bytes(b"weight2")
    (folder / "plan.toml").write_bytes(b"steps = 30")
    Shipper(folder, 3, store, "run").finish()
    assert store.get("runs/run/model.useg") == b"weight2"
    assert store.get("runs/run/plan.toml") == b"steps = 30"


def record(store: Store) -> dict:
    found: dict = {}
    for entry in store.list("runs/run/record/"):
        found |= orjson.loads(store.get(entry.key))
    return found


def test_what_others_wrote_into_the_record_stays(tmp_path: Path) -> None:
    folder, store = tmp_path / "run", Memory()
    (folder / "record").mkdir(parents=True)
    words = [{"status": "running"}, {"steps": 5}, {"status": "stopped"}, {"status": "running"}, {"status": "stopped"}]
    for number, word in enumerate(words, 1):
        (folder / f"record/{number:08d}").write_bytes(orjson.dumps(word))
        shipper = Shipper(folder, 1, store, "run")
        shipper.ship_files()
        shipper.finish()
        shipper.finish()
        assert store.put(f"runs/run/record/{len(keys(store)) + 1:08d}", b'{"tags":["number %d"]}' % number)
        expected = {key: value for each in words[:number] for key, value in each.items()}
        assert record(store) == expected | {"tags": [f"number {number}"]}
        assert len(keys(store)) == 2 * number


def test_a_home_that_fails_now_and_then_has_everything_in_the_end(tmp_path: Path) -> None:
    chance = random.Random(1)
    folder, store = a_run(tmp_path / "run"), Memory()
    (folder / "record/00000002").write_bytes(b'{"status":"finished"}')
    faulty = Faulty(store, verbs=("get", "put", "list", "delete"))
    shipper, failures = Shipper(folder, 2, faulty, "run"), 0
    while True:
        faulty.fail_at = faulty.requests() + chance.randrange(12)
        faulty.is_after_effect = chance.random() < 0.5
        try:
            shipper.finish()
        except ResourceError:
            failures += 1
        else:
            break
    assert failures > 1
    whole = Memory()
    Shipper(folder, 2, whole, "run").finish()
    assert keys(store) == keys(whole)
    assert all(store.get(f"runs/run/{name}") == whole.get(f"runs/run/{name}") for name in keys(whole))


def test_through_a_server_as_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.home.served_home import in_thread

    from useg.web import access
    from useg.web.users import Users

    monkeypatch.setenv("USEG_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(pieces, "_AT_A_LEVEL", 4)
    home = Folder(tmp_path / "home")
    users = Users(home)
    monkeypatch.setenv("USEG_TOKEN", users.add("node", "writer"))
    folder = a_run(tmp_path / "run")
    with in_thread(home, users) as address:
        store = open_store(address)
        assert [claim_attempt(store, "run") for _ in range(2)] == [1, 2]
        lease, shipper, file = (
            Lease(store, "run", 2),
            Shipper(folder, 2, store, "run"),
            folder / "attempts/2/journal.jsonl",
        )
        for number in range(3, 12):
            file.write_bytes(file.read_bytes() + b'{"step":%d}\n' % number)
            shipper.ship_growing()
            lease.renew()
        (folder / "record/00000002").write_bytes(b'{"status":"finished"}')
        shipper.finish()
        (folder / "model.useg").write_bytes(b"other weights")
        shipper.finish()
        names = keys(home)
        assert len([name for name in names if "attempts/2/lease/" in name]) == 2
        assert not [name for name in names if "/journal/" in name]
        assert home.get("runs/run/model.useg") == b"other weights"
        for name in ("record/00000002", "attempts/2/lease/00000000"):
            with pytest.raises(ResourceError, match="a writer cannot delete"):
                store.delete(f"runs/run/{name}")
        monkeypatch.setattr(access, "ALIVE_S", -10.0)
        with pytest.raises(ResourceError, match="a writer cannot delete"):
            store.delete("runs/run/model.useg")


def test_in_a_real_bucket(tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_AT_A_LEVEL", 4)
    folder, store = a_run(tmp_path / "run"), open_store(s3_url)
    shipper, file = Shipper(folder, 2, store, "run"), folder / "attempts/2/journal.jsonl"
    for number in range(3, 12):
        file.write_bytes(file.read_bytes() + b'{"step":%d}\n' % number)
        shipper.ship_growing()
        assert [event["step"] for event in read_events(store, "run", 2)] == list(range(2, number + 1))
    assert len([name for name in keys(store) if "attempts/2/journal/" in name]) < 5
    with pytest.raises(Missing):
        store.get("runs/run/attempts/2/journal.jsonl")
    (folder / "record/00000002").write_bytes(b'{"status":"finished"}')
    shipper.finish()
    assert store.get("runs/run/attempts/2/journal.jsonl") == file.read_bytes()
    assert not [name for name in keys(store) if "/journal/" in name]
    assert record(store) == {"status": "finished"}
