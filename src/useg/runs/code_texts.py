"""The code of runs as it is compared: without what belongs to a place, and as lines of text."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from useg.errors import UsegError
from useg.home.store import Store

_OF_A_PLACE = ("root", "branch", "remote", "installed", "left_out")
"""Where code lay, under which name, and what else lay there: no difference of the code itself."""
_HEX = frozenset("0123456789abcdef")
_LARGEST_TEXT = 2**20
_MOST_LINES = 400


def itself(code: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of code, without what belongs to the place where it lay."""
    return {
        part: {name: value for name, value in facts.items() if name not in _OF_A_PLACE}
        if isinstance(facts, Mapping)
        else facts or {}
        for part, facts in code.items()
    }


def text_of(store: Store, value: Any) -> str | None:
    """What a fact of the code says as text: itself where it has lines, or the object whose digest it is."""
    if not isinstance(value, str):
        return None
    if "\n" in value:
        return value
    if len(value) != 64 or not set(value) <= _HEX:
        return None
    from useg.home.objects import Objects

    objects = Objects(store)
    with suppress(UsegError, UnicodeDecodeError, KeyError):
        if objects.length(value) <= _LARGEST_TEXT:
            return objects.get(value).decode()
    return None


def unified(texts: Sequence[str | None], names: Sequence[str]) -> list[str]:
    """The lines of a diff of two texts, cut where there are many."""
    import difflib

    before, after = ((text or "").splitlines() for text in texts)
    lines = list(difflib.unified_diff(before, after, names[0], names[1], lineterm=""))
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"... {more} more lines"] if more > 0 else lines


__all__ = ["itself", "text_of", "unified"]
