"""Pictures to look at: labels over images, objects by colour, errors against the truth; 2D and 3D."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from useg.arrays import IGNORE, Instances, Labels, Raw

__all__ = [
    "ERROR_COLOURS",
    "LONGEST_PX",
    "Sampler",
    "error_map",
    "instance_overlay",
    "label_overlay",
    "picture_of",
    "save_png",
    "with_legend",
]

Picture = UInt8[np.ndarray, "height width 3"]

LONGEST_PX = 2000
"""Pictures are thinned so that no side is longer."""

ERROR_COLOURS = {"right": (0, 158, 115), "too much": (213, 94, 0), "missed": (86, 180, 233)}
"""True positive, false positive and false negative pixels; apart also for the colour-blind."""

_GAP_PX = 4


class Sampler:
    """Collects the thinned picture of an image of any size from bands that pass by, in order.

    Of a volume these are the three planes through its middle.
    """

    def __init__(self, space: Sequence[int], longest_px: int = LONGEST_PX) -> None:
        """For images of `space` pixels, (H, W) or (D, H, W)."""
        self._space = tuple(space)
        step = -(-max(self._space) // longest_px)
        every = slice(None, None, step)
        self._steps: list[tuple[slice | int, ...]] = [(every,) * len(self._space)]
        if len(self._space) == 3:
            middle = [size // 2 for size in self._space]
            self._steps = [tuple(middle[axis] if axis == flat else every for axis in range(3)) for flat in range(3)]
        self._planes: list[list[np.ndarray]] = [[] for _ in self._steps]

    def take(self, first: int, band: np.ndarray) -> None:
        """Picks from rows (planes) `first`... of an array (channels, rows, ...)."""
        for view, found in zip(self._steps, self._planes, strict=True):
            lead, others = view[0], view[1:]
            if isinstance(lead, int):
                if first <= lead < first + band.shape[1]:
                    found.append(band[(slice(None), lead - first, *others)].copy())
                continue
            step = lead.step or 1
            rows = band[(slice(None), slice(-first % step, None, step), *others)]
            if rows.shape[1]:
                found.append(rows.copy())

    @property
    def planes(self) -> list[np.ndarray]:
        """(channels, height, width) of each view; one for a picture, three for a volume."""
        views = zip(self._steps, self._planes, strict=True)
        return [found[0] if isinstance(view[0], int) else np.concatenate(found, axis=1) for view, found in views]


def picture_of(image: Raw) -> Picture:
    """An image (channels, height, width) of any dtype as RGB.

    One or two channels: the first as grey; more: the first three as red, green and blue. 8 bit as it is, all
    else stretched from its 0.5 to its 99.5 percentile; not-finite pixels are black.
    """
    chosen = image[:3] if image.shape[0] >= 3 else image[:1]
    if chosen.dtype != np.uint8 or int(chosen.max(initial=0)) <= 1:
        chosen = np.stack([_stretched(channel) for channel in chosen])
    return np.ascontiguousarray(np.broadcast_to(np.moveaxis(chosen, 0, -1), (*image.shape[1:], 3)))


def _stretched(channel: np.ndarray) -> np.ndarray:
    values = channel.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[finite], (0.5, 99.5))
    if high <= low:
        low, high = float(values[finite].min()), float(values[finite].max())
    scaled = (values - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.clip(np.where(finite, scaled, 0), 0, 255).astype(np.uint8)


def _outline(ids: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another id, and those neighbours."""
    edge = np.zeros(ids.shape, bool)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def label_overlay(picture: Picture, classes: Labels, palette: np.ndarray, *, opacity: float = 0.35) -> Picture:
    """Classes in transparent colours with an opaque outline; class 0 stays clear, `IGNORE` is hatched.

    Args:
        picture: what lies below.
        classes: class ids of the same height and width.
        palette: (256, 3) colours of the classes; a black one is drawn in white.
        opacity: of the colours inside the outline, 0 to 1.
    """
    colours = palette.copy()
    colours[~palette.any(axis=1)] = 255
    result = _blend(picture, colours[classes], (classes > 0) & (classes != IGNORE), opacity)
    edge = _outline(classes) & (classes > 0) & (classes != IGNORE)
    result[edge] = colours[classes[edge]]
    _hatch(result, classes == IGNORE)
    return result


def instance_overlay(picture: Picture, instances: Instances, *, opacity: float = 0.35) -> Picture:
    """Each object in a colour of its own, neighbours in number far apart in hue, with an outline."""
    hue = instances * 0.61803398875 % 1.0
    wheel = np.abs((hue[..., None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    colours = (np.clip(wheel, 0, 1) * 205 + 50).astype(np.uint8)
    result = _blend(picture, colours, instances > 0, opacity)
    edge = _outline(instances) & (instances > 0)
    result[edge] = colours[edge]
    return result


def error_map(picture: Picture, predicted: Labels, truth: Labels, *, opacity: float = 0.6) -> Picture:
    """Where a prediction is right, too much, or missed, over a grey picture.

    A foreground pixel of the right class is "right"; background predicted as foreground is "too much";
    foreground predicted as background is "missed"; foreground of the wrong class is both, in stripes. Ignored
    pixels are hatched.
    """
    grey = picture.mean(axis=2, keepdims=True).astype(np.uint8)
    result = np.broadcast_to(grey, picture.shape).copy()
    counted = truth != IGNORE
    stripe = (np.add.outer(np.arange(truth.shape[0]), np.arange(truth.shape[1])) // 3) % 2 == 0
    wrong_class = counted & (predicted > 0) & (truth > 0) & (predicted != truth)
    parts = {
        "right": counted & (predicted == truth) & (truth > 0),
        "too much": (counted & (predicted > 0) & (truth == 0)) | (wrong_class & stripe),
        "missed": (counted & (predicted == 0) & (truth > 0)) | (wrong_class & ~stripe),
    }
    for name, where in parts.items():
        colour = np.broadcast_to(np.array(ERROR_COLOURS[name], np.uint8), picture.shape)
        result = _blend(result, colour, where, opacity if name != "right" else opacity / 2)
    _hatch(result, ~counted)
    return result


def _blend(picture: Picture, colours: np.ndarray, where: np.ndarray, opacity: float) -> Picture:
    result = picture.copy()
    mixed = picture[where] * np.float32(1 - opacity) + colours[where] * np.float32(opacity)
    result[where] = (mixed + 0.5).astype(np.uint8)
    return result


def _hatch(picture: Picture, where: np.ndarray) -> None:
    lines = np.add.outer(np.arange(picture.shape[0]), np.arange(picture.shape[1])) % 8 == 0
    picture[where & lines] = 255


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """The first picture, and right of it the others one below the other, on black."""
    first, others = pictures[0], pictures[1:]
    column = sum(picture.shape[0] for picture in others) + _GAP_PX * max(0, len(others) - 1)
    beside = max((picture.shape[1] + _GAP_PX for picture in others), default=0)
    result = np.zeros((max(first.shape[0], column), first.shape[1] + beside, 3), np.uint8)
    result[: first.shape[0], : first.shape[1]] = first
    top = 0
    for picture in others:
        left = first.shape[1] + _GAP_PX
        result[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        top += picture.shape[0] + _GAP_PX
    return result


def with_legend(picture: Picture, entries: Sequence[tuple[str, Sequence[int]]]) -> Picture:
    """The picture with a line of names and colours below; names that do not fit into its width wrap."""
    from PIL import Image, ImageDraw, ImageFont

    if not entries:
        return picture
    font = ImageFont.load_default(size=13)
    places, left, line = [], 4, 0
    for name, colour in entries:
        width = 20 + round(font.getlength(name)) + 12
        if left + width > picture.shape[1] and left > 4:
            left, line = 4, line + 1
        places.append((name, tuple(int(value) for value in colour), left, line))
        left += width
    strip = Image.new("RGB", (picture.shape[1], 20 * (line + 1) + 2), "white")
    draw = ImageDraw.Draw(strip)
    for name, colour, x, number in places:
        y = 20 * number + 2
        draw.rectangle((x, y + 3, x + 13, y + 15), fill=colour, outline=(0, 0, 0))
        draw.text((x + 18, y + 1), name, fill=(0, 0, 0), font=font)
    return np.concatenate([picture, np.asarray(strip)], axis=0)


def save_png(path: Path, picture: Picture) -> None:
    """Writes a PNG under a temporary name and renames it, so that no half of a picture is ever seen."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(picture).save(part, format="PNG")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
