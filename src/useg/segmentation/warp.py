"""The geometric part of a change: one coordinate map, applied once to image, classes and instances.

Crop, shift, rotation, scale, shear, flip and the elastic field are one sum of products of functions of a
single axis, so the map is a few small matrix products, not a chain of resamplings.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from useg.arrays import Instances, Labels, Raw
from useg.errors import InputError
from useg.segmentation.augment import Change

Interpolation = Literal["linear", "cubic"]
_FLAGS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST}
_STEEPEST = 0.7
_LONGEST_SIDE = 32766

Patch = Float[np.ndarray, "channels *patch"]
PatchLabels = UInt8[np.ndarray, "*patch"]
PatchInstances = Int[np.ndarray, "*patch"]


def warp(
    image: Raw,
    classes: Labels | None,
    instances: Instances | None,
    change: Change,
    *,
    patch: tuple[int, ...],
    centre: tuple[float, ...] | None = None,
    interpolation: Interpolation = "cubic",
    categorical: tuple[int, ...] = (),
    source: "Source | None" = None,
) -> tuple[Patch, PatchLabels | None, PatchInstances | None]:
    """Cut a changed patch out of an image and its label maps.

    Beyond the image's edges the image is mirrored (the edge pixel once), as often as needed, and so are the label maps.
    A change that only crops, shifts and flips copies pixels and interpolates none.

    Args:
        image: any dtype; amounts are taken as float32 before they are interpolated.
        classes, instances: over the same space; nearest neighbour, so no value appears that was not there.
        patch: size of the result over space.
        centre: where the patch's middle lies, in pixels (0 is the middle of the first pixel), moved to the
            nearest whole pixel; None: `change.position` says.
        interpolation: of amounts, in a plane. Across planes (3D) it is linear in both directions.
        categorical: channels whose values are codes, not amounts: nearest neighbour.
        source: `source_of(...)` of the same change, patch and centre, when the arrays are only its window of the image.

    Returns:
        The patch of the image (float32), of the classes and of the instances (None where None came).

    Raises:
        InputError: shapes do not fit, or the window is too small.
    """
    maps = [given for given in (classes, instances) if given is not None]
    if any(given.shape != image.shape[1:] for given in maps):
        sizes = ", ".join(str(given.shape) for given in maps)
        raise InputError(f"warp: image of {image.shape[1:]} with label maps of {sizes}; wanted the same size")
    window = (slice(None),) * (image.ndim - 1)
    if source is None:
        source = source_of(change, patch, centre, image.shape[1:])
        window = source.window
    elif image.shape[1:] != tuple(part.stop - part.start for part in source.window):
        raise InputError(f"warp: an image of {image.shape[1:]}; wanted what lies in {source.window}")
    kinds = ["nearest" if channel in categorical else interpolation for channel in range(len(image))]
    sources = [*image, *maps]
    results = [np.empty((len(image), *patch), dtype=np.float32)]
    results += [np.empty(patch, np.uint8)] * (classes is not None)
    results += [np.empty(patch, np.int32)] * (instances is not None)
    targets = [*results[0], *results[1:]]
    if change.rigid:
        for values, target in zip(sources, targets, strict=True):
            target[...] = _taken(values[window], source.places)
    else:
        methods = kinds + ["nearest"] * len(maps)
        sample = _sample_2d if change.ndim == 2 else _sample_planes if change.in_plane else _sample_3d
        for values, target, method in zip(sources, targets, methods, strict=True):
            sample(np.ascontiguousarray(values[window], dtype=target.dtype), source.places, method, target)
    labels = iter(results[1:])
    return results[0], None if classes is None else next(labels), None if instances is None else next(labels)


@dataclass(frozen=True)
class Source:
    """Where the pixels of a changed patch come from, so that a lazy reader can read no more.

    Attributes:
        window: the box of the image that holds them all.
        places: within it; an index of each line along each axis where the change is rigid, else a coordinate of each
            pixel along each axis.
    """

    window: tuple[slice, ...]
    places: list[np.ndarray]


def source_of(
    change: Change,
    patch: tuple[int, ...],
    centre: tuple[float, ...] | None,
    space: tuple[int, ...],
) -> Source:
    """Where `warp` takes a patch from, in an image of size `space`.

    Raises:
        InputError: patch, space and change do not have the same axes, or one is empty.
    """
    if not len(patch) == len(space) == change.ndim or min(*patch, *space) < 1:
        raise InputError(f"warp: a {change.ndim}D change for a patch of {patch} of an image of {space}")
    found = _lines if change.rigid else _places
    places, window = found(change, patch, centre, space)
    return Source(window, places)


def displacements(change: Change, patch: tuple[int, ...]) -> np.ndarray:
    """The elastic field (ndim, *patch) in pixels of the last two axes, before rotation, scale and flip.

    Bicubic (tricubic) interpolation after Keys, a = -1/2, between nodes spread over the patch edge to edge: the nodes'
    values are met, and a displacement linear in space is reproduced. Where the patch is so small that the field would
    fold the image over itself, the whole field is weakened until no row of its Jacobian sums to more than 0.7.
    """
    grid = _nodes(change, patch)
    bases = [_basis(side, grid.shape[1])[:, :-2] for side in patch]
    return np.stack([_spread(component, bases) for component in grid])


def _first(
    change: Change, patch: tuple[int, ...], centre: tuple[float, ...] | None, space: tuple[int, ...]
) -> list[int]:
    """The whole pixel at which the undeformed patch starts, per axis; may lie outside the image."""
    if centre is None:
        starts = [place * (side - width) for place, side, width in zip(change.position, space, patch, strict=True)]
    else:
        starts = [middle - (width - 1) / 2 for middle, width in zip(centre, patch, strict=True)]
    moved = zip(starts, change.shift, patch, strict=True)
    return [math.floor(begin + 0.5) + round(shift * width) for begin, shift, width in moved]


def _lines(
    change: Change, patch: tuple[int, ...], centre: tuple[float, ...] | None, space: tuple[int, ...]
) -> tuple[list[np.ndarray], tuple[slice, ...]]:
    """For a rigid change: which index of the window each index of the patch is, per axis; and the window."""
    lines, window = [], []
    starts = _first(change, patch, centre, space)
    for begin, width, side, flip in zip(starts, patch, space, change.flip, strict=True):
        line = np.arange(begin, begin + width)[:: -1 if flip else 1]
        line = np.abs((line + side - 1) % max(2 * side - 2, 1) - (side - 1))
        part = slice(int(line.min()), int(line.max()) + 1)
        lines.append(line - part.start)
        window.append(part)
    return lines, tuple(window)


def _taken(array: np.ndarray, lines: list[np.ndarray]) -> np.ndarray:
    for axis, line in enumerate(lines):
        if len(line) != array.shape[axis] or not np.array_equal(line, np.arange(len(line))):
            array = array.take(line, axis)
    return array


def _places(
    change: Change, patch: tuple[int, ...], centre: tuple[float, ...] | None, space: tuple[int, ...]
) -> tuple[list[np.ndarray], tuple[slice, ...]]:
    """Where each pixel of the patch comes from, per axis, relative to the window of the image that holds them all."""
    ndim = change.ndim
    unit = np.array([change.anisotropy, 1.0, 1.0] if ndim == 3 else [1.0, 1.0])
    matrix = _matrix(change) / unit[:, None]
    grid = _nodes(change, patch)
    count = grid.shape[1]
    terms = np.zeros((ndim, *(count + 2,) * ndim))
    terms[:, *(slice(count),) * ndim] = np.tensordot(matrix, grid, axes=1)
    for axis in range(ndim):
        term = [count if other == axis else count + 1 for other in range(ndim)]
        terms[:, *term] = matrix[:, axis] * unit[axis]
    starts = _first(change, patch, centre, space)
    terms[:, *(count + 1,) * ndim] = [(width - 1) / 2 for width in patch]
    bases = [_basis(width, count)[:: -1 if flip else 1] for width, flip in zip(patch, change.flip, strict=True)]
    places, window = [], []
    for component, begin, side in zip(terms, starts, space, strict=True):
        place = _spread(component, bases)
        low, high = math.floor(float(place.min())) + begin, math.ceil(float(place.max())) + begin
        if low < 0 or high > side - 1:
            place = _mirrored(place + np.float32(begin), side)
            begin, low, high = 0, math.floor(float(place.min())), math.ceil(float(place.max()))
        part = slice(max(low - 2, 0), min(high + 3, side))
        if begin != part.start:
            place += np.float32(begin - part.start)
        places.append(place)
        window.append(part)
    return places, tuple(window)


def _spread(terms: np.ndarray, bases: list[np.ndarray]) -> np.ndarray:
    """Sum over all terms of the product of their one-axis functions; float32 over the patch."""
    for basis in bases:
        terms = np.tensordot(terms.astype(np.float32, copy=False), basis, axes=([0], [1]))
    return terms


@cache
def _basis(width: int, nodes: int) -> np.ndarray:
    """Columns: one interpolating function a node, the distance from the middle, and one; float32 (width, nodes + 2)."""
    places = np.linspace(0.0, nodes - 1.0, width) if width > 1 else np.array([(nodes - 1) / 2])
    distance = np.abs(places[:, None] - np.arange(-1, nodes + 1))
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    weights = np.where(distance <= 1.0, near, np.where(distance < 2.0, far, 0.0))
    inner = weights[:, 1:-1].copy()
    inner[:, 0] += 2.0 * weights[:, 0]  # the nodes beyond the ends continue the line through the last two
    inner[:, 1] -= weights[:, 0]
    inner[:, -1] += 2.0 * weights[:, -1]
    inner[:, -2] -= weights[:, -1]
    middle = np.arange(width) - (width - 1) / 2
    basis = np.column_stack([inner, middle, np.ones(width)]).astype(np.float32)
    basis.setflags(write=False)
    return basis


def _nodes(change: Change, patch: tuple[int, ...]) -> np.ndarray:
    if not change.elastic:
        return np.zeros((change.ndim, *(2,) * change.ndim))
    grid = np.array(change.elastic, dtype=np.float64)
    slopes = np.zeros(change.ndim)
    for axis, width in enumerate(patch):
        spacing = (width - 1) / (grid.shape[1] - 1) * (change.anisotropy if axis == 0 and change.ndim == 3 else 1.0)
        if width > 1:
            steps = np.abs(np.diff(grid, axis=1 + axis)).reshape(change.ndim, -1)
            slopes += 1.25 * steps.max(axis=1) / spacing
    steepest = float(slopes.max())
    return grid * (_STEEPEST / steepest) if steepest > _STEEPEST else grid


def _matrix(change: Change) -> np.ndarray:
    """From steps in the patch to steps in the image, both in pixels of the last two axes."""
    plane = math.radians(change.angles_deg[0])
    turn = np.array([[math.cos(plane), math.sin(plane)], [-math.sin(plane), math.cos(plane)]])
    flat: np.ndarray = turn @ np.array([[1.0, 0.0], [change.shear, 1.0]]) / change.scale
    if change.ndim == 2:
        return flat
    matrix = np.eye(3)
    matrix[1:, 1:] = flat
    if change.in_plane:
        return matrix
    matrix[0, 0] = 1.0 / change.scale
    for angle_deg, axes in zip(change.angles_deg[1:], ((0, 1), (0, 2)), strict=True):
        tilt, angle = np.eye(3), math.radians(angle_deg)
        tilt[np.ix_(axes, axes)] = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        matrix = tilt @ matrix
    return matrix


def _mirrored(place: np.ndarray, side: int) -> np.ndarray:
    last = np.float32(side - 1)
    if side == 1:
        place[...] = 0
        return place
    if place.min() < -last or place.max() > 2 * last:
        place = np.remainder(place, 2 * last)
    np.abs(place, out=place)
    np.subtract(last, place, out=place)
    np.abs(place, out=place)
    np.subtract(last, place, out=place)
    np.clip(place, 0, last, out=place)
    return place


def _sample_2d(values: np.ndarray, places: list[np.ndarray], method: str, out: np.ndarray) -> None:
    rows, columns = places
    if max(values.shape) > _LONGEST_SIDE or max(rows.shape) > _LONGEST_SIDE:
        _sample_any(values, places, method, out)
        return
    for axis in range(2):
        if values.shape[axis] == 1:  # OpenCV 5 never returns from mirroring a single row for cubic interpolation
            values = values.repeat(2, axis)
    cv2.remap(values, columns, rows, _FLAGS[method], dst=out, borderMode=cv2.BORDER_REFLECT_101)


def _sample_planes(values: np.ndarray, places: list[np.ndarray], method: str, out: np.ndarray) -> None:
    for index, plane in enumerate(places[0][:, 0, 0]):
        _sample_2d(values[round(float(plane))], [places[1][index], places[2][index]], method, out[index])


def _sample_3d(values: np.ndarray, places: list[np.ndarray], method: str, out: np.ndarray) -> None:
    """Planes are laid one below the other, so that a plane's interpolation is one of two dimensions."""
    depth, height, width = values.shape
    tall = values.reshape(depth * height, width)
    flat = (out.shape[0] * out.shape[1], out.shape[2])
    if max(*tall.shape, *flat) > _LONGEST_SIDE:
        _sample_any(values, places, method, out)
        return
    planes, rows, columns = (place.reshape(flat) for place in places)
    below = np.rint(planes) if method == "nearest" else np.floor(planes)
    row = below * np.float32(height) + rows
    flag = cv2.INTER_NEAREST if method == "nearest" else cv2.INTER_LINEAR
    found = out.reshape(flat)
    if method == "nearest":
        row = below * np.float32(height) + np.rint(rows)
    cv2.remap(tall, columns, row, flag, dst=found, borderMode=cv2.BORDER_REFLECT_101)
    if method == "nearest" or depth == 1:
        return
    np.minimum(below + 1, np.float32(depth - 1), out=row)
    row *= np.float32(height)
    row += rows
    above = cv2.remap(tall, columns, row, flag, borderMode=cv2.BORDER_REFLECT_101)
    above -= found
    above *= planes - below
    found += above


def _sample_any(values: np.ndarray, places: list[np.ndarray], method: str, out: np.ndarray) -> None:
    """The same without OpenCV's limit of 32,766 rows and columns; slower, and linear for cubic."""
    from scipy import ndimage

    ndimage.map_coordinates(values, places, output=out, order=0 if method == "nearest" else 1, mode="mirror")
