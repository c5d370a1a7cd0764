"""A picture of what augmentation does: each sample beside changed copies, with outlines and weight maps."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from useg.arrays import IGNORE, Image, Instances, Labels, Raw, Weights
from useg.errors import InputError
from useg.segmentation.augment import AugmentSettings, Change, draw, recolour
from useg.segmentation.warp import warp
from useg.segmentation.weights import Border, weight_map

_CAPTION_PX, _GAP_PX, _SMALLEST_PX, _LARGEST_PX = 18, 6, 192, 400


class LabelledImage(Protocol):
    """What a sample must have to be shown."""

    @property
    def image(self) -> Raw:
        """As stored, channels first."""

    @property
    def classes(self) -> Labels | None:
        """The label map, if there is one."""

    @property
    def instances(self) -> Instances | None:
        """The objects, if they are known."""


def write_contact_sheet(
    samples: Sequence[LabelledImage],
    path: Path,
    *,
    patch: tuple[int, ...],
    settings: AugmentSettings,
    seed: int = 0,
    epoch: int = 0,
    indices: Sequence[int] | None = None,
    copies: int = 4,
    border: Border = "2015",
    w0: float = 10.0,
    sigma_px: float = 5.0,
    class_weights: np.ndarray | None = None,
    normalise: Callable[[Raw], Image] | None = None,
    categorical: tuple[int, ...] = (),
) -> None:
    """Write a PNG with two rows a sample: the patches with label outlines, and below them their weight maps.

    The first column is the middle of the image unchanged; the others are the changes of the epochs `epoch`,
    `epoch + 1`, ... for this sample, exactly as training would make them. Of a volume the middle plane is shown.
    Outlines have one colour an object (or class); ignored pixels are hatched white. Weights go from dark blue (0) to
    yellow (the row's largest, written in the first caption).

    Args:
        samples: at least one; all with as many axes as the patch.
        path: where to write; the file appears complete or not at all.
        indices: number of each sample in its training set, which names its random stream; None: 0, 1, 2, ...
        normalise: from stored values to about zero mean and unit deviation; None does just that, channel by channel.

    Raises:
        InputError: no samples, or one whose axes do not fit the patch.
    """
    if not samples:
        raise InputError("contact sheet: no samples to show")
    rows = []
    for number, sample in enumerate(samples):
        if sample.image.ndim != len(patch) + 1:
            raise InputError(f"contact sheet: image of {sample.image.shape} for patches of {patch}")
        index = number if indices is None else indices[number]
        still = draw(seed, epoch, index, settings=AugmentSettings.none(anisotropy=settings.anisotropy), ndim=len(patch))
        drawn = (draw(seed, epoch + copy, index, settings=settings, ndim=len(patch)) for copy in range(copies))
        ready = (normalise or _standardised)(sample.image)
        tops: list[np.ndarray] = []
        weights: list[Weights | None] = []
        limits = None
        for change in (still, *drawn):
            image, classes, instances = warp(
                ready, sample.classes, sample.instances, change, patch=patch, categorical=categorical
            )
            image = recolour(image, change, categorical=categorical)
            limits = limits or _limits(image)
            tops.append(_outlined(_bytes(image, limits), classes, instances, _caption(change, still)))
            weights.append(
                None
                if classes is None
                else weight_map(
                    classes,
                    instances,
                    class_weights=class_weights,
                    border=border,
                    w0=w0,
                    sigma_px=sigma_px,
                    sampling=None if len(patch) == 2 else (settings.anisotropy, 1.0, 1.0),
                )
            )
        rows.append(_row(tops))
        if shown := [found for found in weights if found is not None]:
            rows.append(_row(_heat(shown)))
    _write(path, _stacked(rows))


def _standardised(raw: Raw) -> Image:
    values = raw.astype(np.float32)
    axes = tuple(range(1, values.ndim))
    deviation = values.std(axis=axes, keepdims=True)
    standard: np.ndarray = (values - values.mean(axis=axes, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    return standard


def _middle(values: np.ndarray, axes: int) -> np.ndarray:
    """The middle plane of a volume with `axes` leading axes, or the picture itself."""
    return values if values.ndim == axes + 2 else values[(slice(None),) * axes + (values.shape[axes] // 2,)]


def _shown(image: Image) -> np.ndarray:
    plane = _middle(image, 1)
    return plane[:3][::-1] if len(plane) >= 3 else plane[[0, 0, 0]]


def _limits(image: Image) -> tuple[float, float]:
    low, high = np.percentile(_shown(image), (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def _bytes(image: Image, limits: tuple[float, float]) -> np.ndarray:
    scaled = (_shown(image) - limits[0]) * (255.0 / (limits[1] - limits[0]))
    return np.ascontiguousarray(np.moveaxis(np.clip(scaled, 0, 255).astype(np.uint8), 0, -1))


def _enlarged(picture: np.ndarray) -> np.ndarray:
    longest = max(picture.shape[:2])
    if longest > _LARGEST_PX:
        size = tuple(max(1, round(side * _LARGEST_PX / longest)) for side in picture.shape[1::-1])
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    times = -(-_SMALLEST_PX // longest)
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _enlarged_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (
        (np.arange(new) * side // new).astype(np.intp) for new, side in zip(size, labels.shape, strict=True)
    )
    return np.asarray(labels[rows][:, columns])


def _outlined(picture: np.ndarray, classes: Labels | None, instances: Instances | None, caption: str) -> np.ndarray:
    picture = _enlarged(picture)
    if classes is not None:
        ignored = _enlarged_labels(_middle(classes, 0), picture.shape[:2]) == IGNORE
        shown = _middle(classes if instances is None else instances, 0).astype(np.int64)
        objects = _enlarged_labels(shown, picture.shape[:2])
        objects[ignored] = 0
        edge = np.zeros(objects.shape, dtype=bool)
        edge[:-1] |= objects[:-1] != objects[1:]
        edge[1:] |= objects[:-1] != objects[1:]
        edge[:, :-1] |= objects[:, :-1] != objects[:, 1:]
        edge[:, 1:] |= objects[:, :-1] != objects[:, 1:]
        edge &= objects > 0
        if edge.any():
            hues = ((objects[edge] * 67) % 180).astype(np.uint8)
            bright = np.stack([hues, np.full_like(hues, 230), np.full_like(hues, 255)], axis=-1)
            picture[edge] = cv2.cvtColor(bright[None], cv2.COLOR_HSV2BGR)[0]
        hatched = ignored & (np.add.outer(np.arange(ignored.shape[0]), np.arange(ignored.shape[1])) % 8 == 0)
        picture[hatched] = 255
    return _captioned(picture, caption)


def _heat(maps: list[Weights]) -> list[np.ndarray]:
    largest = max(float(weights.max()) for weights in maps) or 1.0
    panels = []
    for number, weights in enumerate(maps):
        plane = _enlarged(np.round(_middle(weights, 0) * (255.0 / largest)).astype(np.uint8))
        coloured = np.asarray(cv2.applyColorMap(plane, cv2.COLORMAP_VIRIDIS))
        panels.append(_captioned(coloured, f"weights, 0 to {largest:.3g}" if number == 0 else ""))
    return panels


def _caption(change: Change, still: Change) -> str:
    if change == still:
        return "unchanged"
    parts = [f"{change.angles_deg[0]:+.0f} deg", f"x{change.scale:.2f}"]
    parts += ["flip " + "".join("zyx"[3 - change.ndim + axis] for axis in np.flatnonzero(change.flip))] * any(
        change.flip
    )
    colours = {"gamma": change.gamma - 1, "contrast": change.contrast - 1, "bright": change.brightness}
    colours |= {"tint": change.tint, "noise": change.noise_std, "blur": change.blur_px}
    parts += [f"{name} {amount:+.2f}" for name, amount in colours.items() if amount]
    return " ".join(parts)


def _captioned(picture: np.ndarray, caption: str) -> np.ndarray:
    bar = np.full((_CAPTION_PX, picture.shape[1], 3), 30, dtype=np.uint8)
    width = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)[0][0]
    size = 0.4 * min(1.0, (picture.shape[1] - 4) / max(width, 1))
    cv2.putText(bar, caption, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def _row(panels: list[np.ndarray]) -> np.ndarray:
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 30, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)], axis=1)


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    width = max(row.shape[1] for row in rows)
    widened = [np.pad(row, ((0, _GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=30) for row in rows]
    return np.concatenate(widened)


def _write(path: Path, picture: np.ndarray) -> None:
    worked, encoded = cv2.imencode(".png", picture)
    if not worked:
        raise InputError(f"{path}: the contact sheet could not be encoded as PNG")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(encoded.tobytes())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
