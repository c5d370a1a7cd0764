"""Random changes to training samples: drawn first as a plain value, applied afterwards.

`draw` is a pure function of (seed, epoch, index), so any sample of any epoch can be replayed alone, in any
order, in any process. `useg.segmentation.warp` applies the geometric part, `recolour` the intensities.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import cv2
import numpy as np

from useg.arrays import Image
from useg.errors import ConfigError

_STREAM = 0x75736567_61756731
_PARAMETERS, _NOISE, _TINT = 0, 1, 2
_IN_PLANE_ABOVE = 3.0


@dataclass(frozen=True)
class AugmentSettings:
    """How far a change may go; every field is plain, so the settings can be written into a plan.

    Attributes:
        elastic: whether to deform elastically (the paper's coarse grid of random displacements).
        elastic_std_px: standard deviation of each component of each node's displacement, in pixels.
        elastic_nodes: nodes of the coarse grid along each axis, spread over the patch edge to edge; at least 2.
        rotation_deg: largest rotation in the plane of the last two axes, either way; 0 to 180.
        tilt_deg: largest rotation out of that plane (3D); 0 to 90. Not used above anisotropy 3.
        scale: smallest and largest magnification, drawn uniformly in its logarithm; above 1 enlarges.
        shear: largest shear in the plane, as a slope either way; 0 to 1.
        flip: which axes may be mirrored; the last `ndim` entries count.
        warp_probability: share of samples that are warped at all: the others are cropped and shifted, and lie as they
            lie in the image.
        shift: largest shift either way, as a share of the patch's side; rounded to whole pixels.
        random_position: whether `Change.position` is drawn; else the crop is the middle of the image.
        anisotropy: spacing along the first axis divided by that of the last two (3D); lengths in pixels mean
            pixels of the last two axes. Above 3, planes are deformed but never mixed.
        gamma, contrast: smallest and largest exponent, and factor about the mean.
        brightness, tint: largest offset of all channels together, and standard deviation of each channel's own.
        noise_std: largest standard deviation of the added noise. Offsets and noise have the image's unit,
            which after normalisation is about one standard deviation.
        blur_px: smallest and largest standard deviation of the Gaussian blur.
        *_probability: share of samples that get the change.
    """

    elastic: bool = True
    elastic_std_px: float = 10.0
    elastic_nodes: int = 3
    rotation_deg: float = 180.0
    tilt_deg: float = 15.0
    scale: tuple[float, float] = (0.8, 1.25)
    shear: float = 0.0
    flip: tuple[bool, ...] = (True, True, True)
    shift: float = 0.125
    random_position: bool = True
    warp_probability: float = 1.0
    anisotropy: float = 1.0
    gamma: tuple[float, float] = (0.7, 1.5)
    gamma_probability: float = 0.3
    contrast: tuple[float, float] = (0.75, 1.25)
    contrast_probability: float = 0.3
    brightness: float = 0.3
    brightness_probability: float = 0.3
    tint: float = 0.1
    tint_probability: float = 0.3
    noise_std: float = 0.2
    noise_probability: float = 0.15
    blur_px: tuple[float, float] = (0.5, 1.0)
    blur_probability: float = 0.1

    def __post_init__(self) -> None:
        ranges = {"rotation_deg": (0, 180), "tilt_deg": (0, 90), "elastic_std_px": (0, 1e4), "shear": (0, 1),
                  "elastic_nodes": (2, 16), "shift": (0, 1), "anisotropy": (1e-3, 1e3), "brightness": (0, 1e6),
                  "tint": (0, 1e6), "noise_std": (0, 1e6)}  # fmt: skip
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = (0, 1) if field.name.endswith("_probability") else ranges.get(field.name, (None, None))
            if low is not None and high is not None and not low <= value <= high:
                raise ConfigError(f"augmentation: {field.name} = {value}, wanted {low} to {high}")
        for name, least in (("scale", 0.05), ("gamma", 0.05), ("contrast", 0.0), ("blur_px", 0.0)):
            pair = getattr(self, name)
            if len(pair) != 2 or not least <= pair[0] <= pair[1] <= 100:
                raise ConfigError(f"augmentation: {name} = {pair}, wanted (smallest, largest) from {least} to 100")

    @classmethod
    def none(cls, *, anisotropy: float = 1.0) -> "AugmentSettings":
        """Settings whose every change is the identity: the crop in the middle, as it is."""
        off = {field.name: 0.0 for field in fields(cls) if field.name.endswith("_probability")}
        still: dict[str, Any] = {**off, "elastic": False, "random_position": False, "shift": 0.0}
        return cls(flip=(False, False, False), anisotropy=anisotropy, **still)

    def to_json(self) -> dict[str, Any]:
        """Plain values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "AugmentSettings":
        """The inverse of `to_json`, also after a trip through text. Raises: ConfigError for unknown names."""
        return cls(**_plain(cls, values))


@dataclass(frozen=True)
class Change:
    """One augmentation, completely: plain numbers, nothing random left but the noise named by `key`.

    Attributes:
        key: (seed, epoch, index) it was drawn from; names the stream of the noise and of the tint.
        position: where the crop lies when no centre is given, per axis: 0 first, 1 last possible place.
        shift: added to the crop's place, per axis, as a share of the patch's side.
        angles_deg: rotation in the plane, then (3D) tilts about the last and the middle axis.
        scale: magnification. shear: slope of columns against rows.
        flip: axes mirrored, last of all.
        elastic: displacements in pixels, nested (ndim, nodes, ..., nodes); () for none.
        anisotropy: see `AugmentSettings`.
        gamma, contrast, brightness, tint, noise_std, blur_px: intensities, see `AugmentSettings`.
    """

    key: tuple[int, int, int]
    position: tuple[float, ...]
    shift: tuple[float, ...]
    angles_deg: tuple[float, ...]
    scale: float
    shear: float
    flip: tuple[bool, ...]
    elastic: tuple[Any, ...]
    anisotropy: float
    gamma: float
    contrast: float
    brightness: float
    tint: float
    noise_std: float
    blur_px: float

    @property
    def ndim(self) -> int:
        """Axes of the space it is for: 2 or 3."""
        return len(self.position)

    @property
    def rigid(self) -> bool:
        """Whether it only crops, shifts by whole pixels and flips, so that no pixel is interpolated."""
        return not self.elastic and not any(self.angles_deg) and self.scale == 1.0 and self.shear == 0.0

    @property
    def in_plane(self) -> bool:
        """Whether (3D) every plane of the result comes from one plane of the image."""
        return self.anisotropy > _IN_PLANE_ABOVE

    @classmethod
    def identity(cls, ndim: int) -> "Change":
        """The change that only crops the middle."""
        return draw(0, 0, 0, settings=AugmentSettings.none(), ndim=ndim)

    def to_json(self) -> dict[str, Any]:
        """Plain values only; floats survive text exactly."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Change":
        """The inverse of `to_json`, also after a trip through text. Raises: ConfigError for unknown names."""
        return cls(**_plain(cls, values))


def draw(seed: int, epoch: int, index: int, *, settings: AugmentSettings, ndim: int) -> Change:
    """Draw the change of sample `index` in `epoch`: the same for ever for the same arguments.

    The stream is Philox, keyed by the seed and placed by (index, epoch); only its raw words are used, which NumPy
    keeps stable between versions. The same words are read whatever is switched off, so an ablation
    compares the same crops and angles.

    Args:
        seed: 0 to 2**64 - 1, as are epoch and index.
        ndim: 2 or 3.

    Raises:
        ConfigError: a number is negative or too large, ndim is neither 2 nor 3, or `flip` is too short.
    """
    if ndim not in (2, 3):
        raise ConfigError(f"augmentation: {ndim} spatial axes, wanted 2 or 3")
    if len(settings.flip) < ndim:
        raise ConfigError(f"augmentation: flip = {settings.flip}, wanted one truth value for each of {ndim} axes")
    uniforms = iter(_uniforms((seed, epoch, index), _PARAMETERS, 40).tolist())
    position, shift, flips = ([next(uniforms) for _ in range(3)] for _ in range(3))
    angles, scale, shear, warped = [next(uniforms) for _ in range(3)], next(uniforms), next(uniforms), next(uniforms)
    warps = warped < settings.warp_probability
    flat = settings.anisotropy > _IN_PLANE_ABOVE or ndim == 2
    tilt = 0.0 if flat else settings.tilt_deg
    limits = (settings.rotation_deg, tilt, tilt)[: 1 if ndim == 2 else 3]
    return Change(
        key=(seed, epoch, index),
        position=tuple(position[-ndim:]) if settings.random_position else (0.5,) * ndim,
        shift=tuple(settings.shift * (2 * u - 1) for u in shift[-ndim:]),
        angles_deg=tuple(limit * (2 * u - 1) * warps for limit, u in zip(limits, angles, strict=False)),
        scale=_between(settings.scale, scale) if warps else 1.0,
        shear=settings.shear * (2 * shear - 1) * warps,
        flip=tuple(warps and u < 0.5 and may for u, may in zip(flips[-ndim:], settings.flip[-ndim:], strict=True)),
        elastic=_displacements((seed, epoch, index), settings, ndim, flat) if warps and settings.elastic else (),
        anisotropy=settings.anisotropy if ndim == 3 else 1.0,
        **_intensities(uniforms, settings),
    )


def _intensities(uniforms: Iterator[float], settings: AugmentSettings) -> dict[str, float]:
    pairs = {name: (next(uniforms), next(uniforms)) for name in
             ("gamma", "contrast", "brightness", "tint", "noise", "blur")}  # fmt: skip
    drawn = {name: pair[0] < getattr(settings, f"{name}_probability") for name, pair in pairs.items()}
    low, high = settings.blur_px
    return {
        "gamma": _between(settings.gamma, pairs["gamma"][1]) if drawn["gamma"] else 1.0,
        "contrast": _between(settings.contrast, pairs["contrast"][1]) if drawn["contrast"] else 1.0,
        "brightness": settings.brightness * (2 * pairs["brightness"][1] - 1) if drawn["brightness"] else 0.0,
        "tint": settings.tint if drawn["tint"] else 0.0,
        "noise_std": settings.noise_std * pairs["noise"][1] if drawn["noise"] else 0.0,
        "blur_px": low + (high - low) * pairs["blur"][1] if drawn["blur"] else 0.0,
    }


def _displacements(key: tuple[int, int, int], settings: AugmentSettings, ndim: int, flat: bool) -> tuple[Any, ...]:
    shape = (ndim, *(settings.elastic_nodes,) * ndim)
    grid = settings.elastic_std_px * _normals(key, _PARAMETERS, math.prod(shape), skip=40).reshape(shape)
    if flat and ndim == 3:
        grid[0] = 0.0
    nested: tuple[Any, ...] = _tuples(grid.tolist())
    return nested


def recolour(image: Image, change: Change, *, categorical: tuple[int, ...] = ()) -> Image:
    """Apply the intensity part: gamma, contrast, brightness and tint, blur, noise, in this order.

    Gamma acts between the smallest and largest value of each channel; a constant channel keeps its value.

    Args:
        image: normalised, so that 1 is about a standard deviation; it is not written to.
        categorical: channels whose values are codes, not amounts; they are left alone.

    Returns:
        A float32 image of the same shape.
    """
    result = np.array(image, dtype=np.float32, order="C")
    amounts = [channel for channel in range(len(result)) if channel not in set(categorical)]
    tints = change.tint * _normals(change.key, _TINT, len(result)) if change.tint else np.zeros(len(result))
    for channel in amounts:
        values = result[channel]
        if change.gamma != 1.0:
            _gamma(values, change.gamma)
        offset = change.brightness + float(tints[channel])
        if change.contrast != 1.0:
            offset += (1.0 - change.contrast) * float(values.mean(dtype=np.float64))
            values *= np.float32(change.contrast)
        if offset:
            values += np.float32(offset)
        if change.blur_px:
            _blur(values, change)
    if change.noise_std and amounts:
        noise = _noise(change.key, len(amounts) * result[0].size)
        noise *= np.float32(change.noise_std)
        result[amounts] += noise.reshape(len(amounts), *result.shape[1:])
    return result


def _gamma(values: np.ndarray, exponent: float) -> None:
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-12:
        return
    values -= np.float32(low)
    values *= np.float32(1.0 / (high - low))
    np.clip(values, 0.0, 1.0, out=values)  # rounding could leave a value just below 0, whose power is not a number
    np.power(values, np.float32(exponent), out=values)
    values *= np.float32(high - low)
    values += np.float32(low)


def _blur(values: np.ndarray, change: Change) -> None:
    for plane in values if values.ndim == 3 else [values]:
        cv2.GaussianBlur(plane, (0, 0), change.blur_px, dst=plane, borderType=cv2.BORDER_REFLECT_101)
    along = change.blur_px / change.anisotropy
    if values.ndim == 3 and len(values) > 1 and along > 0.2:
        columns = np.ascontiguousarray(values.reshape(len(values), -1))
        size = 2 * math.ceil(3 * along) + 1
        cv2.GaussianBlur(columns, (1, size), 0, dst=columns, sigmaY=along, borderType=cv2.BORDER_REFLECT_101)
        values[...] = columns.reshape(values.shape)


def _between(limits: tuple[float, float], uniform: float) -> float:
    low, high = limits
    if low <= 0.0:
        return low + (high - low) * uniform
    return low * math.exp(uniform * math.log(high / low))


def _words(key: tuple[int, int, int], purpose: int, count: int) -> np.ndarray:
    seed, epoch, index = key
    if not all(0 <= number < 2**64 for number in key):
        raise ConfigError(f"augmentation: seed, epoch, index = {key}, wanted each from 0 to 2**64 - 1")
    place = np.array([0, index, epoch, purpose], dtype=np.uint64)
    stream = np.random.Philox(counter=place, key=np.array([seed, _STREAM], dtype=np.uint64))
    return np.asarray(stream.random_raw(count))


def _uniforms(key: tuple[int, int, int], purpose: int, count: int) -> np.ndarray:
    return (_words(key, purpose, count) >> np.uint64(11)) * 2.0**-53


def _normals(key: tuple[int, int, int], purpose: int, count: int, skip: int = 0) -> np.ndarray:
    """Normal numbers by Box and Muller, two words each, after `skip` words of the stream."""
    uniforms = _uniforms(key, purpose, skip + 2 * count)[skip:]
    radius = np.sqrt(-2.0 * np.log1p(-uniforms[:count]))
    normals: np.ndarray = radius * np.cos(2.0 * math.pi * uniforms[count:])
    return normals


def _noise(key: tuple[int, int, int], count: int) -> np.ndarray:
    """Normal float32 numbers by a table of 65,536 quantiles: five times faster than drawing each exactly."""
    words = _words(key, _NOISE, (count + 3) // 4)
    noise: np.ndarray = _quantiles().take(words.astype("<u8", copy=False).view("<u2")[:count])
    return noise


@cache
def _quantiles() -> np.ndarray:
    from scipy.special import ndtri

    return np.asarray(ndtri((np.arange(65536) + 0.5) / 65536), dtype=np.float32)


def _plain(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ConfigError(f"{cls.__name__}: unknown {', '.join(unknown)}; known are {', '.join(sorted(names))}")
    return {name: _tuples(value) for name, value in values.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
