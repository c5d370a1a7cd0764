"""What one label file holds: its values or colours, how often, and in how many pieces."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Integer

from useg.arrays import Raw
from useg.data.forms import (
    as_colours,
    as_grey,
    count_values,
    is_grey,
    pack_colours,
    unpack_colours,
    whole_numbers,
)
from useg.data.labels import LabelMapping
from useg.errors import DataError

MAX_VALUES = 65536
"""More distinct values than this in one file are not labels."""

PIECES_PIXELS = 4_000_000
"""Connected pieces are counted on at most this many pixels of a file (whole leading rows or planes)."""


@dataclass(frozen=True)
class Census:
    """The values of one label file, counted.

    Attributes:
        where: the file.
        values: (n,) numbers, ascending, or (n, 3 or 4) colours.
        counts: pixels of each value, inside the region where labels count.
        outside: pixels outside that region.
        pieces: connected pieces of each value, or None when not counted.
        largest: pixels of each value's largest piece, or None.
        dtype: as stored.
        channels: as stored, without an alpha that says nothing.
        lossy: the file's compression changes values.
        palette: (n, 3) colours of a palette file.
        alpha: the same of the alpha channel, where there is one and all pixels have one grey.
        of_alpha: these are the values of the alpha channel.
    """

    where: str
    values: np.ndarray
    counts: np.ndarray
    outside: int
    pieces: np.ndarray | None
    largest: np.ndarray | None
    dtype: str
    channels: int
    lossy: bool
    palette: np.ndarray | None
    alpha: "Census | None" = None
    of_alpha: bool = False

    @property
    def coloured(self) -> bool:
        """Whether the values are colours."""
        return self.values.ndim == 2

    def as_raw(self) -> np.ndarray:
        """The distinct values as a one-row label map, which a mapping can encode: (channels, n)."""
        return self.values.T if self.coloured else self.values[None]

    def in_colour(self) -> "Census":
        """The same census with colours for values: palettes are looked up, grey v becomes (v, v, v).

        Raises:
            DataError: a palette index beyond the palette.
        """
        if self.coloured:
            return self
        values = as_colours(self.values[None], self.palette).T.astype(np.int64)
        return replace(self, values=values, pieces=None, largest=None, palette=None, channels=3)


def take_census(
    raw: Raw,
    where: str,
    *,
    region: Bool[np.ndarray, "*space"] | None = None,
    lossy: bool = False,
    palette: np.ndarray | None = None,
    given: LabelMapping | None = None,
    with_pieces: bool = True,
) -> Census:
    """Count the values of one label map.

    Args:
        raw: (channels, *space) as read.
        where: the file, for messages.
        region: where labels count; None is everywhere.
        lossy: whether the file's compression changes values.
        palette: the colours of a palette file.
        given: the mapping to be used, where it is known already (a threshold makes fractions usable).
        with_pieces: count connected pieces of each value too (when there are three values or more).

    Raises:
        DataError: NaN, fractions, too many channels, or more than `MAX_VALUES` values.
    """
    of_alpha = given is not None and given.alpha and len(raw) in (2, 4)
    if of_alpha:
        raw = raw[-1:]
    outside = int(region.size - np.count_nonzero(region)) if region is not None else 0
    pieces = largest = alpha = None
    if given is not None and given.kind == "threshold":
        plane = as_grey(raw, mean=True)
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            raise DataError("the label map holds NaN or infinite values")
        low = int(np.floor(given.threshold or 0.0))
        greater = np.count_nonzero((plane > given.threshold)[region] if region is not None else plane > given.threshold)
        values, counts = np.array([low, low + 1]), np.array([plane.size - outside - greater, greater])
        values, counts = values[counts > 0], counts[counts > 0]
    elif is_grey(raw) or (lossy and _nearly_grey(raw)):
        plane = as_grey(raw, mean=True)
        plane = whole_numbers(np.rint(plane) if len(raw) > 2 and plane.dtype.kind == "f" else plane)
        values, counts = count_values(plane if region is None else plane[region])
        if with_pieces and 3 <= len(values) <= MAX_VALUES:
            pieces, largest = _count_pieces(plane, values)
        if len(raw) in (2, 4) and len(values) == 1:
            alpha = take_census(raw[-1:], where, region=region, lossy=lossy, with_pieces=with_pieces)
            alpha = replace(alpha, of_alpha=True)
    else:
        colours = as_colours(raw)
        if colours.dtype.kind != "u":
            raise DataError(f"a colour-coded label map of dtype {colours.dtype}; unsigned integers are read")
        codes = pack_colours(colours)
        distinct, counts = count_values(codes if region is None else codes[region])
        values = unpack_colours(distinct.astype(codes.dtype), len(colours))
    if len(values) > MAX_VALUES:
        raise DataError(f"{len(values)} distinct values: this is a picture, not a label map")
    return Census(
        where=where,
        values=values,
        counts=counts.astype(np.int64),
        outside=outside,
        pieces=pieces,
        largest=largest,
        dtype=str(raw.dtype) if raw.dtype.kind != "b" else "uint8",
        channels=3 if len(raw) >= 3 else 1,
        lossy=lossy,
        palette=palette,
        alpha=alpha,
        of_alpha=of_alpha,
    )


def _nearly_grey(raw: np.ndarray) -> bool:
    first = raw[0].astype(np.int32)
    return all(int(np.abs(first - channel).max(initial=0)) <= 12 for channel in raw[1:3])


def _count_pieces(plane: Integer[np.ndarray, "*space"], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected pieces of equal value (diagonals connect), and the size of the largest, by value."""
    from skimage.measure import label

    rows = max(1, PIECES_PIXELS // max(1, plane[0].size))
    part = plane[:rows]
    position = np.searchsorted(values, part).astype(np.int32)
    position[(position >= len(values)) | (values[np.minimum(position, len(values) - 1)] != part)] = len(values)
    marked, number = label(position, background=-1, connectivity=part.ndim, return_num=True)
    sizes = np.bincount(marked.ravel(), minlength=number + 1)
    owner = np.zeros(number + 1, np.int64)
    owner[marked.ravel()] = position.ravel()
    pieces = np.bincount(owner[1:], minlength=len(values) + 1)[: len(values)]
    largest = np.zeros(len(values) + 1, np.int64)
    np.maximum.at(largest, owner[1:], sizes[1:])
    return pieces, largest[: len(values)]
