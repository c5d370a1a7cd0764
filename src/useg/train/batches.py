"""Which patches a step sees, and how they are made: a pure function of (plan, samples, step), computed ahead."""

import math
import os
import sys
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Lock, get_native_id

import numpy as np

from useg.arrays import IGNORE
from useg.data.samples import Samples
from useg.segmentation.augment import Change, draw, recolour
from useg.segmentation.geometry import output_size
from useg.segmentation.instances import targets
from useg.segmentation.normalise import Statistics, normalise, sample_strides, statistics
from useg.segmentation.warp import source_of, warp
from useg.segmentation.weights import components, weight_map
from useg.train.plan import Plan
from useg.train.seeding import generator, permutation

_ORDER, _CENTRE = 1, 2
_AIMED_SHARE = 0.4
"""Share of patches whose middle is put on a pixel of a class drawn at random, so that rare classes are met."""
_POSITIONS = 512
_KEPT = 8 * _POSITIONS
_SWITCH_S = 0.0002
_BACK = 5


@dataclass(frozen=True)
class MicroBatch:
    """Patches that pass the network together.

    Attributes:
        image: (N, C, *patch) float32. targets: (N, *out) uint8. weights: (N, *out) float32.
        distance: (N, *out) float32 or None.
    """

    image: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    distance: np.ndarray | None


@dataclass(frozen=True)
class _Known:
    """What is computed once a sample: intensity statistics, and some pixels of each class."""

    stats: Statistics
    positions: tuple[np.ndarray, ...]
    space: tuple[int, ...]


def epoch_entries(spaces: Sequence[tuple[int, ...]], patch: Sequence[int]) -> list[int]:
    """Positions of samples in an epoch: each once, and large ones once per patch they could fill (to 64)."""
    area = math.prod(patch)
    return [
        position
        for position, space in enumerate(spaces)
        for _ in range(min(64, max(1, round(math.prod(space) / area))))
    ]


def threads_beside(threads: int) -> int:
    """How many threads prepare patches while so many train: more would wait for each other."""
    return max(1, min(threads // 2, 4))


class Batches:
    """The training patches of a plan.

    Args:
        plan: says patch, seed, sizes, augmentation, weights.
        samples: the data. indices: which of them are trained on.
        workers: threads that prepare patches ahead; the result does not depend on it.
        keep: how many batches are prepared ahead.
    """

    def __init__(
        self, plan: Plan, samples: Samples, indices: Sequence[int], *, workers: int = 1, keep: int = 3
    ) -> None:
        self.plan, self.samples, self.indices = plan, samples, list(indices)
        self._entries = epoch_entries([samples.space(i) for i in self.indices], plan.patch)
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()
        self._known: dict[int, _Known] = {}
        self._lock = Lock()
        self._workers, self._keep = workers, keep
        self._crop = (
            tuple(_centre(n, output_size(n, plan.depth, valid=plan.valid)) for n in plan.patch) if plan.valid else None
        )

    def patch(self, epoch: int, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """The patch at one position of one epoch: image, targets, weights, distance."""
        plan = self.plan
        index = self.indices[self._entries[int(self._order(epoch)[position])]]
        known = self._knowledge(index)
        change = draw(plan.seed, epoch, position, settings=plan.augmentation, ndim=plan.dims)
        centre = self._aim(known, epoch, position)
        if centre is not None:
            change = replace(change, shift=tuple(s * 0.5 for s in change.shift))
        source = source_of(change, plan.patch, centre, known.space)
        part = self.samples.read(index, source.window)
        image, classes, instances = warp(
            normalise(np.ascontiguousarray(part.image), plan.normalisation, known.stats),
            part.classes,
            part.instances,
            change,
            patch=plan.patch,
            centre=centre,
            interpolation="linear",
            categorical=self._categorical,
            source=source,
        )
        image = recolour(image, change, categorical=self._categorical)
        return (image, *self._wanted(classes, instances))

    def micro_batch(self, step: int, number: int) -> MicroBatch:
        """Micro-batch `number` of optimiser step `step` (from 0)."""
        patches = [self.patch(epoch, position) for epoch, position in self._places(step, number)]
        images, wanted, weights, distances = zip(*patches, strict=True)
        known = [d for d in distances if d is not None]
        return MicroBatch(np.stack(images), np.stack(wanted), np.stack(weights), np.stack(known) if known else None)

    def _places(self, step: int, number: int) -> list[tuple[int, int]]:
        """Epoch and position of each patch of a micro-batch."""
        size = self.plan.micro_batch
        first = (step * self.plan.count + number) * size
        return [divmod(first + offset, len(self._entries)) for offset in range(size)]

    def _items(self, start: int, stop: int, numbers: Sequence[int]) -> Iterator[int]:
        """The samples that these micro-batches are cut from, in their order."""
        for step in range(start, stop):
            for number in numbers:
                for epoch, position in self._places(step, number):
                    yield self.indices[self._entries[int(self._order(epoch)[position])]]

    def ahead(self, start: int, stop: int, numbers: Sequence[int]) -> Generator[list[MicroBatch], None, None]:
        """The micro-batches `numbers` of the steps from `start` to `stop`, prepared by threads meanwhile."""
        following = self.samples.following(self._items(start, stop, numbers))
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="batches", initializer=_stand_back)
        with following, pool:
            waiting: deque[list[Future[MicroBatch]]] = deque()
            step, interval = start, sys.getswitchinterval()
            # between two operations of the network its thread would wait for so long, whenever a patch is being made
            sys.setswitchinterval(_SWITCH_S)
            try:
                while step < stop or waiting:
                    while step < stop and len(waiting) < self._keep:
                        waiting.append([pool.submit(self.micro_batch, step, n) for n in numbers])
                        step += 1
                    yield [future.result() for future in waiting.popleft()]
            finally:
                sys.setswitchinterval(interval)
                for futures in waiting:
                    for future in futures:
                        future.cancel()

    @property
    def _categorical(self) -> tuple[int, ...]:
        at = 0
        found: list[int] = []
        for norm in self.plan.normalisation:
            width = {"drop": 0, "onehot": len(norm.values)}.get(norm.kind, 1)
            if norm.kind == "onehot":
                found += range(at, at + width)
            at += width
        return tuple(found)

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._orders:
                self._orders[epoch] = permutation(len(self._entries), self.plan.seed, _ORDER, epoch)
                while len(self._orders) > 4:
                    self._orders.popitem(last=False)
            return self._orders[epoch]

    def _knowledge(self, index: int) -> _Known:
        with self._lock:
            if index in self._known:
                return self._known[index]
        is_large = self.samples.is_large(index)
        space = self.samples.space(index) if is_large else self.samples[index].space
        steps = sample_strides(space)
        seen: list[np.ndarray] = []
        found: dict[int, list[tuple[int, np.ndarray]]] = {value: [] for value in range(self.plan.num_classes)}
        for start, band in self.samples.bands(index):
            if band.classes is None:
                raise ValueError(f"{band.key} has no labels to train on")
            strides = (slice(-start % steps[0], None, steps[0]), *(slice(None, None, step) for step in steps[1:]))
            seen.append(np.array(band.image[(slice(None), *strides)]))
            for value, parts in found.items():
                flat = np.flatnonzero(band.classes == value)
                if flat.size:
                    kept = flat[_evenly(flat.size, _KEPT)] if is_large else flat
                    parts.append((flat.size, kept + start * math.prod(space[1:])))
        stats = statistics(np.concatenate(seen, axis=1), self.plan.normalisation)
        positions = [np.stack(np.unravel_index(_chosen(parts), space), axis=1) for parts in found.values() if parts]
        known = _Known(stats, tuple(positions), space)
        with self._lock:
            self._known[index] = known
        return known

    def _aim(self, known: _Known, epoch: int, position: int) -> tuple[float, ...] | None:
        """The middle of the patch: a pixel of a class drawn evenly, or None for anywhere."""
        random = generator(self.plan.seed, _CENTRE, epoch, position)
        aimed, which, where = random.random(3)
        if aimed >= _AIMED_SHARE or len(known.positions) < 2:
            return None
        chosen = known.positions[int(which * len(known.positions))]
        return tuple(float(v) for v in chosen[int(where * len(chosen))])

    def _wanted(
        self, classes: np.ndarray | None, instances: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        plan = self.plan
        if classes is None:
            raise ValueError("a patch without labels")
        if self._crop is not None:
            classes = np.ascontiguousarray(classes[self._crop])
            instances = None if instances is None else np.ascontiguousarray(instances[self._crop])
        wanted, distance = classes, None
        if plan.instance_mode != "none":
            objects = components(classes) if instances is None else instances
            wanted, distance = targets(classes, objects, plan.instance_mode, plan.num_classes)
        sampling = (plan.anisotropy, 1.0, 1.0) if plan.dims == 3 else None
        weights = weight_map(
            wanted,
            instances,
            class_weights=np.asarray(plan.class_weights, np.float32) if plan.class_weights else None,
            border=plan.border,
            w0=plan.w0,
            sigma_px=plan.sigma_px,
            sampling=sampling,
        )
        return wanted, weights, distance


def _stand_back() -> None:
    """Let the network go first where both want the processor. On Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _BACK)


def _evenly(total: int, most: int) -> np.ndarray:
    """At most so many numbers below `total`, spread evenly."""
    return np.linspace(0, total - 1, min(total, most)).astype(np.int64)


def _chosen(parts: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Places spread evenly over those of all parts: each part says how many it has, and some or all of them."""
    ranks = _evenly(sum(count for count, _ in parts), _POSITIONS)
    chosen, first = [], 0
    for count, kept in parts:
        here = ranks[(ranks >= first) & (ranks < first + count)] - first
        chosen.append(kept[here * len(kept) // count])
        first += count
    return np.concatenate(chosen)


def class_histogram(samples: Samples, indices: Sequence[int], num_classes: int) -> np.ndarray:
    """Pixels per class over samples, the last entry those to ignore."""
    counts = np.zeros(num_classes + 1, np.int64)
    with samples.following(indices):
        for classes in (band.classes for index in indices for _, band in samples.bands(index)):
            if classes is not None:
                found = np.bincount(classes.ravel(), minlength=256)
                counts[:num_classes] += found[:num_classes]
                counts[num_classes] += found[IGNORE]
    return counts


def _centre(whole: int, part: int) -> slice:
    start = (whole - part) // 2
    return slice(start, start + part)


__all__ = ["Batches", "Change", "MicroBatch", "class_histogram", "epoch_entries"]
