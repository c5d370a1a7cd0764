"""Names that move: each is a numbered log in the home, and of two who move it at once the one who loses knows."""

import re
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from useg.errors import DamagedFile, InputError
from useg.home.store import Store

_FOLDER = "refs/"
_PART = re.compile(r"\w(?:[\w.-]{0,98}[\w-])?")
_LONGEST_NAME = 400
_ENTRY = re.compile(r"\d{8}")
_AT_ONCE = 16


@dataclass(frozen=True)
class RefEntry:
    """One place at which a name has stood.

    Attributes:
        number: counted from 1; every move is the next one.
        record: `to`, the digest it stood at (None: the name was deleted), and what else the mover wrote.
    """

    number: int
    record: dict[str, Any]


class Moved(InputError):
    """Somebody else has moved a name in between.

    Attributes:
        name: of the ref.
        now: where it stands; None when it has been deleted.
    """

    def __init__(self, name: str, now: RefEntry | None) -> None:
        self.name, self.now = name, now
        place = "it is not there any more" if now is None else f"it stands at {str(now.record['to'])[:12]}"
        super().__init__(f"{name} has been moved under you: {place}; merge or retry")

    def __reduce__(self) -> tuple[type["Moved"], tuple[str, RefEntry | None]]:
        return type(self), (self.name, self.now)


def read_ref(store: Store, name: str) -> RefEntry | None:
    """Where a name stands; None when it was never there, or has been deleted.

    Raises:
        DamagedFile: its latest entry cannot be read.
    """
    number = _latest(store, name)
    entry = _entry(store, name, number) if number else None
    return entry if entry and entry.record["to"] is not None else None


def ref_log(store: Store, name: str) -> list[RefEntry]:
    """Every place at which a name has stood, deletions too, newest first."""
    numbers = sorted(_numbers(store, name), reverse=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda number: _entry(store, name, number), numbers))


def move_ref(store: Store, name: str, record: dict[str, Any], *, expected: int) -> RefEntry:
    """Move a name, or make it; what the record names under `names`, `records` and `lists` is kept by the home.

    Args:
        store: the home.
        name: of the ref.
        record: at least `to`, a digest; a random `move` is added, which tells one's own entry from another's.
        expected: the number at which it is believed to stand; 0 when it is believed not to be there.

    Raises:
        Moved: it stands elsewhere; nothing was written.
    """
    if not isinstance(record.get("to"), str):
        raise ValueError(f"a record of {name} needs a digest under `to`")
    return _append(store, name, record, expected)


def list_refs(store: Store, prefix: str = "") -> list[str]:
    """The names that begin with these characters, sorted; not those that were deleted."""
    latest: dict[str, int] = {}
    for entry in store.list(_FOLDER + prefix):
        name, _, number = entry.key.removeprefix(_FOLDER).rpartition("/")
        if name.startswith(prefix) and _ENTRY.fullmatch(number):
            latest[name] = max(int(number), latest.get(name, 0))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        entries = pool.map(lambda name: _entry(store, name, latest[name]), latest)
        return sorted(name for name, entry in zip(latest, entries, strict=True) if entry.record["to"] is not None)


def delete_ref(store: Store, name: str, *, expected: int | None = None) -> None:
    """Take a name away, wherever it stands or only from where it is believed to; its log stays. Twice is no error.

    Raises:
        Moved: it does not stand where it was expected.
    """
    while entry := read_ref(store, name):
        try:
            _append(store, name, {"to": None}, entry.number if expected is None else expected)
        except Moved:
            if expected is not None:
                raise


def check_name(name: str) -> None:
    """Refuse what cannot be a name: parts of letters, digits and `._-` between slashes, none beginning with `.` or `-`.

    Raises:
        InputError: it cannot.
    """
    parts = name.split("/")
    is_right = all(_PART.fullmatch(part) for part in parts) and ".." not in name
    if not is_right or len(name.encode()) > _LONGEST_NAME or not unicodedata.is_normalized("NFC", name):
        shown = name if len(name) <= 80 else f"{name[:60]}… ({len(name)} characters)"
        raise InputError(
            f"{shown!r} cannot be a name: wanted letters, digits, '.', '_' and '-', with '/' between parts, each part "
            f"of at most 100 characters and beginning with a letter or digit, {_LONGEST_NAME} bytes in all"
        )


def _append(store: Store, name: str, record: dict[str, Any], expected: int) -> RefEntry:
    latest = _latest(store, name)
    now = _entry(store, name, latest) if latest else None
    if now and now.record["to"] is None:
        now = None
    if expected != (now.number if now else 0):
        raise Moved(name, now)
    record = {**record, "move": secrets.token_hex(8)}
    content = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
    # an answer may have been lost on its way to us after the entry was written
    if not store.put(_key(name, latest + 1), content) and store.get(_key(name, latest + 1)) != content:
        raise Moved(name, read_ref(store, name))
    return RefEntry(latest + 1, record)


def _key(name: str, number: int) -> str:
    return f"{_FOLDER}{name}/{number:08}"


def _numbers(store: Store, name: str) -> list[int]:
    check_name(name)
    prefix = f"{_FOLDER}{name}/"
    found = (entry.key.removeprefix(prefix) for entry in store.list(prefix))
    return [int(number) for number in found if _ENTRY.fullmatch(number)]


def _latest(store: Store, name: str) -> int:
    return max(_numbers(store, name), default=0)


def _entry(store: Store, name: str, number: int) -> RefEntry:
    key = _key(name, number)
    try:
        record = orjson.loads(store.get(key))
        if isinstance(record, dict) and isinstance(record["to"], str | None):
            return RefEntry(number, record)
    except (orjson.JSONDecodeError, KeyError):
        pass
    raise DamagedFile(
        f"{store.url}/{key}: not an entry of a name; {name} cannot be told. Copy that file from another home, "
        "or move it away to go back to the entry before"
    )


__all__ = ["Moved", "RefEntry", "check_name", "delete_ref", "list_refs", "move_ref", "read_ref", "ref_log"]
