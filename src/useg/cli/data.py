"""Data sets with versions: add, look back, compare, change, give out.

A version is named NAME (the latest), NAME@BRANCH, NAME@TAG, NAME@DIGEST, or by ~n after any of these for n versions
earlier. The home is a folder or a bucket: --home, else USEG_HOME, else the nearest useg-home/.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from useg.cli import data_home
from useg.cli.data_options import Home, Json, Name, opened
from useg.cli.output import emit, note, progress, warn
from useg.home.amounts import size

if TYPE_CHECKING:
    from useg.data.versions import Dataset, Version

Message = Annotated[str | None, typer.Option("-m", "--message", help="Why.")]
Branch = Annotated[str, typer.Option(help="The branch that moves.")]
Where = Annotated[str | None, typer.Option(help="Only samples for which this holds: \"stain = 'HE'\".")]


def add(
    data: Annotated[Path, typer.Argument(help="Folder, pairs.csv or file with images and labels.")],
    name: Annotated[str, typer.Option("--name", help="The data set that gets a new version.")],
    message: Message = None,
    link: Annotated[bool, typer.Option("--link", help="Keep digests and paths, and leave the files there.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Take out headers that could name a person.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Take files that links lead to, also out of the folder.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep samples that DATA does not have.")] = False,
    statistics: Annotated[
        bool, typer.Option("--statistics/--no-statistics", help="Measure what is new, for queries and training.")
    ] = True,
    branch: Branch = "main",
    home: Home = None,
    json: Json = False,
) -> None:
    """Make what DATA holds the next version of a data set."""
    from useg.data.adding import add as add_data
    from useg.errors import InputError

    dataset, ref = opened(name, home)
    if ref:
        raise InputError(f"--name wants the data set alone, not {name!r}; --branch says which branch moves")
    with progress("adding") as advance:
        added = add_data(
            dataset, data, message, link=link, strip=strip, keep=keep, follow_links=follow_links, branch=branch,
            progress=advance,
        )  # fmt: skip
    for problem in (*added.problems, *added.left):
        warn(str(problem))
    if statistics:
        from useg.data.stocktaking import take_stock

        try:
            with progress("measuring") as advance:
                wrong = take_stock(dataset, added.own, data, progress=advance)
        except KeyboardInterrupt:
            warn(f"{dataset.name}@{added.digest[:12]} is there, but not measured: repeat this, or train all the same")
            raise
        if wrong:
            told = f"{len(wrong)} problem{'s' if len(wrong) > 1 else ''}, such as {wrong[0]}"
            warn(f"this cannot be trained on yet: {told}; useg inspect tells all")
    found = {
        "name": dataset.name,
        "digest": added.digest,
        "commit": added.version.commit,
        "samples": added.samples,
        "changed": added.changed,
        "bytes_read": added.bytes_read,
        "bytes_stored": added.bytes_stored,
    }
    said = "" if added.changed else "nothing has changed: "
    text = f"{said}{dataset.name}@{added.digest[:12]}, {added.samples} samples, {size(added.bytes_stored)} stored"
    emit(found, json=json, text=text)


def log(name: Name, home: Home = None, json: Json = False) -> None:
    """Show the versions, newest first."""
    dataset, ref = opened(name, home)
    versions = dataset.log(ref)
    names: dict[str, list[str]] = {}
    for known in (dataset.branches(), dataset.tags()):
        for label, commit in known.items():
            names.setdefault(commit, []).append(label)

    def text() -> str:
        lines = []
        for version in versions:
            at = f" ({', '.join(names[version.commit])})" if version.commit in names else ""
            record = version.record
            lines.append(f"{version.digest[:12]}{at}  {record['time'][:19]}  {on_a_line(record['author'])}")
            lines.append(f"    {version.samples} samples: {on_a_line(record['message'])}")
        return "\n".join(lines)

    emit({"versions": [version.summary() for version in versions]}, json=json, text=text)


def show(name: Name, home: Home = None, json: Json = False) -> None:
    """Show one version: its samples, fields and sizes."""
    dataset, ref = opened(name, home)
    version = dataset.resolve(ref)
    manifest = dataset.contents(version).manifest
    found = version.summary() | described(manifest)

    def text() -> str:
        lines = [f"{dataset.name}@{version.digest}", f"  {on_a_line(version.record['message'])}"]
        lines += [f"  {key}: {value}" for key, value in described(manifest).items()]
        return "\n".join(lines)

    emit(found, json=json, text=text)


def described(manifest: Any) -> dict[str, Any]:
    """Counts of a version's samples: by split, files and bytes by role, and the metadata columns."""
    splits: dict[str, int] = {}
    files: dict[str, int] = {}
    sizes: dict[str, int] = {}
    fields: set[str] = set()
    for row in manifest.rows():
        splits[row.split or "none"] = splits.get(row.split or "none", 0) + 1
        fields |= set(row.metadata)
        for role, refs in row.files.items():
            files[role] = files.get(role, 0) + len(refs)
            sizes[role] = sizes.get(role, 0) + sum(ref.bytes for ref in refs)
    return {"splits": splits, "files": files, "bytes": sizes, "fields": sorted(fields)}


def diff(
    before: Annotated[str, typer.Argument(metavar="NAME[@REF]", help="The version before.")],
    after: Annotated[str, typer.Argument(metavar="[NAME]@REF", help="The version after.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures of the changed masks.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Compare two versions, sample by sample."""
    from useg.data.difference import difference

    dataset, ref = opened(before, home)
    other, other_ref = opened(after if not after.startswith("@") else dataset.name + after, home)
    first, second = dataset.resolve(ref), other.resolve(other_ref)
    found = difference(dataset.contents(first).manifest, other.contents(second).manifest)
    if html is not None:
        from useg.data.views import open_view
        from useg.experiments.difference_page import write_difference_page
        from useg.experiments.recording import fetcher_of

        fetchers = fetcher_of(dataset.objects), fetcher_of(other.objects)
        old = open_view(dataset, first.commit, None, fetchers[0])
        new = open_view(other, second.commit, None, fetchers[1])
        drawn = write_difference_page(html, old, new, found.relabelled, f"{before} and {after}")
        note(f"{drawn} changed label maps are drawn in {html}")
    result = {
        "added": list(found.added),
        "removed": list(found.removed),
        "relabelled": list(found.relabelled),
        "metadata": list(found.metadata),
        "changed": list(found.changed),
    }

    def text() -> str:
        signs = {"added": "+", "removed": "-", "relabelled": "~", "metadata": "m", "changed": "!"}
        lines = [f"{sign} {key}" for kind, sign in signs.items() for key in result[kind][:50]]
        counts = ", ".join(f"{len(keys)} {kind}" for kind, keys in result.items() if keys)
        return "\n".join([*lines, counts or "no difference"])

    emit(result, json=json, text=text)


def branch(
    name: Name,
    new: Annotated[str | None, typer.Argument(metavar="BRANCH", help="The branch to begin; none: list them.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the branch away.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, where it is the last one.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the branches, begin one at NAME@REF, or take one away."""
    if new is not None and delete and not yes:
        dataset, _ = opened(name, home)
        if [*dataset.branches()] == [new]:
            what = f"{new} is the last branch of {dataset.name}: without it, all of it is garbage."
            typer.confirm(f"{what} Take it away?", abort=True, err=True)
    _named("branch", name, new, home, json=json, delete=delete)


def tag(
    name: Name,
    new: Annotated[str | None, typer.Argument(metavar="TAG", help="The tag to give; none: list them.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the tag away.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the tags, give NAME@REF one, or take one away."""
    _named("tag", name, new, home, json=json, delete=delete)


def _named(kind: str, name: str, new: str | None, home: str | None, *, json: bool, delete: bool) -> None:
    dataset, ref = opened(name, home)
    if new is not None and delete:
        dataset.delete(new)
    elif new is not None:
        (dataset.branch if kind == "branch" else dataset.tag)(new, ref)
    known = dataset.branches() if kind == "branch" else dataset.tags()
    digests = {label: dataset.version(commit).digest for label, commit in known.items()}
    text = "\n".join(f"{label}  {digest[:12]}" for label, digest in digests.items()) or f"{dataset.name} has none"
    emit({"branches" if kind == "branch" else "tags": digests}, json=json, text=text)


def merge(
    name: Annotated[str, typer.Argument(metavar="NAME@REF", help="The version to merge.")],
    into: Annotated[str, typer.Option(help="The branch that takes it in.")] = "main",
    prefer: Annotated[
        str | None, typer.Option(help="Whose sample counts where both changed it: ours (INTO) or theirs (NAME@REF).")
    ] = None,
    message: Message = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Bring what a version changed into a branch, sample by sample."""
    from useg.errors import InputError

    if prefer not in (None, "ours", "theirs"):
        raise InputError(f"--prefer wants ours or theirs, not {prefer!r}")
    dataset, ref = opened(name, home)
    side: Any = prefer
    emit_version(dataset, dataset.merge(ref, message, into=into, prefer=side), json=json)


def set_fields(
    name: Name,
    fields: Annotated[list[str], typer.Argument(metavar="FIELD=VALUE...", help="What to set; `field=` clears it.")],
    where: Where = None,
    message: Message = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Set fields of the samples for which WHERE holds."""
    from useg.data.annotating import set_fields as set_all
    from useg.errors import InputError

    pairs = dict(pair.partition("=")[::2] for pair in fields if "=" in pair)
    if len(pairs) < len(fields):
        raise InputError(f"wanted FIELD=VALUE, each field once, not {' '.join(fields)}")
    dataset, ref = opened(name, home)
    done = set_all(dataset, pairs, where=where, message=message, branch=ref or "main")
    emit_version(dataset, done.version, json=json, changed=done.changed)


def annotate(
    name: Name,
    csv: Annotated[Path, typer.Option(help="A table with the column `key` and a column a field.", exists=True)],
    message: Message = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Set fields of samples from a table."""
    from useg.data.annotating import annotate as annotate_all

    dataset, ref = opened(name, home)
    done = annotate_all(dataset, csv, message=message, branch=ref or "main")
    emit_version(dataset, done.version, json=json, changed=done.changed)


def query(
    name: Name,
    where: Annotated[str, typer.Argument(metavar="WHERE", help="For example: split = 'train' and sample(0.1)")],
    home: Home = None,
    json: Json = False,
) -> None:
    """List the samples for which WHERE holds."""
    from useg.data.query import query as ask
    from useg.data.statistics import with_known_statistics

    dataset, ref = opened(name, home)
    version = dataset.resolve(ref)
    view = ask(with_known_statistics(dataset, dataset.contents(version)), where)
    found = {"version": version.digest, "view": view.digest, "where": view.where, "keys": list(view.keys)}
    emit(found, json=json, text=lambda: "\n".join(view.keys))


def checkout(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    where: Where = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that no version has.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write the files of a version, byte for byte; only what differs from what lies there."""
    from useg.data.checkout import checkout as check_out

    dataset, ref = opened(name, home)
    with progress("writing") as advance:
        done = check_out(dataset, ref, folder, where=where, force=force, progress=advance)
    over = f" ({done.replaced} of them over another content)" if done.replaced else ""
    text = f"{folder}: {done.samples} samples; {done.written} files written{over}, {done.kept} were there already"
    found = {
        "digest": done.version.digest,
        "samples": done.samples,
        "written": done.written,
        "kept": done.kept,
        "replaced": done.replaced,
        "removed": done.removed,
        "bytes_written": done.bytes_written,
    }
    emit(found, json=json, text=text)


def emit_version(dataset: "Dataset", version: "Version", *, json: bool, changed: int | None = None) -> None:
    """Print a version that was made, and how many of its samples changed."""
    said = "" if changed is None else f", {changed} changed"
    message = on_a_line(version.record["message"])
    text = f"{dataset.name}@{version.digest[:12]}, {version.samples} samples{said}: {message}"
    emit(version.summary() | ({} if changed is None else {"changed": changed}), json=json, text=text)


def on_a_line(text: str) -> str:
    """What somebody wrote, without line feeds and what would control a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


COMMANDS = {
    "add": add,
    "log": log,
    "show": show,
    "diff": diff,
    "query": query,
    "checkout": checkout,
    "branch": branch,
    "tag": tag,
    "merge": merge,
    "set": set_fields,
    "annotate": annotate,
    "push": data_home.push,
    "pull": data_home.pull,
    "verify": data_home.verify,
    "gc": data_home.gc,
    "du": data_home.du,
    "purge": data_home.purge,
}
"""What the group offers, by name."""
