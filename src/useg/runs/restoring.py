"""The code of a run made again in a new folder, from its repository and the objects that were kept."""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from useg.errors import DamagedFile, InputError, UsegError
from useg.home.folder import writing
from useg.runs.git import Git, GitFailed, as_path, as_text

Fetch = Callable[[str], bytes]
"""The bytes of an object."""
_SECONDS = 3600.0


def restore_code(record: Mapping[str, Any], fetch: Fetch, folder: Path, repository: Path | None = None) -> None:
    """Make the code of a run as it was.

    Args:
        record: what `user_code` told, or `own_code` of a checkout.
        fetch: gives the bytes of an object.
        folder: where it is made; not there yet, or empty.
        repository: where the commit is looked for first; then where it lay, then the remote.

    Raises:
        InputError: the folder has something in it, the commit cannot be had, or the record names a path that
            leads out. DamagedFile: objects are not what was kept, or the script is not the one that ran.
    """
    if "git" not in record:
        raise InputError(f"this record has no code that could be had again: useg {record.get('version')} was installed")
    with writing(folder):
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise InputError(f"{folder}: a new or empty folder was wanted for the code")
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with writing(folder):
            _restore(record, fetch, folder, repository)
    except GitFailed as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{folder}: the code cannot be made again: {error}") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _restore(record: Mapping[str, Any], fetch: Fetch, folder: Path, repository: Path | None) -> None:
    top = os.fsencode(folder.absolute())
    names = ("deleted", "untracked", "links", "submodules")
    paths = {name: {text: _inside(text) for text in record.get(name) or ()} for name in names}
    if record["git"]:
        _check_out(record, top, repository)
    for text, path in paths["submodules"].items():
        sub = record["submodules"][text]
        nearer = None if repository is None else repository / os.fsdecode(path)
        lay = as_text(os.path.join(as_path(record["root"]), path))
        _clear(top, path)
        _check_out(sub | {"root": lay}, os.path.join(top, path), nearer)
    for path in paths["deleted"].values():
        _remove(top, path)
    if record.get("patch"):
        Git(top, _SECONDS).run(
            "apply", "--binary", "--whitespace=nowarn", "-p1", "--unidiff-zero", given=fetch(record["patch"])
        )
    for text, path in paths["untracked"].items():
        _write(top, path, fetch(record["untracked"][text]), is_executable=text in record.get("executable", ()))
    for text, path in paths["links"].items():
        _clear(top, path)
        os.symlink(as_path(record["links"][text]), os.path.join(top, path))
    _check_script(record, top, repository)


def _inside(text: str) -> bytes:
    """A path of a record, which must not lead out of the folder nor into what is git's."""
    path = as_path(text)
    parts = path.split(b"/")
    wrong = any(part in (b"", b".", b"..") or part.lower().rstrip(b". ") == b".git" for part in parts)
    if wrong or b"\0" in path:
        raise InputError(f"the record of the code names {text!r}, which leads out of the folder; nothing was made")
    return path


def _check_out(record: Mapping[str, Any], top: bytes, repository: Path | None) -> None:
    """A clone at the commit, from wherever it can be had."""
    os.makedirs(top, exist_ok=True)
    git = Git(top, _SECONDS)
    if record.get("commit") is None:
        git.run("init", "--quiet", "--template=")
        return
    commit = record["commit"]
    if not (len(commit) in (40, 64) and set(commit) <= set("0123456789abcdef")):
        raise InputError(f"the record of the code names the commit {commit!r}, which is none")
    tried = []
    for place in _places(record, repository):
        try:
            # a folder's objects are taken all, also those of commits that no branch reaches any more
            git.run("clone", "--quiet", "--no-checkout", "--template=", "--", place, top)
            if git.line("cat-file", "-t", commit) != b"commit":
                git.run("fetch", "--quiet", "--no-tags", "--", "origin", commit)
            git.run("checkout", "--quiet", "--detach", commit)
        except GitFailed as error:
            tried.append(f"{as_text(place)}: {str(error).splitlines()[-1]}")
            for name in os.listdir(top):
                _forget(os.path.join(top, name))
            continue
        if record.get("remote"):
            git.run("config", "remote.origin.url", record["remote"])
        else:
            git.run("config", "--remove-section", "remote.origin")
        return
    reasons = "; ".join(tried) or "neither the repository nor a remote is known"
    raise InputError(
        f"the commit {commit[:12]} cannot be had: {reasons}. Name a repository that has it, or fetch it there first"
    )


def _places(record: Mapping[str, Any], repository: Path | None) -> list[bytes]:
    """Where a commit may be, as git is told of it."""
    places = [] if repository is None else [os.fsencode(repository.absolute())]
    root = as_path(record["root"])
    if os.path.isabs(root) and os.path.isdir(root):
        places.append(root)
    remote = record.get("remote")
    if remote:
        place = as_path(remote)
        local = os.path.normpath(os.path.join(root, place))
        places.append(local if b":" not in place and os.path.isdir(local) else place)
    return list(dict.fromkeys(places))


def _forget(place: bytes) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    else:
        os.unlink(place)


def _clear(top: bytes, path: bytes) -> None:
    """Folders above a path, none of them a link, and nothing at the path itself."""
    folder = top
    for part in path.split(b"/")[:-1]:
        folder = os.path.join(folder, part)
        if os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
            raise InputError(f"the record of the code names {as_text(path)!r}, and {as_text(part)!r} is no folder")
        with suppress(FileExistsError):
            os.mkdir(folder)
    place = os.path.join(top, path)
    if os.path.isdir(place) and not os.path.islink(place):
        os.rmdir(place)
    elif os.path.lexists(place):
        os.unlink(place)


def _remove(top: bytes, path: bytes) -> None:
    """Take a file away, and folders that have nothing else in them, as git would."""
    place = os.path.join(top, path)
    if os.path.realpath(os.path.dirname(place)) != os.path.join(os.path.realpath(top), os.path.dirname(path)).rstrip(
        b"/"
    ):
        raise InputError(f"the record of the code names {as_text(path)!r}, which lies behind a link")
    with suppress(FileNotFoundError):
        os.unlink(place)
    with suppress(OSError):
        folder = os.path.dirname(place)
        while folder != top:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _write(top: bytes, path: bytes, content: bytes, *, is_executable: bool) -> None:
    _clear(top, path)
    place = os.path.join(top, path)
    with open(place, "xb") as file:
        file.write(content)
    if is_executable:
        os.chmod(place, os.stat(place).st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _check_script(record: Mapping[str, Any], top: bytes, repository: Path | None) -> None:
    """The script must be the one that ran; one that was not kept is taken from where it lay, if it is that."""
    if "script" not in record:
        return
    path, wanted = _inside(record["script"]), record["digest"]
    if _digest_of(os.path.join(top, path)) == wanted:
        return
    for root in ([] if repository is None else [os.fsencode(repository)]) + [as_path(record["root"])]:
        place = os.path.join(root, path)
        if _digest_of(place) == wanted:
            with open(place, "rb") as file:
                _write(top, path, file.read(), is_executable=os.access(place, os.X_OK))
            return
    why = next((each["why"] for each in record.get("left_out", ()) if each["path"] == record["script"]), None)
    told = f"it was not kept ({why})" if why else "what was kept gives another one"
    problem: type[UsegError] = InputError if why else DamagedFile
    raise problem(f"{record['script']}: the script that ran, {wanted[:12]}, cannot be had again: {told}")


def _digest_of(place: bytes) -> str | None:
    with suppress(OSError), open(place, "rb") as file:
        return str(blake3(file.read()).hexdigest())
    return None


__all__ = ["restore_code"]
