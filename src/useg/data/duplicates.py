"""Pictures that are the same or nearly so, and series whose neighbours look alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped

from useg.data.fingerprint import DuplicatePair

THUMBNAIL = 64
"""Edge of the thumbnails that are compared."""

HAMMING = 10
"""Two 64-bit hashes that differ in at most this many bits are looked at closer."""

SAME_PICTURE = 0.985
"""Correlation of two thumbnails, slow brightness changes removed, from which they show the same picture."""

_SUMMABLE = 1e30
"""Pixels above this could overflow float32 when they are summed up."""

MOST_PAIRS = 100_000
"""At most this many candidate pairs are looked at closer."""

SERIES_MARGIN = 0.15
"""How much more alike (correlation) neighbours of a series are than distant pairs, at the median."""

SERIES_SHARE = 0.8
"""Share of neighbouring pairs of a series that are more alike than 90 % of the distant pairs."""


@dataclass(frozen=True)
class Look:
    """What a picture looks like, in a few bytes.

    Attributes:
        bits: 64-bit difference hash; None for a picture of one value.
        detail: thumbnail without slow brightness changes, mean 0, float16; all 0 for a picture of one value.
        digest: of the exact pixels, shape and dtype.
    """

    bits: int | None
    detail: np.ndarray
    digest: str


def look_at(plane: Shaped[np.ndarray, "height width"], digest: str) -> Look:
    """Thumbnail and hash of one plane; NaN count as 0."""
    import cv2

    with np.errstate(over="ignore"):
        picture = np.nan_to_num(plane.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
    largest = float(np.abs(picture).max())
    if largest > _SUMMABLE:
        picture = picture / np.float32(largest)
    small = cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    detail = (small - cv2.GaussianBlur(small, (0, 0), THUMBNAIL / 8)).ravel().astype(np.float64)
    detail -= detail.mean()
    norm = float(np.linalg.norm(detail))
    scale = float(np.abs(small).max())
    if norm <= 1e-6 * max(scale, 1e-30):
        return Look(None, np.zeros(THUMBNAIL * THUMBNAIL, np.float16), digest)
    nine = cv2.resize(small, (9, 8), interpolation=cv2.INTER_AREA)
    bits = int.from_bytes(np.packbits(nine[:, 1:] > nine[:, :-1]).tobytes(), "big")
    # Scaled by the edge so that float16 keeps its precision.
    return Look(bits, (detail / norm * THUMBNAIL).astype(np.float16), digest)


def correlation(first: Look, second: Look) -> float:
    """Correlation of two thumbnails, -1 to 1; 0 where one has a single value."""
    product = first.detail.astype(np.float32) @ second.detail.astype(np.float32)
    return float(product) / THUMBNAIL**2


def find_duplicates(
    keys: Sequence[str], looks: Sequence[Look], splits: Sequence[str | None]
) -> tuple[DuplicatePair, ...]:
    """Pairs of samples that show the same picture, in order of the samples.

    Args:
        keys: names of the samples.
        looks: of each.
        splits: the given split of each, or None.
    """
    pairs = _equal_digests(looks) | {(i, j) for i, j in _close_hashes(looks)}
    found = []
    for i, j in sorted(pairs):
        exact = looks[i].digest == looks[j].digest
        value = 1.0 if exact else correlation(looks[i], looks[j])
        if exact or value >= SAME_PICTURE:
            found.append(
                DuplicatePair(
                    first=keys[i],
                    second=keys[j],
                    exact=exact,
                    correlation=round(value, 4),
                    across_splits=splits[i] is not None and splits[j] is not None and splits[i] != splits[j],
                )
            )
    return tuple(found)


def _equal_digests(looks: Sequence[Look]) -> set[tuple[int, int]]:
    by_digest: dict[str, list[int]] = {}
    for position, look in enumerate(looks):
        by_digest.setdefault(look.digest, []).append(position)
    # The first of each set of equals against the others: a thousand black frames are no half million pairs.
    return {(same[0], other) for same in by_digest.values() for other in same[1:]}


def _close_hashes(looks: Sequence[Look]) -> list[tuple[int, int]]:
    known = [i for i, look in enumerate(looks) if look.bits is not None]
    hashes = np.array([looks[i].bits for i in known], np.uint64)
    close: list[tuple[int, int]] = []
    for position in range(len(known) - 1):
        bits = np.bitwise_count(hashes[position + 1 :] ^ hashes[position])
        for other in np.flatnonzero(bits <= HAMMING):
            close.append((known[position], known[position + 1 + int(other)]))
        if len(close) > MOST_PAIRS:
            break
    return close


@dataclass(frozen=True)
class Series:
    """Whether neighbours in a series look alike, and the two medians of correlation it was decided on."""

    alike: bool
    neighbours: float | None = None
    distant: float | None = None


def compare_neighbours(series: Sequence[Sequence[Look]]) -> Series:
    """Decide whether neighbours look clearly more alike than distant pairs.

    Args:
        series: samples in natural order, a list for each given split or group; less than 6 say nothing.
    """
    near: list[Float32[np.ndarray, ""]] = []
    far: list[Float32[np.ndarray, ""]] = []
    for part in series:
        if len(part) < 6:
            continue
        table = np.stack([look.detail for look in part]).astype(np.float32) / THUMBNAIL
        step = max(2, len(part) // 3)
        near.append((table[1:] * table[:-1]).sum(1))
        far.append((table[step:] * table[:-step]).sum(1))
        far.append((table[step + 1 :] * table[: -step - 1]).sum(1))
    if not near:
        return Series(alike=False)
    close, distant = np.concatenate(near), np.concatenate(far)
    a, b = float(np.median(close)), float(np.median(distant))
    clear = float((close > np.quantile(distant, 0.9)).mean()) >= SERIES_SHARE
    return Series(bool(a - b >= SERIES_MARGIN and clear), round(a, 4), round(b, 4))
