"""A run whose machine is gone: what had come home is enough to go on elsewhere."""

from pathlib import Path

import pytest

from useg.errors import InputError
from useg.home.store import Memory
from useg.runs.bringing import bring
from useg.runs.lease import claim_attempt, stop_run
from useg.runs.shipping import CHECKPOINTS, Shipper

FILES = {
    "record/00000001": b'{"status":"running"}',
    "plan.toml": b"steps = 3",
    "attempts/1/journal.jsonl": b'{"step":1}\n{"step":2}\n',
    "attempts/1/checkpoints/step-00000001.safetensors": b"first",
    "attempts/1/checkpoints/step-00000002.safetensors": b"second",
    "folds/0/attempts/1/checkpoints/step-00000007.safetensors": b"of a fold",
}


def save(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def checkpoints(store: Memory) -> list[str]:
    return [entry.key.rpartition("/")[2] for entry in store.list("runs/run/") if "/checkpoints/" in entry.key]


def test_what_came_home_is_brought_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHECKPOINTS, "home")
    store = Memory()
    claim_attempt(store, "run")
    folder = save(tmp_path / "first/runs/run", FILES)
    shipper = Shipper(folder, 1, store, "run")
    shipper.ship_growing()
    shipper.ship_files()
    shipper.ship_files()
    stop_run(store, "run")
    brought = bring(store, "run", tmp_path / "second")
    assert brought == tmp_path / "second/runs/run"
    old = "attempts/1/checkpoints/step-00000001.safetensors"  # only the newest is needed
    assert files_in(brought) == {name: content for name, content in FILES.items() if name != old}
    # the second machine goes on, and what it makes takes the place of what was there
    made = {"attempts/2/journal.jsonl": b"{}\n", "attempts/2/checkpoints/step-00000003.safetensors": b"third"}
    save(brought, made)
    second = Shipper(brought, 2, store, "run")
    second.ship_files()
    assert checkpoints(store) == ["step-00000003.safetensors", "step-00000007.safetensors"]
    save(brought, {"record/00000002": b'{"status":"finished"}'})
    second.finish()
    assert checkpoints(store) == []
    assert store.get("runs/run/attempts/1/journal.jsonl") == FILES["attempts/1/journal.jsonl"]


def test_checkpoints_stay_where_nobody_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECKPOINTS, raising=False)
    store = Memory()
    Shipper(save(tmp_path / "runs/run", FILES), 1, store, "run").finish()
    assert checkpoints(store) == []


def test_what_is_not_there_cannot_be_brought(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run 'run' in memory:"):
        bring(Memory(), "run", tmp_path)
