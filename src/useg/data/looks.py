"""How a group of files looks inside, from a few of them: pictures, label maps, or one fixed mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from useg.data.images import Header, read_header, read_image
from useg.data.roles import File, Group
from useg.errors import MissingExtra, UsegError

_FILES_LOOKED_AT = 3
_MASKS_COMPARED = 4
_MOST_PIXELS = 4_000_000
_FEW_VALUES = 32
_MAIN_VALUES = 8
_MAIN_SHARE = 0.98
_SAME_SHAPE_IOU = 0.9
_SAME_OBJECT_IOU = 0.3
_EQUAL_STEP = 8


@dataclass(frozen=True)
class Look:
    """What a few files of a group show.

    Attributes:
        label_likeness: 0 (a picture) to 1 (a label map).
        classes: the number of different values (or colours) seen, JPEG noise not counted.
        channels: of the first readable file, 0 when none can be read.
        space: spatial shape of each file looked at.
        binary: every file has at most two values.
    """

    label_likeness: float
    classes: int
    channels: int
    space: tuple[tuple[int, ...], ...]
    binary: bool


class Looks:
    """Looks of groups, each taken once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._taken: dict[int, tuple[Group, Look]] = {}

    def of(self, group: Group) -> Look:
        """Look at the first, the middle and the last file of a group."""
        if id(group) not in self._taken:
            self._taken[id(group)] = (group, self._look(group.files))
        return self._taken[id(group)][1]

    def space(self, file: File) -> tuple[int, ...] | None:
        """Spatial shape of one file; None when it cannot be read."""
        header = self._header(file)
        return tuple(header.shape[1:]) if header else None

    def same_shape_everywhere(self, group: Group) -> bool:
        """Whether the masks of a group are two-valued and nearly the same in all pictures: a field of view.

        The agreement is the smaller one of inside and outside, so that a mask that is nearly full does not
        count.
        """
        masks: list[np.ndarray] = []
        for file in _spread(group.files, _MASKS_COMPARED):
            pixels = self._pixels(file)
            if pixels is None:
                continue
            values = np.unique(pixels)
            if values.size > 2:
                return False
            masks.append(pixels[0] == values[-1])
        pairs = [(a, b) for a, b in combinations(masks, 2) if a.shape == b.shape]
        if not pairs:
            return False
        return float(np.mean([min(_iou(a, b), _iou(~a, ~b)) for a, b in pairs])) > _SAME_SHAPE_IOU

    def overlap(self, pairs: Sequence[tuple[Sequence[File], Sequence[File]]]) -> bool:
        """Whether masks of one image mostly cover the same pixels: several opinions, not several objects."""
        ious: list[float] = []
        for _, labels in pairs[:2]:
            masks = [pixels[0] > 0 for file in labels[:_MASKS_COMPARED] if (pixels := self._pixels(file)) is not None]
            ious += [_iou(a, b) for a, b in combinations(masks, 2) if a.shape == b.shape and (a | b).any()]
        return bool(ious) and float(np.mean(ious)) > _SAME_OBJECT_IOU

    def _look(self, files: Sequence[File]) -> Look:
        seen = [one for file in _spread(files, _FILES_LOOKED_AT) if (one := self._look_at(file)) is not None]
        if not seen:
            return Look(0.0, 0, 0, (), False)
        return Look(
            float(np.mean([one.label_likeness for one in seen])),
            max(one.classes for one in seen),
            seen[0].channels,
            tuple(one.space[0] for one in seen),
            all(one.binary for one in seen),
        )

    def _look_at(self, file: File) -> Look | None:
        header, pixels = self._header(file), self._pixels(file)
        if header is None or pixels is None or pixels.size == 0:
            return None
        space = (tuple(header.shape[1:]),)
        if pixels.dtype.kind == "f" and not np.array_equal(pixels, np.round(pixels)):
            return Look(0.0, 1 << 16, header.channels, space, False)
        colours = _colours((pixels.astype(np.int64) + 32) // 64 if header.lossy else pixels)
        counts = np.sort(np.unique(colours[..., ::_EQUAL_STEP, :], return_counts=True)[1])[::-1]
        classes = counts.size
        flat = float(np.mean(colours[..., 1:] == colours[..., :-1])) if colours.shape[-1] > 1 else 1.0
        # a smeared edge has hundreds of values, and hardly any pixels
        plain = classes <= _FEW_VALUES or counts[:_MAIN_VALUES].sum() >= _MAIN_SHARE * counts.sum()
        few = 1.0 if plain else 0.5 if classes <= 8 * _FEW_VALUES else 0.2
        likeness = np.clip((flat - 0.6) / 0.35, 0.0, 1.0) * few
        if header.channels not in (1, 3, 4):
            likeness *= 0.2
        if header.lossy:
            likeness *= 0.7
        return Look(float(likeness), classes, header.channels, space, classes <= 2)

    def _header(self, file: File) -> Header | None:
        try:
            return read_header(str(self._root / file.ref))
        except MissingExtra:
            raise
        except (UsegError, OSError):
            return None

    def _pixels(self, file: File) -> np.ndarray | None:
        """A readable part of the file, at most a few million pixels."""
        header = self._header(file)
        if header is None:
            return None
        space = header.shape[1:]
        window: tuple[slice, ...] | None = None
        if int(np.prod(space)) > _MOST_PIXELS:
            planes = [slice(size // 2, size // 2 + 1) for size in space[:-2]]
            window = (*planes, *(slice(max(0, size // 2 - 500), size // 2 + 500) for size in space[-2:]))
        try:
            return read_image(str(self._root / file.ref), window)
        except MissingExtra:
            raise
        except (UsegError, OSError):
            return None


def _spread(files: Sequence[File], count: int) -> list[File]:
    """At most `count` files, spread evenly over all of them."""
    positions = sorted({round(i * (len(files) - 1) / max(1, count - 1)) for i in range(count)})
    return [files[i] for i in positions]


def _colours(pixels: np.ndarray) -> np.ndarray:
    """One number per pixel; colours of several channels are packed into one."""
    if pixels.shape[0] == 1:
        plane: np.ndarray = pixels[0]
        return plane
    packed = np.zeros(pixels.shape[1:], dtype=np.int64)
    for channel in pixels[:3]:
        packed = packed * 65536 + channel.astype(np.int64)
    return packed


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = int(np.logical_or(a, b).sum())
    return float(np.logical_and(a, b).sum()) / union if union else 1.0
