"""Versions sent from one home to another: what is lacking is copied, then the branch moves."""

from dataclasses import dataclass

from useg.data.inherited import bring_known
from useg.data.versions import MAIN, Dataset, Version, ref_record
from useg.errors import InputError
from useg.home import refs
from useg.home.reaching import closure
from useg.home.transfer import Progress, copy_objects


@dataclass(frozen=True)
class Sent:
    """What was sent.

    Attributes:
        version: the version that the branch stands at now.
        objects: objects that were copied, chunks counted each.
        bytes: their stored bytes.
        merged: whether both sides had moved on and were merged.
    """

    version: Version
    objects: int
    bytes: int
    merged: bool


def send(
    source: Dataset,
    target: Dataset,
    ref: str = "",
    *,
    branch: str = MAIN,
    merging: bool = False,
    progress: Progress | None = None,
) -> Sent:
    """Bring a version and all that it grew from into another home, and move a branch there.

    What is damaged in the target is healed, whether its branch has to move or not. Interrupted, it goes on where it
    stopped.

    Args:
        source: the data set where the version is.
        target: the same data set in the other home; it may be new there.
        ref: which version.
        branch: the branch that moves.
        merging: merge by sample where both sides have moved on; else that is an error.
        progress: told how many bytes were sent.

    Raises:
        InputError: there is no such version, or its files are only linked.
        Moved: both sides have moved on. DataError: objects are missing in the source, or samples conflict.
    """
    version = source.resolve(ref)
    wanted = closure(source.objects, [version.commit], nearer=target.objects)
    linked = [each for each in source.ancestors(version).values() if each.links]
    if linked:
        missing = sum(not there for there in source.objects.has(wanted))
        raise InputError(
            f"{source.name}@{linked[0].digest[:12]} only links to {missing} of its files, so they cannot be sent: "
            "add the folder without --link"
        )
    copied = copy_objects(source.objects, target.objects, wanted, progress=progress)
    for tag, commit in source.tags().items():
        if commit in source.ancestors(version) and tag not in target.tags() and tag not in target.branches():
            target.tag(tag, commit)
    final, merged = _move(target, version, branch, merging=merging)
    bring_known(source, target, version)
    return Sent(final, copied.objects, copied.bytes, merged)


def _move(target: Dataset, version: Version, branch: str, *, merging: bool) -> tuple[Version, bool]:
    name = f"data/{target.name}/branches/{branch}"
    refs.check_name(name)
    entry = refs.read_ref(target.store, name)
    if entry is None or entry.record["to"] is None:
        refs.move_ref(target.store, name, ref_record(version), expected=entry.number if entry else 0)
        return version, False
    tip = target.version(entry.record["to"])
    if version.commit in target.ancestors(tip):
        return tip, False
    if tip.commit in target.ancestors(version):
        refs.move_ref(target.store, name, ref_record(version), expected=entry.number)
        return version, False
    if not merging:
        raise refs.Moved(f"{target.name}@{branch} in {target.store.url}", entry)
    return target.merge(version.commit, f"merge from {version.record['author']}", into=branch), True
