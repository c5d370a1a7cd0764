"""The classes of colour-coded label files, exact or smeared by JPEG or anti-aliasing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from useg.data.census import Census
from useg.data.labels import MAX_CLASSES, Colour, parse_colour
from useg.errors import DataError, Problem

NEAR = 30.0
"""A rarer colour at most this far (of 441) from a common one is that colour, smeared."""

SAME = 8.0
"""Where colours are smeared, also a common colour this close to a more common one is the same."""

ON_THE_WAY = 14.0
"""A rarer colour at most this far from the line between two common ones is a blend of the two."""

RARE = 0.1
"""Smeared colours have at most this share of the pixels of the colour they come from."""

BLENDS = 8
"""Fewer smeared colours than this (or twice the classes), in files without loss, are classes of their own."""

MOST_COLOURS = 4096
"""This many of the most common colours are looked at; the rest must be a few pixels."""

KNOWN = 0.8
"""At least this share of all pixels has a listed colour, or nearly so."""

MOST_BLENDED = 32
"""Blends of this many of the most common classes are looked for."""

UNSAFE = 1e-3
"""Up to this share of all pixels may be blends whose nearest colour is a third class."""

_NAMES: dict[Colour, str] = {
    (0, 0, 0): "black", (255, 255, 255): "white", (255, 0, 0): "red", (0, 255, 0): "green",
    (0, 0, 255): "blue", (255, 255, 0): "yellow", (0, 255, 255): "cyan", (255, 0, 255): "magenta",
    (128, 128, 128): "grey", (128, 0, 0): "maroon", (0, 128, 0): "dark green", (0, 0, 128): "navy",
    (128, 128, 0): "olive", (0, 128, 128): "teal", (128, 0, 128): "purple", (255, 128, 0): "orange",
    (255, 165, 0): "orange",
}  # fmt: skip


@dataclass(frozen=True)
class _Sorted:
    """Colours sorted into classes and smears: indices into the pooled table."""

    classes: list[int]
    near: list[int]
    blends: list[int]


def infer_colours(files: Sequence[Census], keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], list[str]]:
    """Keys of a mapping of kind "colours", repairs and warnings.

    Args:
        files: the census of every label file, in colour.
        keys: keys of a partial `classes.toml`.

    Raises:
        DataError: some files have alpha and others not; the colours are blends that cannot be told apart.
    """
    colours, counts = _pool(files)
    ignore = {parse_colour(c)[: colours.shape[1]] for c in keys.get("ignore", ())}
    kept = np.array([tuple(c) not in ignore for c in colours.tolist()], bool)
    colours, counts = colours[kept], counts[kept]
    lossy = any(f.lossy for f in files)
    found = _sort(colours, counts, lossy=lossy)
    smeared = len(found.near) + len(found.blends)
    if smeared or len(found.classes) > MAX_CLASSES:
        _refuse_unsafe(files, colours, counts, found)
    classes = [tuple(int(v) for v in colours[i]) for i in found.classes]
    names = _names(classes, counts[found.classes])
    mapping = {
        **keys,
        "kind": "colours",
        "nearest": bool(smeared) or keys.get("nearest", False),
        "classes": [
            {"name": names[c], "colours": [c]} for c in sorted(classes, key=lambda c: (names[c] != "background", c))
        ],
        "ignore": [list(c) for c in sorted(ignore)],
    }
    listed = ", ".join(cls["name"] for cls in mapping["classes"])
    repairs = [f"{len(classes)} colours -> class ids 0..{len(classes) - 1}: {listed}"]
    warnings = []
    if smeared:
        repairs.append(f"{smeared} blended colours (JPEG or anti-aliasing) take the class of the nearest listed colour")
        warnings.append("the label files have smeared colours; PNG without anti-aliasing keeps edges exact")
    return mapping, repairs, warnings


def _pool(files: Sequence[Census]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct colours of all files, most common first, and their pixels; constant alpha is dropped."""
    alphas = {int(a) for f in files if f.values.shape[1] == 4 for a in np.unique(f.values[:, 3])}
    width = 4 if len(alphas) > 1 else 3
    odd = [f for f in files if f.values.shape[1] < width]
    if odd:
        four = [f for f in files if f.values.shape[1] == width]
        fewer, what = (four, "an alpha channel that varies") if len(four) < len(odd) else (odd, "no alpha channel")
        raise DataError(
            f"{len(four)} label files are RGBA with a varying alpha, {len(odd)} have no alpha",
            [Problem(f.where, what, "save all label files alike") for f in fewer],
        )
    table = np.concatenate([f.values[:, :width] for f in files])
    colours, at = np.unique(table, axis=0, return_inverse=True)
    counts = np.bincount(at.ravel(), weights=np.concatenate([f.counts for f in files]), minlength=len(colours))
    order = np.argsort(-counts, kind="stable")
    return colours[order], counts[order].astype(np.int64)


def _sort(colours: np.ndarray, counts: np.ndarray, *, lossy: bool) -> _Sorted:
    """Sort colours, most common first, into classes, near misses of a class, and blends of two."""
    points = colours.astype(np.float64)
    merging = lossy or len(points) > MAX_CLASSES
    found = _Sorted([], [], [])
    for i in range(min(len(points), MOST_COLOURS)):
        if found.classes:
            distance = np.linalg.norm(points[found.classes] - points[i], axis=1)
            best = int(distance.argmin())
            rare = counts[i] <= RARE * counts[found.classes[best]]
            if (distance[best] <= NEAR and rare) or (merging and distance[best] <= SAME):
                found.near.append(i)
                continue
            common = np.array([c for c in found.classes if counts[i] <= RARE * counts[c]], np.int64)
            if len(_between(points, common[:MOST_BLENDED], i)):
                found.blends.append(i)
                continue
        found.classes.append(i)
        if len(found.classes) > MAX_CLASSES:
            break
    smeared = len(found.near) + len(found.blends)
    if not merging and smeared < max(BLENDS, 2 * len(found.classes)):
        return _Sorted(list(range(len(points))), [], [])
    return found


def _between(points: np.ndarray, classes: np.ndarray, i: int) -> np.ndarray:
    """The pairs of classes that colour i may be a blend of: (n, 2)."""
    first, second = np.triu_indices(len(classes), 1)
    start, line = points[classes[first]], points[classes[second]] - points[classes[first]]
    along = ((points[i] - start) * line).sum(1) / (line**2).sum(1)
    distance = np.linalg.norm(start + along[:, None] * line - points[i], axis=1)
    fits = (along > 0.0) & (along < 1.0) & (distance <= ON_THE_WAY)
    return np.stack([classes[first[fits]], classes[second[fits]]], axis=1)


def _unsafe_pixels(points: np.ndarray, counts: np.ndarray, found: _Sorted) -> int:
    """Pixels of blends whose nearest class is perhaps none of the two that were blended."""
    classes = np.array(found.classes[:MOST_BLENDED], np.int64)
    unsafe = 0
    for i in found.blends:
        nearest = classes[np.linalg.norm(points[classes] - points[i], axis=1).argmin()]
        pairs = _between(points, classes, i)
        if not (pairs == nearest).any(axis=1).all():
            unsafe += int(counts[i])
    return unsafe


def _refuse_unsafe(files: Sequence[Census], colours: np.ndarray, counts: np.ndarray, found: _Sorted) -> None:
    """Raise when blended colours may end in a class that is not there."""
    total = int(counts.sum())
    if len(found.classes) <= MOST_BLENDED:
        unsafe = _unsafe_pixels(colours.astype(np.float64), counts, found) + int(counts[MOST_COLOURS:].sum())
        known = int(counts[found.classes].sum()) + int(counts[found.near].sum())
        if unsafe <= UNSAFE * total and known >= KNOWN * total:
            return
    raise DataError(
        f"the label files hold {len(colours)} colours, blended so that classes cannot be told apart safely",
        [
            Problem(
                f.where,
                f"{len(f.values)} colours",
                "save labels without anti-aliasing; or list colours in classes.toml with nearest = true",
            )
            for f in files
            if len(f.values) > min(len(found.classes), MOST_BLENDED)
        ],
    )


def _names(classes: Sequence[Colour], counts: np.ndarray) -> dict[Colour, str]:
    """A name per colour; black, else the most common, is the background."""
    names = {c: _NAMES.get(c[:3], "#" + "".join(f"{v:02x}" for v in c)) for c in classes}
    black = [c for c in classes if c[:3] == (0, 0, 0)]
    background = black[0] if black else classes[int(np.argmax(counts))]
    names[background] = "background"
    taken: set[str] = set()
    for colour in classes:
        if names[colour] in taken:
            names[colour] = "#" + "".join(f"{v:02x}" for v in colour)
        taken.add(names[colour])
    return names
