"""Every error that useg raises on purpose, sorted by what the caller can do next.

    UsegError
    ├── InputError        change the input: a file, a folder, a setting, a command line
    │   ├── DataError     the folder's files; carries every problem found, not only the first
    │   └── ConfigError   a setting
    ├── MissingExtra      install something, with the command that does it
    ├── DamagedFile       the bytes are not what was written: fetch or make the file again
    ├── ResourceError     free disk space or memory, or give a permission back, then repeat
    └── TrainingError     training cannot go on; the last good checkpoint is kept

All of them end a command with exit status 2 and one message, never with a traceback.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class UsegError(Exception):
    """Base of every error raised on purpose; its text is written for the user."""


class InputError(UsegError):
    """The input cannot be used as it is; the text says what to change."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one file.

    Attributes:
        where: the file (or pair, or folder) as the user named it.
        what: what came, and what was wanted.
        remedy: what to do about it; may be empty when `what` says it.
    """

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        # a name may hold line breaks, or what moves the cursor of a terminal
        where = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in self.where)
        return f"{where}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


class DataError(InputError):
    """A data folder cannot be used; carries all problems of the folder at once.

    Attributes:
        problems: every problem found, in a stable order.
    """

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        super().__init__("\n".join([summary, *(f"  - {problem}" for problem in self.problems)]))


def problems_of(error: UsegError, where: str) -> tuple[Problem, ...]:
    """The problems that an error carries; if none, the error itself as one of the file it arose with."""
    known = error.problems if isinstance(error, DataError) else ()
    return known or (Problem(where, str(error).removeprefix(f"{where}: ")),)


class ConfigError(InputError):
    """A setting is unknown or out of range."""


class MissingExtra(UsegError):
    """An optional dependency is needed and not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the extra `{extra}`: pip install 'useg[{extra}]'")
        self.extra = extra


class DamagedFile(UsegError):
    """A file's bytes are not what was written."""


class ResourceError(UsegError):
    """Disk, memory or permission ran out; what was finished before is intact."""


class TrainingError(UsegError):
    """Training cannot go on; the last good checkpoint is kept."""
