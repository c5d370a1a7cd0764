"""Samples withdrawn for good: their bytes go from all versions, packs and this machine's cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from useg.data.versions import Dataset
from useg.errors import DataError, Problem
from useg.home.cache import Cache
from useg.home.withdrawal import withdraw


@dataclass(frozen=True)
class Purged:
    """What was withdrawn.

    Attributes:
        samples: keys.
        objects: how many objects are gone.
        shared: how many label files stay, because samples that stay have equal ones (an empty mask, say).
        bytes: what they took in the home.
        branches: branches that have a new version without the samples.
        cached: files that this machine's cache lost.
    """

    samples: tuple[str, ...]
    objects: int
    shared: int
    bytes: int
    branches: tuple[str, ...]
    cached: int


def purge(dataset: Dataset, keys: Sequence[str], reason: str, cache: Cache) -> Purged:
    """Remove the bytes of samples from a home and this machine; later reads say when and why.

    The rows of earlier versions stay, with keys and fields, so that their digests still hold; each branch gets a
    version without the samples. Interrupted, call it again.

    Args:
        dataset: the data set.
        keys: of the samples.
        reason: is kept in the tombstones.
        cache: of this machine.

    Raises:
        DataError: no version has such a sample, or samples that stay have the same image; all are named.
    """
    wanted = set(keys)
    going, shared, known = _digests(dataset, wanted)
    blocking = {key for digest, (keys, roles) in shared.items() if "image" in roles for key in keys}
    digests = going - set(shared)
    problems = [Problem(key, f"no version of {dataset.name} has this sample") for key in sorted(wanted - known)]
    problems += [
        Problem(other, "has the same image file as a sample to purge", "name it as well") for other in sorted(blocking)
    ]
    if problems:
        raise DataError(f"nothing was purged: {len(problems)} samples stand in the way", problems)
    moved = []
    for branch in dataset.branches():
        head = dataset.head(branch)
        if head is None:
            continue
        contents = dataset.contents(head)
        gone = sorted({row.key for row in contents.manifest.rows(sorted(wanted))})
        if gone:
            without = type(contents)(contents.manifest.changed([], gone), contents.mapping, contents.links)
            dataset.commit(without, f"purge {len(gone)} samples: {reason}", base=head, branch=branch)
            moved.append(branch)
    done = withdraw(dataset.store, dataset.objects, sorted(digests), reason)
    cached = cache.remove(digests)
    return Purged(tuple(sorted(wanted)), len(digests), len(shared), done.bytes, tuple(moved), cached)


Owners = dict[str, tuple[set[str], set[str]]]
"""For each digest, keys of samples and roles of files."""


def _digests(dataset: Dataset, wanted: set[str]) -> tuple[set[str], Owners, set[str]]:
    """Digests of the samples' files in all versions, who else has them, and which of the samples there are."""
    owners: Owners = {}
    known: set[str] = set()
    for version in {version.digest: version for version in dataset.versions().values()}.values():
        for row in dataset.contents(version).manifest.rows():
            known |= {row.key} & wanted
            for role, refs in row.files.items():
                for ref in refs:
                    keys, roles = owners.setdefault(ref.digest, (set(), set()))
                    keys.add(row.key)
                    roles.add(role)
    going = {digest for digest, (keys, _) in owners.items() if keys & wanted}
    shared = {digest: (owners[digest][0] - wanted, owners[digest][1]) for digest in going}
    return going, {digest: found for digest, found in shared.items() if found[0]}, known
