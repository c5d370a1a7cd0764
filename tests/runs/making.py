"""Runs as files, made up: for tests of what reads them."""

import os
import struct
from pathlib import Path
from typing import Any

import orjson
from blake3 import blake3


def write_run(home: Path, name: str, *entries: dict[str, Any], journal: list[dict[str, Any]] | None = None) -> Path:
    """A run's folder, with an entry of the record for each of `entries`, and a journal."""
    folder = home / "runs" / name
    (folder / "record").mkdir(parents=True, exist_ok=True)
    for entry in entries:
        add_entry(folder, entry)
    if journal is not None:
        (folder / "attempts" / "1").mkdir(parents=True)
        lines = b"".join(orjson.dumps(event) + b"\n" for event in journal)
        (folder / "attempts" / "1" / "journal.jsonl").write_bytes(lines)
    return folder


def add_entry(folder: Path, entry: dict[str, Any]) -> None:
    """One more entry of a run's record."""
    number = 1 + len(os.listdir(folder / "record"))
    (folder / "record" / f"{number:08d}").write_bytes(orjson.dumps(entry))


def finished(number: int = 0, **more: Any) -> dict[str, Any]:
    """The record of a finished run."""
    return {
        "format": 2,
        "name": f"run {number}",
        "status": "finished",
        "started": f"2026-11-{1 + number % 28:02d}T10:00:00+0000",
        "ended": f"2026-11-{1 + number % 28:02d}T10:01:30+0000",
        "config": {"train": {"lr": 10.0 ** -(1 + number % 4), "optimizer": "adamw"}, "seed": number},
        "plan": {"steps": 100, "lr": 0.1},
        "environment": {"packages": {"torch": "2.13.0", "numpy": "2.3.0"}},
        "scores": {"mean_dice": number / 100, "classes": {"cell": {"dice": number / 100, "iou": 0.5}}},
        "weights": f"{number:064x}",
        "tags": ["paper"] if number % 2 else [],
    } | more


def write_model(path: Path, value: float, **header: Any) -> str:
    """A model file with one tensor of three equal numbers, without torch; returns the weights digest."""
    content = struct.pack("<3f", value, value, value)
    digest = blake3(orjson.dumps(["a", "torch.float32", [3]]) + content).hexdigest()
    said = orjson.dumps({"weights": digest} | header).decode()
    table = orjson.dumps(
        {"__metadata__": {"useg": said}, "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, len(content)]}}
    )
    path.write_bytes(struct.pack("<Q", len(table)) + table + content)
    return str(digest)
