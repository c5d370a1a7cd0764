"""The code that made a run: useg's own, and the user's, with what was not committed.

What is kept are objects (bytes by digest); a record names them. Paths in a record are text: bytes that are not UTF-8,
control characters and `%` are written `%XX`.

    git         whether a repository holds it; else only the script and the modules of its folder were taken
    root        where it lay
    commit      of HEAD; None before the first one. branch: None where HEAD is detached. remote: without credentials
    patch       object: `git diff --binary` from the commit to the files as they lay there; None without changes
    deleted     files of the commit that were not there
    untracked   {path: object} of source files that git does not know; executable: those of them that are
    links       {path: target} of symbolic links that git does not know
    submodules  {path: {"commit", "remote", "changed"}}; what changed inside them is not kept
    left_out    [{"path", "why"}] of what is not kept
"""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from useg import __version__
from useg.home.folder import NAME
from useg.runs.git import Git, GitFailed, as_text, sizes_of, without_credentials
from useg.runs.sources import LeftOut, Limits, looks_secret, size_of, why_not

Keep = Callable[[bytes], str]
"""Makes an object of bytes and tells its digest."""
DIFF = (
    "diff", f"-O{os.devnull}", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color", "--no-relative",
    "--ignore-submodules=all",
)  # fmt: skip
_PATCH = (
    "--binary", "--full-index", "--unified=3", "--inter-hunk-context=0", "--src-prefix=a/", "--dst-prefix=b/",
    "--ws-error-highlight=none", "--diff-filter=d",
)  # fmt: skip
_AT_ONCE = 200
_OWN = (b"src", b"pyproject.toml")
_MOST_STAGED_BYTES = 256 * 2**20
_OUTSIDE = ("site-packages", "dist-packages")
_SUBMODULE = b"160000"


def digest_only(content: bytes) -> str:
    """The digest of bytes that are kept nowhere."""
    return str(blake3(content).hexdigest())


def own_code(keep: Keep = digest_only, *, limits: Limits | None = None) -> dict[str, Any]:
    """Which useg this is: {"version", "installed"}, and for a checkout what is said above of a repository.

    Args:
        keep: makes an object of bytes.
        limits: how much is kept.

    Returns:
        "installed" is "wheel", "editable" or "checkout" (run from its sources without being installed).
    """
    package = Path(__file__).resolve().parent.parent
    facts: dict[str, Any] = {"version": __version__, "installed": _installed(package)}
    if facts["installed"] == "wheel":
        return facts
    limits = limits or Limits()
    with suppress(GitFailed):
        git = Git(os.fsencode(package), limits.seconds)
        root = git.run("rev-parse", "--show-toplevel").removesuffix(b"\n")
        git.run("ls-files", "--error-unmatch", "--", "__init__.py")  # else another repository's folder holds it
        if os.path.realpath(os.path.join(root, b"src", b"useg")) == os.fsencode(package):
            return facts | _repository(root, keep, LeftOut(limits), below=_OWN)
    return facts


def user_code(script: Path, keep: Keep, *, limits: Limits | None = None) -> dict[str, Any] | None:
    """The repository that holds a script, as it lay there; without one the script and what it imported beside it.

    Args:
        script: that started the run. keep: makes an object of bytes. limits: how much is kept.

    Returns:
        What is said above, with "script" (its path in the root) and "digest" (BLAKE3 of its bytes); None when there
        is no such file. Never an error: what git refuses is told under "left_out".
    """
    limits, path = limits or Limits(), os.path.realpath(os.fsencode(script))
    left_out = LeftOut(limits)
    try:
        with open(path, "rb") as file:
            digest = _digest(file)
    except OSError:
        return None
    try:
        git = Git(os.path.dirname(path), limits.seconds)
        root = git.run("rev-parse", "--show-toplevel").removesuffix(b"\n")
        inside = os.path.relpath(path, root)
        if not inside.startswith(b"../"):
            found = _repository(root, keep, left_out, script=inside)
            return {**found, "script": as_text(inside), "digest": digest}
    except GitFailed as error:
        left_out = LeftOut(limits)
        above = _repository_above(path)
        if above is not None:
            left_out.add(above, f"its commit and changes are not known: {str(error).splitlines()[0]}")
    return _alone(path, keep, left_out) | {"digest": digest}


def _digest(file: Any) -> str:
    found = blake3()
    while piece := file.read(2**20):
        found.update(piece)
    return str(found.hexdigest())


def _installed(package: Path) -> str:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution("useg")
    except PackageNotFoundError:
        return "checkout"
    place = Path(str(found.locate_file("useg"))).resolve()
    if place == package and place.parent.name != "src":
        return "wheel"
    return "editable" if '"editable": true' in (found.read_text("direct_url.json") or "") else "checkout"


def _repository_above(path: bytes) -> bytes | None:
    folder = os.path.dirname(path)
    while not os.path.lexists(os.path.join(folder, b".git")):
        folder, before = os.path.dirname(folder), folder
        if folder == before:
            return None
    return folder


class _Change(NamedTuple):
    status: bytes
    before: bytes
    modes: tuple[bytes, bytes]
    path: bytes


class _Keeper:
    """Keeps files of one folder, as far as the limits allow."""

    def __init__(self, root: bytes, keep: Keep, left_out: LeftOut) -> None:
        self.root, self.keep, self.left_out, self.limits = root, keep, left_out, left_out.limits
        self._bytes, self._files = self.limits.total_bytes, self.limits.files
        self.files: dict[str, str] = {}
        self.executable: list[str] = []
        self.links: dict[str, str] = {}

    def read(self, path: bytes, before: int = 0) -> bytes | None:
        """The content of a file, or the target of a link; None, told, for what must not be kept."""
        place = os.path.join(self.root, path)
        too_much = f"more than {self.limits.files:,} files or {self.limits.total_bytes:,} bytes in all"
        if self._files < 1:
            self.left_out.add(path, too_much)
            return None
        try:
            found = os.lstat(place)
            why = size_of(found.st_mode, max(found.st_size, before), self.limits)
            if why is None and found.st_size + before > self._bytes:
                why = too_much
            content = b""
            if why is None:
                content = os.readlink(place) if stat.S_ISLNK(found.st_mode) else _read(place, found.st_size)
                why = "looks like a secret" if looks_secret(content) else None
        except OSError as error:
            why = f"cannot be read: {error.strerror or error}"
        if why is not None:
            self.left_out.add(path, why)
            return None
        self._files -= 1
        self._bytes -= len(content) + before
        return content

    def add(self, path: bytes) -> None:
        """Keep a file as it is, or a link that stays inside."""
        content = self.read(path)
        if content is None:
            return
        name, place = as_text(path), os.path.join(self.root, path)
        mode = os.lstat(place).st_mode
        if stat.S_ISLNK(mode):
            target = os.path.normpath(os.path.join(os.path.dirname(path), content))
            if os.path.isabs(content) or target.split(b"/")[0] == b"..":
                self.left_out.add(path, "a link that leads out")
            else:
                self.links[name] = as_text(content)
            return
        self.files[name] = self.keep(content)
        if mode & stat.S_IXUSR:
            self.executable.append(name)

    def facts(self) -> dict[str, Any]:
        """What was kept, for the record."""
        return {"untracked": self.files, "executable": self.executable, "links": self.links}


def _read(place: bytes, size: int) -> bytes:
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        return file.read(size)


def _repository(
    root: bytes, keep: Keep, left_out: LeftOut, *, below: tuple[bytes, ...] = (), script: bytes | None = None
) -> dict[str, Any]:
    """What is to be known of a repository.

    Raises:
        GitFailed: git refuses, or takes too long.
    """
    git, keeper = Git(root, left_out.limits.seconds), _Keeper(root, keep, left_out)
    commit = git.line("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    base = commit or git.run("hash-object", "-t", "tree", "--stdin").strip()
    if script is not None:
        _keep_script(git, keeper, script)
    chosen, deleted = _changed(git, keeper, base, below)
    patch = _patch(git, base, chosen, left_out)
    for path in _untracked(git, left_out, below):
        if as_text(path) not in keeper.files and path != script:
            keeper.add(path)
    return {
        "git": True,
        "root": as_text(root),
        "commit": commit.decode() if commit else None,
        **_names(git),
        "patch": keep(patch) if patch else None,
        "deleted": deleted,
        **keeper.facts(),
        "submodules": _submodules(git, root, left_out, below),
        "left_out": left_out.as_list(),
    }


def _names(git: Git) -> dict[str, str | None]:
    """Branch and remote: that of the branch, else `origin`, else the first."""
    branch = git.line("symbolic-ref", "--quiet", "--short", "HEAD")
    own = git.line("config", "--get", b"branch." + branch + b".remote") if branch else None
    urls = (git.line("config", "--get", b"remote." + name + b".url") for name in (own, b"origin") if name)
    url = next((url for url in urls if url), None)
    if url is None:
        first = (git.line("remote") or b"").split(b"\n")[0]
        url = git.line("config", "--get", b"remote." + first + b".url") if first else None
    return {
        "branch": as_text(branch) if branch else None,
        "remote": without_credentials(as_text(url)) if url else None,
    }


def _keep_script(git: Git, keeper: _Keeper, script: bytes) -> None:
    """The script comes first: whatever else is too much, it is kept, unless git ignores it or it looks secret."""
    if git.line("ls-files", "-z", "--", script):
        return
    if not git.line("ls-files", "-z", "--others", "--exclude-standard", "--", script):
        keeper.left_out.add(script, "ignored by git")
    elif why_not(script, is_new=False) == "looks like a secret":
        keeper.left_out.add(script, "looks like a secret")
    else:
        keeper.add(script)


def _changed(git: Git, keeper: _Keeper, base: bytes, below: tuple[bytes, ...]) -> tuple[list[bytes], list[str]]:
    """The changed files whose changes may be kept, and those that are not there any more."""
    listed = git.run(*DIFF, "--raw", "-z", "--no-abbrev", base, "--", *below).split(b"\0")
    changes = []
    for head, path in zip(listed[:-1:2], listed[1::2], strict=True):
        before, after, digest, _, status = head.removeprefix(b":").split(b" ")
        changes.append(_Change(status[:1], digest, (before, after), path))
    unmerged = {change.path for change in changes if change.status == b"U"}
    lengths = sizes_of(git, sorted({change.before for change in changes if change.before.strip(b"0")}))
    chosen, deleted = [], []
    for change in changes:
        if change.status == b"D":
            deleted.append(as_text(change.path))
        elif _SUBMODULE not in change.modes and change.status != b"U":
            why = why_not(change.path, is_new=False)
            if why is not None:
                keeper.left_out.add(change.path, why)
            elif change.path in unmerged:
                keeper.add(change.path)
            elif keeper.read(change.path, lengths.get(change.before, 0)) is not None:
                chosen.append(change.path)
    return chosen, deleted


def _patch(git: Git, base: bytes, paths: list[bytes], left_out: LeftOut) -> bytes:
    """The changes of files; of those that take a secret away nothing is kept either."""
    found = []
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        patch = git.run(*DIFF, *_PATCH, base, "--", *some)
        if not looks_secret(patch):
            found.append(patch)
            continue
        for path in some:
            patch = git.run(*DIFF, *_PATCH, base, "--", path)
            if looks_secret(patch):
                left_out.add(path, "looks like a secret")
            else:
                found.append(patch)
    return b"".join(found)


def _untracked(git: Git, left_out: LeftOut, below: tuple[bytes, ...]) -> Iterator[bytes]:
    listed, whole = git.items(
        "ls-files", "-z", "--others", "--exclude-standard", f"--exclude={NAME}/", "--", *below,
        most_bytes=left_out.limits.listed_bytes,
    )  # fmt: skip
    for path in listed:
        why = "a repository of its own" if path.endswith(b"/") else why_not(path, is_new=True)
        if why is None:
            yield path
        else:
            left_out.add(path, why)
    if not whole:
        left_out.add(b"*", "more untracked files than are looked at")


def _submodules(git: Git, root: bytes, left_out: LeftOut, below: tuple[bytes, ...]) -> dict[str, Any]:
    listed, _ = git.items("ls-files", "--stage", "-z", "--", *below, most_bytes=_MOST_STAGED_BYTES)
    found = {}
    for line in listed:
        if not line.startswith(_SUBMODULE):
            continue
        head, _, path = line.partition(b"\t")
        place = os.path.join(root, path)
        facts: dict[str, Any] = {"commit": head.split(b" ")[1].decode(), "remote": None, "changed": False}
        if os.path.lexists(os.path.join(place, b".git")):
            try:
                inside = Git(place, left_out.limits.seconds)
                facts["commit"] = inside.run("rev-parse", "--verify", "HEAD^{commit}").strip().decode()
                facts["remote"] = _names(inside)["remote"]
                facts["changed"] = bool(inside.run("status", "--porcelain", "-z", "--untracked-files=normal"))
            except GitFailed as error:
                left_out.add(path, f"a submodule that cannot be looked into: {str(error).splitlines()[0]}")
        if facts["changed"]:
            left_out.add(path, "uncommitted changes inside a submodule")
        found[as_text(path)] = facts
    return found


def _alone(path: bytes, keep: Keep, left_out: LeftOut) -> dict[str, Any]:
    """A script that no repository holds, and the modules that it imported from its folder."""
    root = os.path.dirname(path)
    keeper = _Keeper(root, keep, left_out)
    for place in [path, *_imported(root, path)]:
        inside = os.path.relpath(place, root)
        why = why_not(inside, is_new=place != path)
        if why is None or (place == path and why != "looks like a secret"):
            keeper.add(inside)
        else:
            left_out.add(inside, why)
    return {
        "git": False, "root": as_text(root), "commit": None, "branch": None, "remote": None,
        "script": as_text(os.path.basename(path)), "patch": None, "deleted": [], **keeper.facts(), "submodules": {},
        "left_out": left_out.as_list(),
    }  # fmt: skip


def _imported(root: bytes, script: bytes) -> list[bytes]:
    """Files of modules below a folder that are loaded now, but for installed ones."""
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str):
            continue
        place = os.path.realpath(os.fsencode(file))
        inside = place.startswith(os.path.join(root, b"")) and os.path.isfile(place)
        if inside and not any(part in os.fsdecode(place).split("/") for part in _OUTSIDE):
            found.add(place)
    return sorted(found - {script})


__all__ = ["DIFF", "Keep", "digest_only", "own_code", "user_code"]
