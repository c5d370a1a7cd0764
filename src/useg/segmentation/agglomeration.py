"""Regions that were cut too often, joined again where the line between them is weak on average."""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np
from jaxtyping import Float

from useg.arrays import Instances

Probability = Float[np.ndarray, "*space"]


@dataclass(frozen=True)
class Contacts:
    """Which regions touch, and how strong the line between them is.

    Attributes:
        pairs: (n, 2) ids, the smaller one first, each pair once.
        strength: sum over the touching pixel pairs of the larger line probability of the two.
        length: how many pixel pairs touch (faces).
    """

    pairs: np.ndarray
    strength: np.ndarray
    length: np.ndarray


def contacts(regions: Instances, line: Probability) -> Contacts:
    """Find the contacts between regions with ids above 0.

    Args:
        regions: ids, 0 where there is none.
        line: probability of being on a line between objects, 0..1, of the same shape.
    """
    codes, strengths = [], []
    ids = int(regions.max(initial=0)) + 1
    for axis in range(regions.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        one, other = regions[before], regions[after]
        touch = (one != other) & (one > 0) & (other > 0)
        low = np.minimum(one[touch], other[touch]).astype(np.int64)
        codes.append(low * ids + np.maximum(one[touch], other[touch]))
        strengths.append(np.maximum(line[before][touch], line[after][touch]))
    unique, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    strength = np.bincount(inverse, weights=np.concatenate(strengths), minlength=unique.size)
    return Contacts(np.stack([unique // ids, unique % ids], axis=1), strength, np.bincount(inverse))


class Agglomeration:
    """Joins regions, weakest contact first; the strength of a contact is its mean line probability.

    When two regions are joined, their contacts with a third one become one. A short gap in a long line does not
    join two regions, as it does where only a threshold decides; a faint line inside an object goes.

    Args:
        regions: ids, 0 where there is none.
        line: probability of being on a line between objects, 0..1.

    Source:
        Nunez-Iglesias et al. 2013, "Machine learning of hierarchical clustering to segment 2D and 3D images",
        section 2, with the mean boundary probability as the policy.
    """

    def __init__(self, regions: Instances, line: Probability) -> None:
        found = contacts(regions, line)
        self._parent = np.arange(int(regions.max(initial=0)) + 1)
        self._beside: dict[int, dict[int, tuple[float, int]]] = {}
        self._heap: list[tuple[float, int, int]] = []
        for (one, other), strength, length in zip(
            found.pairs.tolist(), found.strength.tolist(), found.length.tolist(), strict=True
        ):
            self._beside.setdefault(one, {})[other] = (strength, length)
            self._beside.setdefault(other, {})[one] = (strength, length)
            self._heap.append((strength / length, one, other))
        heapify(self._heap)
        self._regions = regions

    def below(self, threshold: float) -> Instances:
        """Return the regions when no contact with a mean line probability below `threshold` is left.

        Thresholds must rise from call to call; what was joined stays joined. Ids are those of the smallest
        region that was joined.
        """
        while self._heap and self._heap[0][0] < threshold:
            mean, one, other = heappop(self._heap)
            known = self._beside.get(one, {}).get(other)
            if known is not None and known[0] / known[1] == mean:
                self._join(one, other)
        roots = self._parent
        while not np.array_equal(roots, roots[roots]):
            roots = roots[roots]
        return np.asarray(roots[self._regions], dtype=np.int32)

    def _join(self, kept: int, gone: int) -> None:
        kept, gone = min(kept, gone), max(kept, gone)
        self._parent[gone] = kept
        del self._beside[kept][gone]
        mine = self._beside[kept]
        for third, (strength, length) in self._beside.pop(gone).items():
            if third == kept:
                continue
            before = mine.get(third, (0.0, 0))
            joined = (before[0] + strength, before[1] + length)
            theirs = self._beside[third]
            del theirs[gone]
            mine[third] = theirs[kept] = joined
            heappush(self._heap, (joined[0] / joined[1], min(kept, third), max(kept, third)))
