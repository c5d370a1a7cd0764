"""The runs for which a filter holds, in the order asked for."""

import math
from collections.abc import Sequence
from typing import Any

from useg.runs.filter import TIMES, moment_of, parse
from useg.runs.index import Index, Run
from useg.runs.naming import Names

NEWEST_FIRST = "-started"


def select(index: Index, where: str | None = None, sort: str = NEWEST_FIRST, *, removed: bool = False) -> list[Run]:
    """The runs for which `where` holds; without those that cannot be read.

    Args:
        index: of the home.
        where: a filter (see `useg.runs.filter`); None for all.
        sort: fields separated by commas, the most important first; `-` before one: the largest first. What has no value
            comes last either way, and text after numbers.
        removed: also those that were taken away; so it is, too, when `where` asks for `removed`.

    Raises:
        InputError: filter or fields cannot be read, or no run has a field of that name.
    """
    runs = [run for run in index.runs() if not run.problem]
    names = Names(index.has, index.names)
    keep = parse(where, names.resolve) if where is not None else None
    if not removed and (keep is None or "removed" not in keep.names):
        runs = [run for run in runs if not run.removed]
    if keep is not None:
        columns = {name: index.column(name, runs) for name in keep.names}
        holds, items = keep.holds, list(columns.items())
        runs = [run for run in runs if holds({name: column.get(run.number) for name, column in items})]
    runs.sort(key=lambda run: run.id, reverse=True)
    for field in reversed([field.strip() for field in sort.split(",") if field.strip()]):
        is_falling = field.startswith("-")
        runs = _sorted(index, runs, names.resolve(field.lstrip("+-")), is_falling=is_falling)
    return runs


def _sorted(index: Index, runs: Sequence[Run], name: str, *, is_falling: bool) -> list[Run]:
    keys = {number: _key(name, value) for number, value in index.column(name, runs).items()}
    have = [run for run in runs if keys.get(run.number) is not None]
    lack = [run for run in runs if keys.get(run.number) is None]
    return sorted(have, key=lambda run: keys[run.number] or (), reverse=is_falling) + lack


def _key(name: str, value: Any) -> tuple[int, Any] | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if name in TIMES:
        value = moment_of(str(value))
        return None if value is None else (0, value)
    return (0, value) if isinstance(value, int | float) else (1, str(value))


__all__ = ["NEWEST_FIRST", "select"]
