"""Which samples stand for a whole view whose files are elsewhere: few, each kind of file and label among them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from useg.data.manifest import Manifest
from useg.data.manifest_digest import digest_bytes
from useg.data.statistics_join import content_digests

SPREAD = 256
"""So many samples stand for all; more only where that many are needed to show each kind of file and label value."""

RUNS, RUN = 3, 16
"""So many runs of neighbours are among them, to tell whether neighbours look alike."""


@dataclass(frozen=True)
class Spread:
    """Samples that stand for all.

    Attributes:
        keys: in the order in which all were given.
        neighbours: keys of the runs of neighbours, one after another.
        spaces: size over space of all samples, by key.
        same: pairs of all samples whose image files are the same, the first of each set with every other.
    """

    keys: tuple[str, ...]
    neighbours: tuple[str, ...]
    spaces: Mapping[str, tuple[int, ...]]
    same: tuple[tuple[str, str], ...]


def spread_over(manifest: Manifest, keys: Sequence[str], most: int = SPREAD) -> Spread | None:
    """A spread of samples, chosen by the digests of their files alone, so that names and order do not matter.

    The kinds of files and the values in label maps are known from the statistics of the version, which also tell all
    sizes; label maps that do not fit their images are all among them. None where these do not know every sample, or
    where planes and volumes are mixed.

    Args:
        manifest: with statistics.
        keys: of the samples, in natural order.
        most: how many stand for all.
    """
    if manifest.statistics is None or "height" not in manifest.statistics.column_names:
        return None
    names = manifest.columns(["key"])["key"]
    rows = pc.index_in(pa.array(keys, pa.string()), names.combine_chunks())
    table = manifest.statistics.take(rows)
    spaces = _spaces(table)
    if spaces is None:
        return None
    contents = content_digests(manifest).take(rows)
    digests = [bytes(digest) for digest in contents["image"].to_pylist()]
    order = sorted(range(len(keys)), key=lambda place: (digests[place], place))
    runs = _runs(len(keys)) if len(keys) > most else []
    chosen = dict.fromkeys([*runs, *np.flatnonzero(_misfits(table, spaces)).tolist()])
    for wanted in _wanted(table, contents["label"]):
        if not wanted[list(chosen)].any():
            chosen[next(place for place in order if wanted[place])] = None
    chosen |= dict.fromkeys([place for place in order if place not in chosen][: max(0, most - len(chosen))])
    return Spread(
        tuple(keys[place] for place in sorted(chosen)),
        tuple(keys[place] for place in runs),
        dict(zip(keys, spaces, strict=True)),
        tuple((keys[one], keys[other]) for one, other in _same(digests)),
    )


def _spaces(table: pa.Table) -> list[tuple[int, ...]] | None:
    heights, widths = table["height"], table["width"]
    depths = table["depth"] if "depth" in table.column_names else pa.nulls(len(table), pa.int64())
    if heights.null_count or widths.null_count or depths.null_count not in (0, len(table)):
        return None
    flat = list(zip(heights.to_pylist(), widths.to_pylist(), strict=True))
    if depths.null_count:
        return [tuple(space) for space in flat]
    return [(depth, *space) for depth, space in zip(depths.to_pylist(), flat, strict=True)]


def _runs(count: int) -> list[int]:
    """Places of runs of neighbours at the beginning, after a third and after two thirds."""
    return [count * run // RUNS + step for run in range(RUNS) for step in range(RUN)]


def _wanted(table: pa.Table, labels: pa.ChunkedArray) -> Iterable[np.ndarray]:
    """For each kind of file, and for each value of label maps, which samples show it."""
    has_label = np.asarray(digest_bytes(labels.combine_chunks()).reshape(-1, 32).any(axis=1))
    is_labelled = has_label.tolist()
    has_objects = is_labelled
    if "objects" in table.column_names:
        has_objects = table["objects"].is_valid().to_pylist()
    columns = (table["channels"].to_pylist(), table["dtype"].to_pylist(), is_labelled, has_objects)
    of_kind: dict[object, list[int]] = {}
    for place, kind in enumerate(zip(*columns, strict=True)):
        of_kind.setdefault(kind, []).append(place)
    for places in of_kind.values():
        shows = np.zeros(len(table), bool)
        shows[places] = True
        yield shows
    for name in sorted(name for name in table.column_names if name.startswith("pixels.")):
        shows = pc.fill_null(pc.greater(table[name], 0), False).to_numpy(zero_copy_only=False).astype(bool)
        if shows.any():
            yield shows


def _misfits(table: pa.Table, spaces: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Which samples have a label map of another number of pixels than their image: all are looked at."""
    pixels, counted = np.zeros(len(table), np.int64), np.zeros(len(table), bool)
    for name in table.column_names:
        if name.startswith("pixels.") and name[7:].lstrip("-").isdigit():
            pixels += pc.fill_null(table[name], 0).to_numpy()
            counted |= table[name].is_valid().to_numpy()
    wanted = np.array([math.prod(space) for space in spaces], np.int64)
    misfits: np.ndarray = counted & (pixels != wanted)
    return misfits


def _same(digests: Sequence[bytes]) -> Iterable[tuple[int, int]]:
    first: dict[bytes, int] = {}
    for place, digest in enumerate(digests):
        one = first.setdefault(digest, place)
        if one != place:
            yield one, place
