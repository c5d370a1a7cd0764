"""Fields of metadata: from texts to numbers and truth values, and back to texts that give the same again."""

import re
from collections.abc import Collection, Iterable, Sequence
from math import isfinite

Value = str | int | float | bool | None

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_UNSAYABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_UNSAYABLE_IN_NAMES = re.compile(r"[,;\t\"#=]")


def typed_column(texts: Sequence[str | None]) -> list[Value]:
    """One field's texts as numbers or truth values, if all of them are; else as they are.

    Only texts that come back from the number as they were count as numbers: `007` and `1.10` are names.

    >>> typed_column(["1", "20", None]), typed_column(["1", "0.5", "2.0"]), typed_column(["007", "1"])
    ([1, 20, None], [1.0, 0.5, 2.0], ['007', '1'])
    """
    known = [text for text in texts if text is not None]
    if known and all(_INTEGER.fullmatch(text) and text != "-0" for text in known):
        return [None if text is None else int(text) for text in texts]
    if known and all(map(_is_decimal, known)):
        return [None if text is None else float(text) for text in texts]
    if known and set(known) <= {"true", "false"}:
        return [None if text is None else text == "true" for text in texts]
    return list(texts)


def _is_decimal(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return isfinite(number) and text != "-0" and repr(number) in (text, text + ".0")


def text_of(value: Value) -> str:
    """A value as it stands in a pairs.csv; "" for none.

    >>> text_of(0.5), text_of(True), text_of(None)
    ('0.5', 'true', '')
    """
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def why_unsayable(text: str, *, name: bool = False) -> str:
    """Why a text could not be read back from a pairs.csv, or from UTF-8 at all; "" if it can.

    Args:
        text: a key, a path, a value.
        name: it is the name of a field.
    """
    if _UNSAYABLE.search(text):
        names_bytes = any(0xD800 <= ord(character) <= 0xDFFF for character in text)
        return "it is not UTF-8" if names_bytes else "it has control characters"
    if text != text.strip():
        return "it begins or ends with a blank"
    found = _UNSAYABLE_IN_NAMES.search(text) if name else None
    return f"it has the character {found[0]!r}" if found else ""


def free_names(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """A name for each field that is not taken: its own, or with `_` behind it.

    >>> free_names(["age", "weight", "weight_"], {"weight"})
    {'age': 'age', 'weight': 'weight__', 'weight_': 'weight_'}
    """
    names = list(names)
    found: dict[str, str] = {}
    for name in names:
        free = name
        while free in taken or (free != name and free in names):
            free += "_"
        found[name] = free
    return found


def shown(text: str) -> str:
    """A text for a message, whatever bytes it was made of; long ones are cut."""
    printable = text.encode("utf-8", "backslashreplace").decode()
    return printable if len(printable) <= 300 else f"{printable[:200]}… ({len(text)} characters)"
