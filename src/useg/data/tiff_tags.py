"""The TIFF tags that a map inherits from its source: geo-reference, resolution, axes and spacing."""

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from useg.data.headers import quiet
from useg.data.map_form import MapForm
from useg.data.tiff_spacing import GEO_TAGS, RESOLUTION_TAGS, is_georeferenced

Tag = tuple[int, int, Sequence[Any] | bytes]
"""Code, TIFF's number of the type, and the values."""

ASCII, SHORT, LONG, RATIONAL, DOUBLE, LONG8 = 2, 3, 4, 5, 12, 16


def inherited_tags(form: MapForm) -> list[Tag]:
    """Geo-reference and spacing: copied from a TIFF source, else as ImageJ writes them."""
    copied = _copied_tags(form) if form.source_format == "tiff" else {}
    if any(code in copied for code in GEO_TAGS):
        return [(code, kind, values) for code, (kind, values) in copied.items()]
    tags = [(code, *copied[code]) for code in RESOLUTION_TAGS if code in copied]
    description = _description(form)
    if form.spacing is not None and description:
        down, across = (1 / size for size in form.spacing[-2:])
        tags = [(282, RATIONAL, (across,)), (283, RATIONAL, (down,)), (296, SHORT, (1,))]
    if description:
        tags.append((270, ASCII, description.encode("ascii", "replace") + b"\0"))
    return tags


def _copied_tags(form: MapForm) -> dict[int, tuple[int, Sequence[Any] | bytes]]:
    """Geo and resolution tags of the source's first page, by code; empty if the source is gone."""
    import tifffile

    copied: dict[int, tuple[int, Sequence[Any] | bytes]] = {}
    try:
        with quiet(), tifffile.TiffFile(form.source, _multifile=False) as tif:
            page = tif.pages[0]
            for code in GEO_TAGS if is_georeferenced(page) else ():
                tag = page.tags.get(code)
                if tag is not None:
                    copied[code] = _tag_values(tag)
            for code in RESOLUTION_TAGS:
                tag = page.tags.get(code)
                if tag is not None:
                    copied[code] = _tag_values(tag)
    except (OSError, ValueError, KeyError, tifffile.TiffFileError):
        return {}
    return copied


def _tag_values(tag: Any) -> tuple[int, Sequence[Any] | bytes]:
    kind, value = int(tag.dtype), tag.value
    if kind == ASCII:
        return kind, str(value).encode("utf-8", "replace") + b"\0"
    if kind == RATIONAL:
        return kind, struct.pack(f"<{len(value)}I", *value)
    return kind, tuple(value) if isinstance(value, tuple | list | np.ndarray) else (value,)


def _description(form: MapForm) -> str:
    """What tells other programs axes and spacing: ImageJ's text, or JSON for what ImageJ has no type for."""
    solid, channels = len(form.shape) == 4, form.shape[0]
    if not solid and (form.spacing is None or channels > 1):
        return ""
    if channels == 1 and form.dtype in (np.uint8, np.uint16, np.float32):
        lines = ["ImageJ=1.54f"]
        if solid:
            lines += [f"images={form.shape[1]}", f"slices={form.shape[1]}", "loop=false"]
        if form.spacing is not None and form.spacing_unit:
            unit = "micron" if form.spacing_unit == "um" else form.spacing_unit
            lines += [f"unit={unit}", *([f"spacing={form.spacing[0]!r}"] if solid else [])]
        return "\n".join([*lines, ""])
    axes = "ZCYX" if channels > 1 else "ZYX"
    shape = [form.shape[1], *([channels] if channels > 1 else []), *form.shape[2:]]
    said: dict[str, Any] = {"shape": shape, "axes": axes}
    if not solid:
        said = {"shape": list(form.shape[1:]), "axes": "YX"}
    if form.spacing is not None:
        said |= {"spacing": list(form.spacing), "unit": form.spacing_unit}
    return json.dumps(said)
