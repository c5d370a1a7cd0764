"""Versions whose digest is not that of their samples are named."""

from pathlib import Path

import orjson
import pytest

from useg.data.manifest import FileRef, Manifest, Row
from useg.data.version_check import verify_versions
from useg.data.versions import Contents, Dataset
from useg.home import refs
from useg.home.objects import Objects
from useg.home.store import Memory


def row(key: str) -> Row:
    return Row(key, {"image": (FileRef(f"{key}.png", "", "0" * 64, 1),)}, None, None, {})


@pytest.fixture
def dataset() -> Dataset:
    store = Memory()
    found = Dataset.open(store, Objects(store), "cells")
    first = found.commit(Contents(Manifest.from_rows([row("a")]), None, ()), "first", base=None)
    found.commit(Contents(Manifest.from_rows([row("a"), row("b")]), None, ()), "second", base=first)
    return found


def problems(dataset: Dataset) -> list[str]:
    return [str(problem) for problem in verify_versions(dataset.store, Objects(dataset.store))]


def test_a_sound_home_has_no_problems(dataset: Dataset) -> None:
    told: list[float] = []
    found = verify_versions(
        dataset.store, Objects(dataset.store), progress=lambda done, total=None, status="": told.append(done)
    )
    assert found == []
    assert told == [1, 2]


def test_a_version_that_says_another_digest_is_named(dataset: Dataset) -> None:
    tip = dataset.resolve()
    forged = {**tip.record, "version": "f" * 64}
    with dataset.objects.writer() as writer:
        commit = writer.put(orjson.dumps(forged))
        writer.commit()
    entry = refs.read_ref(dataset.store, "data/cells/branches/main")
    assert entry is not None
    refs.move_ref(dataset.store, "data/cells/branches/main", {"to": commit, "records": [commit]}, expected=entry.number)
    (found,) = problems(dataset)
    assert found.startswith("cells@ffffffffffff: its samples have the digest")


def test_a_manifest_that_is_gone_is_named(dataset: Dataset, tmp_path: Path) -> None:
    first = dataset.resolve("~1")
    gone = first.record["manifest"]["base"]
    dataset.store.put(f"tombstones/{gone}", orjson.dumps({"digest": gone, "time": "today", "reason": "a test"}))
    found = problems(dataset)
    assert len(found) >= 1
    assert f"cells@{first.digest[:12]}: its manifest cannot be read" in found[-1]
