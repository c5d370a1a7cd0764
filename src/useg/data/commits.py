"""A commit: one version of a data set, and how it came to be."""

import getpass
import heapq
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from useg.data.manifest import Manifest
from useg.errors import DamagedFile

SCHEMA = 1


@dataclass(frozen=True)
class Links:
    """Where files lie that a version names without keeping them.

    Attributes:
        root: the folder that was added, absolute.
        outside: files that lie elsewhere, by the path they have in the version.
    """

    root: str
    outside: Mapping[str, str] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """Where the file of this path lies."""
        return self.outside.get(path) or os.path.join(self.root, *path.split("/"))


@dataclass(frozen=True)
class Contents:
    """What a version holds: samples, the text of `classes.toml`, and where linked files lie."""

    manifest: Manifest
    mapping: str | None = None
    links: tuple[Links, ...] = ()


@dataclass(frozen=True)
class Version:
    """One commit: a version, and how it came to be.

    Attributes:
        commit: digest of the commit itself; the same version may be committed twice.
        record: the commit as it is stored.
    """

    commit: str
    record: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The version's digest, which is over its samples and nothing else."""
        return str(self.record["version"])

    @property
    def parents(self) -> tuple[str, ...]:
        """The commits it grew from; two after a merge."""
        return tuple(self.record["parents"])

    @property
    def message(self) -> str:
        """Why it was made."""
        return str(self.record["message"])

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return int(self.record["samples"])

    @property
    def mapping(self) -> str | None:
        """The text of its `classes.toml`."""
        return self.record.get("mapping")

    @property
    def links(self) -> tuple[Links, ...]:
        """Where files lie that it names and the home does not keep."""
        return tuple(Links(link["root"], link["outside"]) for link in self.record.get("links", ()))

    def summary(self) -> dict[str, Any]:
        """What `data log --json` says of it."""
        names = ("message", "author", "time", "samples", "linked")
        said = {name: self.record[name] for name in names}
        return {"digest": self.digest, "parents": list(self.record["parent_versions"]), **said, "commit": self.commit}


def read_commit(content: bytes, digest: str) -> Version:
    """A commit from its bytes.

    Raises:
        DamagedFile: the object is no commit, or one of a later format.
    """
    import orjson

    try:
        record = orjson.loads(content)
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("kind") != "version":
        raise DamagedFile(f"the object {digest} was named as a version, but is none")
    if record["schema"] > SCHEMA:
        raise DamagedFile(
            f"the version {digest} has format {record['schema']}; this useg reads up to {SCHEMA}: update it"
        )
    return Version(digest, record)


def seconds_of(version: Version) -> float:
    """When it was made, in seconds since 1970."""
    return datetime.fromisoformat(str(version.record["time"])).timestamp()


def newest_first(versions: Mapping[str, Version]) -> list[Version]:
    """By time, but never a version before one that grew from it, whatever the clocks said."""
    children = dict.fromkeys(versions, 0)
    for version in versions.values():
        for parent in version.parents:
            children[parent] += 1
    ready = [(-seconds_of(versions[commit]), commit) for commit, count in children.items() if not count]
    heapq.heapify(ready)
    ordered = []
    while ready:
        version = versions[heapq.heappop(ready)[1]]
        ordered.append(version)
        for parent in version.parents:
            children[parent] -= 1
            if not children[parent]:
                heapq.heappush(ready, (-seconds_of(versions[parent]), parent))
    return ordered


def nearest_common(a: Iterable[str], b: Mapping[str, Version]) -> Version | None:
    """The newest version of history `b` that is also in `a`; None if they have none in common."""
    known = set(a)
    return next((version for version in newest_first(b) if version.commit in known), None)


def default_author() -> str:
    """`USEG_AUTHOR`, else the user and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return os.environ.get("USEG_AUTHOR") or f"{user}@{socket.gethostname()}"
