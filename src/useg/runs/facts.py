"""A record as values by dotted names, such as an index and a table can hold."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from useg.home.store import Missing, Store
from useg.runs.filter import moment_of

SHARED = ("config", "plan", "environment", "machine", "code", "seeds", "origin")
"""Groups of fields that many runs have in common."""
_LEFT_OUT = ("names", "lists", "records", "run", "status")
_LARGEST_INTEGER = 2**63 - 1


class Fact(NamedTuple):
    """A value as SQLite holds it.

    Attributes:
        name: dotted.
        value: a text, a number, or None for one without a value.
        kind: None for texts and numbers; `b` truth, `l` list as JSON, `n` NaN, `0` nothing: the name is known.
    """

    name: str
    value: Any
    kind: str | None


@dataclass(frozen=True)
class Facts:
    """What the index keeps of a run.

    Attributes:
        status: as recorded.
        removed: whether it was taken away.
        own: its values.
        groups: the digest, the name and the content of each group that others may have, too.
    """

    status: str
    removed: bool
    own: list[Fact]
    groups: list[tuple[bytes, str, dict[str, Any]]]


def facts_of(record: Mapping[str, Any], last: Mapping[str, Any], run: str) -> Facts:
    """A run's record and the last values of its journal as facts."""
    own: list[Fact] = []
    groups = []
    for field, value in record.items():
        if field in SHARED and isinstance(value, dict) and value:
            groups.append((_digest(field, value), field, value))
        elif field not in _LEFT_OUT:
            own += facts_in(value, field)
    own += facts_in(dict(last), "last")
    seconds = _seconds(record)
    if seconds is not None:
        own.append(Fact("seconds", seconds, None))
    return Facts(str(record.get("status", "")), record.get("removed") is True, own, groups)


def facts_in(value: Any, name: str) -> list[Fact]:
    """The values in nested objects as facts."""
    return [_encoded(each, found) for each, found in flattened(value, name)]


def _digest(field: str, value: dict[str, Any]) -> bytes:
    try:
        content = orjson.dumps([field, value], default=str, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # numbers of more than 64 bits
        content = repr([field, value]).encode("utf-8", "backslashreplace")
    return hashlib.sha256(content).digest()


def flattened(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Nested objects as (dotted name, value); lists are values."""
    waiting = [(name, value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}", each) for key, each in reversed(value.items())]
        else:
            yield name, value


def _seconds(record: Mapping[str, Any]) -> float | None:
    """How long a run took, by its start and end; None where the record has it, or not these."""
    if record.get("seconds") is not None:
        return None
    start, end = (moment_of(str(record.get(name, ""))) for name in ("started", "ended"))
    return None if start is None or end is None else end - start


def _encoded(name: str, value: Any) -> Fact:
    name = _sayable(name)
    if value is None:
        return Fact(name, None, "0")
    if isinstance(value, bool):
        return Fact(name, int(value), "b")
    if isinstance(value, int):
        return Fact(name, value if abs(value) <= _LARGEST_INTEGER else str(value), None)
    if isinstance(value, float):
        return Fact(name, None, "n") if math.isnan(value) else Fact(name, value, None)
    if isinstance(value, list | tuple):
        try:
            return Fact(name, orjson.dumps(value, default=str).decode(), "l")
        except TypeError:  # numbers of more than 64 bits, texts that are no UTF-8
            return Fact(name, json.dumps(value, default=str), "l")
    return Fact(name, _sayable(str(value)), None)


def _sayable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def decoded(value: Any, kind: str | None) -> Any:
    """What was encoded."""
    if kind == "b":
        return bool(value)
    if kind == "n":
        return math.nan
    if kind == "l":
        with suppress(ValueError, TypeError):
            return json.loads(value)
    return value


def completed(store: Store, run: str, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a run of before they had settings and plan, with those from its files."""
    if "config" not in record:
        with suppress(Missing, ValueError):
            record["config"] = orjson.loads(store.get(f"runs/{run}/config.json"))
    if "plan" not in record:
        import tomllib

        with suppress(Missing, ValueError):
            record["plan"] = tomllib.loads(store.get(f"runs/{run}/plan.toml").decode())
    return record


__all__ = ["SHARED", "Fact", "Facts", "completed", "decoded", "facts_in", "facts_of", "flattened"]
