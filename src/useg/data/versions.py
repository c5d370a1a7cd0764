"""One data set's line of versions in a home: commits, branches, tags, and every name that a version has."""

import random
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from useg.data.commits import (
    SCHEMA,
    Contents,
    Links,
    Version,
    default_author,
    nearest_common,
    newest_first,
    read_commit,
    seconds_of,
)
from useg.data.manifest import Manifest
from useg.data.merging import Side, check_paths, merge_manifests, merge_texts
from useg.data.version_names import DATASET_NAME, STEPS_BACK, split_name
from useg.errors import DataError, InputError, Problem
from useg.home import refs
from useg.home.cache import Cache
from useg.home.objects import Objects
from useg.home.store import Store

__all__ = ["MAIN", "BothChanged", "Contents", "Dataset", "Links", "Version", "list_datasets", "split_name"]

MAIN = "main"

_MOST_TRIES = 100
_HEX = re.compile(r"[0-9a-f]{4,64}")


class BothChanged(refs.Moved):
    """A branch has moved on, and what moved it changed samples that were changed here, too.

    Attributes:
        own: what was to be committed; it can be merged by the digest of its commit until the home is collected.
        problems: one for each of these samples.
    """

    def __init__(self, name: str, now: refs.RefEntry | None, own: Version, problems: Sequence[Problem]) -> None:
        super().__init__(name, now)
        self.own, self.problems = own, tuple(problems)
        listed = "".join(f"\n  - {problem}" for problem in self.problems)
        kept = f"Yours is kept as {own.commit} for a while"
        self.args = (f"{self.args[0]}. {kept}. {len(self.problems)} samples were changed on both sides:{listed}",)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.now, self.own, self.problems)


def list_datasets(store: Store) -> list[str]:
    """The names of all data sets of a home."""
    return sorted({name.split("/")[1] for name in refs.list_refs(store, "data/")})


class Dataset:
    """One data set of a home; see `Dataset.open`."""

    def __init__(self, store: Store, objects: Objects, name: str, cache: Cache | None = None) -> None:
        self.store, self.objects, self.name, self.cache = store, objects, name, cache
        self._versions: dict[str, Version] = {}
        self._manifests: dict[str, Manifest] = {}

    @classmethod
    def open(cls, store: Store, objects: Objects, name: str, cache: Cache | None = None) -> "Dataset":
        """The data set of this name, which needs not have a version yet.

        Args:
            store: the home. objects: of the home. name: of the data set.
            cache: of this machine, where manifests of a home that is far away are kept.

        Raises:
            InputError: not a name.
        """
        if not DATASET_NAME.fullmatch(name):
            raise InputError(f"a data set's name is up to 100 letters, digits, '.', '-' and '_', not {name!r}")
        return cls(store, objects, name, cache)

    def branches(self) -> dict[str, str]:
        """The commit that each branch stands at."""
        return self._refs("branches")

    def tags(self) -> dict[str, str]:
        """The commit that each tag stands for."""
        return self._refs("tags")

    def _refs(self, kind: str) -> dict[str, str]:
        prefix = f"data/{self.name}/{kind}/"
        found: dict[str, str] = {}
        for name in refs.list_refs(self.store, prefix):
            entry = refs.read_ref(self.store, name)
            if entry is not None:
                found[name.removeprefix(prefix)] = entry.record["to"]
        return found

    def _ref(self, kind: str, name: str) -> str:
        refs.check_name(name)
        return f"data/{self.name}/{kind}/{name}"

    def _at(self, ref: str) -> tuple[int, Version | None]:
        """The number that a ref stands at, and the version."""
        entry = refs.read_ref(self.store, ref)
        return (0, None) if entry is None else (entry.number, self.version(entry.record["to"]))

    def head(self, branch: str = MAIN) -> Version | None:
        """The latest version of a branch; None if it has none."""
        return self._at(self._ref("branches", branch))[1]

    def version(self, commit: str) -> Version:
        """The version of a commit's digest."""
        return self._load([commit])[0]

    def _load(self, commits: Sequence[str]) -> list[Version]:
        unknown = [commit for commit in dict.fromkeys(commits) if commit not in self._versions]
        for commit, content in self.objects.get_many(unknown):
            self._versions[commit] = read_commit(content, commit)
        return [self._versions[commit] for commit in commits]

    def contents(self, version: Version) -> Contents:
        """The samples of a version, and what goes with them."""
        manifest = self._manifests.get(version.commit)
        if manifest is None:
            parts = version.record["manifest"]
            wanted = [parts["base"], *parts["deltas"]]
            blobs = self._parts(wanted)
            manifest = Manifest.decode(blobs[parts["base"]], [blobs[digest] for digest in parts["deltas"]])
            # The latest few are wanted again: by a merge, a difference, the next commit.
            self._manifests = dict([*self._manifests.items(), (version.commit, manifest)][-4:])
        return Contents(manifest, version.mapping, version.links)

    def _parts(self, digests: list[str]) -> dict[str, bytes]:
        """Files of manifests, each fetched once."""
        near = {digest: self.cache.path(digest) if self.cache else None for digest in digests}
        parts = {digest: path.read_bytes() for digest, path in near.items() if path is not None}
        for digest, content in self.objects.get_many([digest for digest in digests if digest not in parts]):
            parts[digest] = content
            if self.cache is not None:
                self.cache.add(digest, content)
        return parts

    def ancestors(self, *tips: Version) -> dict[str, Version]:
        """These versions and all that they grew from, by commit; nearer ones first."""
        found: dict[str, Version] = {}
        level = list(tips)
        while level:
            found |= {version.commit: version for version in level}
            level = self._load(sorted({p for version in level for p in version.parents if p not in found}))
        return found

    def versions(self) -> dict[str, Version]:
        """All versions that a branch or a tag leads to, by commit."""
        return self.ancestors(*self._load(sorted({*self.branches().values(), *self.tags().values()})))

    def log(self, ref: str = "") -> list[Version]:
        """A version and all that it grew from, newest first; never a version before one that grew from it."""
        return newest_first(self.ancestors(self.resolve(ref)))

    def resolve(self, ref: str = "") -> Version:
        """The version that a ref names.

        Args:
            ref: a branch, a tag, the beginning of a digest (of a version, or of a commit), each with `~n` for
                n versions earlier along the first parents; "" is the branch main.

        Raises:
            InputError: nothing or several things have this name.
        """
        steps = STEPS_BACK.search(ref)
        if steps:
            version = self.resolve(ref[: steps.start()])
            for _ in range(int(steps[1] or 1)):
                if not version.parents:
                    raise InputError(f"{self.name}@{ref}: the history is not as long as that")
                version = self.version(version.parents[0])
            return version
        for kind in ("branches", "tags"):
            try:
                _, found = self._at(self._ref(kind, ref or MAIN))
            except InputError:
                break
            if found is not None:
                return found
        return self._by_digest(ref)

    def _by_digest(self, ref: str) -> Version:
        if _HEX.fullmatch(ref):
            reachable = newest_first(self.versions())
            found = [v for v in reachable if v.digest.startswith(ref)]
            found = found or [v for v in reachable if v.commit.startswith(ref)]
            if len({version.digest for version in found}) > 1:
                raise InputError(f"{self.name}@{ref}: {len(found)} versions begin like this; give more of the digest")
            if found:
                return found[0]
            if len(ref) == 64 and self.objects.has([ref])[0]:
                return self.version(ref)
        there = [*self.branches(), *self.tags()]
        if not there:
            have = ", ".join(list_datasets(self.store)) or "none"
            raise InputError(f"there is no data set {self.name!r} in {self.store.url} (there: {have})")
        raise InputError(f"{self.name}@{ref}: no branch, tag or digest of this name (there: {', '.join(there[:20])})")

    def commit(
        self,
        contents: Contents,
        message: str,
        *,
        base: Version | None,
        branch: str = MAIN,
        merged: Sequence[Version] = (),
        author: str | None = None,
    ) -> Version:
        """Make these contents the latest version of a branch.

        Where the branch has moved on from `base`, they are committed beside it, and both are merged by sample.
        Where nothing would change, the version that is there is given.

        Args:
            contents: what the version holds.
            message: why it was made.
            base: the version that the contents were made from; None for a first one.
            branch: the branch to move.
            merged: further parents.
            author: who made it; by default `USEG_AUTHOR`, else user and machine.

        Raises:
            Moved: the branch has moved on, and a sample was changed on both sides.
            DataError: the contents contradict themselves.
        """
        ref = self._ref("branches", branch)
        parents = [*([base] if base else []), *merged]
        own: Version | None = None
        for attempt in range(_MOST_TRIES):
            number, tip = self._at(ref)
            if tip is None or (base is not None and tip.commit == base.commit):
                if tip is not None and not merged and self._holds(tip, contents):
                    return tip
                version = own = own or self._write(contents, message, parents, author)
            else:
                together, conflicts = self._merge(base, tip, contents)
                if not conflicts and self._holds(tip, together):
                    return tip
                own = own or self._write(contents, message, parents, author)
                if conflicts:
                    raise BothChanged(ref, refs.read_ref(self.store, ref), own, conflicts)
                version = self._write(together, f"merge: {message}", [tip, own], author)
            try:
                refs.move_ref(self.store, ref, ref_record(version), expected=number)
            except refs.Moved:
                time.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))
                continue
            return version
        raise InputError(f"{self.name}@{branch} moved {_MOST_TRIES} times while this was committed; retry")

    def _holds(self, version: Version, contents: Contents) -> bool:
        same = version.digest == contents.manifest.digest() and version.mapping == contents.mapping
        return same and version.links == contents.links

    def _merge(
        self, base: Version | None, ours: Version, theirs: Contents, *, prefer: Side | None = None
    ) -> tuple[Contents, tuple[Problem, ...]]:
        mine = self.contents(ours)
        before = Contents(Manifest.from_rows([])) if base is None else self.contents(base)
        merged = merge_manifests(before.manifest, mine.manifest, theirs.manifest, prefer=prefer)
        conflicts = merged.conflicts
        try:
            mapping = merge_texts(before.mapping, mine.mapping, theirs.mapping, prefer=prefer)
        except ValueError as error:
            mapping = mine.mapping
            conflicts = (*conflicts, Problem("classes.toml", str(error)))
        links = tuple({link.root: link for link in (*mine.links, *theirs.links)}.values())
        if not conflicts:
            check_paths(merged.manifest)
        return Contents(merged.manifest, mapping, links), conflicts

    def _write(self, contents: Contents, message: str, parents: Sequence[Version], author: str | None) -> Version:
        previous = self.contents(parents[0]).manifest if parents else None
        now = max([self.store.time(), *(seconds_of(parent) for parent in parents)])
        with self.objects.writer() as writer:
            encoded = contents.manifest.encode(previous)
            for blob in encoded.blobs:
                writer.put(blob)
            record = {
                "schema": SCHEMA,
                "kind": "version",
                "version": contents.manifest.digest(),
                "manifest": {"base": encoded.base, "deltas": list(encoded.deltas)},
                "parents": [parent.commit for parent in parents],
                "parent_versions": [parent.digest for parent in parents],
                "message": message,
                "author": author or default_author(),
                "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "samples": len(contents.manifest),
                "names": list(encoded.names),
                "lists": list(encoded.lists),
                "records": [parent.commit for parent in parents],
                "mapping": contents.mapping,
                "linked": bool(contents.links),
                "links": [{"root": link.root, "outside": dict(link.outside)} for link in contents.links],
            }
            commit = writer.put(orjson.dumps(record, option=orjson.OPT_SORT_KEYS))
            writer.commit()
        self._versions[commit] = version = Version(commit, record)
        self._manifests = dict([*self._manifests.items(), (commit, contents.manifest)][-4:])
        return version

    def merge(self, ref: str, message: str | None = None, *, into: str = MAIN, prefer: Side | None = None) -> Version:
        """Bring what a version changed into a branch, sample by sample.

        Args:
            ref: the version that is merged.
            message: why; by default what is merged.
            into: the branch that moves.
            prefer: whose side is taken where both changed a sample; by default such samples are an error.

        Raises:
            DataError: samples were changed on both sides; all of them are named.
        """
        branch = self._ref("branches", into)
        theirs, (number, ours) = self.resolve(ref), self._at(branch)
        if ours is None:
            raise InputError(f"{self.name} has no branch {into!r}; begin it first")
        before = self.ancestors(ours)
        if theirs.commit in before:
            return ours
        base = nearest_common(before, self.ancestors(theirs))
        if base is not None and base.commit == ours.commit:
            refs.move_ref(self.store, branch, ref_record(theirs), expected=number)
            return theirs
        contents, conflicts = self._merge(base, ours, self.contents(theirs), prefer=prefer)
        if conflicts:
            summary = f"{self.name}@{ref} and {self.name}@{into} changed {len(conflicts)} samples in different ways"
            raise DataError(f"{summary}; change one side, or say whose counts", conflicts)
        message = message or f"merge {ref} into {into}"
        return self.commit(contents, message, base=ours, branch=into, merged=[theirs])

    def restore(self, ref: str, message: str | None = None, *, branch: str = MAIN) -> Version:
        """Make an earlier version the latest of a branch again; what lies between stays in the history."""
        base, wanted = self.head(branch), self.resolve(ref)
        message = message or f"back to {wanted.digest[:12]}"
        return self.commit(self.contents(wanted), message, base=base, branch=branch)

    def branch(self, name: str, ref: str = "") -> Version:
        """Begin a branch at a version.

        Raises:
            InputError: there is such a branch or tag already.
        """
        return self._begin("branches", name, ref)

    def tag(self, name: str, ref: str = "") -> Version:
        """Give a version a name that stays.

        Raises:
            InputError: there is such a branch or tag already.
        """
        return self._begin("tags", name, ref)

    def _begin(self, kind: str, name: str, ref: str) -> Version:
        version = self.resolve(ref)
        for other, what in (("branches", "branch"), ("tags", "tag")):
            there = self._at(self._ref(other, name))[1]
            if there is not None:
                raise InputError(f"{self.name} has a {what} {name!r} already, at {there.digest[:12]}")
        refs.move_ref(self.store, self._ref(kind, name), ref_record(version), expected=0)
        return version

    def delete(self, name: str) -> None:
        """Take a branch or a tag away; versions that nothing else leads to go with the next collection.

        Raises:
            InputError: there is none of this name.
        """
        for kind in ("branches", "tags"):
            if self._at(self._ref(kind, name))[1] is not None:
                refs.delete_ref(self.store, self._ref(kind, name))
                return
        raise InputError(f"{self.name} has no branch or tag {name!r}")


def ref_record(version: Version) -> dict[str, object]:
    """What a ref's entry says of the version it leads to."""
    return {"to": version.commit, "version": version.digest, "records": [version.commit]}
