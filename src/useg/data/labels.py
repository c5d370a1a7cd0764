"""How stored label values become class ids, and back: a mapping that is recorded, shown and editable."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from useg.arrays import IGNORE, Instances, Labels, Raw
from useg.data.forms import (
    as_colours,
    as_grey,
    count_values,
    inside,
    pack_colours,
    paint,
    refuse,
    unpack_colours,
    whole_numbers,
)
from useg.data.mapping_file import MAPPING_FILE, parse_keys, read_keys, write_keys
from useg.errors import DataError

MAX_CLASSES = IGNORE - 1
"""A label map holds ids 0..254, and borders between objects may need one of them besides the classes."""

NEAREST_COLOUR_DISTANCE = 221.0
"""With `nearest`, a colour farther from all listed ones than this (half of black to white) is unknown."""

Colour = tuple[int, ...]
Kind = Literal["values", "colours", "threshold", "instances", "objects"]

_DISPLAY = (
    *(
        "#000000",
        "#e69f00",
        "#56b4e9",
        "#009e73",
        "#f0e442",
        "#0072b2",
        "#d55e00",
        "#cc79a7",
        "#999999",
        "#8c564b",
    ),
    *(
        "#17becf",
        "#bcbd22",
        "#9467bd",
        "#1f77b4",
        "#2ca02c",
        "#d62728",
        "#ff7f0e",
        "#e377c2",
        "#7f7f7f",
        "#aec7e8",
    ),
)


def parse_colour(value: object) -> Colour:
    """Turn `[255, 0, 0]` or `"#ff0000"` into a tuple of 3 or 4 numbers 0..65535.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, str) and value.startswith("#") and len(value) in (7, 9):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, list | tuple) and len(value) in (3, 4):
        numbers = tuple(int(v) for v in value)
        if all(0 <= v <= 65535 for v in numbers):
            return numbers
    raise ValueError(f"a colour is [red, green, blue] or '#rrggbb', not {value!r}")


class LabelClass(BaseModel):
    """One class: its name and what stands for it in the label files.

    The first of `values` (or `colours`) is what a prediction is written with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()

    @field_validator("colours", mode="before")
    @classmethod
    def _colours(cls, given: object) -> object:
        return tuple(parse_colour(c) for c in given) if isinstance(given, list | tuple) else given


class LabelMapping(BaseModel):
    """How stored label values become class ids 0..K-1, and back.

    Attributes:
        kind: "values" (a number per class), "colours" (a colour per class), "threshold" (grey values, a
            class on either side), "instances" (numbers are object ids), "objects" (one mask file per object).
        classes: in id order; the background first where there is one.
        ignore: values that mean "not annotated"; they become `IGNORE`.
        ignore_colours: the same for colours.
        threshold: for kind "threshold": greater values are class 1.
        nearest: a value or colour that is not listed takes the class of the nearest listed one.
        alpha: the numbers lie in the alpha channel, where a file has one; predictions are written as grey.
        dtype: the stored dtype, restored by `decode`; None takes the smallest that fits.
        channels: how many channels the stored files have (3: grey saved as RGB).
        stored_palette: the colours of palette files as "#rrggbb", by stored index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    classes: tuple[LabelClass, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    ignore: tuple[int, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()
    threshold: float | None = None
    nearest: bool = False
    alpha: bool = False
    dtype: str | None = None
    channels: int = Field(default=1, ge=1, le=4)
    stored_palette: tuple[str, ...] | None = None

    @field_validator("ignore_colours", mode="before")
    @classmethod
    def _colours(cls, given: object) -> object:
        return tuple(parse_colour(c) for c in given) if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _consistent(self) -> "LabelMapping":
        names = [c.name for c in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"two classes have the same name: {sorted(n for n in names if names.count(n) > 1)[0]}")
        keys = self._keys()
        if len(set(keys)) < len(keys):
            raise ValueError(f"{sorted(k for k in keys if keys.count(k) > 1)[0]} is listed more than once")
        if self.kind in ("instances", "objects", "threshold") and len(self.classes) != 2:
            raise ValueError(
                f"kind '{self.kind}' has two classes, background and object; {len(self.classes)} are listed"
            )
        if self.kind == "threshold" and self.threshold is None:
            raise ValueError("kind 'threshold' needs a threshold")
        if self.kind in ("values", "colours"):
            bare = [c.name for c in self.classes if not (c.values if self.kind == "values" else c.colours)]
            if bare:
                raise ValueError(f"class {bare[0]!r} lists no {self.kind}")
        if len({len(c) for cls in self.classes for c in cls.colours}) > 1:
            raise ValueError("some colours have three numbers and some four")
        if self.dtype is not None:
            np.dtype(self.dtype)
        return self

    def _keys(self) -> list[Any]:
        if self.kind == "colours":
            return [c for cls in self.classes for c in cls.colours] + list(self.ignore_colours)
        return [v for cls in self.classes for v in cls.values] + list(self.ignore)

    @property
    def num_classes(self) -> int:
        """K, background included."""
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in id order."""
        return tuple(c.name for c in self.classes)

    @property
    def has_objects(self) -> bool:
        """Whether the labels tell objects of one class apart."""
        return self.kind in ("instances", "objects")

    @property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8: a colour per class id for display: the user's own where the labels have colours."""
        table = np.zeros((256, 3), np.uint8)
        own = self.stored_palette or ()
        for position, cls in enumerate(self.classes):
            if cls.colours:
                table[position] = np.clip(cls.colours[0][:3], 0, 255)
            elif cls.values and 0 <= cls.values[0] < len(own):
                table[position] = parse_colour(own[cls.values[0]])[:3]
            else:
                table[position] = parse_colour(_DISPLAY[position % len(_DISPLAY)])
        table[IGNORE] = 255
        return table

    @property
    def writing_palette(self) -> np.ndarray | None:
        """(n, 3) uint8: the palette of the label files, to write with what `decode` returns; or None."""
        if self.stored_palette is None:
            return None
        return np.array([parse_colour(c)[:3] for c in self.stored_palette], np.uint8)

    def encode(self, raw: Raw, palette: np.ndarray | None = None) -> tuple[Labels, Instances | None]:
        """Class ids (and object ids for kind "instances") of one stored label map.

        Args:
            raw: (channels, *space) as read.
            palette: (n, 3) colours of a palette file; needed for kind "colours".

        Raises:
            DataError: a value or colour is not in the mapping; a value is NaN or not whole.
        """
        if self.kind == "colours":
            return self._encode_colours(as_colours(raw, palette)), None
        raw = raw[-1:] if self.alpha and len(raw) in (2, 4) else raw
        grey = as_grey(raw, mean=self.kind == "threshold")
        if self.kind == "threshold":
            return self._encode_threshold(grey), None
        grey = whole_numbers(grey)
        if self.kind in ("instances", "objects"):
            instances = self._instances(grey)
            classes = (instances > 0).astype(np.uint8)
            for value in self.ignore:
                classes[grey == value] = IGNORE
            return classes, instances
        return self._encode_values(grey), None

    def encode_objects(self, masks: Iterable[np.ndarray], shape: tuple[int, ...]) -> tuple[Labels, Instances]:
        """Class ids and object ids from one mask per object; where two overlap, the smaller keeps the pixel.

        Args:
            masks: each `shape`, or (channels, *shape), of which the first counts; what is more than half of
                the mask's own maximum is inside. Empty masks count for nothing.
            shape: the space of the image.

        Raises:
            DataError: a mask has another shape.
        """
        instances = np.zeros(shape, np.int32)
        areas = [0]
        for position, mask in enumerate(masks):
            plane = mask if mask.ndim == len(shape) else mask[0]
            if plane.shape != shape:
                raise DataError(f"mask {position} is {plane.shape}, the image {shape}")
            paint(instances, inside(plane), areas)
        return (instances > 0).astype(np.uint8), instances

    def decode(self, classes: Labels) -> np.ndarray:
        """The user's values: `(*space)` in the stored dtype; `(3, *space)` for colours and grey saved as RGB.

        `decode(encode(x)) == x` where every class has one value. Pixels with `IGNORE` take the first ignore
        value (else the background's). For "instances" and "objects", objects are written as one value.

        Raises:
            DataError: an id is not a class of this mapping.
        """
        ids, _ = count_values(classes)
        wrong = ids[(ids >= self.num_classes) & (ids != IGNORE)]
        if wrong.size:
            raise DataError(f"class id {int(wrong[0])} is not in the mapping of {self.num_classes} classes")
        if self.kind == "colours":
            table = np.zeros((256, len(self.classes[0].colours[0])), np.dtype(self.dtype or "uint8"))
            for position, cls in enumerate(self.classes):
                table[position] = cls.colours[0]
            table[IGNORE] = self.ignore_colours[0] if self.ignore_colours else table[0]
            return np.ascontiguousarray(np.moveaxis(table[classes], -1, 0))
        stored = [cls.values[0] if cls.values else position for position, cls in enumerate(self.classes)]
        unknown = self.ignore[0] if self.ignore else stored[0]
        fitting = np.result_type(*(np.min_scalar_type(v) for v in (*stored, unknown)))
        lookup = np.zeros(256, np.dtype(self.dtype) if self.dtype else fitting)
        lookup[: len(stored)] = stored
        lookup[IGNORE] = unknown
        plain = lookup[classes]
        return np.repeat(plain[None], self.channels, 0) if self.channels >= 3 else plain

    def _encode_values(self, grey: np.ndarray) -> np.ndarray:
        pairs = [(v, i) for i, cls in enumerate(self.classes) for v in cls.values]
        pairs += [(v, IGNORE) for v in self.ignore]
        if grey.dtype == np.uint8 and not self.nearest:
            table, known = np.zeros(256, np.uint8), np.zeros(256, bool)
            for value, position in pairs:
                if 0 <= value < 256:
                    table[value], known[value] = position, True
            present, _ = count_values(grey)
            refuse([int(v) for v in present if not known[v]])
            encoded: np.ndarray = table[grey]
            return encoded
        pairs.sort()
        values = np.array([v for v, _ in pairs], np.int64)
        ids = np.array([i for _, i in pairs], np.uint8)
        wide = grey.astype(np.int64)
        if self.nearest:
            return ids[np.searchsorted((values[1:] + values[:-1]) / 2.0, wide)]
        at = np.minimum(np.searchsorted(values, wide), len(values) - 1)
        wrong = values[at] != wide
        if wrong.any():
            refuse([int(v) for v in np.unique(wide[wrong])])
        return ids[at]

    def _encode_threshold(self, grey: np.ndarray) -> np.ndarray:
        if grey.dtype.kind == "f" and not np.isfinite(grey).all():
            raise DataError("the label map holds NaN or infinite values")
        return (grey > self.threshold).astype(np.uint8)

    def _encode_colours(self, colours: np.ndarray) -> np.ndarray:
        listed = [(c, i) for i, cls in enumerate(self.classes) for c in cls.colours]
        listed += [(c, IGNORE) for c in self.ignore_colours]
        wanted = len(listed[0][0])
        if len(colours) < wanted:
            raise DataError(f"the mapping lists colours of {wanted} channels, the label map has {len(colours)}")
        packed = pack_colours(colours[:wanted])
        if not self.nearest and len(listed) <= 32:
            # A few comparisons are faster than sorting all pixels.
            wanted_codes = pack_colours(np.array([c for c, _ in listed], colours.dtype).T)
            encoded = np.zeros(packed.shape, np.uint8)
            known = np.zeros(packed.shape, bool)
            for code, (_, position) in zip(wanted_codes, listed, strict=True):
                here = packed == code
                known |= here
                encoded[here] = position
            if known.all():
                return encoded
        codes, at = np.unique(packed, return_inverse=True)
        found = unpack_colours(codes, wanted)
        table = np.array([c for c, _ in listed], np.float64)
        distance = np.sqrt(((found[:, None, :].astype(np.float64) - table[None]) ** 2).sum(-1))
        best = distance.argmin(1)
        limit = NEAREST_COLOUR_DISTANCE if self.nearest else 0.0
        refuse([tuple(int(v) for v in found[k]) for k in np.flatnonzero(distance.min(1) > limit)])
        ids = np.array([i for _, i in listed], np.uint8)[best]
        nearest: np.ndarray = ids[at].reshape(packed.shape)
        return nearest

    def _instances(self, grey: np.ndarray) -> np.ndarray:
        background = self.classes[0].values or (0,)
        empty = np.isin(grey, np.array([*background, *self.ignore], np.int64))
        if grey.dtype.kind in "iu" and grey.size and int(grey.max()) <= np.iinfo(np.int32).max and int(grey.min()) >= 0:
            ids = grey.astype(np.int32)
            if not (ids[~empty] == 0).any():
                ids[empty] = 0
                return ids
        _, at = np.unique(grey, return_inverse=True)
        ids = at.reshape(grey.shape).astype(np.int32) + 1
        ids[empty] = 0
        return ids

    def to_toml(self) -> str:
        """The mapping as a commented file that can be edited and given back."""
        keys = self.model_dump()
        keys["ignore"] = keys.pop("ignore_colours") or keys["ignore"]
        return write_keys(keys)

    @classmethod
    def from_toml(cls, text: str, where: str = MAPPING_FILE) -> "LabelMapping":
        """Read what `to_toml` wrote, or what a user wrote by hand.

        Raises:
            DataError: not TOML, an unknown key, or values that do not fit together.
        """
        return cls.build(parse_keys(text, where), where)

    @classmethod
    def build(cls, keys: Mapping[str, Any], where: str = MAPPING_FILE) -> "LabelMapping":
        """Check and build a mapping from the keys of its file.

        Raises:
            DataError: an unknown or missing key, or values that do not fit together.
        """
        keys = dict(keys)
        ignored = keys.get("ignore", ())
        if isinstance(ignored, list | tuple) and any(not isinstance(v, int) for v in ignored):
            keys["ignore_colours"] = keys.pop("ignore")
        try:
            return cls(**keys)
        except ValidationError as error:
            faults = "; ".join(
                (".".join(str(p) for p in e["loc"]) + ": " if e["loc"] else "") + e["msg"].removeprefix("Value error, ")
                for e in error.errors()
            )
            raise DataError(f"{where} is not a label mapping: {faults}") from None


def load_mapping(path: Path) -> LabelMapping:
    """Read a complete `classes.toml`.

    Raises:
        DataError: the file cannot be read, or is not a complete mapping.
    """
    return LabelMapping.build(read_keys(path), str(path))
