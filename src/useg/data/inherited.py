"""What is known of a whole version without reading it: inspected itself, or an earlier one with the same files."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from useg.data.commits import Version
from useg.data.fingerprint import DuplicatePair
from useg.data.kept_inspections import KeptInspection, KeptInspections
from useg.data.manifest import Manifest
from useg.data.query import view_digest
from useg.data.statistics import bring_counts
from useg.data.summarise import count_names
from useg.data.versions import Dataset
from useg.data.warn import about_duplicates
from useg.errors import UsegError

MOST_STEPS = 16
"""So many versions are looked at: of commits that changed fields alone."""

_FILES = ("key", "image", "label", "objects", "region")


def known_of_version(dataset: Dataset, version: Version, told: str | None) -> KeptInspection | None:
    """The inspection that is kept for a whole version, or for a version before it with the same files.

    Splits and groups are those of the version itself; whether neighbours look alike was told with those of before.

    Args:
        dataset: where the version is. version: to be trained on.
        told: text of the label mapping, if any.
    """
    manifest = dataset.contents(version).manifest
    files = manifest.columns(_FILES)
    near, seen = deque([version]), {version.commit}
    for _ in range(MOST_STEPS):
        if not near:
            break
        each = near.popleft()
        found = KeptInspections(dataset.objects, view_digest(each.digest, "true", ()), told).find()
        if found is not None:
            return found if each.digest == version.digest else _with_fields_of(manifest, found)
        for before in map(dataset.version, each.parents):
            same = before.samples == version.samples and before.commit not in seen
            seen.add(before.commit)
            if same and dataset.contents(before).manifest.columns(_FILES).equals(files):
                near.append(before)
    return None


def bring_known(source: Dataset, target: Dataset, version: Version) -> None:
    """Bring what is known of a version's files along into another home; what cannot come is measured there again."""
    contents = source.contents(version)
    with suppress(UsegError):
        bring_counts(source, target, contents.manifest)
        found = known_of_version(source, version, contents.mapping)
        if found is not None:
            view = view_digest(version.digest, "true", ())
            KeptInspections(target.objects, view, contents.mapping).keep(found)


def _with_fields_of(manifest: Manifest, found: KeptInspection) -> KeptInspection:
    columns = manifest.columns(["key", "split", "group"]).to_pydict()
    split = dict(zip(columns["key"], columns["split"], strict=True))
    group = dict(zip(columns["key"], columns["group"], strict=True))
    measured = set(found.measured or found.spaces)
    pairs = tuple(in_splits(pair, split[pair.first], split[pair.second]) for pair in found.fingerprint.duplicates)
    changed = {
        "duplicates": pairs,
        "splits": count_names(split[key] for key in measured if split[key]),
        "groups": len({group[key] for key in measured} - {None}),
    }
    fingerprint = found.fingerprint.model_copy(update=changed)
    before = about_duplicates(found.fingerprint.duplicates)
    rest = tuple(warning for warning in found.warnings if warning not in before)
    return replace(found, fingerprint=fingerprint, warnings=(*about_duplicates(pairs), *rest))


def in_splits(pair: DuplicatePair, first: str | None, second: str | None) -> DuplicatePair:
    """The pair, when its samples are given for these splits."""
    across = None not in (first, second) and first != second
    return pair.model_copy(update={"across_splits": across})


def same_pictures(
    keys: Sequence[str], splits: Sequence[str | None], known: Sequence[DuplicatePair], same: Sequence[tuple[str, str]]
) -> tuple[DuplicatePair, ...]:
    """Pairs that are known to show the same picture, and those whose files are the same, in order of the samples.

    Args:
        keys, splits: of the samples, in their order. Pairs with others are left out.
        known: pairs found by looking at pictures.
        same: pairs of equal files.
    """
    place = {key: number for number, key in enumerate(keys)}
    pairs = {(pair.first, pair.second): pair for pair in known}
    for first, second in same:
        pair = DuplicatePair(first=first, second=second, exact=True, correlation=1.0, across_splits=False)
        pairs.setdefault((first, second), pair)
    inside = {(place[a], place[b]): pair for (a, b), pair in pairs.items() if a in place and b in place}
    return tuple(
        in_splits(pair, splits[one], splits[other])
        for (one, other), pair in sorted(inside.items(), key=lambda item: item[0])
    )
