"""Which label belongs to which image, by name: the same stem first, then what varies, then the number."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from useg.data.families import one_mask_per_object, several_channels
from useg.data.matches import ENOUGH, Key, KeyOf, Match, folder_keys, split_key, unique
from useg.data.names import common_ends, numbers, pieces, plain
from useg.data.roles import File, Group

BY_NUMBER = "by number"
BY_FOLDER = "by folder"
_CLEARLY_MORE = 0.25
_STEMS_TRIED = 12

Name = Callable[[File], object]


def match(images: Group, labels: Group) -> Match | None:
    """The clearest way in which the two groups belong together; None when fewer than half find a partner."""
    best: Match | None = None
    smaller = min(len(images), len(labels))
    for rank, (how, image_key, label_key) in enumerate(_ways(images, labels)):
        found = _one_to_one(images, labels, how, rank, image_key, label_key)
        if not found.enough or (best is not None and how in {BY_NUMBER, BY_FOLDER}):
            continue
        if best is None or len(found.pairs) > len(best.pairs) + _CLEARLY_MORE * smaller:
            best = found
        if len(best.pairs) == smaller:
            break
    if best is not None and min(best.image_share, best.label_share) >= ENOUGH:
        return best
    several = one_mask_per_object(images, labels) if len(labels) > len(images) else None
    if several is None and len(images) > len(labels):
        several = several_channels(images, labels)
    if several is not None and (best is None or len(several.pairs) >= len(best.pairs)):
        return several
    if best is None and len(images) == len(labels) == 1 and images.files[0].split == labels.files[0].split:
        pair = ((images.files[0],), (labels.files[0],))
        return Match(images, labels, "as the only ones", 20, (pair,), keys={})
    return best


def _ways(images: Group, labels: Group) -> Iterator[tuple[str, KeyOf, KeyOf]]:
    """Ways to compare names, the strictest first; with the folders that vary, their numbers, or neither."""
    folders_of = folder_keys(images, labels)
    vary = any(any(keys) for folders in folders_of for keys in folders.values())
    by_number = tuple(_numbers_only(folders) for folders in folders_of)
    nothing = tuple(dict.fromkeys(folders, ()) for folders in folders_of)
    compared: list[tuple[Mapping[str, Key], ...]] = [folders_of, by_number, nothing] if vary else [nothing]
    split = split_key(images, labels)
    image_inner, label_inner = _inner(images), _inner(labels)
    around = _around(images, labels)

    def key(name: Name, folders: Mapping[str, Key]) -> KeyOf:
        def of(file: File) -> Key | None:
            inner = name(file)
            return None if inner is None else (split(file), folders[file.ref], inner)

        return of

    for image_folders, label_folders in compared:
        for how, image_name, label_name in (
            ("by the same name", _stem, _stem),
            ("by the same name without role words", _rest, _rest),
            *around,
            ("by what varies in the names", image_inner, label_inner),
            (BY_NUMBER, _number_of(image_inner), _number_of(label_inner)),
        ):
            yield how, key(image_name, image_folders), key(label_name, label_folders)
        if vary and image_folders is folders_of[0]:
            yield BY_FOLDER, key(_nothing, image_folders), key(_nothing, label_folders)


def _numbers_only(folders: dict[str, Key]) -> dict[str, Key]:
    return {ref: tuple(found for name in names if (found := numbers(str(name)))) for ref, names in folders.items()}


def _stem(file: File) -> object:
    return file.stem


def _rest(file: File) -> object:
    return file.words.rest


def _nothing(file: File) -> object:
    return ""


def _inner(group: Group) -> Name:
    """The file name without the pieces that all names of the group share at both ends."""
    if len(group) < 2:
        return _rest
    start, end = common_ends(file.stem for file in group.files)

    @cache
    def inner(stem: str) -> str | None:
        cut = pieces(stem)
        return plain("".join(cut[start : len(cut) - end])) or None

    return lambda file: inner(file.stem)


def _around(images: Group, labels: Group) -> list[tuple[str, Name, Name]]:
    """Ways in which one side's names are the other's with fixed letters around them, words or not."""
    ways: list[tuple[str, Name, Name]] = []
    for shorter, longer, swapped in ((images, labels, False), (labels, images, True)):
        popular: Counter[tuple[str, str]] = Counter()
        stems = [file.stem for file in shorter.files]
        for file in longer.files[:: max(1, len(longer) // _STEMS_TRIED)]:
            popular.update({file.stem.partition(stem)[::2] for stem in stems if stem in file.stem})
        if popular and popular.most_common(1)[0][1] > 1:
            start, end = popular.most_common(1)[0][0]
            if not any(letter.isdigit() for letter in start + end) and start + end:
                cut = _cut_off(start, end)
                how = f"by the same name with {start}*{end} around it"
                ways.append((how, cut, _stem) if swapped else (how, _stem, cut))
    return ways


def _cut_off(start: str, end: str) -> Name:
    def cut(file: File) -> object:
        fits = file.stem.startswith(start) and file.stem.endswith(end) and len(file.stem) > len(start) + len(end)
        return file.stem[len(start) : len(file.stem) - len(end)] if fits else None

    return cut


def _number_of(inner: Name) -> Name:
    def number(file: File) -> object:
        return numbers(str(inner(file) or "")) or None

    return number


def _one_to_one(images: Group, labels: Group, how: str, rank: int, image_key: KeyOf, label_key: KeyOf) -> Match:
    """Pairs of files whose keys are equal; a key that several files of one group share pairs none of them."""
    image_keys = {file.ref: image_key(file) for file in images.files}
    label_keys = {file.ref: label_key(file) for file in labels.files}
    unique_labels = unique(labels.files, label_keys)
    unique_images = unique(images.files, image_keys)
    pairs = tuple(((file,), (unique_labels[key],)) for key, file in unique_images.items() if key in unique_labels)
    return Match(images, labels, how, rank, pairs, keys=image_keys | label_keys)
