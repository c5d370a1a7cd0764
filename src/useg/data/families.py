"""Several files that belong to one: masks of single objects, channels, names that come in families."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from useg.data.matches import ENOUGH, Key, KeyOf, Match, folder_keys, split_key, unique
from useg.data.names import pieces, plain, words
from useg.data.reading import natural_order
from useg.data.roles import File, Group, regroup

_MOST_CHANNELS = 32
_LONGEST_AFFIX = 3


def one_mask_per_object(images: Group, labels: Group) -> Match | None:
    """Several label files for each image: in its folder, a folder of its name, or its name and a number."""
    split = split_key(images, labels)
    image_folders, label_folders = folder_keys(images, labels)

    def in_folder(file: File) -> Key:
        return (split(file), image_folders[file.ref])

    def named(file: File) -> Key:
        return (split(file), file.words.rest)

    def label_in_folder(file: File) -> Key:
        return (split(file), label_folders[file.ref])

    def label_folder_name(file: File) -> Key:
        folders = labels.folder_keys[file.ref]
        return (split(file), next((name for name in reversed(folders) if name), ""))

    def label_numbered(file: File) -> Key:
        cut = list(pieces(file.stem))
        while cut and not cut[-1].isdigit():
            cut.pop()
        return (split(file), words("".join(cut[:-1])).rest)

    ways: tuple[tuple[str, KeyOf, KeyOf], ...] = (
        ("one folder a sample", in_folder, label_in_folder),
        ("a folder named like the image", named, label_folder_name),
        ("the image's name and a number", named, label_numbered),
    )
    for rank, (how, image_key, label_key) in enumerate(ways, start=10):
        image_keys = {file.ref: image_key(file) for file in images.files}
        label_keys = {file.ref: label_key(file) for file in labels.files}
        objects: dict[Key | None, list[File]] = defaultdict(list)
        for file in labels.files:
            objects[label_keys[file.ref]].append(file)
        alone = unique(images.files, image_keys)
        pairs = tuple(((file,), tuple(objects[key])) for key, file in alone.items() if key in objects)
        found = Match(images, labels, how, rank, pairs, objects=True, keys=image_keys | label_keys)
        if min(found.image_share, found.label_share) >= ENOUGH:
            return found
    return None


def several_channels(images: Group, labels: Group) -> Match | None:
    """Several image files for each label: the label's name with one more piece that names the channel."""
    split = split_key(images, labels)
    image_folders, label_folders = (_without_blanks(keys) for keys in folder_keys(images, labels))
    by_name: dict[Key, File] = unique(
        labels.files, {f.ref: (split(f), label_folders[f.ref], f.words.rest) for f in labels.files}
    )
    candidates: dict[str, list[tuple[Key, str]]] = {}
    popular: Counter[str] = Counter()
    for file in images.files:
        found = []
        for name, affix in _without_affix(file.stem):
            key: Key = (split(file), image_folders[file.ref], name)
            if key in by_name:
                found.append((key, affix))
        if not found and image_folders[file.ref]:
            # one folder a channel: red/red_7.tif or red/7.tif
            *above, channel = image_folders[file.ref]
            for name in (
                file.words.rest,
                *(name for name, affix in _without_affix(file.stem) if affix == channel),
            ):
                key = (split(file), tuple(above), name)
                if key in by_name:
                    found.append((key, str(channel)))
        candidates[file.ref] = found
        popular.update({affix for _, affix in found})
    channels: dict[Key, dict[str, File]] = defaultdict(dict)
    for file in images.files:
        if candidates[file.ref]:
            key, affix = max(candidates[file.ref], key=lambda each: popular[each[1]])
            channels[key][affix] = file
    channels = {key: files for key, files in channels.items() if len({file.split for file in files.values()}) == 1}
    if not channels:
        return None
    wanted = Counter(frozenset(files) for files in channels.values()).most_common(1)[0][0]
    order = tuple(sorted(wanted, key=natural_order))
    if not 1 <= len(order) <= _MOST_CHANNELS:
        return None
    pairs = tuple(
        (tuple(files[affix] for affix in order), (by_name[key],))
        for key, files in channels.items()
        if set(files) == wanted
    )
    keys: dict[str, Key | None] = {f.ref: key for key, files in channels.items() for f in files.values()}
    how = "by name, one file a channel (" + ", ".join(order) + ")"
    match = Match(images, labels, how, 15, pairs, channels=order, keys=keys)
    return match if match.label_share >= ENOUGH and match.image_share >= ENOUGH else None


def _without_blanks(folders: dict[str, Key]) -> dict[str, Key]:
    return {ref: tuple(name for name in names if name) for ref, names in folders.items()}


def _without_affix(stem: str) -> Iterator[tuple[str, str]]:
    """The stem without role words and without up to three neighbouring pieces, and these pieces."""
    cut = pieces(stem)
    for start in range(len(cut)):
        for end in range(start + 1, min(len(cut), start + _LONGEST_AFFIX) + 1):
            affix = plain("".join(cut[start:end]))
            if affix:
                yield words("".join([*cut[:start], "_", *cut[end:]])).rest, affix


def affix_groups(group: Group) -> list[Group]:
    """A group cut by a piece at the start or end of the names that comes with most of the remaining names.

    `a.png, a_x.png, b.png, b_x.png` gives two groups. Empty when the names do not come in such families.
    """
    best: tuple[int, frozenset[str], dict[str, str]] | None = None
    for at_end in (True, False):
        families: dict[Key, dict[str, str]] = defaultdict(dict)
        for file in group.files:
            cut = pieces(file.stem)
            for size in range(min(_LONGEST_AFFIX, len(cut) - 1) + 1):
                kept = cut[: len(cut) - size] if at_end else cut[size:]
                affix = "".join(cut[len(cut) - size :] if at_end else cut[:size])
                if affix and not plain(affix):
                    continue
                name = (file.split, group.folder_keys[file.ref], plain("".join(kept)))
                families[name].setdefault(plain(affix), file.ref)
        several = Counter(frozenset(found) for found in families.values() if 2 <= len(found) <= 8)
        for affixes, count in several.items():
            if count >= 2 and count * len(affixes) >= ENOUGH * len(group) and (best is None or count > best[0]):
                of = {ref: a for found in families.values() if set(found) == affixes for a, ref in found.items()}
                best = (count, affixes, of)
    if best is None:
        return []
    _, affixes, of = best
    cut_groups = []
    for affix in sorted(affixes, key=natural_order):
        files = [file for file in group.files if of.get(file.ref) == affix]
        if files:
            cut_groups.append(regroup(group, files, f"{group.place} ({affix or 'no affix'})"))
    return cut_groups
