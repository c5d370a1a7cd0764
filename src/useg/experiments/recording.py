"""Which data a run learned from: a folder becomes a version by itself, and a run finds its version again."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from useg.data.adding import add
from useg.data.contents import content_digests
from useg.data.headers import split_ref
from useg.data.query import query
from useg.data.reading import Sample
from useg.data.samples import Source
from useg.data.versions import Dataset, list_datasets, split_name
from useg.data.views import CheckedFiles, Origin, View, open_view
from useg.errors import DataError, InputError, UsegError
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.opening import is_folder, machine_cache, open_home
from useg.home.peers import known_peers

_BLOCK = re.compile(r"\[[\d:,]+\]$")
COPIED_BYTES = 2 * 10**9
"""A folder of at most so many bytes is copied into the home when it is trained on; of a larger one the home keeps
digests and paths."""


def fetcher_of(objects: Objects) -> Fetcher:
    """Objects of a home as files of this machine's cache."""
    return Fetcher(objects, machine_cache(), known_peers())


def view_of(home: Path | str, dataset: str, ref: str, where: str | None, transforms: Sequence[str] = ()) -> View:
    """The samples of a version in a home for which a query holds."""
    store, objects = open_home(home)
    return open_view(Dataset.open(store, objects, dataset), ref, where, fetcher_of(objects), transforms)


def named_data(data: Path, where: str | None, home: Path | str, transforms: Sequence[str] = ()) -> Path | View:
    """What a user means by DATA: a folder or file that is there, else a data set of the home, a folder or a bucket.

    Raises:
        InputError: a query is asked of a folder, or there is neither.
    """
    if data.exists():
        if where is not None or transforms:
            raise InputError(
                f"--where and --transform ask a data set: useg data add {data} --name NAME, then train on NAME"
            )
        return data
    name, ref = split_name(str(data))
    there = list_datasets(open_home(home)[0]) if not is_folder(home) or Path(home).is_dir() else []
    if name not in there:
        have = f" (there: {', '.join(there[:20])})" if there else ", which has none"
        raise DataError(f"{data}: there is no such file or folder, nor a data set of {home}{have}")
    return view_of(home, name, ref, where, transforms)


def folder_name(data: Path) -> str:
    """The name of the data set that a folder becomes: its own, and a few letters that tell its path."""
    path = data.resolve()
    place = path if path.is_dir() else path.parent
    words = re.sub(r"[^A-Za-z0-9.\-_]+", "-", place.name).strip("-.")[:60] or "data"
    return f"{words}-{blake3(str(path).encode('utf-8', 'surrogateescape')).hexdigest(length=3)}"


def record_folder(
    home: Path | str, data: Path, samples: list[Sample], copied_bytes: int = COPIED_BYTES
) -> tuple[Origin, CheckedFiles]:
    """Make a folder that is trained on a version: copied into the home up to a size, else linked.

    Returns:
        Which version it is, and the folder's files, to be checked when they are read.

    Raises:
        UsegError: it cannot be recorded; training on it is possible all the same.
    """
    store, objects = open_home(home)
    dataset = Dataset.open(store, objects, folder_name(data))
    link = sum(path.stat().st_size for path in _paths(samples)) > copied_bytes
    added = add(dataset, data, f"trained on {data}", link=link, follow_links=True)
    manifest = dataset.contents(added.own).manifest
    view = query(manifest).digest
    origin = Origin(dataset.name, added.own.digest, added.own.commit, view, None, kept=not link)
    return origin, checked(samples, manifest)


def _paths(samples: list[Sample]) -> set[Path]:
    return {split_ref(ref)[0] for sample in samples for ref in (*sample.images, *sample.labels)}


def files_of_run(home: Path | str, record: dict[str, Any], samples: list[Sample]) -> Source | None:
    """Where a run's files are had from, and checked; None where no version was recorded.

    Args:
        home: of the run.
        record: of the run.
        samples: of the run; their refs are paths of this machine for a folder, those of the version for a view.

    Raises:
        UsegError: the version is not there, or not whole.
    """
    origin = record.get("origin")
    if not origin:
        return None
    home = origin.get("home") or home
    if origin["of"] == "view":
        return view_of(home, origin["dataset"], origin["commit"], None, origin["transforms"]).files
    store, objects = open_home(home)
    dataset = Dataset.open(store, objects, origin["dataset"])
    manifest = dataset.contents(dataset.version(origin["commit"])).manifest
    return checked(samples, manifest)


def sample_contents(home: Path | str, record: dict[str, Any], keys: Sequence[str]) -> dict[str, dict[str, str]]:
    """Digests of image and labels of a run's samples, by key; empty where no version was recorded, or it is gone."""
    origin = record.get("origin")
    if not origin:
        return {}
    try:
        store, objects = open_home(origin.get("home") or home)
        dataset = Dataset.open(store, objects, origin["dataset"])
        manifest = dataset.contents(dataset.version(origin["commit"])).manifest
        wholes = {key: _BLOCK.sub("", key) for key in keys}
        rows = {row.key: row for row in manifest.rows(sorted({*keys, *wholes.values()}))}
        found = {key: content_digests(rows[key]) for key in keys if key in rows}
        blocks = {key: whole for key, whole in wholes.items() if key not in rows and whole in rows}
        return found | {key: content_digests(rows[whole], key.removeprefix(whole)) for key, whole in blocks.items()}
    except UsegError:
        return {}


def checked(samples: list[Sample], manifest: Any) -> CheckedFiles:
    """The files of a folder, compared with a version of it when they are read.

    Raises:
        DataError: the version does not have these samples.
    """
    rows = {row.key: row for row in manifest.rows()}
    strange = [sample.key for sample in samples if sample.key not in rows]
    if strange:
        raise DataError(f"{len(strange)} samples are not in the version of this run, such as {strange[0]}")
    return CheckedFiles(samples, rows)
