"""Pictures of a run, by name and step: small files, so that many of them make a film of the training."""

import io
import shutil
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

import numpy as np
from blake3 import blake3

from useg.errors import InputError
from useg.home.folder import write_atomically, writing

NAME_FILE = "name.txt"
_LONGEST_NAME = 120

MOST_PIXELS = 512
"""A side longer than this many pixels is made smaller; what is looked at over time need not be large."""


def keep_picture(run: Path, name: str, step: int, picture: np.ndarray) -> Path:
    """Write a picture as `pictures/<name>/<step>.webp` in a run's folder.

    Args:
        run: folder of the run.
        name: of what is shown.
        step: of the training.
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
    place = run / "pictures" / folder_name(name)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        if not (place / NAME_FILE).exists():
            write_atomically(place / NAME_FILE, name.encode("utf-8", "surrogateescape"))
    write_atomically(place / f"{step:08d}.webp", content.getvalue())
    return place / f"{step:08d}.webp"


def forget_pictures(run: Path, keys: Collection[str]) -> int:
    """Delete the pictures of samples, of their planes and of their windows; returns how many went."""
    gone = 0
    for place in sorted((run / "pictures").glob("*")):
        name = (place / NAME_FILE).read_bytes().decode("utf-8", "surrogateescape") if place.is_dir() else ""
        if any(name == key or name.startswith((f"{key}#", f"{key}[")) for key in keys):
            gone += len(list(place.glob("*.webp")))
            shutil.rmtree(place)
    return gone


def folder_name(name: str) -> str:
    """A name as that of a folder on any machine: other characters as _XX, long ones cut and told apart by a digest."""
    safe = quote(name, safe=" ").replace(".", "%2E").replace("_", "%5F").replace("%", "_") or "_"
    if len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[:80]}-{blake3(name.encode('utf-8', 'surrogateescape')).hexdigest(length=8)}"
