"""What a command's exception becomes: a message for the user and an exit status."""

import errno
import functools
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from useg import __version__
from useg.cli.output import BROKEN_PIPE, abandon_stdout, error
from useg.errors import UsegError

__all__ = ["guarded"]

P = ParamSpec("P")
R = TypeVar("R")

_CIRCUMSTANCES = {
    errno.ENOSPC: "free some space, then repeat",
    errno.EDQUOT: "free some of your quota, then repeat",
    errno.EACCES: "give the permission, or name another place",
    errno.EPERM: "give the permission, or name another place",
    errno.EROFS: "this place can only be read: name another one",
    errno.ENAMETOOLONG: "shorten the path",
}
"""Troubles of the machine that are neither the user's input nor our fault, and what helps."""


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Make `command` end with a message and an exit status instead of an exception.

    Errors of `useg.errors` and a full or forbidden disk end with status 2, Ctrl-C with 130. Anything else is
    a fault of ours: status 1, and a file with the traceback for whoever repairs it.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UsegError as problem:
            error(str(problem))
            raise typer.Exit(2) from problem
        except KeyboardInterrupt as interruption:
            error("interrupted")
            raise typer.Exit(130) from interruption
        except typer.Abort as refusal:
            typer.echo(err=True)  # the question stands on a line without an end
            error("nothing was done: it was asked, and not answered with yes; --yes goes on without asking")
            raise typer.Exit(2) from refusal
        except (typer.Exit, typer.BadParameter):
            raise
        except BrokenPipeError as gone:
            abandon_stdout()
            raise typer.Exit(BROKEN_PIPE) from gone
        except MemoryError as problem:
            error("memory ran out: close other programs, or ask for less (a lower --memory-limit)")
            raise typer.Exit(2) from problem
        except OSError as problem:
            if problem.errno not in _CIRCUMSTANCES:
                _report_fault(problem)
                raise typer.Exit(1) from problem
            place = str(problem.filename or "disk")
            shown = place if len(place) <= 300 else f"{place[:200]}... ({len(place)} characters)"
            error(f"{shown}: {problem.strerror} ({_CIRCUMSTANCES[problem.errno]})")
            raise typer.Exit(2) from problem
        except Exception as fault:
            _report_fault(fault)
            raise typer.Exit(1) from fault

    return run


def _report_fault(fault: Exception) -> None:
    details = "".join(
        [
            f"useg {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
            f"command: {sys.argv}\n\n",
            *traceback.format_exception(fault),
        ]
    )
    what = traceback.format_exception_only(fault)[-1].strip()
    message = f"this is a fault of useg, not of your input.\n{what}\n"
    try:
        handle, path = tempfile.mkstemp(prefix="useg-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(details)
    except OSError:
        error(f"{message}Please report it with these details:\n{details}")
    else:
        error(f"{message}Please report it with the file {path}")
