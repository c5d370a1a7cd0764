"""What a run is surrounded by when it begins: code, environment, user and host."""

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from useg.errors import UsegError
from useg.home.objects import Objects
from useg.runs.capture import digest_only, own_code, user_code
from useg.runs.environment import environment


def surroundings(
    objects: Objects | None, *, script: Path | None = None, torch: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Fields of a record: `code`, `environment`, `user`, `host`, and `names` of what was kept of the code.

    Args:
        objects: of the home that keeps changes that are in no commit; None, or where it cannot be written, keeps their
            digests alone.
        script: of the user, that started the run.
        torch: what torch says of itself.
    """
    names: list[str] = []
    try:
        code = _code(objects, script, names)
    except UsegError:
        names = []
        code = _code(None, script, names)
    return {"code": code, "environment": environment(torch), "user": user(), "host": os.uname().nodename,
            "names": names}  # fmt: skip


def running_script() -> Path | None:
    """The program that runs, where it is a file of the user's."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if file is None else Path(file)


def _code(objects: Objects | None, script: Path | None, names: list[str]) -> dict[str, Any]:
    if objects is None:
        return {"useg": own_code(), "user": None if script is None else user_code(script, digest_only)}
    with objects.writer() as writer:

        def keep(content: bytes) -> str:
            names.append(writer.put(content))
            return names[-1]

        code = {"useg": own_code(keep), "user": None if script is None else user_code(script, keep)}
        writer.commit()
    return code


def user() -> str | None:
    """Whoever runs this process; None where the system has no name for them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None
