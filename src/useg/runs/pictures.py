"""Pictures of a run, by name and step: small files, so that many of them make a film of the training."""

import io
from pathlib import Path

import numpy as np

from useg.errors import InputError
from useg.home.folder import write_atomically

MOST_PIXELS = 512
"""A side longer than this many pixels is made smaller; what is looked at over time need not be large."""


def save_picture(path: Path, picture: np.ndarray) -> Path:
    """Write a picture as WebP.

    Args:
        path: of the file.
        picture: (H, W) or (H, W, 3): uint8, truth values, or floats from 0 to 1.

    Raises:
        InputError: it is no such picture. ResourceError: it cannot be written.
    """
    from PIL import Image

    found = np.asarray(picture)
    if found.ndim == 3 and found.shape[-1] == 1:
        found = found[..., 0]
    if found.ndim not in (2, 3) or (found.ndim == 3 and found.shape[-1] != 3) or 0 in found.shape:
        raise InputError(f"a picture is (height, width) or (height, width, 3), not {found.shape}")
    if found.dtype == bool:
        found = found.astype(np.float32)
    if found.dtype.kind == "f":
        found = np.clip(np.nan_to_num(found), 0, 1) * 255 + 0.5
    elif found.dtype != np.uint8:
        raise InputError(f"a picture is uint8, or floats from 0 to 1, not {found.dtype}")
    shown = Image.fromarray(found.astype(np.uint8))
    shown.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
    content = io.BytesIO()
    shown.save(content, "WEBP", lossless=True, method=4)
    write_atomically(path, content.getvalue())
    return path
