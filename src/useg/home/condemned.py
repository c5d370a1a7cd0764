"""The log of what is to be deleted from a home: packs first condemned, then doomed; and which objects are damaged.

    condemned/<n>    {"state": {"condemned": {pack: n}, "doomed": [pack], "gone": [pack], "damaged": {pack: [digest]}},
                      "check": digest}

Each entry holds the whole state, and the next is written by put-if-absent, so that of two collectors one knows that it
lost. What is condemned is not built upon by writers any more; what is doomed is being deleted; what is damaged counts
as not there, so that it is stored again. The number beside a condemned pack is that of the entry which condemned it,
and that entry's age by the store's clock is how long it has been so.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from blake3 import blake3

from useg.errors import DamagedFile
from useg.home.store import Missing, Store

_FOLDER = "condemned/"


@dataclass(frozen=True)
class Condemned:
    """What one entry of the log says.

    Attributes:
        number: of the entry; 0 before the first.
        packs: which packs are condemned, and by the entry of which number.
        doomed: packs that are being deleted.
        gone: names of packs that could come back, since they are named by one raw object, and must not: somebody who
            was to delete one may only be slow.
        damaged: digests of the damaged objects, by pack; none where only the pack's footer is.
        since: when each entry was written, by the store's clock.
    """

    number: int = 0
    packs: Mapping[str, int] = field(default_factory=dict)
    doomed: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    damaged: Mapping[str, frozenset[str]] = field(default_factory=dict)
    since: Mapping[int, float] = field(default_factory=dict)

    def is_sound(self, pack: str) -> bool:
        """Whether writers may build upon what lies in a pack."""
        return pack not in self.packs and pack not in self.doomed and pack not in self.gone


def read_condemned(store: Store, known: Condemned | None = None) -> Condemned:
    """The latest entry; `known` is one that was read before.

    Raises:
        DamagedFile: it is not what was written.
    """
    since = {int(entry.key[len(_FOLDER) :]): entry.modified for entry in store.list(_FOLDER) if _is_entry(entry.key)}
    number = max(since, default=0)
    if known is not None and known.number == number:
        return known
    return _read(store, number, since) if number else Condemned()


def write_condemned(store: Store, before: Condemned, after: Condemned) -> bool:
    """Write the state that follows another one; False, with nothing written, when somebody else was faster.

    In `after`, packs condemned by entry 0 are those that this entry condemns.
    """
    number = before.number + 1
    state = {
        "condemned": {pack: by or number for pack, by in after.packs.items()},
        "doomed": sorted(after.doomed),
        "gone": sorted(after.gone),
        "damaged": {pack: sorted(digests) for pack, digests in after.damaged.items()},
        "written_by": secrets.token_hex(8),
    }
    key, content = _key(number), orjson.dumps({"state": state, "check": _check(state)})
    # an answer may have been lost on its way to us after the entry was written
    return store.put(key, content) or store.get(key) == content


def _read(store: Store, number: int, since: Mapping[int, float]) -> Condemned:
    try:
        content = orjson.loads(store.get(_key(number)))
        state = content["state"]
        if content["check"] != _check(state):
            raise ValueError("check")
        return Condemned(
            number,
            state["condemned"],
            frozenset(state["doomed"]),
            frozenset(state["gone"]),
            {pack: frozenset(digests) for pack, digests in state["damaged"].items()},
            since,
        )
    except (ValueError, KeyError, TypeError, Missing) as error:
        raise DamagedFile(
            f"{store.url}/{_key(number)}: not what was written. Everything else is readable; delete this file, and "
            "run `useg gc` again"
        ) from error


def _check(state: Any) -> str:
    return blake3(orjson.dumps(state, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _key(number: int) -> str:
    return f"{_FOLDER}{number:08}"


def _is_entry(key: str) -> bool:
    name = key[len(_FOLDER) :]
    return len(name) == 8 and name.isdecimal()


__all__ = ["Condemned", "read_condemned", "write_condemned"]
