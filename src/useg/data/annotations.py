"""The label files of one sample, read and encoded: class ids, object ids, and where labels count."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from useg.arrays import IGNORE, Instances, Labels, Raw
from useg.data.forms import inside
from useg.data.headers import Header, Window
from useg.data.images import read_header, read_image
from useg.data.labels import LabelMapping
from useg.data.orientation import exchanges_axes, upright
from useg.data.reading import Sample
from useg.errors import DataError, Problem


@dataclass(frozen=True)
class StoredLabels:
    """One label file as read, in the frame of its image.

    Attributes:
        raw: (channels, *space).
        header: what the file says.
        turned: the mask was turned by the image's orientation tag, because only so it fits.
    """

    raw: np.ndarray
    header: Header
    turned: bool


def read_stored(ref: str, image: Header | None, window: Window | None = None) -> StoredLabels:
    """Read one label file, turned like its image where it fits only so.

    Args:
        ref: the label file.
        image: header of the sample's image; None when nothing is to be checked.
        window: over the image's space.

    Raises:
        DataError: unreadable, or of another size than the image.
    """
    header = read_header(ref)
    if image is None or header.space == image.space:
        return StoredLabels(read_image(ref, window), header, turned=False)
    turned = (*header.space[:-2], header.space[-1], header.space[-2])
    if header.orientation != 1 or not exchanges_axes(image.orientation) or turned != image.space:
        raise DataError(
            "image and label map differ in size",
            [
                Problem(
                    ref,
                    f"the label map is {_by(header.space)}, its image {_by(image.space)} ({image.ref})",
                    _way_out(header, image),
                )
            ],
        )
    raw = upright(read_image(ref), image.orientation)
    return StoredLabels(raw if window is None else raw[(slice(None), *window)], header, turned=True)


def _by(space: tuple[int, ...]) -> str:
    return " x ".join(map(str, space))


def _way_out(header: Header, image: Header) -> str:
    ratios = {round(a / b, 3) for a, b in zip(image.space, header.space, strict=False)}
    if len(header.space) != len(image.space):
        if len(header.space) == 3:
            name = header.ref.rpartition("/")[2]
            return (
                f"a plane for each object: list them in the column `objects` of a pairs.csv, {name}#0;{name}#1;...; "
                f"one plane is the mask: name it in the column `label`, {name}#0; "
                "a plane for each class: save numpy's argmax over the planes"
            )
        return "make both 2D or both 3D"
    if len(ratios) == 1:
        return "resize the label map by nearest neighbour to its image's size, or leave the pair out"
    if sorted(header.space) == sorted(image.space):
        return "one of the two is turned or has its axes in another order; save both alike"
    return "check that the two belong together; else leave the pair out"


def read_region(sample: Sample, image: Header | None, window: Window | None = None) -> np.ndarray | None:
    """Where the sample's labels count, as booleans over space; None is everywhere.

    Raises:
        DataError: unreadable, or of another size than the image.
    """
    if sample.region is None:
        return None
    return inside(read_stored(sample.region, image, window).raw[0])


def read_objects(
    sample: Sample, mapping: LabelMapping, image: Header, window: Window | None = None
) -> tuple[Labels, Instances]:
    """Class ids and object ids of a sample with one mask per object.

    Raises:
        DataError: all masks that cannot be read, or that have another size than the image.
    """
    problems: list[Problem] = []
    space = image.space if window is None else tuple(s.stop - s.start for s in window)

    def masks() -> Iterator[np.ndarray]:
        for ref in sample.labels:
            try:
                raw = read_image(ref, window if window is not None else None)
                if raw.shape[1:] != space:
                    raw = read_stored(ref, image, window).raw
                yield raw[0]
            except DataError as error:
                problems.extend(error.problems or [Problem(ref, error.summary)])

    encoded = mapping.encode_objects(masks(), space)
    if problems:
        raise DataError(f"{len(problems)} masks of {sample.key} cannot be used", problems)
    return encoded


def read_annotation(
    sample: Sample, mapping: LabelMapping, image: Header, window: Window | None = None
) -> tuple[Labels | None, Instances | None]:
    """Class ids and, where labels tell objects apart, object ids of one sample.

    Outside the sample's region, class ids are `IGNORE` and object ids 0.

    Args:
        sample: the sample; without labels the answer is (None, None).
        mapping: how values become classes.
        image: header of the sample's (first) image.
        window: over the image's space; None is all of it.

    Raises:
        DataError: unreadable, of another size than the image, or values not in the mapping; names the file.
    """
    if not sample.labels:
        return None, None
    instances: np.ndarray | None
    if sample.masks_are_objects:
        classes, instances = read_objects(sample, mapping, image, window)
        instances = instances if mapping.has_objects else None
    else:
        only_one(sample)
        stored = read_stored(sample.labels[0], image, window)
        classes, instances = encode_named(mapping, stored.raw, stored.header)
    region = read_region(sample, image, window)
    if region is not None:
        classes = np.where(region, classes, np.uint8(IGNORE))
        instances = None if instances is None else np.where(region, instances, np.int32(0))
    return classes, instances


def only_one(sample: Sample) -> None:
    """Check that the sample has a single label map.

    Raises:
        DataError: it has several, which are not one mask per object.
    """
    if len(sample.labels) > 1:
        raise DataError(
            f"{sample.key} has {len(sample.labels)} label maps",
            [
                Problem(ref, "one of several label maps of one image", "say which to use in pairs.csv")
                for ref in sample.labels
            ],
        )


def encode_named(mapping: LabelMapping, raw: Raw, header: Header) -> tuple[Labels, Instances | None]:
    """`mapping.encode`, with the file's name in the error.

    Raises:
        DataError: a value is not in the mapping.
    """
    try:
        return mapping.encode(raw, header.palette)
    except DataError as error:
        raise DataError("labels do not fit the mapping", [Problem(header.ref, error.summary)]) from None
