"""One sample, measured in one reading of its files: intensities, look, label values, objects."""

from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from jaxtyping import Shaped

from useg.arrays import Raw
from useg.data.alignment import turn_scores
from useg.data.annotations import StoredLabels, only_one, read_objects, read_region, read_stored
from useg.data.census import Census, take_census
from useg.data.duplicates import Look, look_at
from useg.data.forms import is_grey, pack_colours
from useg.data.images import Header, OpenImage, open_image, read_header
from useg.data.labels import LabelClass, LabelMapping
from useg.data.objects import Objects, measure_objects
from useg.data.reading import Sample
from useg.errors import DataError, Problem, UsegError

IMAGE_PIXELS = 4_000_000
"""At most about this many pixels of an image (and of a label map for objects) are measured."""

BLOCKS = 8
"""A larger image is measured on this many evenly spread bands of rows, or on evenly spread planes."""

OBJECT_MASKS = LabelMapping(
    kind="objects",
    classes=(LabelClass(name="background", values=(0,)), LabelClass(name="object", values=(255,))),
)
"""The mapping of samples with one mask per object."""


@dataclass(frozen=True)
class ChannelRecord:
    """One channel of one image.

    Attributes:
        minimum, maximum: of the finite values read; NaN where there are none.
        nonfinite: NaN or infinite values read.
        repeats: share of pixels equal to their right neighbour.
        some: a spread of the values, for pooling.
    """

    minimum: float
    maximum: float
    nonfinite: int
    repeats: float
    some: np.ndarray


@dataclass
class SampleRecord:
    """What one reading of a sample's files gave; what could not be read is None and told in `problems`."""

    sample: Sample
    headers: tuple[Header, ...] = ()
    channels: tuple[ChannelRecord, ...] = ()
    alpha_says_nothing: bool = True
    grey_as_colour: bool = False
    look: Look | None = None
    view: np.ndarray | None = None
    turn_scores: np.ndarray | None = None
    census: Census | None = None
    kept: StoredLabels | None = None
    region: np.ndarray | None = None
    turned: bool = False
    label_upright: bool = False
    objects: Objects | None = None
    class_counts: np.ndarray | None = None
    outside: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def header(self) -> Header:
        """Header of the first image; only where it could be read."""
        return self.headers[0]


def measure_sample(
    sample: Sample, *, values_kept: int, objects_wanted: bool, with_pieces: bool, given: LabelMapping | None
) -> SampleRecord:
    """Read and measure one sample; never raises for bad files, but collects their problems.

    Args:
        sample: the sample.
        values_kept: how many values of each channel are kept for pooling.
        objects_wanted: whether objects are measured (directly, or later on the label map kept in the record).
        with_pieces: whether connected pieces of label values are counted.
        given: the mapping to use, where the user gave one.
    """
    record = SampleRecord(sample)
    try:
        _measure_images(record, values_kept)
        if planes_are_channels(record):
            record.sample = replace(sample, images=tuple(f"{ref}#channels" for ref in sample.images))
            _measure_images(record, values_kept)
    except UsegError as error:
        record.problems += problems_of(error, sample.images[0])
        record.headers = ()
    if record.sample.labels:
        try:
            _measure_labels(record, objects_wanted=objects_wanted, with_pieces=with_pieces, given=given)
        except UsegError as error:
            record.problems += problems_of(error, sample.labels[0])
    record.view = None
    return record


def planes_are_channels(record: SampleRecord) -> bool:
    """Whether the image is a stack and its label map one plane of the same size: then planes are channels.

    Raises:
        DataError: the label file cannot be read.
    """
    sample = record.sample
    if record.headers[0].ndim != 3 or record.headers[0].channels > 1 or not sample.labels:
        return False
    label = read_header(sample.labels[0])
    return label.ndim == 2 and label.space == record.headers[0].space[1:]


def problems_of(error: UsegError, where: str) -> list[Problem]:
    """The problems an error carries, or the error itself as a problem of `where`."""
    if isinstance(error, DataError):
        return list(error.problems) or [Problem(where, error.summary)]
    return [Problem(where, str(error))]


def image_channels(raw: Raw, header: Header) -> Shaped[np.ndarray, "amounts *space"]:
    """The channels of an image as amounts: palette indices are looked up, everything else stays as it is."""
    if header.palette is None:
        return raw
    index = np.minimum(raw[0], len(header.palette) - 1)
    return np.ascontiguousarray(np.moveaxis(header.palette[index], -1, 0))


def read_parts(image: OpenImage) -> list[np.ndarray]:
    """The whole image if it is small; else evenly spread bands of rows (or planes), `IMAGE_PIXELS` in all."""
    space = image.header.space
    line = int(np.prod(space[1:]))
    if space[0] * line <= IMAGE_PIXELS:
        return [image.read()]
    lines = max(1, IMAGE_PIXELS // line)
    blocks = min(BLOCKS, lines) if len(space) == 2 else lines
    thick = max(1, lines // blocks)
    starts = np.linspace(0, space[0] - thick, blocks).astype(int)
    rest = tuple(slice(0, size) for size in space[1:])
    if image.streamable:
        return [image.read((slice(int(s), int(s) + thick), *rest)) for s in starts]
    whole = image.read()
    return [whole[:, s : s + thick] for s in starts]


def _measure_images(record: SampleRecord, values_kept: int) -> None:
    headers: list[Header] = []
    channels: list[ChannelRecord] = []
    digest = blake2b(digest_size=16)
    plane: np.ndarray | None = None
    for ref in record.sample.images:
        with open_image(ref) as image:
            header = image.header
            parts = [image_channels(part, header) for part in read_parts(image)]
        if headers and header.space != headers[0].space:
            raise DataError(
                "channel files differ in size",
                [
                    Problem(
                        ref,
                        f"{header.space}, the first channel is {headers[0].space}",
                        "save all channels alike",
                    )
                ],
            )
        headers.append(header)
        for part in parts:
            digest.update(f"{part.shape}{part.dtype}".encode())
            digest.update(np.ascontiguousarray(part).data)
        channels += [_measure_channel([part[c] for part in parts], values_kept) for c in range(len(parts[0]))]
        if plane is None:
            plane = _view(parts, header)
            record.view = plane if len(parts) == 1 else None
    record.headers = tuple(headers)
    if len(headers) == 1 and headers[0].colour == "rgba":
        record.alpha_says_nothing = channels[-1].minimum == channels[-1].maximum
        if record.alpha_says_nothing and len(channels) == 2:
            channels = channels[:1]
    record.grey_as_colour = (
        len(headers) == 1
        and headers[0].colour in ("rgb", "rgba")
        and len(channels) >= 3
        and all(np.array_equal(channels[0].some, c.some) for c in channels[1:3])
    )
    record.channels = tuple(channels)
    if plane is not None:
        record.look = look_at(plane, digest.hexdigest())


def _view(parts: list[np.ndarray], header: Header) -> np.ndarray:
    """One plane that shows what the image looks like: mean of the channels; of a volume the middle plane."""
    if header.ndim == 3:
        middle = parts[len(parts) // 2]
        picture = middle[:, middle.shape[1] // 2]
    else:
        picture = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    plane: np.ndarray = picture[0] if len(picture) == 1 else picture[:3].astype(np.float32).mean(0)
    return plane


def _measure_channel(parts: list[np.ndarray], values_kept: int) -> ChannelRecord:
    low, high, nonfinite, repeats, pairs = np.inf, -np.inf, 0, 0, 0
    some = []
    for part in parts:
        values = part
        if part.dtype.kind in "fc":
            finite = np.isfinite(part)
            bad = part.size - int(np.count_nonzero(finite))
            nonfinite += bad
            values = part[finite] if bad else part
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        repeats += int(np.count_nonzero(part[..., 1:] == part[..., :-1]))
        pairs += part[..., 1:].size
        wanted = min(part.size, max(1, values_kept // len(parts)))
        some.append(part.reshape(-1)[np.linspace(0, part.size - 1, wanted).astype(np.int64)])
    if low > high:
        low = high = float("nan")
    return ChannelRecord(low, high, nonfinite, repeats / max(1, pairs), np.concatenate(some))


def _measure_labels(
    record: SampleRecord, *, objects_wanted: bool, with_pieces: bool, given: LabelMapping | None
) -> None:
    sample = record.sample
    image = record.headers[0] if record.headers else None
    if sample.masks_are_objects:
        if image is None:
            return
        classes, instances = read_objects(sample, OBJECT_MASKS, image)
        region = read_region(sample, image)
        keep = slice(None) if region is None else region
        counts = np.bincount(classes[keep].ravel(), minlength=2)
        record.class_counts, record.outside = counts, classes.size - int(counts.sum())
        _compare(record, classes[None])
        if objects_wanted:
            record.objects = measure_objects(classes, instances)
        return
    only_one(sample)
    stored = read_stored(sample.labels[0], image)
    region = read_region(sample, image)
    record.turned = stored.turned
    record.label_upright = stored.header.orientation != 1
    try:
        record.census = take_census(
            stored.raw,
            stored.header.ref,
            region=region,
            lossy=stored.header.lossy,
            palette=stored.header.palette,
            given=given,
            with_pieces=with_pieces,
        )
    except DataError as error:
        remedy = "" if error.problems else "save class numbers as whole numbers"
        raise DataError(error.summary, error.problems or [Problem(stored.header.ref, error.summary, remedy)]) from None
    _compare(record, stored.raw)
    if objects_wanted:
        part = _leading_part(stored.raw)
        record.kept = StoredLabels(np.ascontiguousarray(part), stored.header, stored.turned)
        record.region = None if region is None else region[: part.shape[1]]


def _compare(record: SampleRecord, raw: np.ndarray) -> None:
    """Score how well the labels lie on the image, in every turn; lossy masks are cut in the middle."""
    if record.view is None or raw.dtype.kind not in "biu":
        return
    middle = raw[:, raw.shape[1] // 2] if raw.ndim == 4 else raw
    plane = middle[0] if is_grey(middle) else pack_colours(middle)
    if record.census is not None and record.census.lossy:
        plane = plane > plane.max(initial=0) // 2
    if plane.shape == record.view.shape:
        record.turn_scores = turn_scores(record.view, plane)


def _leading_part(raw: np.ndarray) -> np.ndarray:
    lines = max(1, IMAGE_PIXELS // max(1, int(np.prod(raw.shape[2:]))))
    return raw[:, :lines]
