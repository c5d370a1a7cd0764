"""What a home keeps: every object that its refs, runs and jobs lead to."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from useg.errors import DamagedFile, InputError
from useg.home.objects import Objects
from useg.home.packs import Words, texts_of, words_of
from useg.home.store import Missing, Store

_REF = re.compile(r"refs/(.+)/(\d{8})")
_TRIES = 3
_RUN = re.compile(r"runs/[^/]+/(record\.json|record/[^/]+)")


def reachable(store: Store, objects: Objects) -> Words:
    """The digests of all objects that the latest entry of a ref, or a run's record, leads to.

    Raises:
        DamagedFile: an entry or a record cannot be read, so that nobody knows what it keeps.
    """
    for _ in range(_TRIES):
        try:
            return _follow(objects, [_record(key, store.get(key)) for key in _starts(store)])
        except Missing as error:  # what the refs led to when they were listed may have been collected since
            missing = error
    raise DamagedFile(f"{missing}, and a ref or a record leads to it; pull it from another home") from missing


def _starts(store: Store) -> list[str]:
    """The keys of the latest entries of refs, of runs' records, and of what jobs of the queue are."""
    latest: dict[str, str] = {}
    for entry in store.list("refs/"):
        if match := _REF.fullmatch(entry.key):
            latest[match[1]] = entry.key  # sorted, so that the last one is the latest
    runs = (entry.key for entry in store.list("runs/") if _RUN.fullmatch(entry.key))
    return [*latest.values(), *runs, *(entry.key for entry in store.list("jobs/asked/"))]


def closure(objects: Objects, records: Sequence[str], *, nearer: Objects | None = None) -> list[str]:
    """The digests of these records and of all that they lead to, e.g. everything that a version needs.

    Args:
        objects: of the home.
        records: digests.
        nearer: of another home, from which records and lists are read where it has them.

    Raises:
        Missing: a record is not there. DamagedFile: one cannot be read.
    """
    return texts_of(_follow(objects, [{"names": [], "lists": [], "records": list(records)}], nearer))


def _follow(objects: Objects, records: list[dict[str, Any]], nearer: Objects | None = None) -> Words:
    found = [np.empty((0, 4), "<u8")]
    opened: set[str] = set()
    while records:
        named = [digest for record in records for field in ("names", "records", "lists") for digest in record[field]]
        found.append(words_of(named))
        lists = _new((digest for record in records for digest in record["lists"]), opened)
        for digest, content in _read(objects, lists, nearer):
            if len(content) % 32:
                raise DamagedFile(f"{objects.store.url}: object {digest} is no list of digests")
            found.append(np.frombuffer(content, "<u8").reshape(-1, 4))
        next_ = _new((digest for record in records for digest in record["records"]), opened)
        records = [_record(digest, content) for digest, content in _read(objects, next_, nearer)]
    return unique(np.concatenate(found))


def unique(digests: Words) -> Words:
    """Each digest once, sorted."""
    ordered: Words = digests[np.lexsort(digests.T)]
    is_first = np.ones(len(ordered), bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    kept: Words = ordered[is_first]
    return kept


def _new(digests: Iterable[str], opened: set[str]) -> list[str]:
    fresh = [digest for digest in dict.fromkeys(digests) if digest not in opened]
    opened.update(fresh)
    return fresh


def _read(objects: Objects, digests: list[str], nearer: Objects | None) -> Iterator[tuple[str, bytes]]:
    wanted = _kept(objects, digests)
    near = nearer.has(wanted) if nearer is not None else [False] * len(wanted)
    for home, is_near in ((nearer, True), (objects, False)):
        if home is not None:
            yield from home.get_many([digest for digest, here in zip(wanted, near, strict=True) if here is is_near])


def _kept(objects: Objects, digests: list[str]) -> list[str]:
    """Those that were not withdrawn."""
    return [digest for digest in digests if digest not in objects.snapshot.withdrawn]


def _record(key: str, content: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(content)
        fields = {field: record.get(field) or [] for field in ("names", "records", "lists")}
        for digests in fields.values():
            words_of(digests)
    except (ValueError, AttributeError, TypeError, InputError) as error:
        raise DamagedFile(f"{key}: no JSON record that says what it keeps ({error})") from error
    return fields


__all__ = ["closure", "reachable", "unique"]
