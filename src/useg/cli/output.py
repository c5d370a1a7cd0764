"""What a command says and where: the result on stdout, everything else on stderr."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from json import dumps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "BROKEN_PIPE",
    "Advance",
    "abandon_stdout",
    "console",
    "emit",
    "error",
    "note",
    "plain",
    "progress",
    "warn",
]

BROKEN_PIPE = 141
"""Exit status when the reader of our output went away: what a shell shows for SIGPIPE."""

QUIET_INTERVAL_S = 10.0
"""Seconds between two lines of progress where stderr is not a terminal."""


def emit(result: Mapping[str, Any], *, json: bool, text: str | Callable[[], str]) -> None:
    """Print the result of a command on stdout.

    Args:
        result: what `--json` prints, as one object on one line; see `plain` for what it may hold.
        json: whether `--json` was given.
        text: what is printed for people, or a function that makes it when it is needed.
    """
    if json:
        # ASCII, so that names which are no UTF-8 survive as escapes
        print(dumps(plain(result), allow_nan=False), flush=True)
    else:
        print(text if isinstance(text, str) else text(), flush=True)


def plain(value: Any) -> Any:
    """Turn a value into what JSON has.

    Paths become strings, sets sorted lists, pydantic models and dataclasses objects, NumPy values and arrays
    numbers and lists, NaN and infinity None.

    Raises:
        TypeError: the value is of no known kind.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, PurePath):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def console() -> "Console":
    """The terminal on stderr, for progress and other things to look at."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """Tell something on stderr that needs no action."""
    _say("", message, style=None)


def warn(message: str) -> None:
    """Tell something on stderr that the user should know before trusting the result."""
    _say("warning: ", message, style="33")


def error(message: str) -> None:
    """Tell on stderr why the command ends."""
    _say("error: ", message, style="31")


def _say(prefix: str, message: str, *, style: str | None) -> None:
    if style and sys.stderr.isatty():
        prefix = f"\033[{style}m{prefix}\033[0m"
    print(f"{prefix}{message}", file=sys.stderr, flush=True)


def abandon_stdout() -> None:
    """Throw away what is still to be written on stdout, whose reader went away."""
    # the interpreter flushes once more as it leaves, and would complain
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Advance(Protocol):
    """Reports how far the work is."""

    def __call__(self, completed: float, *, total: float | None = None, status: str = "") -> None:
        """Say that `completed` of the total is done; a new `total` and a `status` are optional."""


@contextmanager
def progress(description: str, *, total: float | None = None) -> Iterator[Advance]:
    """Show the progress of some work on stderr: a bar with the time left, or now and then a line in a log.

    Args:
        description: what is being done, in a word or two.
        total: how much there is to do, in any unit; None where nobody knows.
    """
    if not sys.stderr.isatty():
        yield _lines(description, total)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.12g}/{task.total:.12g}" if total is not None else "{task.completed:.12g}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(description, total=total, status="")

        def advance(completed: float, *, total: float | None = None, status: str = "") -> None:
            bar.update(task, completed=completed, total=total, status=status)

        yield advance


def _lines(description: str, total: float | None) -> Advance:
    last = time.monotonic()
    whole = total

    def advance(completed: float, *, total: float | None = None, status: str = "") -> None:
        nonlocal last, whole
        whole = whole if total is None else total
        now = time.monotonic()
        if now - last < QUIET_INTERVAL_S and completed != whole:
            return
        last = now
        of = "" if whole is None else f"/{whole:.12g}"
        note(f"{description} {completed:.12g}{of} {status}".rstrip())

    return advance
