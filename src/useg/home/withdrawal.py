"""Objects withdrawn on purpose: their bytes go from every pack at once, and a tombstone says why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import orjson
from numpy.typing import NDArray

from useg.errors import InputError, ResourceError
from useg.home.index import Index, Snapshot, read_footers
from useg.home.objects import Objects
from useg.home.packs import Words, words_of
from useg.home.reaching import reachable
from useg.home.repacking import Lists, compact, copy_rows, together
from useg.home.store import Store

_TRIES = 20


@dataclass(frozen=True)
class Withdrawal:
    """What a withdrawal did.

    Attributes:
        packs: how many were written anew or deleted.
        bytes: how many the withdrawn objects took.
        lost: other objects in these packs that were damaged already and are gone now.
    """

    packs: int
    bytes: int
    lost: tuple[str, ...]


def withdraw(store: Store, objects: Objects, digests: Sequence[str], reason: str) -> Withdrawal:
    """Remove objects' bytes from a home for ever; asked for again, they raise `Withdrawn` with the reason.

    Bytes that other objects share with them stay. When it is interrupted, call it again.

    Args:
        store: the home.
        objects: of the home.
        digests: which.
        reason: is kept in the tombstones.

    Raises:
        InputError: no reason. DamagedFile: nobody knows what else needs the bytes.
        ResourceError: others wrote the same bytes at the same time, again and again.
    """
    if not reason.strip():
        raise InputError("a reason is wanted: it is all that will be left of what is withdrawn")
    going = words_of(list(digests))
    when = datetime.fromtimestamp(store.time(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    for digest in digests:
        store.put(f"tombstones/{digest}", orjson.dumps({"digest": digest, "time": when, "reason": reason}))
    lists, kept = Lists(objects), reachable(store, objects)
    packs = size = 0
    lost: list[str] = []
    for _ in range(_TRIES):
        snapshot = objects.refresh()
        index = snapshot.with_segments(read_footers(store, snapshot, snapshot.orphans()))
        must_go = remains(index, lists, going, kept)
        if not must_go.any():
            compact(objects)
            return Withdrawal(packs, size, tuple(lost))
        size += int(index.rows["stored"][must_go].sum())
        touched = np.unique(index.rows["pack"][must_go])
        lost += copy_rows(objects, index, _survivors(snapshot, index, must_go, touched))
        for number in touched:
            store.delete(f"packs/{index.packs[number]}")
        packs += len(touched)
    raise ResourceError(f"{store.url}: somebody adds the same objects all the time; stop that, and withdraw them again")


def remains(index: Index, lists: Lists, withdrawn: Words, kept: Words) -> NDArray[np.bool_]:
    """By row, whether it holds bytes of withdrawn objects that no other object needs.

    Args:
        index: where objects lie.
        lists: of the home.
        withdrawn: digests.
        kept: digests that refs and records lead to.
    """
    named = Index.of(withdrawn)
    is_named = named.holds(index.rows["digest"]) & index.is_there
    chunks = lists.read(index)
    theirs = together([chunks[place] for place in chunks if is_named[place]])
    others = Index.of(together([chunks[place] for place in chunks if not is_named[place]]))
    free = theirs[~others.holds(theirs) & (~Index.of(kept).holds(theirs) | named.holds(theirs))]
    is_shared = others.holds(index.rows["digest"])
    is_free = Index.of(free).holds(index.rows["digest"])
    must_go: NDArray[np.bool_] = ((is_named & ~is_shared) | is_free) & index.is_there
    return must_go


def _survivors(
    snapshot: Snapshot, index: Index, must_go: NDArray[np.bool_], touched: NDArray[np.uint32]
) -> NDArray[np.intp]:
    """One row of each object that lies in these packs alone and has to stay."""
    is_touched = np.isin(index.rows["pack"], touched)
    was_indexed = np.isin(index.rows["pack"], np.arange(len(snapshot.index.packs)))
    places = np.flatnonzero(is_touched & was_indexed & index.is_there & ~must_go)
    digests = index.rows["digest"][places]
    # what a killed withdrawal has copied is not visible yet
    alone = digests[index.find(digests, index.is_usable & ~is_touched & was_indexed) < 0]
    found = index.find(alone, index.is_there & ~index.is_damaged & ~must_go)
    return np.unique(found[found >= 0])


__all__ = ["Withdrawal", "remains", "withdraw"]
