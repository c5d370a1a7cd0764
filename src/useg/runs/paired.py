"""Whether scores on the same samples differ by more than chance, and by more than the noise between seeds.

Two questions are kept apart, and a difference is believed when both are answered:

- Would other samples have shown it? Each sample (or group of samples, such as a patient) might as well have
  favoured the other model: the sign-flip test counts how often the sum of differences is then as far from zero.
- Would other seeds have shown it? Student's test of the runs' means, where a configuration has several runs.

Sources: sign flips: Fisher, The Design of Experiments, 1935, section 21; with the +1 for random flips: Phipson and
Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010). Interval: percentiles of the bootstrap, whose deviations are widened
to those of Student's interval, since percentiles alone are too narrow for few samples: Hesterberg, The American
Statistician 69 (2015), section 4; he moves the percentiles, we the deviations, which also holds for 2 or 3 samples.
Correction for several comparisons: Holm, Scand. J. Statist. 6 (1979).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

ALPHA = 0.05
"""What is less likely than this is taken for more than chance; intervals leave out as much."""

_RESAMPLES = 9_999
_FLIPS = 19_999
_MOST_EXACT = 16
_SEED = 2015
_CHUNK = 2**21


@dataclass(frozen=True)
class Paired:
    """How two configurations differ on the same samples, the second against the first.

    Attributes:
        samples: pairs with a value on both sides. left_out: samples without one on a side.
        groups: of these pairs; a sample without a group is one of its own. They are what is flipped and resampled.
        first, second: mean over samples and runs, in units of the metric; NaN without a pair.
        difference: the second minus the first; of infinite values the median, since they have no mean.
        low, high: the 95 % interval of the difference, over samples and, where there are several runs, seeds; NaN for
            fewer than two groups and for infinite values.
        p_samples: of the sign-flip test, two-sided; for infinite values that of the signs alone.
        smallest_p: the least that this test could have given for so many groups.
        p_seeds: of Student's test over runs; None where neither side has two of them.
        p_many_seeds: what `p_seeds` would be if many runs had this spread.
        spreads: standard deviation of the runs' means, of each side; None for a single run.
    """

    samples: int
    left_out: int
    groups: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_samples: float
    smallest_p: float
    p_seeds: float | None
    p_many_seeds: float | None
    spreads: tuple[float | None, float | None]

    @property
    def p(self) -> float:
        """The larger of both: a difference must be more than chance in samples and in seeds."""
        return max(self.p_samples, self.p_seeds or 0.0)


def compare_pairs(
    first: "Sequence[Sequence[float]] | Floats",
    second: "Sequence[Sequence[float]] | Floats",
    groups: Sequence[Hashable | None] | None = None,
) -> Paired:
    """Compare two configurations on the same samples; the same question always has the same answer.

    Args:
        first, second: (runs, samples): a row for each seed; NaN where a sample has no value.
        groups: of each sample; None stands alone.

    Raises:
        ValueError: the numbers of samples differ.
    """
    import numpy as np

    sides = [np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    if sides[0].shape[1] != sides[1].shape[1] or (groups is not None and len(groups) != sides[0].shape[1]):
        raise ValueError("both sides and the groups have one value for each sample")
    means = [_mean_of_runs(values) for values in sides]
    there = ~np.isnan(means[0]) & ~np.isnan(means[1])
    codes = _codes(groups, there)
    left_out = int((~there).sum())
    if not there.any():
        nan = math.nan
        return Paired(0, left_out, 0, nan, nan, nan, nan, nan, 1.0, 1.0, None, None, (None, None))
    means = [values[there] for values in means]
    with np.errstate(invalid="ignore"):
        differences = np.where(means[0] == means[1], 0.0, means[1] - means[0])
    is_finite = all(np.isfinite(values[:, there][~np.isnan(values[:, there])]).all() for values in sides)
    deviations = [
        _deviations(values[:, there], mean) if is_finite else None for values, mean in zip(sides, means, strict=True)
    ]
    low, high = _interval(differences, codes, deviations) if is_finite else (math.nan, math.nan)
    tested: Floats = differences if is_finite else np.sign(differences)
    count = int(codes.max()) + 1
    runs = [None if each is None else each.mean(axis=1) for each in deviations]
    difference = float(differences.mean()) if is_finite else float(np.sort(differences)[(differences.size - 1) // 2])
    p_seeds, p_many_seeds = _p_seeds(difference, runs)
    return Paired(
        samples=int(there.sum()),
        left_out=left_out,
        groups=count,
        first=float(means[0].mean()),
        second=float(means[1].mean()),
        difference=difference,
        low=low,
        high=high,
        p_samples=sign_flip_p(np.bincount(codes, tested).astype(np.float64)),
        smallest_p=smallest_p(count),
        p_seeds=p_seeds,
        p_many_seeds=p_many_seeds,
        spreads=(_spread(runs[0]), _spread(runs[1])),
    )


def sign_flip_p(sums: "Sequence[float] | Floats") -> float:
    """How likely a total as far from zero is, had each number as well been of the other sign.

    Exact for up to 16 numbers that are not 0, else by 19,999 random flips.
    """
    import numpy as np

    values = np.asarray(sums, dtype=np.float64)
    moved = np.sort(np.abs(values[values != 0]))  # sorted, so that neither order nor direction changes the answer
    observed = abs(float(values.sum())) - 1e-12 * float(moved.sum())
    if moved.size == 0:
        return 1.0
    if moved.size <= _MOST_EXACT:
        # turning all signs leaves the distance from zero as it is: one of them may be kept
        signs = 1 - 2 * ((np.arange(2 ** (moved.size - 1))[:, None] >> np.arange(moved.size - 1)) & 1)
        return float(np.mean(np.abs(signs @ moved[:-1] + moved[-1]) >= observed))
    draw = np.random.default_rng(_SEED)
    reached, left = 0, _FLIPS
    while left:
        rows = min(left, max(1, _CHUNK // moved.size))
        bits = np.unpackbits(draw.integers(0, 256, (rows, -(-moved.size // 8)), np.uint8), axis=1, count=moved.size)
        reached += int((np.abs(moved.sum() - 2 * (bits @ moved)) >= observed).sum())
        left -= rows
    return (1 + reached) / (1 + _FLIPS)


def smallest_p(groups: int) -> float:
    """The least p that the sign-flip test can give for so many groups: all of them favour one side."""
    return min(1.0, max(2.0 ** (1 - groups), 0.0 if groups <= _MOST_EXACT else 1 / (1 + _FLIPS)))


def groups_needed(comparisons: int = 1) -> int:
    """How many groups there must be before a difference could show at all, among so many comparisons."""
    return 1 + math.ceil(math.log2(comparisons / ALPHA))


def holm(ps: Sequence[float]) -> list[float]:
    """What each p is worth among several comparisons, in the same order."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def _mean_of_runs(values: "Floats") -> "Floats":
    """The mean over the runs that have a value; NaN where none has."""
    import numpy as np

    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0), dtype=np.float64)


def _deviations(values: "Floats", mean: "Floats") -> "Floats | None":
    """How far each run is from the mean of the runs, sample by sample; None for a single run."""
    import numpy as np

    return np.where(np.isnan(values), 0.0, values - mean) if len(values) > 1 else None


def _codes(groups: Sequence[Hashable | None] | None, there: Any) -> Any:
    """Groups of the samples that are there, as numbers from 0."""
    import numpy as np

    numbers: dict[Any, int] = {}
    names = [None] * len(there) if groups is None else groups
    return np.array(
        [
            numbers.setdefault(("alone", place) if name is None else ("group", name), len(numbers))
            for place, name in enumerate(names)
            if there[place]
        ],
        dtype=np.int64,
    )


def _widening(count: int, freedom: int) -> float:
    """What makes deviations of a bootstrap over so few as wide as Student's."""
    from scipy.special import ndtri, stdtrit

    at = 1 - ALPHA / 2
    return float(math.sqrt(count / (count - 1)) * stdtrit(freedom, at) / ndtri(at))


def _interval(differences: "Floats", codes: Any, deviations: "Sequence[Floats | None]") -> tuple[float, float]:
    """The interval of the mean difference: groups are drawn again and, where there are several, runs."""
    import numpy as np

    groups = int(codes.max()) + 1
    if groups < 2:
        return math.nan, math.nan
    draw = np.random.default_rng(_SEED)
    sums, sizes = np.bincount(codes, differences), np.bincount(codes).astype(np.float64)
    estimate, widening = float(differences.mean()), _widening(groups, groups - 1)
    noises = _noises(deviations, codes)
    found, left = [], _RESAMPLES
    while left:
        rows = min(left, max(1, _CHUNK // (groups * (1 + sum(len(noise) for noise, _ in noises)))))
        drawn = draw.integers(0, groups, (rows, groups))
        total = sizes[drawn].sum(axis=1)
        value = estimate + widening * (sums[drawn].sum(axis=1) / total - estimate)
        for noise, runs in noises:
            by_run = noise[:, drawn].sum(axis=2) / total
            value += np.take_along_axis(by_run, draw.integers(0, len(noise), (runs, rows)), axis=0).mean(axis=0)
        found.append(value)
        left -= rows
    low, high = np.quantile(np.concatenate(found), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _noises(deviations: "Sequence[Floats | None]", codes: Any) -> "list[tuple[Floats, int]]":
    """For each side: the runs' deviations, summed by group and widened, and how many runs are drawn of them.

    A configuration with one run is taken to be as noisy as the other one.
    """
    import numpy as np

    known = [each for each in deviations if each is not None]
    freedom = sum(len(each) - 1 for each in known)
    noises = []
    for side, own in enumerate(deviations):
        pool = own if own is not None else deviations[1 - side]
        if pool is not None:
            by_group = np.array([np.bincount(codes, row) for row in pool])
            scaled = _widening(len(pool), freedom) * by_group
            noises.append((scaled if side else -scaled, 1 if own is None else len(own)))
    return noises


def _spread(means: "Floats | None") -> float | None:
    return None if means is None else float(means.std(ddof=1))


def _p_seeds(difference: float, runs: "Sequence[Floats | None]") -> tuple[float | None, float | None]:
    """Student's test of the runs' means with a common variance, and the normal one.

    A single run is taken to vary as the other side does.
    """
    from scipy.special import stdtr

    known = [each for each in runs if each is not None]
    freedom = sum(each.size - 1 for each in known)
    if not freedom:
        return None, None
    variance = sum(float((each - each.mean()) @ (each - each.mean())) for each in known) / freedom
    error = math.sqrt(variance * sum(1.0 if each is None else 1.0 / each.size for each in runs))
    if error == 0:
        return float(difference == 0), float(difference == 0)
    ratio = abs(difference) / error
    return float(2 * stdtr(freedom, -ratio)), math.erfc(ratio / math.sqrt(2))


__all__ = ["ALPHA", "Paired", "compare_pairs", "groups_needed", "holm", "sign_flip_p", "smallest_p"]
