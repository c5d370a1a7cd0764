"""What keeping objects costs: a first add against copy and hash, a changed volume, a large index, many small ones."""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from useg.home.index import Index
from useg.home.objects import Objects
from useg.home.packs import PLACED, texts_of, words_of
from useg.home.store import Folder, Memory
from useg.home.transfer import copy_objects

ROWS = {
    "objects_first_add": ["add"],
    "objects_slices_changed": ["slices"],
    "objects_header_before": ["header"],
    "objects_lookup": ["lookup"],
    "objects_copy_small": ["copy"],
}
FILES, FILE_BYTES, ROUNDS = 20_000, 60_000, 3
VOLUME = (128, 256, 256)


def add() -> dict[str, Any]:
    """20,000 files of 60 KB that cannot be compressed: into a folder home, against copying and hashing them.

    What is still to be written to the disk is waited for before each measurement, never within the copying.
    """
    with tempfile.TemporaryDirectory(dir=_out()) as place:
        root = Path(place)
        (root / "files").mkdir()
        files = [root / "files" / f"{number:05}" for number in range(FILES)]
        for file in files:
            file.write_bytes(os.urandom(FILE_BYTES))
        ours, theirs = [], []
        for number in range(ROUNDS):
            os.sync()
            begin = time.perf_counter()
            copies = root / f"copies{number}"
            copies.mkdir()
            for file in files:
                shutil.copyfile(file, copies / file.name)
            for file in files:
                blake3(file.read_bytes()).hexdigest()
            theirs.append(time.perf_counter() - begin)
            shutil.rmtree(copies)
            os.sync()
            begin = time.perf_counter()
            with Objects(Folder(root / f"home{number}")).writer() as writer:
                for file in files:
                    writer.put_file(file)
                writer.commit()
            ours.append(time.perf_counter() - begin)
            shutil.rmtree(root / f"home{number}")
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {"ratio": statistics.median(ratios), "ratios": ratios, "seconds": ours, "seconds_copy_and_hash": theirs}


def _labels() -> np.ndarray:
    """A label volume, 16 MB of uint16: some hundred balls, numbered."""
    rng = np.random.default_rng(0)
    labels = np.zeros(VOLUME, np.uint16)
    grid = np.indices((41, 41, 41)) - 20
    for number in range(1, 400):
        middle = rng.integers(20, np.array(VOLUME) - 21)
        ball = (grid**2).sum(axis=0) <= int(rng.integers(6, 20)) ** 2
        z, y, x = middle
        labels[z - 20 : z + 21, y - 20 : y + 21, x - 20 : x + 21][ball] = number
    return labels


def _image() -> np.ndarray:
    """An image volume, 16 MB of uint16: smooth, with noise of about 6 bits."""
    rng = np.random.default_rng(1)
    smooth = np.add.outer(np.add.outer(np.sin(np.arange(128) / 9), np.cos(np.arange(256) / 31)), np.sin(np.arange(256)))
    return (2000 + 300 * smooth + rng.normal(0, 20, VOLUME)).astype(np.uint16)


def _new_bytes(before: np.ndarray, after: bytes) -> int:
    objects = Objects(Memory())
    with objects.writer() as writer:
        writer.put(before.tobytes())
        writer.commit()
    with objects.writer() as writer:
        writer.put(after)
        return writer.commit().bytes_stored


def slices() -> dict[str, Any]:
    """Four slices of a 16 MB volume changed: labels drawn anew in all of each slice, or a part of an image smoothed."""
    labels, image = _labels(), _image()
    drawn, apart, smoothed = labels.copy(), labels.copy(), image.copy()
    drawn[60:64] = np.roll(labels[60:64], 3, axis=2)
    apart[[10, 40, 70, 100]] = np.roll(labels[[10, 40, 70, 100]], 3, axis=2)
    smoothed[60:64, 100:164, 100:164] = 2000
    return {
        "stored_mb": _new_bytes(labels, drawn.tobytes()) / 1e6,
        "stored_mb_slices_apart": _new_bytes(labels, apart.tobytes()) / 1e6,
        "stored_mb_image": _new_bytes(image, smoothed.tobytes()) / 1e6,
    }


def header() -> dict[str, Any]:
    """348 bytes put before a 16 MB volume."""
    before = np.random.default_rng(2).bytes(348)
    return {
        "stored_mb": _new_bytes(_labels(), before + _labels().tobytes()) / 1e6,
        "stored_mb_image": _new_bytes(_image(), before + _image().tobytes()) / 1e6,
    }


def lookup() -> dict[str, Any]:
    """A million digests looked up in an index of a million, given as text; and the index merged from 100 segments."""
    count = 1_000_000
    content = blake3(b"digests").digest(32 * count)
    rows = np.zeros(count, PLACED)
    rows["digest"] = np.frombuffer(content, "<u8").reshape(-1, 4)
    begin = time.perf_counter()
    index = Index().with_segments([(["0" * 64], part) for part in np.array_split(rows, 100)])
    merged = time.perf_counter() - begin
    digests = texts_of(rows["digest"])
    np.random.default_rng(0).shuffle(digests)
    begin = time.perf_counter()
    found = index.holds(words_of(digests))
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "found": int(found.sum()), "seconds_to_merge": merged}


class _Counting(Folder):
    """A folder that counts its requests."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests = 0

    def put(self, key: str, content: bytes | Path) -> bool:
        self.requests += 1
        return super().put(key, content)

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self.requests += 1
        return super().get(key, start, end)

    def get_ranges(self, key: str, ranges: Any) -> list[bytes]:
        self.requests += 1
        return super().get_ranges(key, ranges)

    def list(self, prefix: str = "") -> Any:
        self.requests += 1
        return super().list(prefix)


def copy() -> dict[str, Any]:
    """100,000 objects of 500 bytes from home to home: requests and seconds, and again with nothing to do."""
    with tempfile.TemporaryDirectory(dir=_out()) as place:
        source, target = _Counting(Path(place) / "a"), _Counting(Path(place) / "b")
        here, there = Objects(source), Objects(target)
        noise = blake3(b"objects").digest(500 * 100_000)
        begin = time.perf_counter()
        with here.writer() as writer:
            digests = [writer.put(noise[start : start + 500]) for start in range(0, len(noise), 500)]
            writer.commit()
        put = time.perf_counter() - begin
        source.requests = target.requests = 0
        begin = time.perf_counter()
        copied = copy_objects(here, there, digests)
        first = time.perf_counter() - begin
        requests = source.requests + target.requests
        begin = time.perf_counter()
        copy_objects(here, there, digests)
        again = time.perf_counter() - begin
        begin = time.perf_counter()
        read = sum(len(content) for _, content in there.get_many(digests))
        seconds_to_read = time.perf_counter() - begin
    return {
        "requests": requests,
        "bytes_over_content": copied.bytes / len(noise),
        "seconds": first,
        "seconds_again": again,
        "seconds_to_put": put,
        "seconds_to_read": seconds_to_read,
        "is_complete": read == len(noise),
    }


def _out() -> Path:
    folder = Path("out/bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "add": add,
        "slices": slices,
        "header": header,
        "lookup": lookup,
        "copy": copy,
    }
    print(json.dumps(measures[sys.argv[1]]()))


if __name__ == "__main__":
    main()
