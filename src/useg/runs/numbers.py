"""Numbers that JSON does not have, kept in it as the words NaN, Infinity and -Infinity; what is written is read again.

A text that is one of these words is kept with a backslash before it, and so is one that begins with backslashes and
goes on with such a word.
"""

import math
import re
from typing import Any

import orjson

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WORD = re.compile(r"\\*(NaN|-?Infinity)")
_MAYBE = re.compile(rb'(NaN|Infinity)"')


def to_json(content: Any, options: int = 0) -> bytes:
    """JSON of nested values.

    Args:
        content: also NumPy's numbers and arrays, and tensors of one number; what is of no known kind becomes its text.
        options: further ones of orjson.
    """
    plain = orjson.dumps(content, _plain, _OPTIONS | options)
    if b"null" in plain or _MAYBE.search(plain):  # orjson writes NaN and infinities as null
        return orjson.dumps(_worded(content), _plain, _OPTIONS | options)
    return plain


def from_json(content: bytes) -> Any:
    """What `to_json` was given.

    Raises:
        ValueError: it is not JSON.
    """
    found = orjson.loads(content)
    return _unworded(found) if _MAYBE.search(content) else found


def _plain(value: Any) -> Any:
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 0) == 0 else str(value)


def _worded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _worded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_worded(each) for each in value]
    if isinstance(value, str):
        return "\\" + value if _WORD.fullmatch(value) else value
    if hasattr(value, "tolist"):
        return _worded(value.tolist())
    if hasattr(value, "item"):
        return _worded(_plain(value))
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _unworded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unworded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unworded(each) for each in value]
    if isinstance(value, str) and _WORD.fullmatch(value):
        return _NUMBERS.get(value, value[1:])
    return value


__all__ = ["from_json", "to_json"]
