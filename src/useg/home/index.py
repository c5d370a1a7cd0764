"""Where the objects of a home lie: all segments of its index as one sorted table, judged by which packs are there."""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from useg.errors import DamagedFile, Problem
from useg.home.condemned import Condemned, read_condemned
from useg.home.packs import PLACED, Rows, Words, decode_segment, read_footer, tail_start, texts_of, words_of
from useg.home.store import Entry, Missing, Store

Places = NDArray[np.intp]
"""Numbers of rows of the table; -1 where there is none."""


class Index:
    """A table of rows sorted by digest, newer ones of the same digest first; it never changes.

    Attributes:
        packs: names; rows give their numbers.
        rows: digest, kind, offset, stored length, length, pack.
        is_there: by row, whether its pack is there.
        is_damaged: by row, whether its pack is cut off before it, or verification found it damaged.
        is_usable: by row, whether writers may build upon it: there, not damaged, not condemned.
    """

    def __init__(self, packs: Sequence[str] = (), rows: Rows | None = None) -> None:
        self.packs = tuple(packs)
        self.rows = np.empty(0, PLACED) if rows is None else rows
        self._keys = np.ascontiguousarray(self.rows["digest"][:, 0])
        self.is_there = self.is_damaged = self.is_usable = np.zeros(len(self.rows), bool)

    @classmethod
    def of(cls, digests: Words) -> "Index":
        """A table of digests that lie nowhere."""
        rows = np.zeros(len(digests), PLACED)
        rows["digest"] = digests
        return cls().with_segments([(["nowhere"], rows)])

    def holds(self, digests: Words) -> NDArray[np.bool_]:
        """Which digests have a row."""
        return self.find(digests, np.ones(len(self), bool)) >= 0

    def __len__(self) -> int:
        return len(self.rows)

    def with_segments(self, segments: Sequence[tuple[Sequence[str], Rows]]) -> "Index":
        """This table and some segments, the newest first, all newer than what is in it; to be judged again."""
        numbers = {pack: number for number, pack in enumerate(self.packs)}
        added = [np.empty(0, PLACED)]
        for packs, rows in segments:
            placed = np.empty(len(rows), PLACED)
            for name in rows.dtype.names or ():
                placed[name] = rows[name]
            own = np.array([numbers.setdefault(pack, len(numbers)) for pack in packs], np.uint32)
            # rows of a footer have no number: they are all of one pack
            placed["pack"] = own[rows["pack"]] if "pack" in (rows.dtype.names or ()) else own[0]
            added.append(placed)
        new = np.concatenate(added)
        new = new[np.argsort(new["digest"][:, 0], kind="stable")]
        if not len(self.rows):
            return Index(tuple(numbers), new)
        places = np.searchsorted(self._keys, new["digest"][:, 0])
        return Index(tuple(numbers), np.insert(self.rows, places, new))

    def judged(self, listing: Mapping[str, Entry], condemned: Condemned) -> "Index":
        """The same table, judged by the packs that are there and by what is condemned or damaged."""
        judged = Index.__new__(Index)
        judged.packs, judged.rows, judged._keys = self.packs, self.rows, self._keys
        sizes = np.array([listing[pack].size if pack in listing else -1 for pack in self.packs] or [-1], np.int64)
        sound = np.array([condemned.is_sound(pack) for pack in self.packs] or [False])
        pack = self.rows["pack"]
        judged.is_there = sizes[pack] >= 0
        ends = (self.rows["offset"] + self.rows["stored"]).astype(np.int64)
        judged.is_damaged = judged.is_there & (ends > sizes[pack])
        numbers = {name: number for number, name in enumerate(self.packs)}
        for name in condemned.damaged.keys() & numbers.keys():
            for place in self.all_places(words_of(sorted(condemned.damaged[name]))):
                judged.is_damaged[place] |= pack[place] == numbers[name]
        judged.is_usable = judged.is_there & ~judged.is_damaged & sound[pack]
        return judged

    def find(self, digests: Words, among: NDArray[np.bool_]) -> Places:
        """For each digest its newest row among these."""
        found = np.full(len(digests), -1, np.intp)
        for open_, places in self._steps(digests):
            hits = among[places]
            fresh = hits & (found[open_] < 0)
            found[open_[fresh]] = places[fresh]
        return found

    def all_places(self, digests: Words) -> list[int]:
        """All rows of these digests."""
        return [int(place) for _, places in self._steps(digests) for place in places]

    def find_one(self, digest: bytes) -> int:
        """The newest usable row of a digest; -1 when there is none."""
        if not len(self._keys):
            return -1
        place = int(self._keys.searchsorted(np.frombuffer(digest, "<u8", 1)[0]))
        while place < len(self._keys) and self._keys[place] == np.frombuffer(digest, "<u8", 1)[0]:
            if self.is_usable[place] and self.rows["digest"][place].tobytes() == digest:
                return place
            place += 1
        return -1

    def _steps(self, digests: Words) -> Iterator[tuple[Places, Places]]:
        """Which digests have a first row, and which; which have a second one, and which; and so on."""
        keys = digests[:, 0]
        order = np.argsort(keys)  # neighbours in the table are looked up together, which is several times faster
        places = np.empty(len(keys), np.intp)
        places[order] = np.searchsorted(self._keys, keys[order])
        still = np.arange(len(keys))
        while len(still):
            still = still[places[still] < len(self._keys)]
            still = still[self._keys[places[still]] == keys[still]]
            is_same = (self.rows["digest"][places[still]] == digests[still]).all(axis=1)
            if is_same.any():
                yield still[is_same], places[still[is_same]]
            places[still] += 1

    def digest(self, place: int) -> str:
        """The digest in a row."""
        return texts_of(self.rows["digest"][place : place + 1])[0]

    def pack(self, place: int) -> str:
        """The name of the pack in a row."""
        name: str = self.packs[self.rows["pack"][place]]
        return name


@dataclass(frozen=True)
class Snapshot:
    """What a home's objects were at one time.

    Attributes:
        index: where objects lie.
        segments: of the index.
        listing: the packs that are there, by name.
        condemned: the state of the log.
        withdrawn: digests that have a tombstone.
        problems: segments that are damaged; the footers of packs stand in for them.
    """

    index: Index = field(default_factory=Index)
    segments: Mapping[str, Entry] = field(default_factory=dict)
    listing: Mapping[str, Entry] = field(default_factory=dict)
    condemned: Condemned = field(default_factory=Condemned)
    withdrawn: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()

    def orphans(self) -> list[str]:
        """Packs that no segment speaks of: of writers that have not come to their end, or never will."""
        return sorted(self.listing.keys() - set(self.index.packs))

    def with_segments(self, segments: Sequence[tuple[Sequence[str], Rows]]) -> Index:
        """The index with some more rows."""
        return self.index.with_segments(segments).judged(self.listing, self.condemned)


def read_snapshot(store: Store, before: Snapshot, cache: Path | None = None) -> Snapshot:
    """What is there now, of which only what is new since `before` is read.

    Args:
        store: the home.
        before: an earlier answer, or an empty one.
        cache: a folder of this machine that keeps segments.
    """
    while True:
        # segments first: the packs they speak of were written before them
        segments = {entry.key.removeprefix("index/"): entry for entry in store.list("index/")}
        index, problems, known = before.index, [*before.problems], set(before.segments)
        problems = [each for each in problems if each.where != "condemned"]
        if known - set(segments):
            index, problems, known = Index(), [], set()
        fresh = sorted(set(segments) - known, key=lambda name: (-segments[name].modified, name))
        read = []
        try:
            for name in fresh:
                try:
                    read.append(_segment(store, name, cache))
                except DamagedFile as error:
                    problems.append(Problem(f"index/{name}", str(error).partition(": ")[2], "`useg gc` makes it again"))
        except Missing:  # a collector has merged it into another one in between
            before = Snapshot()
            continue
        break
    if read:
        index = index.with_segments(read)
    listing = {entry.key.removeprefix("packs/"): entry for entry in store.list("packs/")}
    withdrawn = frozenset(entry.key.removeprefix("tombstones/") for entry in store.list("tombstones/"))
    try:
        condemned = read_condemned(store, before.condemned)
    except DamagedFile as error:  # nobody may write, but reading goes on
        condemned = Condemned(-1)
        problems.append(Problem("condemned", str(error)))
    snapshot = Snapshot(index, segments, listing, condemned, withdrawn, tuple(problems))
    if any(each.where != "condemned" for each in problems):
        snapshot = replace(snapshot, index=index.with_segments(read_footers(store, snapshot, snapshot.orphans())))
    if snapshot.index is before.index and listing == before.listing and condemned is before.condemned:
        return replace(snapshot, index=before.index)
    return replace(snapshot, index=snapshot.index.judged(listing, condemned))


def read_footers(store: Store, snapshot: Snapshot, packs: Sequence[str]) -> list[tuple[list[str], Rows]]:
    """What lies in some packs by their own account; those that are damaged or gone are left out."""
    found = []
    for pack in packs:
        with suppress(DamagedFile, Missing):
            key, size = f"packs/{pack}", snapshot.listing[pack].size
            rows: Any = read_footer(pack, store.get(key, tail_start(size), size), size)
            if isinstance(rows, int):
                rows = read_footer(pack, store.get(key, tail_start(size, rows), size), size)
            found.append(([pack], rows))
    return found


def _segment(store: Store, name: str, cache: Path | None) -> tuple[list[str], Rows]:
    kept = cache / name if cache is not None else None
    if kept is not None:
        with suppress(OSError, DamagedFile):
            return decode_segment(name, kept.read_bytes())
    content = store.get(f"index/{name}")
    segment = decode_segment(name, content)
    if kept is not None:
        with suppress(OSError):  # this machine does without
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f".{name}.{secrets.token_hex(8)}")
            part.write_bytes(content)
            os.replace(part, kept)
    return segment


__all__ = ["Index", "Places", "Snapshot", "read_footers", "read_snapshot"]
