"""The label mapping, inferred from the values found in all label files by general rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from useg.data.census import Census
from useg.data.infer_colours import infer_colours
from useg.data.labels import MAX_CLASSES, LabelMapping
from useg.data.objectness import looks_like_objects
from useg.errors import DataError, Problem

REMEDY = "say what the values mean in a classes.toml (`useg inspect DATA --classes FILE`)"

FEW_STRAYS = 0.10
"""Smeared masks (JPEG, anti-aliasing) have at most this share of pixels away from their two modes."""

DUST_PX = 4
"""Values whose connected pieces have fewer pixels than this on average are no classes, but smeared edges."""


@dataclass
class Inference:
    """A mapping with what was repaired and what is doubtful about it.

    Attributes:
        mapping: the mapping.
        repairs: what the mapping changes, in sentences; shown and recorded.
        warnings: what the user should check.
    """

    mapping: LabelMapping
    repairs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def infer_mapping(
    files: Sequence[Census], *, hints: Mapping[str, Any] | None = None, keys: Mapping[str, Any] | None = None
) -> Inference:
    """Infer how the values of all label files become classes.

    Args:
        files: the census of every label file, in a stable order.
        hints: what came with the data: `class_names` (value to name or name to value), `ignore` (values).
        keys: keys of a partial `classes.toml`, which go before anything inferred.

    Raises:
        DataError: no safe mapping exists; lists the files and the way out.
    """
    keys = dict(keys or {})
    if not files:
        raise DataError("there are no label files to infer classes from")
    if "classes" in keys:
        return Inference(complete(keys, files))
    by_alpha = _by_alpha(files, keys)
    if by_alpha:
        files, keys = by_alpha, {**keys, "alpha": True}
    if keys.get("kind") == "colours" or any(f.coloured for f in files) or _palettes_differ(files):
        mapping, repairs, warnings = infer_colours([f.in_colour() for f in files], keys)
        found = Inference(LabelMapping.build(mapping), repairs, warnings)
    else:
        found = _infer_numbers(files, hints or {}, keys)
    found.mapping = LabelMapping.build({**found.mapping.model_dump(), **_stored_form(found.mapping, files)})
    if by_alpha:
        found.repairs.append(
            "the label files are of one grey, what they show lies in their alpha channel: alpha is read"
        )
    return found


def _by_alpha(files: Sequence[Census], keys: Mapping[str, Any]) -> list[Census]:
    """The alpha channels of all files, where their greys are one and the same and alpha is not; else none."""
    alphas = [f.alpha for f in files if f.alpha is not None]
    one = len(alphas) == len(files) and len(pool(files)[0]) == 1 and len(pool(alphas)[0]) > 1
    return alphas if keys.get("alpha", one) else []


def complete(keys: Mapping[str, Any], files: Sequence[Census]) -> LabelMapping:
    """A mapping from a user's file, with what the file leaves out taken from the label files.

    Raises:
        DataError: the keys do not make a mapping.
    """
    filled = {"kind": _kind_of(keys), **keys}
    if filled["kind"] == "threshold":
        filled.setdefault("threshold", 127.5)
    mapping = LabelMapping.build(filled)
    missing = {k: v for k, v in _stored_form(mapping, files).items() if k not in keys}
    return LabelMapping.build({**mapping.model_dump(), **missing})


def _kind_of(keys: Mapping[str, Any]) -> str:
    if "threshold" in keys:
        return "threshold"
    classes = keys.get("classes")
    coloured = isinstance(classes, list | tuple) and any(isinstance(c, Mapping) and "colours" in c for c in classes)
    return "colours" if coloured else "values"


def _stored_form(mapping: LabelMapping, files: Sequence[Census]) -> dict[str, Any]:
    if not files:
        return {}
    dtype = np.result_type(*sorted({f.dtype for f in files})).name
    if mapping.kind == "colours":
        return {"dtype": dtype}
    palette = files[0].palette
    own = None
    if palette is not None and not _palettes_differ(files) and not _is_grey_ramp(palette, files):
        own = tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette.tolist())
    return {"dtype": dtype, "channels": min(f.channels for f in files), "stored_palette": own}


def _palettes_differ(files: Sequence[Census]) -> bool:
    palettes = [None if f.palette is None or _is_grey_ramp(f.palette, [f]) else f.palette for f in files]
    first = palettes[0]
    for palette, file in zip(palettes, files, strict=True):
        if (palette is None) != (first is None):
            return True
        if palette is not None and first is not None:
            used = file.values[file.values < min(len(palette), len(first))]
            if len(used) < len(file.values) or not np.array_equal(palette[used], first[used]):
                return True
    return False


def _is_grey_ramp(palette: np.ndarray, files: Sequence[Census]) -> bool:
    """Whether every used palette entry i is the grey (i, i, i), so that indices are plain values."""
    used = np.unique(np.concatenate([f.values for f in files]))
    return bool(used.size == 0 or (used.max() < len(palette) and (palette[used] == used[:, None]).all()))


def _infer_numbers(files: Sequence[Census], hints: Mapping[str, Any], keys: dict[str, Any]) -> Inference:
    values, counts = pool(files)
    names, ignore = _from_hints(hints)
    ignore = tuple(int(v) for v in keys.get("ignore", ignore))
    kind = keys.get("kind") or ("values" if names else None)
    keep = ~np.isin(values, ignore)
    values, counts = values[keep], counts[keep]
    if kind == "instances":
        return Inference(_instances(keys, ignore, values))
    if kind == "threshold" or "threshold" in keys or (kind is None and _two_smeared_modes(files, values, counts)):
        return _threshold(values, keys, files)
    if kind is None:
        _refuse_smeared(files, values, counts)
        verdict = looks_like_objects(files, values)
        if verdict.objects:
            return Inference(_instances(keys, ignore, values), [verdict.reason], list(verdict.warnings))
        warnings = list(verdict.warnings)
    else:
        warnings = []
    if not ignore and kind is None:
        ignore, note = _void(files, values, counts)
        values = values[~np.isin(values, ignore)]
        warnings += note
    found = _values(files, values, names, ignore, keys)
    found.warnings = warnings + found.warnings
    return found


def pool(files: Sequence[Census]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct numbers of all files, ascending, and their pixels."""
    values, at = np.unique(np.concatenate([f.values for f in files]), return_inverse=True)
    counts = np.bincount(at, weights=np.concatenate([f.counts for f in files]), minlength=len(values))
    return values, counts.astype(np.int64)


def _from_hints(hints: Mapping[str, Any]) -> tuple[dict[int, str], tuple[int, ...]]:
    """Class names by value, and ignore values, whichever way round the names were given."""
    names: dict[int, str] = {}
    for key, value in dict(hints.get("class_names") or {}).items():
        number, name = (key, value) if str(key).lstrip("-").isdigit() else (value, key)
        if str(number).lstrip("-").isdigit():
            names[int(number)] = str(name)
    ignore = [v for v, name in names.items() if name.lower() in ("ignore", "void", "unlabeled", "unlabelled")]
    given = hints.get("ignore", ())
    ignore += [int(v) for v in (given if isinstance(given, list | tuple) else [given]) if int(v) not in ignore]
    return {v: n for v, n in names.items() if v not in ignore}, tuple(ignore)


def _instances(keys: dict[str, Any], ignore: tuple[int, ...], values: np.ndarray) -> LabelMapping:
    # Negative numbers mark the background in some tools; 0 does in all others.
    background = [0] if 0 in values or not values.size or values[0] >= 0 else [int(values[0])]
    classes = [{"name": "background", "values": background}, {"name": "object"}]
    return LabelMapping.build({**keys, "kind": "instances", "classes": classes, "ignore": list(ignore)})


def _two_smeared_modes(files: Sequence[Census], values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether many grey values pile up at two ends: a two-class mask after JPEG or anti-aliasing."""
    if len(values) < 4 or values[-1] - values[0] < 64:
        return False
    reach = (values[-1] - values[0]) / 8
    low, high = values <= values[0] + reach, values >= values[-1] - reach
    middle = ~(low | high)
    if any(f.lossy for f in files):
        return bool(counts[middle].sum() <= FEW_STRAYS * counts.sum())
    if _ids_and_void(values) and counts[1:-1].sum() > 1e-3 * counts.sum():
        return False
    modes = np.array([values[low][counts[low].argmax()], values[high][counts[high].argmax()]])
    if counts[~np.isin(values, modes)].sum() > FEW_STRAYS * counts.sum():
        return False
    close = np.abs(values[:, None] - modes).min(1) <= 3
    if _are_dust(files, modes) or (close.all() and counts[~np.isin(values, modes)].sum() < 0.01 * counts.sum()):
        return True
    steps = np.diff(values)
    even = len(values) <= 32 and steps.max() - steps.min() <= 1
    rare = 10 * counts[middle].mean() <= min(counts[low].max(), counts[high].max()) if middle.any() else False
    return bool(rare and not even and middle.sum() >= 6)


def _are_dust(files: Sequence[Census], known: np.ndarray) -> bool:
    """Whether values other than the known ones occur only in specks of a few pixels, as on smeared edges."""
    pixels = pieces = 0
    for file in files:
        if file.pieces is not None:
            other = ~np.isin(file.values, known)
            pixels += int(file.counts[other].sum())
            pieces += int(file.pieces[other].sum())
    return 0 < pixels < DUST_PX * pieces


def _ids_and_void(values: np.ndarray) -> bool:
    """Whether the values are small ids without gaps and one far greater value, as 0, 1, 2, 255."""
    small = values[:-1]
    return bool(
        len(small) >= 2
        and small[0] in (0, 1)
        and np.array_equal(small, np.arange(small[0], small[0] + len(small)))
        and values[-1] in (255, 65535)
        and values[-1] > small[-1] + 1
    )


def _refuse_smeared(files: Sequence[Census], values: np.ndarray, counts: np.ndarray) -> None:
    """Raise when values are mixtures of more than two classes."""
    lossy = [f for f in files if f.lossy]
    if lossy and len(values) > 2:
        raise DataError(
            f"JPEG changed the class numbers of {len(lossy)} label files ({len(values)} different values)",
            [
                Problem(
                    f.where,
                    f"{len(f.values)} values",
                    "save label maps as PNG or TIFF; or, if sure, classes.toml with nearest = true",
                )
                for f in lossy
            ],
        )
    if len(values) < 16:
        return
    order = np.argsort(-counts, kind="stable")[:8]
    if counts[order].sum() < 0.5 * counts.sum() or not _are_dust(files, values[order]):
        return
    raise DataError(
        "the label maps hold mixtures of more than two classes (anti-aliased, or once saved as JPEG)",
        [
            Problem(
                f.where,
                f"{len(f.values)} values, most of them on thin edges",
                "resize labels by nearest neighbour; or, if sure, classes.toml with nearest = true",
            )
            for f in files
            if len(f.values) > 8
        ],
    )


def _threshold(values: np.ndarray, keys: dict[str, Any], files: Sequence[Census]) -> Inference:
    low, high = int(values[0]), int(values[-1])
    if high <= 255 and low <= 32 and high >= 223:
        low, high = 0, 255
    threshold = float(keys.get("threshold", (low + high) / 2))
    mapping = LabelMapping.build(
        {
            **keys,
            "kind": "threshold",
            "threshold": threshold,
            "classes": [{"name": "background", "values": [low]}, {"name": "foreground", "values": [high]}],
        }
    )
    cause = "JPEG" if any(f.lossy for f in files) else "anti-aliasing"
    return Inference(
        mapping, [f"{len(values)} grey values (a mask after {cause}) -> two classes, cut at {threshold:g}"]
    )


def _void(files: Sequence[Census], values: np.ndarray, counts: np.ndarray) -> tuple[tuple[int, ...], list[str]]:
    """Values that look like "not annotated": 255 (or 65535) after small ids, or a lone negative."""
    if len(values) > 2 and values[0] < 0 and values[1] >= 0:
        return (int(values[0]),), [
            f"label value {values[0]} is taken as 'not annotated'; if it is a class, list it in classes.toml"
        ]
    if not _ids_and_void(values) or _two_ways_of_one(files, values):
        return (), []
    top = int(values[-1])
    share = 100 * counts[-1] / counts.sum()
    return (top,), [
        f"label value {top} ({share:.2g} % of pixels) is taken as 'not annotated'; "
        "if it is a class, list it in classes.toml"
    ]


def _two_ways_of_one(files: Sequence[Census], values: np.ndarray) -> bool:
    """Whether some files are 0/1 and others 0/255, and none holds both 1 and 255."""
    if values.tolist() != [0, 1, 255]:
        return False
    both = any(1 in f.values and 255 in f.values for f in files)
    return not both


def _values(
    files: Sequence[Census],
    values: np.ndarray,
    names: dict[int, str],
    ignore: tuple[int, ...],
    keys: dict[str, Any],
) -> Inference:
    found = sorted({int(v) for v in values} | set(names))
    if len(found) > MAX_CLASSES:
        raise DataError(
            f"{len(found)} different label values; at most {MAX_CLASSES} classes are supported",
            [Problem(f.where, f"{len(f.values)} values", REMEDY) for f in files if len(f.values) > 16],
        )
    if len(ignore) == 1 and found == [] and not names:
        raise DataError(
            "every label pixel has the ignore value", [Problem(f.where, "nothing annotated") for f in files]
        )
    warnings = [f"class '{names[v]}' (value {v}) occurs in no label file" for v in names if v not in values]
    merged = _two_ways_of_one(files, values) and not names
    groups: list[tuple[int, ...]] = [(0,), (255, 1)] if merged else [(v,) for v in found]
    if 0 in found:
        groups.sort(key=lambda g: g[0] != 0)
    plain = len(groups) == 2 and groups[0] == (0,)
    pixels = dict(zip(*(part.tolist() for part in pool(files)), strict=True))
    # Of several classes, 0 is the background only where it is what most pixels are (0 may be the sky).
    zero = "background" if len(groups) <= 2 or pixels.get(0, 0) == max(pixels.values()) else "0"
    classes = [
        {
            "name": names.get(g[0]) or (zero if g[0] == 0 else "foreground" if plain else str(g[0])),
            "values": g,
        }
        for g in groups
    ]
    mapping = LabelMapping.build({**keys, "kind": "values", "classes": classes, "ignore": list(ignore)})
    repairs = []
    if [g[0] for g in groups] != list(range(len(groups))):
        shown = ", ".join("/".join(map(str, g)) for g in groups[:8]) + (", …" if len(groups) > 8 else "")
        repairs.append(f"label values {shown} -> class ids 0..{len(groups) - 1}")
    if ignore:
        repairs.append(f"label value {', '.join(map(str, ignore))} -> not annotated (neither learned nor scored)")
    if merged:
        warnings.append("some masks are 0/1 and others 0/255; both 1 and 255 are taken as the foreground")
    return Inference(mapping, repairs, warnings)
