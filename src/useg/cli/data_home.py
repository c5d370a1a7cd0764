"""The commands of `useg data` that look after homes: send, check, clean up, withdraw."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from useg.cli.data_options import Home, Json, Name, opened
from useg.cli.output import emit, progress, warn
from useg.home.amounts import size

if TYPE_CHECKING:
    from useg.home.objects import Objects
    from useg.home.store import Store

Other = Annotated[str, typer.Argument(metavar="HOME", help="The other home: a folder, s3://, gs://, az:// or http://.")]
To = Annotated[str, typer.Option("--branch", help="The branch that moves.")]


def push(name: Name, to: Other, branch: To = "main", home: Home = None, json: Json = False) -> None:
    """Send a version to another home; only what is not there."""
    _send(name, home, to, branch, merging=False, json=json, word="sent to")


def pull(name: Name, source: Other, branch: To = "main", home: Home = None, json: Json = False) -> None:
    """Fetch a version from another home; only what is not here. Both sides are merged by sample."""
    _send(name, source, home, branch, merging=True, json=json, word="fetched from")


def _send(
    name: str, source: str | None, target: str | None, branch: str, *, merging: bool, json: bool, word: str
) -> None:
    from useg.data.sharing import send

    theirs, ref = opened(name, source)
    ours, _ = opened(theirs.name, target)
    with progress("sending") as advance:
        sent = send(theirs, ours, ref, branch=branch, merging=merging, progress=advance)
    found = {
        "digest": sent.version.digest,
        "commit": sent.version.commit,
        "objects": sent.objects,
        "bytes": sent.bytes,
        "merged": sent.merged,
    }
    other = ours if word == "sent to" else theirs
    text = (
        f"{ours.name}@{sent.version.digest[:12]}: {sent.objects} objects, {size(sent.bytes)} {word} {other.store.url}"
    )
    emit(found, json=json, text=text)


def existing_home(address: str | None) -> "tuple[Store, Objects]":
    """A home by its address, which must be there if it is a folder: a wrong one would look sound and empty."""
    from useg.errors import InputError
    from useg.home.opening import open_home
    from useg.home.store import Folder

    store, objects = open_home(address)
    if isinstance(store, Folder) and not store.root.exists():
        raise InputError(f"{store.url}: there is no home")
    return store, objects


def verify(home: Home = None, json: Json = False) -> None:
    """Read every object of a home, count its versions' digests again, and name what is damaged."""
    from useg.data.version_check import verify_versions
    from useg.home.verification import verify as check

    store, objects = existing_home(home)
    with progress("checking objects") as advance:
        problems = check(objects, progress=advance)
    with progress("checking versions") as advance:
        problems += verify_versions(store, objects, progress=advance)
    found = [{"where": p.where, "what": p.what, "remedy": p.remedy} for p in problems]
    lines = [f"  - {problem}" for problem in problems]
    text = "\n".join([f"{store.url}: {len(problems)} problems", *lines]) if problems else f"{store.url}: all is sound"
    emit({"home": store.url, "problems": found}, json=json, text=text)
    if problems:
        raise typer.Exit(2)


def gc(
    grace_hours: Annotated[float, typer.Option(min=0, help="How long garbage stays, by the store's clock.")] = 72.0,
    home: Home = None,
    json: Json = False,
) -> None:
    """Delete runs that were removed long enough ago, and what nothing leads to any more."""
    from useg.home.collect import collect
    from useg.runs.removing import delete_removed

    store, objects = existing_home(home)
    runs = delete_removed(store, grace_s=3600 * grace_hours)
    done = collect(store, objects, grace_s=3600 * grace_hours)
    text = (
        f"{store.url}: {done.condemned} packs condemned, {done.deleted} deleted, {done.rescued} rescued, "
        f"{size(done.bytes)} freed; {len(runs.runs)} removed runs deleted, {size(runs.bytes)} freed"
    )
    packs = {"condemned": done.condemned, "deleted": done.deleted, "rescued": done.rescued, "bytes": done.bytes}
    found = packs | {"runs": list(runs.runs), "runs_bytes": runs.bytes}
    emit(found, json=json, text=text)


def du(home: Home = None, json: Json = False) -> None:
    """Show how much room a home takes, and each of its data sets."""
    from useg.data.versions import Dataset, list_datasets
    from useg.home.reaching import closure

    store, objects = existing_home(home)
    stored = sum(entry.size for entry in store.list("packs/"))
    rows = {}
    for name in list_datasets(store):
        versions = Dataset.open(store, objects, name).versions()
        digests = closure(objects, list(versions))
        there = objects.has(digests)
        lengths = sum(objects.length(digest) for digest, here in zip(digests, there, strict=True) if here)
        rows[name] = {"versions": len(versions), "objects": len(digests), "bytes": lengths}
    lines = [f"{store.url}: {size(stored)} in packs"]
    lines += [
        f"  {name}: {row['versions']} versions, {row['objects']} objects, {size(row['bytes'])} before packing"
        for name, row in rows.items()
    ]
    emit({"home": store.url, "bytes": stored, "datasets": rows}, json=json, text="\n".join(lines))


def purge(
    name: Name,
    samples: Annotated[list[str], typer.Argument(metavar="SAMPLE...", help="Keys of the samples.")],
    reason: Annotated[str, typer.Option(help="Kept in the tombstones; all that will be left.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove samples' bytes for ever: from all versions, packs, this machine's cache, and pictures of runs."""
    from useg.data.purging import purge as remove
    from useg.experiments.forgetting import forget
    from useg.home.opening import folder_for_runs, machine_cache
    from useg.home.store import Folder

    dataset, _ = opened(name, home)
    if not yes:
        what = f"{len(samples)} samples of {dataset.name} from {dataset.store.url}"
        typer.confirm(f"remove {what} for ever?", abort=True, err=True)
    done = remove(dataset, samples, reason, machine_cache())
    places = {store.url: store for store in (dataset.store, Folder(folder_for_runs(home)))}
    runs = sorted({run for store in places.values() for run in forget(store, dataset, done.samples)})
    warn("other homes, checkouts and other machines' caches are not reached from here: purge or remove them, too")
    text = (
        f"{len(done.samples)} samples withdrawn: {done.objects} objects, {size(done.bytes)}; "
        f"{len(runs)} runs without their pictures"
    )
    emit(asdict(done) | {"runs": runs}, json=json, text=text)
