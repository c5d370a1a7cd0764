"""Data sets with versions: what moves when data are tweaked, and how long adding and reading take; DVC beside it.

    tweak   1,500 pairs, 1 % of masks changed: bytes to a machine that has the version before
    rename  files renamed, re-ordered, re-split, asked for by another query: bytes of objects moved
    add     20,000 files of 60 KB: first add against copying and hashing them; the same again, nothing changed
    warm    an epoch of 4,000 files from the cache against the same files in a folder
    first   10,000 samples in a bucket on loopback: from opening the home to the first batch, nothing kept before
    view    the same bucket, added with its statistics: from the question what a view holds to the first batch of it;
            of the whole version, of a new view, and of a new view whose samples are all read before

DVC is installed into an environment of its own, out/bench/dvc-env; where that fails its figures are left out.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from useg.data.adding import add
from useg.data.images import read_image
from useg.data.manifest import Manifest
from useg.data.query import query
from useg.data.sharing import send
from useg.data.stocktaking import take_stock
from useg.data.versions import Dataset, Version
from useg.home.ahead import Ahead
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.store import Entry, Store, open_store

ROWS = {f"data {name}": [name] for name in ("tweak", "rename", "add", "warm", "first", "view")}
OUT = Path("out/bench")
BATCH = 8


def png(pixels: np.ndarray, *, smooth: bool) -> bytes:
    """A grey picture as PNG, made faster than by an encoder that tries filters."""
    height, width = pixels.shape
    raw = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1).tobytes()
    packer = zlib.compressobj(6) if smooth else zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": packer.compress(raw) + packer.flush(),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def noise(draw: np.random.Generator, side: int) -> bytes:
    """An image of about side²/2 bytes."""
    return png(draw.integers(0, 16, (side, side), np.uint8) * 16, smooth=False)


def blobs(draw: np.random.Generator, side: int, count: int) -> bytes:
    """A mask of some discs: about 1 KB for three."""
    rows, columns = np.mgrid[:side, :side]
    mask = np.zeros((side, side), np.uint8)
    for y, x, radius in zip(*draw.integers(0, side, (2, count)), draw.integers(5, side // 4, count), strict=True):
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
    return png(mask, smooth=True)


def make_pairs(folder: Path, count: int, side: int, *, large_masks: bool = False) -> None:
    draw = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        mask = noise(draw, side) if large_masks else blobs(draw, side, 3)
        (folder / "images" / f"{number:05}.png").write_bytes(noise(draw, side))
        (folder / "masks" / f"{number:05}.png").write_bytes(mask)


def change_masks(folder: Path, share: float) -> int:
    """Write other masks over some; returns their bytes."""
    masks = sorted((folder / "masks").iterdir())
    draw = np.random.default_rng(1)
    side = read_image(str(masks[0])).shape[-1]
    large = masks[0].stat().st_size > 20_000
    changed = random.Random(1).sample(masks, round(len(masks) * share))
    for file in changed:
        file.write_bytes(noise(draw, side) if large else blobs(draw, side, 3))
    return sum(file.stat().st_size for file in changed)


class Counted(Store):
    """A store on the other end of a wire: it counts what it sends, and has no files to look into."""

    def __init__(self, store: Store) -> None:
        self.store, self.url, self.sent, self.requests = store, store.url, 0, 0

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        content = self.store.get(key, start, end)
        self.sent += len(content)
        self.requests += 1
        return content

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        contents = self.store.get_ranges(key, ranges)
        self.sent += sum(map(len, contents))
        self.requests += 1
        return contents

    def put(self, key: str, content: bytes | Path) -> bool:
        return self.store.put(key, content)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        self.requests += 1
        return self.store.list(prefix)

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def time(self) -> float:
        return self.store.time()

    def path(self, key: str) -> Path | None:
        return None


class Machine:
    """A machine that trains on a home elsewhere: all it has of its own is a cache."""

    def __init__(self, home: str | Path, folder: Path) -> None:
        self.home, self.folder = home, folder

    def fetch(self, where: str | None = None) -> dict[str, int]:
        """Bring the files of the latest version here; what was sent for it."""
        store = Counted(open_store(self.home))
        objects = Objects(store, index_cache=self.folder / "index")
        cache = Cache(self.folder / "cache", max_bytes=10**11)
        wanted = files_of(latest(store, objects, cache)[1], where)
        before = cache.used()
        Fetcher(objects, cache).files([each for group in wanted for each in group])
        return {"sent": store.sent, "requests": store.requests, "new_object_bytes": cache.used() - before}

    def pull(self) -> int:
        """Bring the latest version into a home of its own; what was sent for it."""
        source, target = Counted(open_store(self.home)), open_store(self.folder / "home")
        known = Objects(source, index_cache=self.folder / "index of the other home")
        send(Dataset.open(source, known, "data"), Dataset.open(target, Objects(target), "data"))
        return source.sent


def latest(store: Store, objects: Objects, cache: Cache | None = None) -> tuple[Version, Manifest]:
    dataset = Dataset.open(store, objects, "data", cache)
    version = dataset.resolve("")
    return version, dataset.contents(version).manifest


def files_of(manifest: Manifest, where: str | None = None) -> list[list[tuple[str, str]]]:
    """Digest and suffix of the files of each sample."""
    rows = manifest.rows(query(manifest, where).keys) if where else manifest.rows()
    return [[(ref.digest, Path(ref.path).suffix) for refs in row.files.values() for ref in refs] for row in rows]


def add_folder(home: str | Path, data: Path) -> dict[str, int]:
    store = open_store(home)
    added = add(Dataset.open(store, Objects(store), "data"), data, "bench")
    return {"samples": added.samples, "read": added.bytes_read, "stored": added.bytes_stored}


def manifest_parts(home: str | Path) -> dict[str, int]:
    """The digests of the latest manifest's parts, and their lengths."""
    store = open_store(home)
    objects = Objects(store)
    parts = latest(store, objects)[0].record["manifest"]
    return {digest: objects.length(digest) for digest in (parts["base"], *parts["deltas"])}


def tweak() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for label, side, large in (("masks of 1 KB", 488, False), ("masks of 60 KB", 346, True)):
        with scratch() as folder:
            data, home = folder / "data", folder / "home"
            make_pairs(data, 1500, side, large_masks=large)
            add_folder(home, data)
            machine = Machine(home, folder / "machine")
            dvc = Dvc.start(folder)
            whole, _, dvc_whole = machine.fetch(), machine.pull(), dvc and dvc.publish_and_pull(data)
            before = manifest_parts(home)
            changed = change_masks(data, 0.01)
            add_folder(home, data)
            delta = sum(length for digest, length in manifest_parts(home).items() if digest not in before)
            moved, pulled, dvc_moved = machine.fetch(), machine.pull(), dvc and dvc.publish_and_pull(data)
        found[label] = {
            "all_bytes": whole["sent"],
            "changed_bytes": changed,
            "manifest_delta_bytes": delta,
            "moved_bytes": moved["sent"],
            "requests": moved["requests"],
            "moved_bytes_between_homes": pulled,
            "of_what_is_allowed": round(moved["sent"] / (1.05 * changed + delta), 3),
            "dvc_all_bytes": dvc_whole,
            "dvc_moved_bytes": dvc_moved,
        }
    return {**found, "dvc": dvc and dvc.version()}


def rename() -> dict[str, Any]:
    with scratch() as folder:
        data, home = folder / "data", folder / "home"
        make_pairs(data, 1500, 200)
        add_folder(home, data)
        machine = Machine(home, folder / "machine")
        found: dict[str, Any] = {"at first": machine.fetch()}
        order = random.Random(2).sample(range(1500), 1500)
        steps = {
            "renamed": lambda kind, number: f"{kind}/patient-{number:04}.png",
            "re-ordered": lambda kind, number: f"{kind}/patient-{order[number]:04}.png",
            "re-split": lambda kind, number: f"{'train' if number % 5 else 'val'}/{kind}/{number:05}.png",
        }
        at = {(kind, n): f"{kind}/{n:05}.png" for kind in ("images", "masks") for n in range(1500)}
        for told, named in steps.items():
            other = folder / told
            for each, path in at.items():
                at[each] = named(*each)
                (other / at[each]).parent.mkdir(parents=True, exist_ok=True)
                (data / path).rename(other / at[each])
            data = other
            found[told] = {**add_folder(home, data), **machine.fetch()}
        found["another query"] = machine.fetch("split('train:0.8,val:0.2', seed=3) = 'train'")
    return found


def add_many() -> dict[str, Any]:
    with scratch() as folder:
        data = folder / "data"
        make_pairs(data, 10_000, 346, large_masks=True)
        os.sync()
        files = [file for file in sorted(data.rglob("*")) if file.is_file()]
        found: dict[str, Any] = {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}
        copies, adds = [], []
        for number in range(3):
            copies.append(timed(lambda: copy_and_hash(files, folder / "copy")))
            shutil.rmtree(folder / "copy")
            os.environ["USEG_CACHE"] = str(folder / f"cache{number}")  # which knows no digest of these files
            shutil.rmtree(folder / "home", ignore_errors=True)
            os.sync()
            adds.append(timed(lambda: add_folder(folder / "home", data)))
        found |= {"copy_and_hash_s": copies, "add_s": adds}
        found["add_against_copy_and_hash"] = round(statistics.median(adds) / statistics.median(copies), 2)
        found["again_s"] = [timed(lambda: add_folder(folder / "home", data)) for _ in range(3)]
        useg = [str(Path(sys.executable).with_name("useg")), "data", "add", str(data), "--name", "data"]
        useg += ["--home", str(folder / "home"), "--json"]
        run(useg)  # measures what was added
        found["again_by_command_s"] = [timed(lambda: run(useg)) for _ in range(3)]
        dvc = Dvc.start(folder)
        return {**found, **(dvc.add(data) if dvc else {"dvc": None})}


def copy_and_hash(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir()
    for number, file in enumerate(files):
        shutil.copyfile(file, folder / str(number))
        blake3(file.read_bytes()).hexdigest()


def warm() -> dict[str, Any]:
    with scratch() as folder:
        make_pairs(folder / "data", 2000, 346)
        add_folder(folder / "home", folder / "data")
        store = Counted(open_store(folder / "home"))
        objects = Objects(store)
        dataset = Dataset.open(store, objects, "data")
        rows = list(dataset.contents(dataset.resolve("")).manifest.rows())
        random.Random(4).shuffle(rows)
        fetcher = Fetcher(objects, Cache(folder / "cache", max_bytes=10**11))
        refs = [[ref for refs in row.files.values() for ref in refs] for row in rows]
        wanted = [[(ref.digest, ".png") for ref in group] for group in refs]
        plain = [[folder / "data" / ref.path for ref in group] for group in refs]

        def from_cache(take: Any) -> None:
            with Ahead(fetcher, wanted) as ahead:
                for group in wanted:
                    with ahead.holding(group) as files:
                        take(files)

        cold = timed(lambda: from_cache(read))

        takes = {"decoded": read, "bytes_alone": slurp}
        speeds: dict[str, list[float]] = {label: [] for label in takes}
        loads: dict[str, list[float]] = {label: [] for label in takes}
        for _ in range(9):
            for label, take in takes.items():
                folder_s, folder_cpu_s = timed_cpu(lambda take=take: [take(group) for group in plain])
                cache_s, cache_cpu_s = timed_cpu(lambda take=take: from_cache(take))
                speeds[label].append(folder_s / cache_s)
                loads[label].append(folder_cpu_s / cache_cpu_s)
        found: dict[str, Any] = {
            "files": sum(map(len, wanted)),
            "cold_files_per_s": round(sum(map(len, wanted)) / cold),
        }
        for label in takes:
            found[f"share_of_speed_{label}"] = round(statistics.median(speeds[label]), 3)
            found[f"share_of_speed_{label}_by_cpu_time"] = round(statistics.median(loads[label]), 3)
        return {**found, "rounds": {label: [round(each, 3) for each in speeds[label]] for label in takes}}


def read(files: Iterable[Path]) -> None:
    for file in files:
        read_image(str(file))


def slurp(files: Iterable[Path]) -> None:
    for file in files:
        file.read_bytes()


FIRST = """
import sys, time
begin = time.time()
import random
from pathlib import Path
from useg.data.images import read_image
from useg.data.versions import Dataset
from useg.home.ahead import Ahead
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.store import open_store
sys.path.insert(0, "bench")
from data_versions import BATCH, files_of, latest
imported = time.time()
store = open_store(sys.argv[1])
objects = Objects(store, index_cache=Path(sys.argv[2]) / "index")
cache = Cache(Path(sys.argv[2]) / "cache", max_bytes=10**11)
version, manifest = latest(store, objects, cache)
known = time.time()
order = files_of(manifest)
random.Random(5).shuffle(order)
ordered = time.time()
with Ahead(Fetcher(objects, cache), order) as ahead:
    for group in order[:BATCH]:
        with ahead.holding(group) as files:
            for file in files:
                read_image(str(file))
    first = time.time()
    for group in order[BATCH:40 * BATCH]:
        with ahead.holding(group) as files:
            for file in files:
                read_image(str(file))
    more = time.time()
print(first - imported, first - float(sys.argv[3]), known - imported, ordered - known, 39 * BATCH / (more - first))
"""


def first() -> dict[str, Any]:
    """From nothing but the address to a batch in memory."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "home"))
    from s3_server import shared_server

    with scratch() as folder, shared_server(folder / "server") as server:
        make_pairs(folder / "data", 10_000, 346)
        os.environ |= server.environment
        home = f"s3://{server.bucket}/bench"
        pushed = timed(lambda: add_folder(home, folder / "data"))
        runs = []
        for number in range(5):
            command = [sys.executable, "-c", FIRST, home, str(folder / f"machine{number}"), str(time.time())]
            runs.append([float(word) for word in run(command).split()])
    labels = ("first_batch_s", "with_start_of_python_s", "of_it_manifest_s", "of_it_order_s", "samples_per_s_after")
    medians = {
        label: round(statistics.median(found), 3) for label, found in zip(labels, zip(*runs, strict=True), strict=True)
    }
    return {**medians, "add_to_bucket_s": round(pushed, 1), "all_first_batch_s": [round(each[0], 3) for each in runs]}


VIEW = """
import sys, time
import random
from pathlib import Path
from useg.data.samples import Samples
from useg.data.versions import Dataset
from useg.data.views import open_view
from useg.experiments import examining
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.store import open_store
sys.path.insert(0, "bench")
from data_versions import BATCH
_, home, machine, where, most = sys.argv
examining.SPREAD = int(most)
store = open_store(home)
objects = Objects(store, index_cache=Path(machine) / "index")
cache = Cache(Path(machine) / "cache", max_bytes=10**11)
view = open_view(Dataset.open(store, objects, "data", cache), "", where or None, Fetcher(objects, cache))
begin = time.time()
found = examining.examined(view, None, None).found
known, fetched = time.time(), len(list(cache.folder.glob("??/*")))
samples = Samples(found.reading.samples, found.mapping, found.fingerprint.channels, source=view.files)
order = random.Random(5).sample(range(len(samples)), BATCH)
with samples.following(order):
    for index in order:
        samples[index]
print(time.time() - begin, known - begin, fetched)
"""


def view() -> dict[str, Any]:
    """From the question what a view holds to a batch in memory."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "home"))
    from s3_server import shared_server

    found: dict[str, Any] = {}
    with scratch() as folder, shared_server(folder / "server") as server:
        data = folder / "data"
        make_pairs(data, 10_000, 346)
        os.environ |= server.environment
        home = f"s3://{server.bucket}/bench"
        found["add_s"] = timed(lambda: add_folder(home, data))
        store = open_store(home)
        dataset = Dataset.open(store, Objects(store), "data")
        found["statistics_and_inspection_s"] = timed(lambda: take_stock(dataset, dataset.resolve(""), data))
        rows = {"whole version": [(None, 256)] * 3, "new view": [(number, 256) for number in range(3)]}
        for label, kinds in {**rows, "new view, all read before": [(3, 10**9)]}.items():
            runs = []
            for left_out, most in kinds:
                where = "" if left_out is None else f"key != '{left_out:05}'"
                command = [sys.executable, "-c", VIEW, home, str(folder / label / str(left_out)), where, str(most)]
                runs.append([float(word) for word in run(command).split()])
                shutil.rmtree(folder / label)
            names = ("first_batch_s", "of_it_inspection_s", "files_fetched_before")
            for name, values in zip(names, zip(*runs, strict=True), strict=True):
                found[f"{label}: {name}"] = round(statistics.median(values), 3)
    return found


def dvc_program() -> Path | None:
    """DVC in its own environment, made on first use."""
    program = OUT.absolute() / "dvc-env" / "bin" / "dvc"
    if not program.exists():
        try:
            run([sys.executable, "-m", "venv", str(OUT / "dvc-env")])
            pip = [str(program.with_name("python")), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            run([*pip, "dvc"])
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"DVC cannot be installed, so it is left out: {error}", file=sys.stderr)
            return None
    return program


class Dvc:
    """A repository, a home, and a machine that pulls from it."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = str(program)
        self.origin, self.machine = folder / "dvc", folder / "dvc-machine"
        for place in (self.origin, self.machine):
            place.mkdir()
            self(place, "init", "--no-scm")
            self(place, "remote", "add", "--default", "home", str(folder / "dvc-home"))

    @classmethod
    def start(cls, folder: Path) -> "Dvc | None":
        program = dvc_program()
        return program and cls(program, folder)

    def __call__(self, place: Path, *words: str) -> str:
        return run([self.program, *words, "--quiet"], cwd=place)

    def version(self) -> str:
        return run([self.program, "--version"]).strip()

    def publish_and_pull(self, data: Path) -> int:
        """Add and push the data as they are now; the bytes that come to the machine."""
        shutil.copytree(data, self.origin / "data", dirs_exist_ok=True)
        self(self.origin, "add", "data")
        self(self.origin, "push")
        shutil.copyfile(self.origin / "data.dvc", self.machine / "data.dvc")
        before = bytes_in(self.machine / ".dvc" / "cache")
        self(self.machine, "pull")
        return bytes_in(self.machine / ".dvc" / "cache") - before

    def add(self, data: Path) -> dict[str, Any]:
        """The seconds of a first add, and of others when nothing has changed."""
        data.rename(self.origin / "data")
        seconds = [timed(lambda: self(self.origin, "add", "data")) for _ in range(4)]
        return {"dvc_add_s": seconds[0], "dvc_again_s": seconds[1:], "dvc": self.version()}


def run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        done.check_returncode()
    return done.stdout


def bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def timed(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return round(time.perf_counter() - begin, 3)


def timed_cpu(work: Any) -> tuple[float, float]:
    """Seconds by the clock, and of all threads' work, which other load on the machine moves less."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - begin_cpu


@contextmanager
def scratch() -> Iterator[Path]:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT, prefix="data-versions-", ignore_cleanup_errors=True) as folder:
        os.environ["USEG_CACHE"] = str(Path(folder).absolute() / "own-cache")
        yield Path(folder).absolute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=[words[0] for words in ROWS.values()])
    row = parser.parse_args().row
    measure = {"tweak": tweak, "rename": rename, "add": add_many, "warm": warm, "first": first, "view": view}[row]
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
