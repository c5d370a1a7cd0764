"""Garbage: what no ref and no record leads to is condemned, and deleted after a time of grace.

Safe against writers and other collectors at every step, because of four rules. Writers do not build upon what is
condemned, and look once more before they make anything visible. A pack is doomed only when it has been condemned for
the time of grace, by the store's clock, before the refs were read that do not lead to it; so whatever a writer made
visible before the pack was condemned is named by then. Each state of the log follows the one before it, so a collector
that judged by an older one has to judge again. And the name of a pack that was deleted is never used again.
"""

from dataclasses import dataclass, replace

import numpy as np

from useg.errors import DamagedFile, ResourceError
from useg.home.condemned import Condemned, write_condemned
from useg.home.index import Index, Snapshot
from useg.home.objects import Objects
from useg.home.packs import CHUNKS, FOOTER_BYTES, PACKED, Words, words_of
from useg.home.reaching import reachable, unique
from useg.home.repacking import Lists, compact, copy_rows, keeping, together
from useg.home.store import Store

_TRIES = 20
_MOST_GARBAGE = 0.5
"""A pack with a larger share of garbage is written anew without it."""


@dataclass(frozen=True)
class Collected:
    """What a collection did: packs newly condemned, deleted, and taken out of condemnation; bytes freed."""

    condemned: int
    deleted: int
    rescued: int
    bytes: int


def collect(store: Store, objects: Objects, *, grace_s: float, now: float | None = None) -> Collected:
    """Condemn what nothing leads to, and delete what was condemned by an earlier collection and still is garbage.

    Args:
        store: the home.
        objects: of the home.
        grace_s: longer than any writer takes from its first look at the home to moving a ref.
        now: the time by the store's clock.

    Raises:
        DamagedFile: a ref or a record cannot be read, so that nobody knows what it keeps; nothing is deleted.
    """
    snapshot = objects.refresh()
    for problem in snapshot.problems:
        if problem.where == "condemned":
            raise DamagedFile(problem.what)
    # before the refs are read
    old = (store.time() if now is None else now) - grace_s
    kept = reachable(store, objects)
    if snapshot.withdrawn:
        kept = kept[~Index.of(words_of(sorted(snapshot.withdrawn))).holds(kept)]
    lists = Lists(objects)
    _rewrite(objects, kept, lists, old)
    for _ in range(_TRIES):
        snapshot = objects.refresh()
        before = snapshot.condemned
        after = _judge(snapshot, kept, lists, old)
        if after is before or write_condemned(store, before, after):
            break
    else:
        raise ResourceError(f"{store.url}: other collections went on at the same time; run this one later")
    going = [pack for pack in sorted(after.doomed) if pack in snapshot.listing]
    for pack in going:
        store.delete(f"packs/{pack}")
    compact(objects)
    return Collected(
        len(after.packs.keys() - before.packs.keys()),
        len(going),
        len(before.packs.keys() - after.packs.keys() - after.doomed),
        sum(snapshot.listing[pack].size for pack in going),
    )


def _judge(snapshot: Snapshot, kept: Words, lists: Lists, old: float) -> Condemned:
    """The state that should follow: what has been garbage since then is doomed, what is none any more rescued."""
    before, listing = snapshot.condemned, snapshot.listing
    needed = _needed(snapshot, kept, lists, old)
    doomed = {pack for pack in before.doomed if pack in listing}
    packs: dict[str, int] = {}
    for pack, entry in listing.items():
        if pack in doomed or pack in needed:
            continue
        if pack in before.packs and before.since.get(before.packs[pack], np.inf) <= old:
            doomed.add(pack)
        elif pack in before.packs or entry.modified <= old:
            packs[pack] = before.packs.get(pack, 0)
    damaged = {pack: digests for pack, digests in before.damaged.items() if pack in listing and pack not in doomed}
    gone = before.gone | {pack for pack in doomed if _is_whole(snapshot, pack)}
    after = replace(before, packs=packs, doomed=frozenset(doomed), gone=gone, damaged=damaged)
    return before if after == before else after


def _needed(snapshot: Snapshot, kept: Words, lists: Lists, old: float) -> set[str]:
    """The packs that stay.

    Those are: young ones, which a writer may be about to name; those with the best copy of something kept; and those
    with the best copy of a chunk of any list in a pack that stays, even when nothing leads to the list: a writer may
    build upon it without looking at its chunks.
    """
    index, condemned = snapshot.index, snapshot.condemned
    needed = {pack for pack, entry in snapshot.listing.items() if entry.modified > old and condemned.is_sound(pack)}
    waiting = dict(lists.read(index))
    wanted = kept
    while True:
        needed |= {index.packs[number] for number in np.unique(index.rows["pack"][keeping(snapshot, wanted)])}
        reached = [place for place in waiting if index.pack(place) in needed]
        if not reached:
            return needed
        wanted = unique(together([waiting.pop(place) for place in reached]))


def _is_whole(snapshot: Snapshot, pack: str) -> bool:
    """Whether a pack is one raw object, so that its name could be given once more, or may be one."""
    places = snapshot.index.all_places(words_of([pack]))
    return pack not in snapshot.index.packs or any(snapshot.index.pack(place) == pack for place in places)


def _rewrite(objects: Objects, kept: Words, lists: Lists, old: float) -> None:
    """Store anew what is kept in packs that are mostly garbage, or hold what must not stay."""
    snapshot = objects.refresh()
    index, condemned = snapshot.index, snapshot.condemned
    is_kept_list = {place: chunks for place, chunks in lists.read(index).items() if index.is_usable[place]}
    named = Index.of(kept)
    chunks = [
        chunks for place, chunks in is_kept_list.items() if named.holds(index.rows["digest"][place : place + 1])[0]
    ]
    places = keeping(snapshot, unique(together([kept, *chunks])))
    packs = index.rows["pack"]
    live = np.bincount(packs[places], index.rows["stored"][places] + PACKED.itemsize, len(index.packs))
    is_garbage = np.ones(len(index), bool)
    is_garbage[places] = False
    is_withdrawn = Index.of(words_of(sorted(snapshot.withdrawn))).holds(index.rows["digest"])
    must_go = is_garbage & ((index.rows["kind"] == CHUNKS) | index.is_damaged | is_withdrawn)
    with_such = {index.packs[number] for number in np.unique(packs[must_go])} | condemned.damaged.keys()
    chosen = [
        number
        for number, pack in enumerate(index.packs)
        if live[number] and condemned.is_sound(pack) and snapshot.listing[pack].modified <= old
        if pack in with_such or live[number] + FOOTER_BYTES < (1 - _MOST_GARBAGE) * snapshot.listing[pack].size
    ]
    copy_rows(objects, index, places[np.isin(packs[places], chosen)])


__all__ = ["Collected", "collect"]
