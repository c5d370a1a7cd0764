"""The declared changes of a view, applied to the files of a sample: the originals stay, results lie in the cache."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from useg.arrays import Raw
from useg.data.headers import Header, split_ref
from useg.data.images import read_header, read_image
from useg.data.labels import LabelClass, LabelMapping
from useg.data.reading import Sample
from useg.data.transforms import Crop, Merge, Resize, Rotate, Scale, Transform, Weight
from useg.errors import DataError, InputError, Problem
from useg.home.cache import made_of

if TYPE_CHECKING:
    from useg.home.cache import Cache

Geometric = Resize | Scale | Rotate | Crop


def geometric(transforms: Sequence[Transform]) -> tuple[Geometric, ...]:
    """Those that change pixels."""
    return tuple(transform for transform in transforms if isinstance(transform, Resize | Scale | Rotate | Crop))


def change_files(
    sample: Sample, transforms: Sequence[Geometric], cache: "Cache", digests: Mapping[str, str] | None = None
) -> Sample:
    """A sample with refs to changed files in this machine's cache.

    Images are interpolated linearly, after smoothing where they become smaller; label files by nearest pixel, so
    that their values, colours and palettes stay what they were. Beyond the edges of a turned picture it is mirrored.

    Args:
        sample: its refs are files of this machine.
        transforms: applied in this order.
        cache: where the changed files go.
        digests: of the files, by path; a changed file goes from the cache when its source is withdrawn.

    Raises:
        DataError: a part that is not there was to be cropped, or sizes have another number of axes.
    """

    def changed(ref: str, *, is_label: bool) -> str:
        header, array = read_header(ref), read_image(ref)
        if header.palette is not None and not is_label:
            array, header = np.moveaxis(header.palette[array[0]], -1, 0), replace(header, palette=None, colour="rgb")
        before = array.shape[1:]
        for transform in transforms:
            array = _apply(sample.key, transform, array, is_label=is_label)
        content, suffix = _encoded(array, header, before)
        source = (digests or {}).get(str(split_ref(ref)[0]))
        suffix = suffix if source is None else made_of(source, suffix)
        return str(cache.add(blake3(content).hexdigest(), content, suffix))

    return replace(
        sample,
        images=tuple(changed(ref, is_label=False) for ref in sample.images),
        labels=tuple(changed(ref, is_label=True) for ref in sample.labels),
        region=None if sample.region is None else changed(sample.region, is_label=True),
    )


def _apply(key: str, transform: Geometric, array: Raw, *, is_label: bool) -> Raw:
    space = array.shape[1:]
    if isinstance(transform, Crop):
        return _crop(key, transform, array)
    if isinstance(transform, Rotate):
        return _rotate(transform.degrees, array, is_label=is_label)
    size = _size(transform, space)
    _same_axes(key, transform, len(size), space)
    return _resized(array, size, is_label=is_label)


def _size(transform: Resize | Scale, space: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(transform, Scale):
        return tuple(max(1, round(side * transform.factor)) for side in space)
    if transform.longest_px is not None:
        return tuple(max(1, round(side * transform.longest_px / max(space))) for side in space)
    return transform.size_px


def space_after(transforms: Sequence[Geometric], space: tuple[int, ...]) -> tuple[int, ...] | None:
    """The size over space that changes lead to, without making them; None where only making them can tell."""
    for transform in transforms:
        if isinstance(transform, Rotate):
            if transform.degrees % 90:
                return None
            turned = (*space[:-2], space[-1], space[-2])
            space = turned if transform.degrees % 180 else space
        elif isinstance(transform, Crop):
            starts = transform.start_px or (0,) * len(transform.size_px)
            ends = [start + size for start, size in zip(starts, transform.size_px, strict=True)]
            if len(ends) != len(space) or any(end > side for end, side in zip(ends, space, strict=True)):
                return None
            space = transform.size_px
        elif len(size := _size(transform, space)) == len(space):
            space = size
        else:
            return None
    return space


def _same_axes(key: str, transform: Geometric, axes: int, space: tuple[int, ...]) -> None:
    if axes != len(space):
        shown = "x".join(map(str, space))
        raise DataError(f"{key}: cannot be changed", [Problem(key, f"{transform} has {axes} sides, its image {shown}")])


def _crop(key: str, crop: Crop, array: Raw) -> Raw:
    space = array.shape[1:]
    _same_axes(key, crop, len(crop.size_px), space)
    starts = crop.start_px or tuple((side - size) // 2 for side, size in zip(space, crop.size_px, strict=True))
    stops = tuple(start + size for start, size in zip(starts, crop.size_px, strict=True))
    if any(start < 0 or stop > side for start, stop, side in zip(starts, stops, space, strict=True)):
        shown = "x".join(map(str, space))
        raise DataError(f"{key}: cannot be changed", [Problem(key, f"{crop} does not lie within its {shown} pixels")])
    return array[(slice(None), *(slice(*pair) for pair in zip(starts, stops, strict=True)))]


def _rotate(degrees: float, array: Raw, *, is_label: bool) -> Raw:
    if degrees % 90 == 0:
        return np.rot90(array, int(degrees // 90), axes=(-2, -1))
    from scipy.ndimage import rotate

    def turned(channel: np.ndarray) -> np.ndarray:
        order = 0 if is_label else 1
        return np.asarray(rotate(channel, degrees, axes=(-1, -2), order=order, mode="mirror", output=channel.dtype))

    return np.stack([_as(array.dtype, turned, channel, is_label=is_label) for channel in array])


def _resized(array: Raw, size: tuple[int, ...], *, is_label: bool) -> Raw:
    from skimage.transform import resize

    if array.shape[1:] == size:
        return array
    smaller = any(new < old for new, old in zip(size, array.shape[1:], strict=True))

    def sized(channel: np.ndarray) -> np.ndarray:
        order, smooth = (0, False) if is_label else (1, smaller)
        return np.asarray(resize(channel, size, order, mode="reflect", anti_aliasing=smooth, preserve_range=True))

    return np.stack([_as(array.dtype, sized, channel, is_label=is_label) for channel in array])


def _as(
    dtype: np.dtype, change: Callable[[np.ndarray], np.ndarray], channel: np.ndarray, *, is_label: bool
) -> np.ndarray:
    """Label values stay exact whatever their type; intensities are rounded to theirs."""
    if is_label:
        values, codes = np.unique(channel, return_inverse=True)
        places = change(codes.reshape(channel.shape).astype(np.float64)).round().astype(np.int64)
        return np.asarray(values[places], dtype=dtype)
    found = change(channel.astype(np.float64 if dtype.itemsize > 4 else np.float32))
    return np.asarray(found.round() if dtype.kind in "ui" else found, dtype=dtype)


def _encoded(array: Raw, header: Header, before: tuple[int, ...]) -> tuple[bytes, str]:
    """A file that is read back as this array: NIfTI where the source has spacing in 3D, else TIFF."""
    file = io.BytesIO()
    if header.spacing and len(before) == 3 and len(array) == 1:
        import nibabel

        size = zip(before, array.shape[1:], header.spacing, strict=True)
        spacing = [step * old / new for old, new, step in size]
        volume = np.ascontiguousarray(array[0].transpose(2, 1, 0))
        image = nibabel.Nifti1Image(volume, np.diag([*spacing[::-1], 1.0]), dtype=volume.dtype)
        return image.to_bytes(), ".nii"
    import tifffile

    if header.palette is not None and array.ndim == 3 and array.dtype == np.uint8:
        colours = np.zeros((3, 256), np.uint16)
        colours[:, : len(header.palette)] = header.palette.T.astype(np.uint16) * 257
        tifffile.imwrite(file, array[0], photometric="palette", colormap=colours)
    elif header.colour in ("rgb", "rgba") and len(array) in (3, 4):
        tifffile.imwrite(file, np.moveaxis(array, 0, -1), photometric="rgb", planarconfig="contig")
    elif len(array) == 1:
        tifffile.imwrite(file, array[0], photometric="minisblack")
    else:
        tifffile.imwrite(file, array, photometric="minisblack", planarconfig="separate", metadata={"axes": "CYX"})
    return file.getvalue(), ".tif"


def merge_classes(mapping: LabelMapping, transforms: Sequence[Transform]) -> LabelMapping:
    """A mapping in which classes have become one.

    Raises:
        InputError: there is no such class, or fewer than two are left.
    """
    classes = list(mapping.classes)
    for transform in transforms:
        if not isinstance(transform, Merge):
            continue
        into = classes[class_index(classes, transform.into)]
        gone = [classes[class_index(classes, label)] for label in transform.classes]
        joined = into.model_copy(
            update={
                "values": tuple(value for each in (into, *gone) for value in each.values),
                "colours": tuple(colour for each in (into, *gone) for colour in each.colours),
            }
        )
        classes = [joined if each is into else each for each in classes if each not in gone]
    if len(classes) < 2:
        raise InputError("merging leaves fewer than two classes, so there is nothing to learn")
    return mapping.model_copy(update={"classes": tuple(classes)})


def class_factors(mapping: LabelMapping, transforms: Sequence[Transform]) -> tuple[float, ...]:
    """How much each class counts beyond its usual weight."""
    factors = [1.0] * len(mapping.classes)
    for transform in transforms:
        if isinstance(transform, Weight):
            factors[class_index(mapping.classes, transform.label)] = transform.factor
    return tuple(factors)


def class_index(classes: Sequence[LabelClass], label: int | str) -> int:
    """The class of a name, or of a value in the label files.

    Raises:
        InputError: there is none.
    """
    for index, each in enumerate(classes):
        if each.name == label or label in each.values:
            return index
    there = ", ".join(f"{each.name} ({', '.join(map(str, each.values))})" for each in classes)
    raise InputError(f"there is no class {label!r}; there are {there}")
