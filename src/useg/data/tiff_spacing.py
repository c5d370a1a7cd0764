"""The physical size of a TIFF's pixels, as OME, ImageJ, GeoTIFF, useg or its resolution tags state it."""

import re
from math import isfinite
from typing import Any

Spacing = tuple[float, ...] | None

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Pixel scale, tie points, transformation, and the three tags of geographic keys."""

RESOLUTION_TAGS = (282, 283, 296)

_UNITS = {"micron": "um", "microns": "um", "\u00b5m": "um", "\u03bcm": "um", "\\u00b5m": "um", "um": "um"}
_NO_UNITS = {"", "pixel", "pixels", "inch", "inches", "none"}
_CENTIMETRE = 3
# 1200 dots per inch: what is coarser states how to print a picture, not how large its pixels are.
_PRINT_PER_CM = 472.5


def is_georeferenced(page: Any) -> bool:
    """Whether the page says where on Earth it lies."""
    return page.tags.get(33550) is not None or page.tags.get(34264) is not None


def spacing_of(tif: Any, page: Any, ndim: int) -> tuple[Spacing, str | None]:
    """Spacing for each of the `ndim` axes of space and its unit; (None, None) if the file does not say."""
    for look in (_from_ome, _from_description, _from_geo, _from_resolution):
        spacing, unit = look(tif, page)
        if spacing is not None and len(spacing) >= ndim and all(isfinite(s) and s > 0 for s in spacing):
            return spacing[-ndim:], unit
    return None, None


def _unit(text: object) -> str | None:
    name = str(text or "").strip().strip("\0")
    return None if name.lower() in _NO_UNITS else _UNITS.get(name.lower(), name)


def _per_pixel(page: Any) -> tuple[float, float] | None:
    """(y, x) size of a pixel in the unit of the resolution tags."""
    sizes = []
    for code in (283, 282):
        tag = page.tags.get(code)
        if tag is None:
            return None
        above, below = tag.value
        if not above or not below:
            return None
        sizes.append(below / above)
    return sizes[0], sizes[1]


def _from_ome(tif: Any, page: Any) -> tuple[Spacing, str | None]:
    if not tif.is_ome:
        return None, None
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", tif.ome_metadata or "")
    if pixels is None:
        return None, None
    found = dict(re.findall(r'\b(PhysicalSize[XYZ](?:Unit)?)\s*=\s*"([^"]*)"', pixels[0]))
    names = ("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX")
    sizes = [float(found[name]) for name in names if name in found]
    if "PhysicalSizeX" not in found or "PhysicalSizeY" not in found:
        return None, None
    return tuple(sizes), _unit(found.get("PhysicalSizeXUnit", "um"))


def _from_description(tif: Any, page: Any) -> tuple[Spacing, str | None]:
    """ImageJ's description, or the one that useg writes for stacks of probabilities."""
    if tif.is_imagej:
        said: dict[str, Any] = tif.imagej_metadata or {}
        unit, flat = _unit(said.get("unit")), _per_pixel(page)
        if unit is None or flat is None:
            return None, None
        depth = said.get("spacing")
        return (flat if depth is None else (abs(float(depth)), *flat)), unit
    if tif.is_shaped:
        said = dict((tif.shaped_metadata or ({},))[0])
        if isinstance(said.get("spacing"), list):
            return tuple(float(s) for s in said["spacing"]), _unit(said.get("unit"))
    return None, None


def _from_geo(tif: Any, page: Any) -> tuple[Spacing, str | None]:
    tag = page.tags.get(33550)
    if tag is None:
        return None, None
    across, down = (abs(float(value)) for value in tag.value[:2])
    keys = page.tags.get(34735)
    model = None
    if keys is not None:
        values = list(keys.value)
        model = next((values[i + 3] for i in range(4, len(values) - 3, 4) if values[i] == 1024), None)
    return (down, across), {1: "m", 2: "degree"}.get(model) if model is not None else None


def _from_resolution(tif: Any, page: Any) -> tuple[Spacing, str | None]:
    unit, flat = page.tags.get(296), _per_pixel(page)
    if unit is None or int(unit.value) != _CENTIMETRE or flat is None or 1 / max(flat) <= _PRINT_PER_CM:
        return None, None
    return (flat[0] * 1e4, flat[1] * 1e4), "um"
