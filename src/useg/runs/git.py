"""Asking git, so that nothing a repository or its settings name is executed and nothing waits for long."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Timer
from urllib.parse import quote_from_bytes, unquote_to_bytes

_SAFE = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "core.untrackedCache=false",
    "core.quotePath=true",
    "core.pager=cat",
    "diff.external=",
    "diff.suppressBlankEmpty=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS")
"""Variables that say where a person's own settings are, and how they log in; others may name another repository."""
_SET = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "LC_ALL": "C",
}
_FILTER = re.compile(r"filter\.(.+)\.[^.]+", re.DOTALL)
_STRANGE = re.compile(r"[%\x00-\x1f\x7f-\x9f\udc80-\udcff]")


class GitFailed(Exception):
    """Git is not there, refused, or took too long; the text is what it said."""


class Git:
    """Git in one folder; all calls together may take `seconds`.

    Args:
        folder: where it runs.
        seconds: after these it is stopped.
    """

    def __init__(self, folder: bytes, seconds: float) -> None:
        program = shutil.which("git")
        if program is None:
            raise GitFailed("the program git is not installed")
        self.folder = folder
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._words: list[bytes | str] = [program, "--no-pager"]
        for setting in _SAFE:
            self._words += ["-c", setting]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self._environment |= {name: os.environ[name] for name in _KEPT if name in os.environ} | _SET
        self._disarm_filters()

    def run(self, *words: bytes | str, given: bytes | None = None) -> bytes:
        """What git prints.

        Raises:
            GitFailed: it ends with an error, or takes too long.
        """
        try:
            done = subprocess.run(
                [*self._words, *words], cwd=self.folder, env=self._environment, capture_output=True,
                timeout=self._left(), input=given or b"",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git took longer than {self.seconds:g} s") from None
        except OSError as error:
            raise GitFailed(f"git cannot be run: {error.strerror or error}") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "backslashreplace").strip()
            raise GitFailed(said[:2000] or f"git ended with status {done.returncode}")
        return bytes(done.stdout)

    def line(self, *words: bytes | str) -> bytes | None:
        """The line git prints; None where it has no answer."""
        with suppress(GitFailed):
            return self.run(*words).removesuffix(b"\n") or None
        return None

    def items(self, *words: bytes | str, most_bytes: int) -> tuple[list[bytes], bool]:
        """What git lists, each ended by a zero byte, as far as `most_bytes` reach; and whether that was all."""
        with subprocess.Popen(
            [*self._words, *words], cwd=self.folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            timer = Timer(self._left(), process.kill)
            timer.start()
            more = True
            try:
                found = process.stdout.read(most_bytes) if process.stdout else b""
                more = bool(process.stdout and process.stdout.read(1))
            finally:
                timer.cancel()
                if more:
                    process.kill()
        whole = not more and process.returncode == 0
        return found[: found.rfind(b"\0") + 1].split(b"\0")[:-1], whole

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise GitFailed(f"git took longer than {self.seconds:g} s")
        return left

    def _disarm_filters(self) -> None:
        """Content filters are commands of the settings: files are taken as they lie there instead."""
        try:
            listed = self.run("config", "--name-only", "-z", "--get-regexp", r"^filter\.")
        except GitFailed:  # there are none
            return
        names = {match[1] for line in listed.split(b"\0") if (match := _FILTER.fullmatch(os.fsdecode(line)))}
        for name in sorted(names):
            if "=" in name:
                raise GitFailed(f"a filter of the settings is called {name!r}, so it cannot be kept from running")
            for setting in ("clean=", "smudge=", "process=", "required=false"):
                self._words += ["-c", f"filter.{name}.{setting}"]


def as_text(path: bytes) -> str:
    """A path as text that JSON can hold: what is not UTF-8 or not printable, and `%`, as `%XX`."""
    text = path.decode("utf-8", "surrogateescape")
    return _STRANGE.sub(lambda match: quote_from_bytes(match[0].encode("utf-8", "surrogateescape"), safe=""), text)


def as_path(text: str) -> bytes:
    """The path that `as_text` wrote."""
    return unquote_to_bytes(text)


def without_credentials(url: str) -> str:
    """An address without user (but that of ssh), password, query and fragment."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not at and re.search(r":(?!\d*$)", authority.rpartition("]")[2]) and "@" in path:
        host, slash, path = path.rpartition("@")[2].partition("/")  # a password with a slash in it
    name = user.partition(":")[0] if scheme.endswith("ssh") else ""
    return f"{scheme}://{name + '@' if name else ''}{host}{slash}{path}"


def sizes_of(git: Git, objects: Sequence[bytes]) -> dict[bytes, int]:
    """How many bytes each object has; those that are not there are left out."""
    if not objects:
        return {}
    found = {}
    for line in git.run("cat-file", "--batch-check", given=b"\n".join(objects) + b"\n").splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdigit():
            found[words[0]] = int(words[2])
    return found


__all__ = ["Git", "GitFailed", "as_path", "as_text", "sizes_of", "without_credentials"]
