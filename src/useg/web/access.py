"""Who may do what to which key of a served home: readers look, writers add, admins take away.

| prefix | a writer may put | and it is checked |
|---|---|---|
| `packs/`, `index/` | yes | the name is the BLAKE3 of the content |
| `refs/` | yes, but no entry that takes the name away | the next number, a JSON record with `to` |
| `runs/`, `jobs/` | yes | |
| `condemned/`, `tombstones/`, others | no | |

A writer takes nothing away, with two exceptions: a run that is alive replaces its own pieces and leases with newer
ones, so the keys of a run whose lease rose in the last ten minutes may go, except its record and its claims; and a
dispatcher replaces its counter.
"""

import re
from pathlib import Path

import orjson

from useg.errors import DamagedFile, InputError, UsegError
from useg.home.store import Missing, Store

ALIVE_S = 600.0
"""A run is alive for so long after its lease rose: longer than a keeper waits for a home that did not answer."""
_NAMED_BY_DIGEST = re.compile(r"(?:packs|index)/(.*)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"(refs/.+/)(\d{8})")
_OF_WRITERS = ("packs/", "index/", "refs/", "runs/", "jobs/")
_COUNTERS = "jobs/beats/"
_KEPT_OF_RUNS = re.compile(r"runs/[^/]+/(record(\.json$|/)|(folds/\d+/)?attempts/\d+/lease/0{8}$)")


class Forbidden(UsegError):
    """Somebody's role does not allow this."""


def named_digest(key: str) -> str | None:
    """The digest that a key says its content has.

    Raises:
        InputError: its prefix wants one, and there is none.
    """
    match = _NAMED_BY_DIGEST.fullmatch(key)
    if match and not _DIGEST.fullmatch(match[1]):
        raise InputError(f"{key}: what lies there is named by a digest of 64 hexadecimal digits")
    return match[1] if match else None


def is_ref(key: str) -> bool:
    """Whether a key is looked into before it is put."""
    return key.startswith("refs/")


def check_put(role: str, key: str) -> None:
    """Refuse a put before its content comes.

    Raises:
        Forbidden: the role may not.
    """
    if role == "reader":
        raise Forbidden("a reader cannot write")
    if role == "writer" and not key.startswith(_OF_WRITERS):
        raise Forbidden(f"a writer can put what begins with {', '.join(_OF_WRITERS)}; {key} is for an admin")


def check_ref(role: str, store: Store, key: str, content: bytes | Path) -> None:
    """Refuse an entry of a name that is none, leaves a gap, or takes the name away and is no admin's.

    Raises:
        DamagedFile: it is no entry. InputError: its number is not the next. Forbidden: see above.
    """
    match = _REF.fullmatch(key)
    try:
        to = orjson.loads(content if isinstance(content, bytes) else b"")["to"]  # what is large lies in a file
    except (orjson.JSONDecodeError, KeyError, TypeError):
        to = 0
    if match is None or int(match[2]) == 0 or not (to is None or (isinstance(to, str) and _DIGEST.fullmatch(to))):
        raise DamagedFile(f"{key}: no entry of a name; wanted refs/<name>/<8 digits> with a JSON record that has `to`")
    if to is None and role != "admin":
        raise Forbidden(f"a {role} cannot take a name away")
    if int(match[2]) > 1:
        try:
            store.get(f"{match[1]}{int(match[2]) - 1:08}", 0, 0)
        except Missing as missing:
            raise InputError(f"{key}: the entry before it is not there") from missing


def check_delete(role: str, store: Store, key: str) -> None:
    """Refuse to take a key away.

    Raises:
        Forbidden: the role may not.
    """
    if role == "reader":
        raise Forbidden("a reader cannot delete")
    may = key.startswith(_COUNTERS) or (not _KEPT_OF_RUNS.match(key) and _is_of_living_run(store, key))
    if role == "writer" and not may:
        raise Forbidden("a writer cannot delete; an admin can")


def _is_of_living_run(store: Store, key: str) -> bool:
    match = re.match(r"runs/[^/]+/", key)
    if match is None:
        return False
    leases = [entry.modified for entry in store.list(f"{match[0]}attempts/") if "/lease/" in entry.key]
    return max(leases, default=-ALIVE_S) > store.time() - ALIVE_S


__all__ = ["ALIVE_S", "Forbidden", "check_delete", "check_put", "check_ref", "is_ref", "named_digest"]
