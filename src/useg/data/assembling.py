"""From chosen pairings to samples: keys, splits, groups, what is left over and what is wrong."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from useg.data.choosing import Choice
from useg.data.matches import Match
from useg.data.names import group_name, pieces, plain, words
from useg.data.reading import Sample, natural_order
from useg.data.roles import File, Group
from useg.errors import Problem

_FEWEST_FOLDER_GROUPS = 5
_FEWEST_OF_A_KIND = 3
Locate = Callable[[str], str]


@dataclass
class Assembly:
    """Samples in the making, with the sentences that explain them."""

    samples: list[Sample] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    stray: set[str] = field(default_factory=set)
    hints: dict[str, object] = field(default_factory=dict)

    def add(self, sample: Sample, name: str, *used: Iterable[File]) -> None:
        """Add a sample under its short name; the longer one is used where short names collide."""
        self.samples.append(sample)
        self.names.append((name, sample.key))
        self.used.update(file.ref for files in used for file in files)


def assemble(choice: Choice, locate: Locate) -> Assembly:
    """All pairings as samples; images of a part that has no labels at all become samples to predict."""
    done = Assembly()
    labelled: set[str | None] = set()
    for position, found in enumerate(choice.matches):
        _add_pairs(done, found, choice.regions.get(position), locate)
        labelled |= {images[0].split for images, _ in found.pairs}
    for found in choice.matches:
        _add_unpaired(done, found, labelled, locate)
    unlabelled = [file for group in choice.groups for file in _to_predict(group, choice, labelled)]
    for group in choice.groups:
        for file in _to_predict(group, choice, labelled):
            _add_unlabelled(done, file, group, locate)
    if unlabelled:
        done.sentences.append(f"{len(unlabelled)} more images have no labels and are only for predicting.")
    return done


def assemble_unlabelled(groups: Sequence[Group], locate: Locate) -> Assembly:
    """Every file as a sample without labels."""
    done = Assembly()
    for group in groups:
        for file in group.files:
            _add_unlabelled(done, file, group, locate)
    return done


def finish(done: Assembly) -> tuple[Sample, ...]:
    """Give every sample its key, its split and its group; in natural order."""
    samples = _with_keys(done)
    samples = _with_splits_from_names(samples, done)
    samples = _with_groups(samples, done)
    return tuple(sorted(samples, key=lambda sample: natural_order(sample.key)))


def _add_pairs(done: Assembly, found: Match, region: Match | None, locate: Locate) -> None:
    regions = {images[0].ref: labels[0] for images, labels in region.pairs} if region else {}
    for images, labels in found.pairs:
        shown = regions.get(images[0].ref)
        name = found.images.names[images[0].ref]
        sample = Sample(
            key=images[0].ref,
            images=tuple(locate(file.ref) for file in images),
            labels=tuple(locate(file.ref) for file in labels),
            masks_are_objects=found.objects,
            region=locate(shown.ref) if shown else None,
            split=images[0].split,
        )
        name = _without(name, found.channels[0]) if found.channels else name
        done.add(sample, name, images, labels, [shown] if shown else [])
    count, here, there = len(found.pairs), found.images.place, found.labels.place
    what = f"{count} images in {here} are paired with the labels in {there}"
    if found.objects:
        what = f"{count} images in {here} have one mask per object in {there}"
    done.sentences.append(f"{what} {found.how}.")
    if found.channels:
        done.hints["channel_names"] = list(found.channels)
    if region:
        done.sentences.append(
            f"The masks in {region.labels.place} are the same shape everywhere: they are taken as the region "
            "in which labels count, pixels outside are ignored."
        )


def _without(name: str, affix: str) -> str:
    """The name without the piece that names the channel."""
    *folders, stem = name.split("/")
    cut = pieces(stem)
    for start in range(len(cut)):
        for end in range(start + 1, len(cut) + 1):
            if plain("".join(cut[start:end])) == affix:
                left, right = "".join(cut[:start]), "".join(cut[end:])
                kept = re.sub(r"[\W_]+$", "", left) + (right if left else re.sub(r"^[\W_]+", "", right))
                return "/".join([*folders, kept] if kept and folders[-1:] != [kept] else folders) or name
    return name


def _add_unpaired(done: Assembly, found: Match, labelled: set[str | None], locate: Locate) -> None:
    stems = {plain(images[0].stem) for images, _ in found.pairs}
    stems |= {plain(labels[0].stem) for _, labels in found.pairs} if not found.objects else set()
    strays: list[File] = []
    unpaired = [f for f in (*found.images.files, *found.labels.files) if f.ref not in done.used]
    kinds = _other_kinds(unpaired, found)
    for file in found.labels.files:
        if file.ref in done.used:
            continue
        if _is_version(file, stems) or _kind(file) in kinds:
            strays.append(file)
        else:
            what, remedy = _no_partner(file, found.labels, found.images, "image")
            done.problems.append(Problem(locate(file.ref), what, remedy))
        done.stray.add(file.ref)
    for file in found.images.files:
        if file.ref in done.used or file.split not in labelled:
            continue
        if _is_version(file, stems) or _kind(file) in kinds:
            strays.append(file)
            done.stray.add(file.ref)
            continue
        what, remedy = _no_partner(file, found.images, found.labels, "label")
        done.problems.append(Problem(locate(file.ref), what, remedy))
        _add_unlabelled(done, file, found.images, locate)
    if strays:
        done.sentences.append(
            f"{len(strays)} further files are left over: each carries the name of a sample and more, "
            f"or is of a kind of which none is paired (for instance {strays[0].ref})."
        )


def _no_partner(file: File, group: Group, other: Group, wanted: str) -> tuple[str, str]:
    part = f" in the part `{file.split}`" if file.split else ""
    return (
        f"no {wanted} in {other.place} goes with this file of {group.place}{part}",
        f"add the {wanted}, take the file away, or write a pairs.csv",
    )


def _is_version(file: File, stems: set[str]) -> bool:
    """Whether the name is that of a paired file with something before or behind it."""
    parts = plain(file.stem).split("_")
    return any("_".join(parts[:i]) in stems or "_".join(parts[i:]) in stems for i in range(1, len(parts)))


def _kind(file: File) -> str:
    """The name with 0 for each number."""
    return re.sub(r"\d+", "0", file.stem)


def _other_kinds(unpaired: list[File], found: Match) -> set[str]:
    """Kinds of names that come often and are never paired, such as `patient0_4d` beside `patient0_frame0`."""
    paired = {_kind(file) for images, labels in found.pairs for file in (*images, *labels)}
    count = Counter(_kind(file) for file in unpaired)
    often = max(_FEWEST_OF_A_KIND, len(found.pairs) // 10)
    return {kind for kind, times in count.items() if times >= often and kind not in paired}


def _to_predict(group: Group, choice: Choice, labelled: set[str | None]) -> list[File]:
    """Files of an image group in parts that have no labels at all, when others have."""
    if group.role == "label" or group.strength < 0 or labelled <= {None}:
        return []
    taken_as_labels = any(found.labels is group for found in choice.matches)
    takes_part = any(found.images is group for found in choice.matches) or group.role == "image"
    if taken_as_labels or not takes_part:
        return []
    return [file for file in group.files if file.split is not None and file.split not in labelled]


def _add_unlabelled(done: Assembly, file: File, group: Group, locate: Locate) -> None:
    sample = Sample(key=file.ref, images=(locate(file.ref),), split=file.split)
    done.add(sample, group.names[file.ref], [file])


def _with_keys(done: Assembly) -> list[Sample]:
    """Short names as keys; samples whose short names collide keep their whole path."""
    count = Counter(name for name, _ in done.names)
    return [
        replace(sample, key=name if count[name] == 1 else path)
        for sample, (name, path) in zip(done.samples, done.names, strict=True)
    ]


def _with_splits_from_names(samples: list[Sample], done: Assembly) -> list[Sample]:
    """Splits from file names, only when no folder gives one and every name does."""
    if not samples or any(sample.split for sample in samples):
        return samples
    said = [words(sample.key.rpartition("/")[2]).split for sample in samples]
    if None in said or len(set(said)) < 2:
        return samples
    done.sentences.append("The file names say which part (train, val, test) each sample belongs to.")
    return [replace(sample, split=split) for sample, split in zip(samples, said, strict=True)]


def _with_groups(samples: list[Sample], done: Assembly) -> list[Sample]:
    """Samples whose names say the same patient, plate, video ... belong together, or those of one folder."""
    for how, group_of in (("name", _name_group), ("folder", _folder_group)):
        groups = [group_of(sample.key) for sample in samples]
        splits: dict[str, set[str | None]] = {}
        for sample, group in zip(samples, groups, strict=True):
            if group is not None:
                splits.setdefault(group, set()).add(sample.split)
        several = len(samples) > len(splits) >= (2 if how == "name" else _FEWEST_FOLDER_GROUPS)
        if None in groups or not several or any(len(found) > 1 for found in splits.values()):
            continue
        example = groups[0]
        done.sentences.append(
            f"Samples of one {how} group (for instance {example}) stay together in a split: {len(splits)} groups."
        )
        return [replace(sample, group=group) for sample, group in zip(samples, groups, strict=True)]
    return samples


def _name_group(key: str) -> str | None:
    *folders, stem = key.split("/")
    found = group_name(stem)
    return "/".join([*folders, found]) if found else None


def _folder_group(key: str) -> str | None:
    return key.rpartition("/")[0] or None
