"""Packs written anew without what must not stay, and the index without packs that are gone."""

from collections.abc import Mapping

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from useg.home.index import Index, Places, Snapshot
from useg.home.objects import Objects
from useg.home.packs import CHUNKS, PLACED, Rows, Words, chunks_of, encode_segment
from useg.home.unpacking import Unpacker

_MOST_SEGMENTS = 32
_SEGMENT_ROWS = 2**20
_NONE: Words = np.empty((0, 4), "<u8")


class Lists:
    """The lists of chunks of a home; each is read once."""

    def __init__(self, objects: Objects) -> None:
        self._store = objects.store
        self._known: dict[tuple[str, int], Words] = {}

    def read(self, index: Index) -> Mapping[int, Words]:
        """The chunks of every list whose pack is there, by its row; none for one that cannot be read."""
        places = np.flatnonzero((index.rows["kind"] == CHUNKS) & index.is_there)
        keys = {place: (index.pack(place), int(index.rows["offset"][place])) for place in places.tolist()}
        unknown = np.array([place for place, key in keys.items() if key not in self._known], np.intp)
        for place, stored, _ in Unpacker(self._store, index).read(unknown):
            try:
                self._known[keys[place]] = chunks_of(stored or b"")[0]
            except ValueError:
                self._known[keys[place]] = _NONE
        return {place: self._known[key] for place, key in keys.items()}


def together(several: list[Words]) -> Words:
    """Digests one after another."""
    joined: Words = np.concatenate([_NONE, *several])
    return joined


def keeping(snapshot: Snapshot, digests: Words) -> Places:
    """The one row of each digest that has to stay: a usable one, else one in a condemned pack, else a damaged one."""
    index = snapshot.index
    is_doomed = np.array([pack in snapshot.condemned.doomed for pack in index.packs] or [False])
    is_safe = index.is_there & ~is_doomed[index.rows["pack"]]
    places = index.find(digests, index.is_usable)
    for among in (is_safe & ~index.is_damaged, is_safe):
        rest = np.flatnonzero(places < 0)
        places[rest] = index.find(digests[rest], among)
    return np.unique(places[places >= 0])


def copy_rows(objects: Objects, index: Index, places: Places) -> list[str]:
    """Store rows once more, in packs of their own; what is damaged cannot be, and its digests are returned."""
    damaged = []
    if len(places):
        with objects.writer() as writer:
            for place, stored, _ in Unpacker(objects.store, index).read(places):
                row = index.rows[place]
                if stored is None:
                    damaged.append(index.digest(place))
                else:
                    writer.put_packed(row["digest"].tobytes(), int(row["kind"]), stored, int(row["length"]), again=True)
            writer.commit()
    return damaged


def compact(objects: Objects) -> None:
    """Write the index anew when it speaks of packs that are gone, is damaged, or lies in many segments."""
    snapshot = objects.refresh()
    index = snapshot.index
    if not snapshot.segments:
        return
    few = _MOST_SEGMENTS + 2 * len(index) // _SEGMENT_ROWS
    is_damaged = any(problem.where != "condemned" for problem in snapshot.problems)
    if index.is_there.all() and len(snapshot.segments) <= few and not is_damaged:
        return
    rows = index.rows[index.is_there]
    rows = rows[_is_first(rows)]
    written = set()
    for start in range(0, len(rows), _SEGMENT_ROWS):
        part = rows[start : start + _SEGMENT_ROWS].astype(PLACED)
        used, part["pack"] = np.unique(part["pack"], return_inverse=True)
        content = encode_segment([index.packs[number] for number in used], part)
        name = blake3(content).hexdigest()
        objects.store.put(f"index/{name}", content)
        written.add(name)
    for name in snapshot.segments.keys() - written:
        objects.store.delete(f"index/{name}")
    objects.refresh()


def _is_first(rows: Rows) -> NDArray[np.bool_]:
    """By row, whether it is the first of those that say the same."""
    order = np.lexsort((rows["offset"], rows["pack"], *rows["digest"].T))
    ordered = rows[order]
    is_first = np.ones(len(rows), bool)
    is_first[order[1:]] = (ordered["digest"][1:] != ordered["digest"][:-1]).any(axis=1) | (
        (ordered["pack"][1:] != ordered["pack"][:-1]) | (ordered["offset"][1:] != ordered["offset"][:-1])
    )
    return is_first


__all__ = ["Lists", "compact", "copy_rows", "keeping", "together"]
