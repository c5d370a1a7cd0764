"""Separate objects: what the network is taught about them, and how its output becomes an instance map."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from useg.arrays import IGNORE, Instances, Labels, Probabilities
from useg.errors import ConfigError
from useg.segmentation.agglomeration import Agglomeration
from useg.segmentation.flooding import components, flood

Mode = Literal["none", "border", "weights", "distance"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""How objects are kept apart: not at all, by a border class, by border weights, by a distance channel."""

FOREGROUND_STEPS = 4096
"""Probabilities are summed in whole numbers of these."""

Outputs = Float[np.ndarray, "outputs *space"]


@dataclass(frozen=True)
class SeparationParameters:
    """What turns the network's output into objects; chosen on validation data by `tune_separation`.

    Attributes:
        mask_threshold: a pixel belongs to some object where the probability of all foreground is at least
            this, 0..1.
        seed_threshold: a pixel belongs to an object's seed where the inside probability (mode `border`) or
            the distance channel (mode `distance`) is at least this, 0..1; not used by the other modes.
        smoothing_px: same modes: that channel is smoothed before by a Gaussian of this standard deviation, so that
            a few uncertain pixels do not cut an object.
        merge_threshold: same modes: touching objects are joined where the line between them is weaker than
            this on average (1 - inside probability or distance channel), 0..1; 0 joins none.
        erosion_px: modes `none` and `weights`: seeds are what is left of the mask this far (pixels) from its
            edge.
        min_seed_px: seeds with fewer pixels are noise.
        min_size_px: objects with fewer pixels are left out.
        min_score: objects whose pixels are foreground with a lower probability than this on average are left
            out, 0..1.
    """

    mask_threshold: float = 0.5
    seed_threshold: float = 0.95
    merge_threshold: float = 0.4
    erosion_px: int = 0
    min_seed_px: int = 3
    min_size_px: int = 4
    min_score: float = 0.0
    smoothing_px: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mask_threshold", "seed_threshold", "merge_threshold", "min_score"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        for name in ("erosion_px", "min_seed_px", "min_size_px", "smoothing_px"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain numbers."""
        return asdict(self)


def output_channels(num_classes: int, mode: Mode) -> int:
    """Return how many channels the network has to give: a border class or a distance channel adds one."""
    return num_classes + (checked_mode(mode) in ("border", "distance"))


def targets(
    classes: Labels, instances: Instances, mode: Mode, num_classes: int
) -> tuple[Labels, Float[np.ndarray, "*space"] | None]:
    """Return what the network learns: a class map, and for mode `distance` a second map.

    Mode `border`: the rim of every object becomes class `num_classes`. The rim is one pixel wide towards
    background and two where another object touches, and lies inside the object, so that gaps stay background.
    An object that would be all rim keeps its deepest pixels. Mode `distance`: the distance of a pixel to the
    nearest pixel outside its own object, divided by the object's largest; 0 on background, 1 at an object's
    deepest pixel.

    The picture's own edge is no rim: an object cut by it goes on outside. Pixels to ignore stay IGNORE in the
    class map; leave them out of the loss of the distance channel as well.

    Args:
        classes: class ids 0..num_classes-1 or IGNORE.
        instances: object ids, 0 where there is none.
        mode: one of MODES; `none` and `weights` return `classes` as it is.
        num_classes: classes including background.

    Raises:
        ConfigError: unknown mode.
    """
    if checked_mode(mode) == "border":
        rim = _rim(instances) & (classes != IGNORE)
        return np.where(rim, np.uint8(num_classes), classes), None
    if mode == "distance":
        return classes, object_distance(instances)
    return classes, None


def _edges(instances: Instances) -> tuple[Bool[np.ndarray, "*space"], Bool[np.ndarray, "*space"]]:
    """Object pixels that share a face with a pixel of another object or of background, and those with an object's."""
    thin, contact = (np.zeros(instances.shape, dtype=bool) for _ in range(2))
    inside = instances > 0
    for axis in range(instances.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        unlike = instances[before] != instances[after]
        thin[before] |= unlike
        thin[after] |= unlike
        unlike &= inside[before]
        unlike &= inside[after]
        contact[before] |= unlike
        contact[after] |= unlike
    thin &= inside
    return thin, contact


def _next_in_object(pixels: Bool[np.ndarray, "*space"], instances: Instances) -> Bool[np.ndarray, "*space"]:
    """Pixels that share a face with one of `pixels` of the same object."""
    found = np.zeros_like(pixels)
    for axis in range(instances.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        same = instances[before] == instances[after]
        found[after] |= pixels[before] & same
        found[before] |= pixels[after] & same
    return found


def _rim(instances: Instances) -> Bool[np.ndarray, "*space"]:
    thin, contact = _edges(instances)
    rim = thin | _next_in_object(contact, instances) if contact.any() else thin
    all_rim = _objects_without(instances, ~rim)
    if all_rim.any():
        rim &= thin | ~all_rim[instances]
        all_rim = _objects_without(instances, ~rim)
    if all_rim.any():
        small = np.where(all_rim[instances], instances, np.int32(0)).astype(np.int32, copy=False)
        rim &= object_distance(small) < 1.0
    return rim


def _objects_without(instances: Instances, kept: Bool[np.ndarray, "*space"]) -> Bool[np.ndarray, " ids"]:
    """For each id (0 included, false): whether the object has no pixel in `kept`."""
    ids = int(instances.max(initial=0)) + 1
    present = np.zeros(ids, dtype=bool)
    present[instances.reshape(-1)] = True
    present[0] = False
    present[np.where(kept, instances, 0).reshape(-1)] = False
    return present


def object_distance(instances: Instances) -> Float[np.ndarray, "*space"]:
    """Return the distance to the nearest pixel outside the own object, over the object's largest: 0..1.

    Objects that touch have an edge between them; the picture's edge is none. An object that fills the picture
    is 1.
    """
    distance = np.zeros(instances.shape, dtype=np.float32)
    for index, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        wide = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, size))
            for part, size in zip(box, instances.shape, strict=True)
        )
        inside = instances[wide] == index
        if inside.all():
            distance[wide] = 1.0
            continue
        depth = ndimage.distance_transform_edt(inside)
        distance[wide][inside] = (depth / depth.max())[inside]
    return distance


def class_probabilities(outputs: Outputs, num_classes: int, mode: Mode) -> Probabilities:
    """Return probabilities of the `num_classes` classes from activated outputs.

    The border belongs to objects, so its probability is shared out to the foreground classes in proportion to
    theirs (equally where all of them are 0); a distance channel is left out.

    Raises:
        ConfigError: the number of channels does not fit `num_classes` and `mode`.
    """
    _check_channels(outputs, num_classes, mode)
    if mode != "border":
        return outputs[:num_classes]
    foreground = outputs[1:num_classes]
    total = foreground.sum(axis=0)
    share = np.where(total > 0, foreground / np.where(total > 0, total, 1), 1.0 / (num_classes - 1))
    folded = outputs[:num_classes].copy()
    folded[1:] += share.astype(outputs.dtype) * outputs[num_classes]
    return folded


def separate(
    outputs: Outputs,
    num_classes: int,
    mode: Mode,
    *,
    parameters: SeparationParameters = SeparationParameters(),
) -> Instances:
    """Return separate objects, numbered 1..n, from activated network outputs (2D or 3D).

    Seeds are grown by a watershed inside the foreground mask; a part of the mask without a seed is an object
    of its own. Seeds are, by mode: components of the inside probability (`border`), components of the
    distance channel (`distance`), components of the mask, eroded if asked (`weights`, `none`). Then objects
    with a weak line between them are joined (`border`, `distance`), and faint and small ones left out. With
    several foreground classes an object lies within one of them. The same input always gives the same output.

    Args:
        outputs: softmax channels of the classes; plus, last, the border class's softmax or the distance's
            sigmoid.
        num_classes: classes including background; class 0 is background.
        mode: one of MODES.
        parameters: thresholds and sizes.

    Raises:
        ConfigError: the number of channels does not fit `num_classes` and `mode`.
    """
    cut, line = flooded(outputs, num_classes, mode, parameters)
    if mode in ("border", "distance") and parameters.merge_threshold > 0:
        cut = Agglomeration(cut, line).below(parameters.merge_threshold)
    if parameters.min_score > 0:
        faint = object_scores(cut, outputs[0]) < parameters.min_score
        cut = np.where(faint[cut], np.int32(0), cut)
    return without_small(cut, parameters.min_size_px)


def object_scores(instances: Instances, background: Float[np.ndarray, "*space"]) -> Float[np.ndarray, " ids"]:
    """How sure the foreground of each object is: the mean of 1 - background over its pixels, 0..1.

    Args:
        instances: ids, 0 where there is none.
        background: probability of the background class, of the same shape.

    Returns:
        By id, from 0; 0 for ids that do not occur and for id 0.
    """
    sizes = np.bincount(instances.reshape(-1))
    scores = summed_foreground(instances, background) / (FOREGROUND_STEPS * np.maximum(sizes, 1))
    scores[0] = 0.0
    return np.asarray(scores)


def summed_foreground(ids: Instances, background: Float[np.ndarray, "*space"]) -> np.ndarray:
    """The sum over each id's pixels of 1 - background, in whole steps, so that parts add up to the whole exactly."""
    steps = np.rint((1.0 - background.reshape(-1)) * FOREGROUND_STEPS)
    return np.bincount(ids.reshape(-1), weights=steps)


def without_small(instances: Instances, min_size_px: int) -> Instances:
    """Leave out objects with fewer than `min_size_px` pixels and number the rest 1..n."""
    sizes = np.bincount(instances.reshape(-1))
    kept = sizes >= max(min_size_px, 1)
    kept[0] = False
    lookup = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return np.asarray(lookup[instances])


def flooded(
    outputs: Outputs, num_classes: int, mode: Mode, parameters: SeparationParameters
) -> tuple[Instances, Float[np.ndarray, "*space"]]:
    """Return what `separate` does before objects are joined and small ones left out, and the line probability."""
    _check_channels(outputs, num_classes, mode)
    mask = outputs[0] <= 1.0 - parameters.mask_threshold
    inside = outputs[1] if num_classes == 2 else outputs[1:num_classes].sum(axis=0)
    if mode == "border":
        strength = inside
    elif mode == "distance":
        strength = outputs[num_classes]
    else:
        strength = None
    if strength is not None and parameters.smoothing_px > 0:
        strength = ndimage.gaussian_filter(strength, parameters.smoothing_px)
    line = outputs[0] if strength is None else 1 - strength
    if num_classes == 2:
        return _grown(mask, strength, parameters), line
    winner = outputs[1:num_classes].argmax(axis=0)
    # objects of two classes are never one
    line = np.where(_edges(winner + np.int32(1))[1], line.dtype.type(1), line)
    result = np.zeros(mask.shape, dtype=np.int32)
    for foreground_class in range(num_classes - 1):
        here = mask & (winner == foreground_class)
        part = _grown(here, strength, parameters)
        result = np.where(part > 0, part + result.max(), result)
    return result, line


def _grown(
    mask: Bool[np.ndarray, "*space"],
    strength: Float[np.ndarray, "*space"] | None,
    parameters: SeparationParameters,
) -> Instances:
    if strength is None and parameters.erosion_px <= 0:
        return components(mask)
    if strength is None:
        depth = ndimage.distance_transform_edt(mask)
        seeds, height = mask & (depth > parameters.erosion_px), -depth
    else:
        seeds, height = mask & (strength >= parameters.seed_threshold), -strength
    markers = components(seeds)
    if parameters.min_seed_px > 1:
        markers = without_small(markers, parameters.min_seed_px)
    parts = components(mask)
    seeded = np.zeros(int(parts.max(initial=0)) + 1, dtype=bool)
    seeded[parts[markers > 0]] = True
    seeded[0] = True
    unseeded = ~seeded[parts]
    grown = flood(height, markers, mask & ~unseeded)
    return np.where(unseeded, parts + grown.max(initial=0), grown).astype(np.int32, copy=False)


def checked_mode(mode: str) -> Mode:
    """Return `mode` if it is one of MODES.

    Raises:
        ConfigError: it is not.
    """
    for known in MODES:
        if mode == known:
            return known
    raise ConfigError(f"unknown instance mode {mode!r}: choose one of {', '.join(MODES)}")


def _check_channels(outputs: Outputs, num_classes: int, mode: Mode) -> None:
    wanted = output_channels(num_classes, mode)
    if num_classes < 2 or outputs.shape[0] != wanted:
        raise ConfigError(
            f"instance mode {mode!r} with {num_classes} classes (2 or more) needs {wanted} output channels,"
            f" got {outputs.shape[0]}"
        )
