"""Declared changes that a view makes to its samples while they are loaded: what they are, not how they are applied.

Each is written as `NAME=VALUES`; the canonical text is part of the view's digest. Sizes are height x width in px, or
depth x height x width.

    resize=256            the longest side becomes 256 px, the others in proportion
    resize=256x384        exactly this size
    scale=0.5             every side times 0.5
    rotate=90             degrees, counter-clockwise in the plane of the last two axes
    crop=128x128          from the middle
    crop=128x128+10+20    from this place: y, x (or z, y, x)
    merge=2+3:1           classes 2 and 3 become class 1; classes by value or name
    weight=2:5            class 2 counts five times in the loss
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

from useg.errors import InputError

LONGEST_SIDE_PX = 1 << 20
MOST = 50

_CLASS = r"[^\s+:,=][^+:,=]{0,99}"


@dataclass(frozen=True)
class Resize:
    """Another size: `longest_px` for the longest side, else all sides."""

    longest_px: int | None = None
    size_px: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"resize={self.longest_px or _sides(self.size_px)}"


@dataclass(frozen=True)
class Scale:
    """All sides times a factor."""

    factor: float

    def __str__(self) -> str:
        return f"scale={_number(self.factor)}"


@dataclass(frozen=True)
class Rotate:
    """Turned by degrees in (0, 360), counter-clockwise; multiples of 90 are exact."""

    degrees: float

    def __str__(self) -> str:
        return f"rotate={_number(self.degrees)}"


@dataclass(frozen=True)
class Crop:
    """A part of this size, from the middle or from a place."""

    size_px: tuple[int, ...]
    start_px: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"crop={_sides(self.size_px)}" + "".join(f"+{start}" for start in self.start_px)


@dataclass(frozen=True)
class Merge:
    """Classes, by value or name, that become one."""

    classes: tuple[int | str, ...]
    into: int | str

    def __str__(self) -> str:
        return f"merge={'+'.join(map(str, self.classes))}:{self.into}"


@dataclass(frozen=True)
class Weight:
    """How much a class counts in the loss."""

    label: int | str
    factor: float

    def __str__(self) -> str:
        return f"weight={self.label}:{_number(self.factor)}"


Transform = Resize | Scale | Rotate | Crop | Merge | Weight


def parse_transform(text: str) -> Transform:
    """One transform from its text.

    >>> str(parse_transform("merge=3+2:1")), parse_transform("crop=64x32+0+8")
    ('merge=2+3:1', Crop(size_px=(64, 32), start_px=(0, 8)))

    Raises:
        InputError: there is no such transform, or its values are out of range.
    """
    name, equals, values = text.strip().partition("=")
    parser, wanted = _PARSERS.get(name, (None, ""))
    if parser is None or not equals:
        raise InputError(f"{text[:200]!r} is no transform; wanted {', '.join(f'{n}=…' for n in _PARSERS)}")
    found = parser(values)
    if found is None:
        raise InputError(f"{text[:200]!r}: wanted {wanted}")
    return found


def parse_transforms(texts: Iterable[str]) -> tuple[Transform, ...]:
    """Several transforms, applied in this order.

    Raises:
        InputError: one is wrong, or two cannot both hold.
    """
    found = tuple(parse_transform(text) for text in texts)
    if len(found) > MOST:
        raise InputError(f"{len(found)} transforms were given; at most {MOST} are kept")
    weighted = [transform.label for transform in found if isinstance(transform, Weight)]
    twice = sorted({str(label) for label in weighted if weighted.count(label) > 1})
    if twice:
        raise InputError(f"the class {twice[0]} is given two weights")
    return found


def _resize(values: str) -> Resize | None:
    if re.fullmatch("[0-9]{1,7}", values) and 1 <= int(values) <= LONGEST_SIDE_PX:
        return Resize(longest_px=int(values))
    size = _size(values)
    return Resize(size_px=size) if size else None


def _scale(values: str) -> Scale | None:
    factor = _float(values)
    return Scale(factor) if factor is not None and 1e-3 <= factor <= 1e3 else None


def _rotate(values: str) -> Rotate | None:
    degrees = _float(values)
    if degrees is None or abs(degrees) > 3600 or degrees % 360 == 0:
        return None
    return Rotate(degrees % 360)


def _crop(values: str) -> Crop | None:
    sides, *starts = values.split("+")
    size = _size(sides)
    if not size or (starts and len(starts) != len(size)):
        return None
    if any(not re.fullmatch("[0-9]{1,7}", start) for start in starts):
        return None
    return Crop(size, tuple(map(int, starts)))


def _merge(values: str) -> Merge | None:
    found = re.fullmatch(rf"({_CLASS}(?:\+{_CLASS})*):({_CLASS})", values)
    if found is None:
        return None
    into = _class(found[2])
    classes = sorted({_class(label) for label in found[1].split("+")} - {into}, key=lambda c: (isinstance(c, str), c))
    return Merge(tuple(classes), into) if classes else None


def _weight(values: str) -> Weight | None:
    label, _, factor_text = values.rpartition(":")
    factor = _float(factor_text)
    if not re.fullmatch(_CLASS, label) or factor is None or not 0 <= factor <= 1e6:
        return None
    return Weight(_class(label), factor)


_PARSERS: Mapping[str, tuple[Callable[[str], Transform | None], str]] = {
    "resize": (_resize, f"one side or all of them, from 1 to {LONGEST_SIDE_PX} px: resize=256, resize=256x384"),
    "scale": (_scale, "a factor from 0.001 to 1000: scale=0.5"),
    "rotate": (_rotate, "degrees that are no whole turn: rotate=90"),
    "crop": (_crop, "a size, then possibly a place: crop=128x128, crop=128x128+10+20"),
    "merge": (_merge, "classes and the one they become: merge=2+3:1"),
    "weight": (_weight, "a class and its factor, from 0 to 1000000: weight=2:5"),
}


def _size(text: str) -> tuple[int, ...]:
    sides = text.split("x")
    if len(sides) not in (2, 3) or any(not re.fullmatch("[0-9]{1,7}", side) for side in sides):
        return ()
    size = tuple(map(int, sides))
    return size if all(1 <= side <= LONGEST_SIDE_PX for side in size) else ()


def _class(text: str) -> int | str:
    text = text.strip()
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else text


def _float(text: str) -> float | None:
    if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,15})?", text):
        return None
    value = float(text)
    return value if isfinite(value) else None


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _sides(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
