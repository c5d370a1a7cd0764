"""What may be the key of something in a home, and ranges of bytes joined into few requests."""

import re
import unicodedata
from collections.abc import Sequence

from useg.errors import InputError

LONGEST_KEY = 900
_LONGEST_PART = 255
_PART = r"\w(?:[\w .+=@,()-]*[\w+=@,()-])?"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_GAP = 256 * 1024
_LARGEST_REQUEST = 16 * 2**20


def check_key(key: str) -> None:
    """Refuse what is no key: parts of letters, digits and ` .+=@,()-_` between slashes, none beginning with a dot.

    Raises:
        InputError: it is none, or one too long for some kind of home.
    """
    if not is_key(key):
        shown = key if len(key) <= 80 else f"{key[:60]}… ({len(key)} characters)"
        raise InputError(
            f"{shown!r} cannot be a key in a home: wanted parts of letters, digits and ' .+=@,()-_' between slashes, "
            f"none beginning with a dot, each of at most {_LONGEST_PART} bytes, {LONGEST_KEY} in all"
        )


def is_key(key: str) -> bool:
    """Whether this can be a key."""
    if not _KEY.fullmatch(key):
        return False
    if key.isascii():
        return len(key) <= LONGEST_KEY and (len(key) <= _LONGEST_PART or max(map(len, key.split("/"))) <= _LONGEST_PART)
    parts = [len(part.encode()) for part in key.split("/")]
    # a file system that knows only one of two ways to write an accent would hold both as one
    return (
        sum(parts) + len(parts) <= LONGEST_KEY and max(parts) <= _LONGEST_PART and unicodedata.is_normalized("NFC", key)
    )


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that no key can have.

    Raises:
        InputError: it has none.
    """
    folder, _, rest = prefix.rpartition("/")
    check_key(f"{folder}/x" if folder or prefix.startswith("/") else "x")
    if "\0" in rest or rest.startswith("."):
        check_key(prefix)


def check_range(start: int, end: int | None) -> None:
    """Refuse a range that ends before it begins, or begins before the content."""
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"no range: {start} to {end}")


def merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int, list[int]]]:
    """Ranges joined where they lie near each other, so that few requests fetch them: (start, end, which of them)."""
    requests: list[tuple[int, int, list[int]]] = []
    for member in sorted(range(len(ranges)), key=lambda each: ranges[each]):
        start, end = ranges[member]
        check_range(start, end)
        if requests:
            first, last, members = requests[-1]
            if start <= last + _GAP and (max(last, end) - first <= _LARGEST_REQUEST or end <= last):
                members.append(member)
                requests[-1] = (first, max(last, end), members)
                continue
        requests.append((start, end, [member]))
    return requests


__all__ = ["check_key", "check_prefix", "check_range", "is_key", "merged"]
