"""Which network fits the data: patch, depth, pooling; from the sizes of the images and of their pixels."""

import math
from collections.abc import Sequence
from typing import Any

from useg.config import Config
from useg.data.fingerprint import Fingerprint
from useg.errors import ConfigError, DataError
from useg.segmentation.instances import output_channels
from useg.segmentation.normalise import ChannelNorm, input_channels

_PATCH = {2: 256, 3: 64}


def network_for(
    fingerprint: Fingerprint,
    config: Config,
    dims: int,
    norms: Sequence[ChannelNorm],
    mode: Any,
    reasons: dict[str, str],
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Patch, and the arguments of `UNet` (its base may be open still)."""
    arguments = {
        "dims": dims,
        "channels": input_channels(norms),
        "outputs": output_channels(fingerprint.num_classes, mode),
        "max_width": 512 if dims == 2 else 320,
        "valid": False,
        "residual": config.network.residual,
        "deep_supervision": config.network.deep_supervision,
    }
    if config.recipe == "paper" and dims == 3:
        raise ConfigError("the network of 2015 is 2D: set data.dims to 2, or use the modern recipe")
    shape = _paper_shape() if config.recipe == "paper" else _shape(fingerprint, config, dims, reasons)
    patch: tuple[int, ...] = shape.pop("patch")
    if config.recipe != "paper":
        shape["light_top"] = _light_top(config, shape["depth"], reasons)
    return patch, arguments | shape


def _light_top(config: Config, depth: int, reasons: dict[str, str]) -> bool:
    wanted = config.network.light_top
    if wanted and depth < 2:
        raise ConfigError("network.light_top wants a network.depth of at least 2")
    if wanted is None and depth > 2:
        reasons["light_top"] = "full resolution costs most and gives least: one convolution each way there"
    return depth > 2 if wanted is None else wanted


def _paper_shape() -> dict[str, Any]:
    return {
        "patch": (572, 572),
        "strides": ((2, 2),) * 4,
        "depth": 4,
        "base": 64,
        "valid": True,
        "batch_norm": False,
        "dropout": 0.5,
        "max_width": 1024,
        "light_top": False,
        "residual": False,
        "deep_supervision": False,
    }


def _shape(fingerprint: Fingerprint, config: Config, dims: int, reasons: dict[str, str]) -> dict[str, Any]:
    """Patch: the median image where it is small, else a bound; depth: as long as 4 px remain at the bottom."""
    space = fingerprint.median_space[-dims:]
    bound = _PATCH[dims]
    spacing = fingerprint.spacing[-dims:] if fingerprint.spacing else (1.0,) * dims
    wanted = config.network.patch
    if wanted is not None and len(wanted) != dims:
        raise ConfigError(f"network.patch has {len(wanted)} numbers, wanted {dims}")
    target = wanted or tuple(min(n, bound) for n in space)
    strides = _strides(target, spacing, config.network.depth or (4 if dims == 2 else 3))
    if not strides and wanted is not None:
        raise ConfigError(f"network.patch {wanted} is too small for a U-Net; at least 8 px along two axes")
    if not strides:
        raise DataError(
            f"images of {' x '.join(map(str, space))} px are too small for a U-Net; at least 8 px along two axes"
        )
    factors = [math.prod(stride[axis] for stride in strides) for axis in range(dims)]
    patch = tuple(math.ceil(n / factor) * factor for n, factor in zip(target, factors, strict=True))
    if wanted is not None and patch != tuple(wanted):
        raise ConfigError(f"network.patch {wanted} must be multiples of {factors}; {patch} would do")
    reasons["patch"] = f"median image {' x '.join(map(str, space))}, at most {bound} px, multiples of {factors}"
    return {"patch": patch, "strides": strides, "depth": len(strides), "base": config.network.base}


def _strides(target: Sequence[int], spacing: Sequence[float], depth: int) -> tuple[tuple[int, ...], ...]:
    """Halve each axis while 4 px remain, and not an axis whose pixels are already twice as long as others."""
    size, pixel, strides = [float(n) for n in target], list(spacing), []
    for _ in range(depth):
        finest = min(p for p, n in zip(pixel, size, strict=True) if n >= 8) if max(size) >= 8 else 0
        step = tuple(2 if n >= 8 and p < 2 * finest else 1 for n, p in zip(size, pixel, strict=True))
        if sum(s == 2 for s in step) < 2:
            break
        strides.append(step)
        size = [n / s for n, s in zip(size, step, strict=True)]
        pixel = [p * s for p, s in zip(pixel, step, strict=True)]
    return tuple(strides)
