"""Every pack and object of a home, read and checked; what is damaged is named, and counts as not there from then on."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from useg.errors import DamagedFile, Problem, ResourceError
from useg.home.condemned import write_condemned
from useg.home.index import Index, Snapshot
from useg.home.objects import Objects
from useg.home.packs import CHUNKS, texts_of, words_of
from useg.home.reaching import reachable
from useg.home.repacking import Lists
from useg.home.store import Missing
from useg.home.transfer import Progress
from useg.home.unpacking import Unpacker
from useg.home.withdrawal import remains

_READ_BYTES = 64 * 2**20
_TRIES = 20
_HEAL = "pull from a home that has it, or add its file again"


def verify(objects: Objects, *, progress: Progress | None = None) -> list[Problem]:
    """Read a home's packs, and say which objects, and which parts of the home, are not what was written.

    What is damaged is noted in the home, if it can be written: `has` denies it, so that adding or pulling it stores it
    again. Packs that nobody made visible are garbage, not damage.

    Args:
        objects: of the home.
        progress: told how many bytes are checked.
    """
    snapshot = objects.refresh()
    index, lists = snapshot.index, Lists(objects)
    damaged = _damaged(objects, snapshot, progress)
    is_sound = index.is_there.copy()
    for places in damaged.values():
        is_sound[places] = False
    problems = list(snapshot.problems)
    for pack, places in damaged.items():
        gone = index.find(index.rows["digest"][places], is_sound) < 0
        for digest in texts_of(index.rows["digest"][np.array(places, np.intp)[gone]]):
            problems.append(Problem(f"packs/{pack}", f"object {digest} is not what was written", _HEAL))
        if not places:
            problems.append(Problem(f"packs/{pack}", "its footer is not what was written, its objects are", "run gc"))
    for place, chunk in _broken_lists(index, lists, is_sound).items():
        is_sound[place] = False
        damaged.setdefault(index.pack(place), []).append(place)
        if index.find(index.rows["digest"][[place]], is_sound)[0] < 0:
            what = f"object {index.digest(place)} is not complete: its chunk {chunk} is damaged or missing"
            problems.append(Problem(f"packs/{index.pack(place)}", what, _HEAL))
    problems += _named(objects, snapshot, lists, is_sound)
    _note(objects, snapshot, damaged)
    return problems


def _damaged(objects: Objects, snapshot: Snapshot, progress: Progress | None) -> dict[str, list[int]]:
    """The rows that are damaged, by pack; none where only the rest of the pack is."""
    index = snapshot.index
    packs = [pack for pack in index.packs if pack in snapshot.listing and pack not in snapshot.condemned.doomed]
    total, done = sum(snapshot.listing[pack].size for pack in packs), 0
    numbers = {pack: number for number, pack in enumerate(index.packs)}
    found: dict[str, list[int]] = {}
    for pack in packs:
        with suppress(Missing):  # deleted by a collection in between
            if not _is_whole(objects, pack, snapshot.listing[pack].size):
                places = np.flatnonzero(index.rows["pack"] == numbers[pack])
                read = Unpacker(objects.store, index).read(places)
                bad = [place for place, stored, _ in read if stored is None]
                # a list of chunks has no digest of its own: its object tells
                found[pack] = bad + [place for place in places.tolist() if not _is_list_sound(objects, index, place)]
        done += snapshot.listing[pack].size
        if progress is not None:
            progress(done, total=total)
    return found


def _is_whole(objects: Objects, pack: str, size: int) -> bool:
    hasher = blake3()
    for start in range(0, max(size, 1), _READ_BYTES):
        hasher.update(objects.store.get(f"packs/{pack}", start, start + _READ_BYTES))
    return hasher.hexdigest() == pack


def _is_list_sound(objects: Objects, index: Index, place: int) -> bool:
    if index.rows["kind"][place] != CHUNKS:
        return True
    try:
        for _ in Unpacker(objects.store, index).pieces(place):
            pass
    except (DamagedFile, Missing):
        return False
    return True


def _broken_lists(index: Index, lists: Lists, is_sound: NDArray[np.bool_]) -> Mapping[int, str]:
    """The rows of lists some of whose chunks are not there or damaged, and the first such chunk."""
    broken = {}
    for place, chunks in lists.read(index).items():
        missing = chunks[index.find(chunks, is_sound) < 0]
        if is_sound[place] and len(missing):
            broken[place] = texts_of(missing[:1])[0]
    return broken


def _named(objects: Objects, snapshot: Snapshot, lists: Lists, is_sound: NDArray[np.bool_]) -> list[Problem]:
    """What refs and records lead to and is nowhere, and what was withdrawn and still is somewhere."""
    index, problems = snapshot.index, []
    try:
        kept = reachable(objects.store, objects)
    except (DamagedFile, Missing) as error:
        return [Problem(objects.store.url, f"nobody knows all that is kept here: {error}", "heal this first")]
    withdrawn = words_of(sorted(snapshot.withdrawn))
    kept_here = kept[~Index.of(withdrawn).holds(kept)]
    nowhere = kept_here[(index.find(kept_here, is_sound) < 0) & (index.find(kept_here, index.is_there) < 0)]
    for digest in texts_of(nowhere):
        problems.append(Problem(f"object {digest}", "is named by a ref or a record, and is not there", _HEAL))
    if len(withdrawn):
        for place in np.flatnonzero(remains(index, lists, withdrawn, kept)):
            what = f"object {index.digest(int(place))} was withdrawn, and its bytes are still here"
            problems.append(Problem(f"packs/{index.pack(int(place))}", what, "withdraw it again"))
    return problems


def _note(objects: Objects, snapshot: Snapshot, damaged: Mapping[str, list[int]]) -> None:
    index = snapshot.index
    found = {pack: frozenset(texts_of(index.rows["digest"][places])) for pack, places in damaged.items()}
    with suppress(ResourceError, DamagedFile):  # a home that can only be read
        for _ in range(_TRIES):
            before = objects.refresh().condemned
            if before.number < 0 or dict(before.damaged) == found:
                return
            if write_condemned(objects.store, before, replace(before, damaged=found)):
                objects.refresh()
                return


__all__ = ["verify"]
