"""Which samples are learned from and which are held out: frozen functions of names and a seed.

A group's place is a number in [0, 1) made of its name (64 bits of BLAKE3) and the seed (an integer mixer). It
depends on nothing else, so samples that are added later move no others. These formulas are for ever: golden
tests pin them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

from useg.errors import DataError, Problem

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.2}
GAP = "gap"
"""The split of a sample that is left out because it lies between training and validation."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def group_hash(group: str) -> int:
    """The first 64 bits of BLAKE3 over the group's name in UTF-8, little-endian."""
    return int.from_bytes(blake3(group.encode("utf-8", "surrogatepass")).digest(length=8), "little")


def mix(value: int, seed: int) -> int:
    """64 bits of a hash and a seed: the finaliser of splitmix64 over `value + (seed + 1) * golden ratio`.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = (value + (seed + 1) * _GOLDEN) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def place(group: str, seed: int) -> float:
    """Where a group stands in [0, 1); the lowest places are held out first."""
    return (mix(group_hash(group), seed) >> 11) / (1 << 53)


def assign_splits(
    keys: Sequence[str],
    groups: Sequence[str | None],
    given: Sequence[str | None],
    *,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    sequence: bool = False,
    notes: list[str] | None = None,
) -> list[str]:
    """The split of every sample: "train", "val", "test", or "gap" (left out).

    Given splits are kept. What is not given is carved out of the samples given as "train" or not given at
    all: validation unless some sample is given as "val", test unless some is given as "test" or `fractions`
    has none. Nothing is ever carved out of a given "val" or "test". Samples of one group get one split, also
    when only some of them have one given.

    Args:
        keys: unique names of the samples; with `sequence` in their order.
        groups: per sample its group; None is a group of its own.
        given: per sample the split the user gave.
        fractions: shares of the groups, of "train", "val" and "test"; they sum to 1.
        seed: another seed, another draw.
        sequence: neighbouring samples look alike. When no groups are known (or just one), each held-out part
            is one block at the end of the series that the seed chooses, with one sample left out beside it.
        notes: sentences about what was done beyond the rule are added to it.

    Raises:
        DataError: the samples of one group are given different splits, or a given split is unknown.
        ValueError: the fractions are no shares.
    """
    _check_fractions(fractions)
    names = [key if group is None else group for key, group in zip(keys, groups, strict=True)]
    fixed = _given_by_group(names, given)
    notes = [] if notes is None else notes
    splits = [fixed.get(name, "train") for name in names]
    pool = [index for index, split in enumerate(splits) if split == "train"]
    wanted = {
        part: fractions.get(part, 0.0)
        for part in ("test", "val")
        if fractions.get(part, 0.0) > 0 and part not in fixed.values()
    }
    if not wanted or not pool:
        return splits
    pool_groups = {names[index] for index in pool}
    if sequence and len({groups[index] for index in pool}) == 1:
        for index, split in zip(pool, _blocks_of_sequence(len(pool), wanted, seed), strict=True):
            splits[index] = split
        return splits
    drawn = _draw(pool_groups, wanted, seed, notes)
    return [drawn.get(name, split) if split == "train" else split for name, split in zip(names, splits, strict=True)]


def folds(
    keys: Sequence[str], groups: Sequence[str | None], k: int, seed: int = 0, *, sequence: bool = False
) -> list[int]:
    """The fold (0 .. k-1) in which each sample is held out.

    Groups stay together and folds are balanced: no fold could take over a whole group from another and the
    two end up more alike. With `sequence` and without groups, folds are blocks of neighbours whose sizes
    differ by one at most; use `fold_splits` to leave out the samples beside them.

    Raises:
        DataError: there are fewer groups than folds.
        ValueError: k is below 2.
    """
    if k < 2:
        raise ValueError(f"at least 2 folds were wanted, not {k}")
    names = [key if group is None else group for key, group in zip(keys, groups, strict=True)]
    if sequence and len(set(groups)) == 1:
        if len(keys) < k:
            raise DataError(f"{k} folds were wanted, but there are only {len(keys)} samples; ask for fewer folds")
        return [index * k // len(keys) for index in range(len(keys))]
    sizes: dict[str, int] = defaultdict(int)
    for name in names:
        sizes[name] += 1
    if len(sizes) < k:
        raise DataError(f"{k} folds were wanted, but there are only {len(sizes)} groups; ask for fewer folds")
    loads = [0] * k
    fold_of: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], mix(group_hash(name), seed), name)):
        fold_of[name] = min(range(k), key=lambda fold: (loads[fold], fold))
        loads[fold_of[name]] += sizes[name]
    return [fold_of[name] for name in names]


def fold_splits(fold_of: Sequence[int], fold: int, *, sequence: bool = False) -> list[str]:
    """The splits of one fold: "val" inside, "train" outside; with `sequence` its two neighbours are "gap"."""
    splits = ["val" if each == fold else "train" for each in fold_of]
    return _with_gaps(splits) if sequence else splits


Window = tuple[slice, ...]


@dataclass(frozen=True)
class Blocks:
    """One image cut into a part to learn from and a part held out.

    Attributes:
        train: windows over space; they do not touch `val`.
        val: one window over space.
    """

    train: tuple[Window, ...]
    val: Window


def blocks(space: tuple[int, ...], fraction: float, gap_px: int, seed: int = 0) -> Blocks:
    """Cut one image across its longest axis: a held-out block at one end (the seed says which), then a gap.

    Args:
        space: sizes in px.
        fraction: share of the longest axis that is held out, in (0, 1).
        gap_px: pixels left out between the two parts; best the network's margin.
        seed: decides the end.

    Raises:
        DataError: the image is too small for both parts and the gap.
    """
    if not 0 < fraction < 1 or gap_px < 0:
        raise ValueError(f"wanted 0 < fraction < 1 and gap_px >= 0, not {fraction} and {gap_px}")
    axis = max(range(len(space)), key=lambda index: (space[index], index))
    length = space[axis]
    held_out = max(1, round(fraction * length))
    rest = length - held_out - gap_px
    if rest < 1:
        raise DataError(
            f"an image of {' x '.join(map(str, space))} px cannot be cut into a part to train on, a gap of "
            f"{gap_px} px and {held_out} px to validate on; add a second image, or ask for a smaller gap"
        )

    def window(start: int, stop: int) -> Window:
        return tuple(slice(start, stop) if i == axis else slice(0, size) for i, size in enumerate(space))

    if mix(group_hash("blocks"), seed) % 2 == 0:
        return Blocks((window(0, rest),), window(length - held_out, length))
    return Blocks((window(length - rest, length),), window(0, held_out))


def _check_fractions(fractions: Mapping[str, float]) -> None:
    unknown = sorted(set(fractions) - {"train", "val", "test"})
    if unknown or any(not 0 <= share <= 1 for share in fractions.values()):
        raise ValueError(f"fractions are shares of train, val and test, not {dict(fractions)}")
    if abs(sum(fractions.values()) - 1) > 1e-6 or fractions.get("train", 0.0) <= 0:
        raise ValueError(f"fractions must sum to 1 with a part to train on, not {dict(fractions)}")


def _given_by_group(names: Sequence[str], given: Sequence[str | None]) -> dict[str, str]:
    found: dict[str, set[str]] = defaultdict(set)
    for name, split in zip(names, given, strict=True):
        if split is not None:
            found[name].add(split)
    unknown = sorted({split for splits in found.values() for split in splits} - {"train", "val", "test", GAP})
    if unknown:
        raise DataError(f"unknown splits {', '.join(unknown)}; wanted train, val or test")
    torn = [
        Problem(
            name,
            f"its samples are given to {' and '.join(sorted(splits))}",
            "give one split, or other groups",
        )
        for name, splits in sorted(found.items())
        if len(splits) > 1
    ]
    if torn:
        raise DataError(f"{len(torn)} groups straddle splits, so that scores would be too good", torn)
    return {name: next(iter(splits)) for name, splits in found.items()}


def _draw(groups: set[str], wanted: Mapping[str, float], seed: int, notes: list[str]) -> dict[str, str]:
    """Groups by their place: below the first threshold test, below the next val, else train."""
    places = {group: place(group, seed) for group in groups}
    ordered = sorted(groups, key=lambda group: (places[group], group))
    bounds: list[tuple[str, float, float]] = []
    low = 0.0
    for part, share in wanted.items():
        bounds.append((part, low, low + share))
        low += share
    drawn = {group: next((part for part, a, b in bounds if a <= places[group] < b), "train") for group in ordered}
    if len(groups) < 1 + len(wanted):
        notes.append(f"{len(groups)} groups are too few for {1 + len(wanted)} parts: all of them are trained on.")
        return dict.fromkeys(groups, "train")
    for part, a, b in (*bounds, ("train", low, 1.0)):
        if part in drawn.values():
            continue
        many = {group for group in ordered if sum(other == drawn[group] for other in drawn.values()) > 1}
        nearest = min(many, key=lambda group: (max(a - places[group], places[group] - b), group))
        notes.append(f"No group fell into {part} by the draw: {nearest}, nearest to its threshold, was moved there.")
        drawn[nearest] = part
    return drawn


def _blocks_of_sequence(count: int, wanted: Mapping[str, float], seed: int) -> list[str]:
    """Test and validation as neighbouring blocks at one end, with a left-out sample between all parts."""
    held_out: list[str] = []
    for part, share in wanted.items():
        size = max(1, round(share * count))
        held_out += ([GAP] if held_out else []) + [part] * size
    if len(held_out) >= count:
        held_out = [part for part in wanted][-max(0, count - 1) :] if count > 1 else []
    last = count - len(held_out)
    # At one end of the series a block costs one left-out sample, in the middle it would cost two.
    start = last * (mix(group_hash("sequence"), seed) % 2)
    splits = ["train"] * start + held_out + ["train"] * (last - start)
    spaced = _with_gaps(splits)
    return spaced if "train" in spaced else splits


def _with_gaps(splits: list[str]) -> list[str]:
    """Training samples beside held-out ones become "gap"."""
    held_out = {"val", "test"}
    return [
        GAP
        if split == "train" and held_out & {*splits[max(0, index - 1) : index], *splits[index + 1 : index + 2]}
        else split
        for index, split in enumerate(splits)
    ]
