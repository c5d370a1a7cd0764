"""A run's program run again in a process of its own: a training by the useg of its time, or a script as it was."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from useg.errors import InputError, UsegError
from useg.experiments.listening import Listener
from useg.experiments.proving import values_of
from useg.experiments.recalling import home_of_run
from useg.home.folder import NAME
from useg.home.opening import open_home
from useg.runs.find import find_run
from useg.runs.rebuilding import Rebuilt, variables_of
from useg.runs.record import RunFolder
from useg.runs.restoring import restore_code

_POLL_S = 0.2
_STDERR = 2
_DIFFERENT, _INTERRUPTED = 3, 130


def train_there(old: RunFolder, record: Mapping[str, Any], home: Path, rebuilt: Rebuilt, listener: Listener) -> Any:
    """Have a training again by the useg of its time, in the environment of its time.

    Returns:
        What that useg says: "run", "folder", "status" and more.

    Raises:
        InputError: it failed.
    """
    variables = variables_of(rebuilt, (record.get("environment") or {}).get("variables") or {}, os.environ)
    command = [str(rebuilt.useg), "reproduce", str(old.path), "--home", str(home), "--json"]
    status, said = _run(command, variables, Path.cwd(), listener, out=subprocess.PIPE)
    if status == _INTERRUPTED:
        return {"run": None, "folder": str(home / "runs"), "status": "stopped"}
    try:
        if status in (0, _DIFFERENT):
            return json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        pass
    raise InputError(
        f"{old.id} could not be had again in {rebuilt.folder}: useg {record.get('useg')} ended with status {status}; "
        "what it said stands above"
    )


def run_script(
    old: RunFolder, record: Mapping[str, Any], home: Path, rebuilt: Rebuilt | None, listener: Listener
) -> dict[str, Any]:
    """Run the user's script as it was, with its words on the command line; in this environment or in a rebuilt one.

    Files that are no code are not where the script then runs: data should be named by an absolute path.

    Raises:
        InputError: the run did not end well, its code cannot be had, or the script failed or recorded no run.
    """
    code = _code_of(old, record)
    objects = open_home(home_of_run(old))[1]
    with tempfile.TemporaryDirectory(prefix="useg-again-") as temporary:
        root = Path(temporary).resolve() / "code"
        root.with_name(NAME).symlink_to(home.absolute())  # the nearest, where the script itself names a bucket
        restore_code(code, objects.get, root, _repository(old, record, home))
        variables = dict(os.environ)
        if rebuilt is not None:
            variables = variables_of(rebuilt, (record.get("environment") or {}).get("variables") or {}, os.environ)
        python = sys.executable if rebuilt is None else str(rebuilt.python)
        words = [str(word) for word in record.get("command") or ()]
        folder = root / _folder_below(code["script"], words[0] if words else "")
        listener.note(f"running {code['script']} of {old.id} as it was")
        before = _runs(home)
        command = [python, str(root / code["script"]), *words[1:]]
        status, _ = _run(command, variables | {"USEG_HOME": str(home)}, folder, listener, out=_STDERR)
        if listener.stop.asked:
            return {"run": None, "folder": str(home / "runs"), "status": "stopped"}
        if status:
            raise InputError(
                f"{code['script']} ended with status {status}; what it said stands above. It ran in a copy of its "
                "code without files that are none: data has to be named by an absolute path"
            )
        new = _new_run(home, before, root, record)
    new.update(parent=old.id)
    told = new.record()
    return {"run": new.id, "folder": str(new.path), "status": told["status"], "scores": told.get("scores")}


def _code_of(old: RunFolder, record: Mapping[str, Any]) -> Mapping[str, Any]:
    code = (record.get("code") or {}).get("user") or {}
    if "script" not in code:
        raise InputError(f"{old.id} was recorded by a script that was not kept, so it cannot be run again")
    if record.get("status") != "finished":
        raise InputError(f"{old.id} is {record.get('status')}: a run that finished can be had again")
    if not values_of(old.path) and not record.get("scores"):
        raise InputError(f"{old.id} has neither values nor scores: there would be nothing to compare")
    return dict(code)


def _repository(old: RunFolder, record: Mapping[str, Any], home: Path) -> Path | None:
    """Where the code of the run lies that this one repeats, for its own copy is gone."""
    while record.get("parent"):
        try:
            old = RunFolder(find_run(home, record["parent"]))
            record = old.record()
        except UsegError:
            break
    root = ((record.get("code") or {}).get("user") or {}).get("root")
    return Path(root) if root and Path(root).is_dir() else None


def _folder_below(script: str, called: str) -> PurePosixPath:
    """Where in the repository the script was called from, told by the way it was called; else the top."""
    parts, words = PurePosixPath(script).parts, PurePosixPath(called).parts
    if words and words == parts[len(parts) - len(words) :]:
        return PurePosixPath(*parts[: len(parts) - len(words)])
    return PurePosixPath()


def _runs(home: Path) -> set[str]:
    return {path.name for path in (home / "runs").glob("*")}


def _new_run(home: Path, before: set[str], root: Path, record: Mapping[str, Any]) -> RunFolder:
    found = []
    for name in sorted(_runs(home) - before):
        new = RunFolder(home / "runs" / name)
        told = new.record()
        if ((told.get("code") or {}).get("user") or {}).get("root") == str(root):
            found.append((told.get("config_digest") == record.get("config_digest"), new))
    if not found:
        raise InputError(f"the script ended well, but recorded no run in {home}")
    return next((new for same, new in found if same), found[0][1])


def _run(
    command: Sequence[str], variables: Mapping[str, str], folder: Path, listener: Listener, *, out: Any
) -> tuple[int, str]:
    """Run a program that is asked once to stop where this one is asked; its exit status, and stdout if piped."""
    with subprocess.Popen(
        command,
        env=dict(variables),
        cwd=folder,
        stdout=out,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as program:
        asked = False
        try:
            while True:
                try:
                    said, _ = program.communicate(timeout=_POLL_S)
                    return program.returncode, said or ""
                except subprocess.TimeoutExpired:
                    if listener.stop.asked and not asked:
                        asked = True
                        program.send_signal(signal.SIGINT)
        except BaseException:
            program.terminate()
            raise


__all__ = ["run_script", "train_there"]
