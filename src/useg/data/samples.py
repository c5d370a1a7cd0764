"""A data set as arrays: each sample's image and label maps, decoded once and kept within a bound."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from math import prod
from threading import Lock
from typing import Protocol

import numpy as np

from useg.arrays import Instances, Labels, Raw
from useg.data.annotations import read_annotation
from useg.data.headers import Header
from useg.data.images import open_image, read_header, read_image
from useg.data.labels import LabelMapping
from useg.data.reading import Sample
from useg.errors import DataError, Problem

DEFAULT_CACHE_BYTES = 2 * 1024**3

LARGE_BYTES = 256 * 1024**2
"""Of an item that takes more than this decoded, only what is asked for is read, where its files allow it."""

_BAND_BYTES = 64 * 1024**2
_GLIMPSE_PIXELS = 4_000_000


@dataclass(frozen=True)
class Loaded:
    """One sample, decoded.

    Attributes:
        key: the sample's key.
        image: (C, *space) in the stored dtype, channels as the network's plan counts them.
        classes: label map, or None without labels.
        instances: object ids where the labels tell objects apart.
        spacing: size of a pixel per axis of space, None if unknown.
    """

    key: str
    image: Raw
    classes: Labels | None
    instances: Instances | None
    spacing: tuple[float, ...] | None = None

    @property
    def space(self) -> tuple[int, ...]:
        """Size over space."""
        return self.image.shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        arrays = (self.image, self.classes, self.instances)
        return sum(array.nbytes for array in arrays if array is not None)


class Source(Protocol):
    """Where the files of samples are had from."""

    def space(self, sample: Sample) -> tuple[int, ...]:
        """Size of a sample over space, without decoding it."""
        ...

    def local(self, sample: Sample) -> AbstractContextManager[Sample]:
        """The sample with refs to files that can be read meanwhile, fetched and checked where that is needed."""
        ...

    def following(self, order: Iterable[Sample]) -> AbstractContextManager[None]:
        """Meanwhile, fetch files ahead in the order in which samples will be asked for."""
        ...


class Plain:
    """Files that lie where the samples' refs say."""

    def space(self, sample: Sample) -> tuple[int, ...]:
        """Size of a sample over space, from the header of its first image."""
        return read_header(sample.images[0]).space

    def local(self, sample: Sample) -> AbstractContextManager[Sample]:
        """The sample itself."""
        return nullcontext(sample)

    def following(self, order: Iterable[Sample]) -> AbstractContextManager[None]:
        """There is nothing to fetch."""
        return nullcontext()


class Samples:
    """A sequence of samples, decoded when asked for; the least recently used go when the bound is reached.

    Args:
        samples: what to read.
        mapping: how stored label values become classes; None reads images only.
        channels: channels every image is brought to, see `match_channels`.
        planes: cut volumes into planes: each becomes a 2D sample of its own, of the volume's group.
        cache_bytes: bound on what is kept decoded.
        source: where their files are had from.

    Safe to use from several threads.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        mapping: LabelMapping | None,
        channels: int,
        *,
        planes: bool = False,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        source: Source | None = None,
    ) -> None:
        self.mapping, self.channels, self.planes = mapping, channels, planes
        self._source: Source = Plain() if source is None else source
        self._cache: OrderedDict[int, Loaded] = OrderedDict()
        self._bytes, self._bound, self._lock = 0, cache_bytes, Lock()
        self._items: list[_Item] = []
        self._large: dict[int, bool] = {}
        for sample in samples:
            space = self._source.space(sample)
            if planes and len(space) == 3:
                rest = tuple(slice(0, n) for n in space[1:])
                self._items += [
                    _Item(sample, f"#{z}", (slice(z, z + 1), *rest), is_plane=True) for z in range(space[0])
                ]
            else:
                self._items.append(_Item(sample, "", None))

    def following(self, indices: Iterable[int]) -> AbstractContextManager[None]:
        """Meanwhile, have files ready before these items are asked for, in this order, which may be endless."""

        def lacking() -> Iterator[Sample]:
            for index in indices:
                with self._lock:
                    decoded = index in self._cache
                if not decoded:
                    yield self._items[index].sample

        return self._source.following(lacking())

    @property
    def is_cut(self) -> bool:
        """Whether items are parts of images."""
        return any("[" in item.suffix for item in self._items)

    @property
    def source(self) -> Source:
        """Where the files are had from."""
        return self._source

    def read_from(self, source: Source) -> None:
        """From here on, have the files from another source."""
        self._source = source

    def __len__(self) -> int:
        return len(self._items)

    def cut(self, windows: Mapping[int, Sequence[tuple[slice, ...]]]) -> list[int]:
        """Put windows of items in their place, for images that are split into a part to learn from and one held out.

        Args:
            windows: over space, by the index of the item that they replace.

        Returns:
            For each item now, which one it was before.
        """
        items, origins = [], []
        for index, item in enumerate(self._items):
            parts = [item.within(window) for window in windows[index]] if index in windows else [item]
            items += parts
            origins += [index] * len(parts)
        self._items = items
        self._cache.clear()
        self._large.clear()
        self._bytes = 0
        return origins

    @property
    def keys(self) -> list[str]:
        """A key per item; planes of a volume are `key#plane`, windows `key[rows,columns]`."""
        return [item.sample.key + item.suffix for item in self._items]

    @property
    def groups(self) -> list[str | None]:
        """The group per item; planes and windows of one image always share one."""
        return [item.sample.group if not item.suffix else item.sample.group or item.sample.key for item in self._items]

    @property
    def splits(self) -> list[str | None]:
        """The given split per item."""
        return [item.sample.split for item in self._items]

    def space(self, index: int) -> tuple[int, ...]:
        """Size of an item without decoding it."""
        item = self._items[index]
        if item.window is None:
            return self._source.space(item.sample)
        space = tuple(part.stop - part.start for part in item.window)
        return space[1:] if item.is_plane else space

    def sample(self, index: int) -> Sample:
        """The sample an item comes from."""
        return self._items[index].sample

    def each(self, indices: Sequence[int]) -> Iterator[Loaded]:
        """These items, one after another, their files fetched ahead."""
        if len(indices) == 1:
            yield self[indices[0]]
            return
        with self.following(indices):
            for index in indices:
                yield self[index]

    def __getitem__(self, index: int) -> Loaded:
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        loaded = self._load(self._items[index])
        with self._lock:
            if index not in self._cache:
                self._cache[index] = loaded
                self._bytes += loaded.nbytes
            while self._bytes > self._bound and len(self._cache) > 1:
                self._bytes -= self._cache.popitem(last=False)[1].nbytes
        return loaded

    def is_large(self, index: int) -> bool:
        """Whether an item is read in parts: it is above `LARGE_BYTES`, and a part costs the time of a part."""
        with self._lock:
            if index in self._large:
                return self._large[index]
        item, pixels = self._items[index], prod(self.space(index))
        large = pixels * (8 * self.channels + 5) > LARGE_BYTES
        if large:
            with self._source.local(item.sample) as sample, ExitStack() as files:
                images = [files.enter_context(open_image(ref)) for ref in sample.images]
                refs = [*sample.labels, *filter(None, [sample.region])]
                rest = [files.enter_context(open_image(ref)) for ref in (refs if self.mapping is not None else [])]
                nbytes = self.channels * images[0].header.dtype.itemsize + (1 + 4 * (self.mapping is not None))
                large = pixels * nbytes > LARGE_BYTES and all(image.random_access for image in [*images, *rest])
        with self._lock:
            self._large[index] = large
        return large

    def read(self, index: int, window: tuple[slice, ...]) -> Loaded:
        """A window of an item, over its space; of a large one nothing else is read."""
        if self.is_large(index):
            return self._load(self._items[index].part(window))
        whole = self[index]
        classes, instances = (None if each is None else each[window] for each in (whole.classes, whole.instances))
        return replace(whole, image=whole.image[(slice(None), *window)], classes=classes, instances=instances)

    def bands(self, index: int) -> Iterator[tuple[int, Loaded]]:
        """An item in bands along its first axis, each with where it starts; one that is not large is a single band."""
        if not self.is_large(index):
            yield 0, self[index]
            return
        space = self.space(index)
        thick = max(1, _BAND_BYTES // (prod(space[1:]) * (self.channels + 5)))
        for start in range(0, space[0], thick):
            rest = (slice(0, size) for size in space[1:])
            yield start, self.read(index, (slice(start, min(start + thick, space[0])), *rest))

    def glimpse(self, index: int) -> Loaded:
        """An item, or its middle where it is large."""
        if not self.is_large(index):
            return self[index]
        space = self.space(index)
        side = int(_GLIMPSE_PIXELS ** (1 / len(space)))
        starts = [max(0, (size - side) // 2) for size in space]
        return self.read(index, tuple(slice(a, min(a + side, n)) for a, n in zip(starts, space, strict=True)))

    def _load(self, item: "_Item") -> Loaded:
        classes = instances = None
        with self._source.local(item.sample) as sample:
            header = read_header(sample.images[0])
            image = read_sample_image(sample, self.channels, item.window)
            if self.mapping is not None:
                classes, instances = read_annotation(sample, self.mapping, header, item.window)
        spacing = header.spacing
        if item.is_plane:
            image = image[:, 0]
            classes = None if classes is None else classes[0]
            instances = None if instances is None else instances[0]
            spacing = None if spacing is None else spacing[1:]
        return Loaded(item.sample.key + item.suffix, image, classes, instances, spacing)


@dataclass(frozen=True)
class _Item:
    """A sample, or a window of it."""

    sample: Sample
    suffix: str
    window: tuple[slice, ...] | None
    is_plane: bool = False

    def within(self, window: tuple[slice, ...]) -> "_Item":
        """A window of this item, which is whole or a plane."""
        name = ",".join(f"{part.start}:{part.stop}" for part in window)
        plane = self.window[:1] if self.window is not None and self.is_plane else ()
        return _Item(self.sample, f"{self.suffix}[{name}]", (*plane, *window), self.is_plane)

    def part(self, window: tuple[slice, ...]) -> "_Item":
        """A window of this item, which may be one itself; it keeps the name."""
        plane = self.window[:1] if self.window is not None and self.is_plane else ()
        firsts = [0] * len(window) if self.window is None else [each.start for each in self.window[len(plane) :]]
        moved = (slice(a + w.start, a + w.stop) for a, w in zip(firsts, window, strict=True))
        return _Item(self.sample, self.suffix, (*plane, *moved), self.is_plane)


def read_sample_image(sample: Sample, channels: int, window: tuple[slice, ...] | None = None) -> Raw:
    """The image of a sample, from one file or from one file a channel, brought to `channels` channels.

    Raises:
        DataError: unreadable, files of different sizes, or a channel count that cannot be matched.
    """
    parts = [read_image(ref, window) for ref in sample.images]
    if len(parts) > 1:
        sizes = {part.shape[1:] for part in parts}
        if len(sizes) > 1:
            raise DataError(
                f"{sample.key}: its channels differ in size",
                [Problem(ref, f"size {part.shape[1:]}") for ref, part in zip(sample.images, parts, strict=True)],
            )
        return np.concatenate(parts)
    return match_channels(parts[0], read_header(sample.images[0]), channels)


def match_channels(raw: Raw, header: Header, channels: int) -> Raw:
    """Bring an image to `channels` channels where that loses nothing: palettes are looked up, grey is repeated,
    grey with alpha too, an alpha channel is added as opaque or left out.

    Raises:
        DataError: the image has another number of channels.
    """
    if header.palette is not None and header.colour == "palette":
        raw = np.moveaxis(header.palette[raw[0]], -1, 0)
    have = len(raw)
    if have == channels:
        return raw
    opaque = np.full_like(raw[:1], np.iinfo(raw.dtype).max if raw.dtype.kind in "ui" else 1)
    grey = have in (1, 2) and header.colour in ("grey", "binary", "rgba")
    if channels in (3, 4) and grey:
        return np.concatenate([raw[:1]] * 3 + [opaque] * (channels - 3))
    if channels == 4 and have == 3 and header.colour in ("rgb", "palette"):
        return np.concatenate([raw, opaque])
    if channels == 3 and have == 4 and header.colour == "rgba":
        return raw[:3]
    if channels == 1 and have in (2, 3, 4) and header.colour in ("rgb", "rgba", "grey", "palette"):
        colour = raw[: 3 if have >= 3 else 1]
        if (colour == colour[:1]).all():
            return np.ascontiguousarray(colour[:1])
    raise DataError(
        f"{header.ref}: {have} channels, wanted {channels}",
        [Problem(header.ref, f"has {have} channels ({header.colour}); the data or the model has {channels}")],
    )


def only_images(samples: Sequence[Sample]) -> list[Sample]:
    """The samples without their labels."""
    return [replace(sample, labels=(), region=None) for sample in samples]
