"""Whether the versions of a home's data sets are what their digests say."""

from useg.data.progress import Progress
from useg.data.versions import Dataset, list_datasets
from useg.errors import DamagedFile, DataError, InputError, Problem
from useg.home.objects import Objects
from useg.home.store import Missing, Store

_HEAL = "pull it from another home"


def verify_versions(store: Store, objects: Objects, *, progress: Progress | None = None) -> list[Problem]:
    """Read the manifest of every version that a branch or a tag leads to, and count its digest again.

    Args:
        store: the home. objects: of it.
        progress: told how many versions are done.
    """
    problems: list[Problem] = []
    for name in list_datasets(store):
        dataset = Dataset.open(store, objects, name)
        try:
            versions = dataset.versions()
        except (Missing, DamagedFile, InputError) as error:
            problems.append(Problem(name, f"its history cannot be read: {error}", _HEAL))
            continue
        for done, version in enumerate(versions.values(), 1):
            where = f"{name}@{version.digest[:12]}"
            try:
                digest = dataset.contents(version).manifest.digest()
            except (Missing, DamagedFile, DataError, InputError) as error:
                problems.append(Problem(where, f"its manifest cannot be read: {error}", _HEAL))
            else:
                if digest != version.digest:
                    problems.append(Problem(where, f"its samples have the digest {digest[:12]}", _HEAL))
            if progress:
                progress(done, total=len(versions))
    return problems
