"""Images and labels brought together: the value, and the parts of names that are compared."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from useg.data.roles import File, Group

ENOUGH = 0.5
"""Share of a group's files that must find a partner, else the two groups do not belong together."""

Key = tuple[object, ...]
KeyOf = Callable[[File], Key | None]


@dataclass(frozen=True)
class Match:
    """Images and labels brought together.

    Attributes:
        how: how they were matched, to be read behind "paired".
        rank: 0 for the clearest way of matching.
        pairs: images (several are channels) and labels (several are one mask per object).
        objects: each label file is one object.
        image_keys: what was compared, per image ref; labels likewise. Files without a partner are there too.
        channels: what tells channel files apart, in their order.
    """

    images: Group
    labels: Group
    how: str
    rank: int
    pairs: tuple[tuple[tuple[File, ...], tuple[File, ...]], ...]
    objects: bool = False
    channels: tuple[str, ...] = ()
    keys: dict[str, Key | None] = field(default_factory=dict)

    @property
    def image_share(self) -> float:
        """Share of the image files that found a label."""
        return sum(len(images) for images, _ in self.pairs) / len(self.images)

    @property
    def label_share(self) -> float:
        """Share of the label files that found an image."""
        return sum(len(labels) for _, labels in self.pairs) / len(self.labels)

    @property
    def enough(self) -> bool:
        """At least half of the smaller group found a partner."""
        return max(self.image_share, self.label_share) >= ENOUGH


def folder_keys(images: Group, labels: Group) -> tuple[dict[str, Key], dict[str, Key]]:
    """Per file the folder names that vary; a level that is constant in both groups says nothing."""
    groups = (images, labels)
    depths = [len(next(iter(group.folder_keys.values()))) for group in groups]
    varying: list[list[int]] = []
    for group, depth in zip(groups, depths, strict=True):
        varying.append([i for i in range(depth) if len({group.folder_keys[f.ref][i] for f in group.files}) > 1])
    if depths[0] == depths[1]:
        either = sorted({*varying[0], *varying[1]})
        varying = [either, either]
    return (
        {f.ref: tuple(images.folder_keys[f.ref][i] for i in varying[0]) for f in images.files},
        {f.ref: tuple(labels.folder_keys[f.ref][i] for i in varying[1]) for f in labels.files},
    )


def unique(files: Sequence[File], keys: dict[str, Key | None]) -> dict[Key, File]:
    """Files by their key; a key that several files share is left out."""
    count = Counter(keys.values())
    return {key: file for file in files if (key := keys[file.ref]) is not None and count[key] == 1}


def split_key(images: Group, labels: Group) -> Callable[[File], str | None]:
    """The split of a file where both groups know splits; else nothing."""
    both = all(any(file.split for file in group.files) for group in (images, labels))
    return (lambda file: file.split) if both else (lambda file: None)
