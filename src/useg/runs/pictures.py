"""Pictures of a run, by name and step: small files, so that many of them make a film of the training."""

import io
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
from blake3 import blake3

from useg.errors import InputError
from useg.home.folder import write_atomically, writing
from useg.home.store import Folder, Store

NAME_FILE = "name.txt"
_LONGEST_NAME = 120

_FEW_COLOURS, _QUALITY = 256, 80
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
    # flat colours keep every pixel; a photograph would take four times the bytes for it
    is_flat = shown.getcolors(_FEW_COLOURS) is not None
    shown.save(content, "WEBP", lossless=is_flat, quality=_QUALITY)
    place = run / "pictures" / folder_name(name)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        if not (place / NAME_FILE).exists():
            write_atomically(place / NAME_FILE, name.encode("utf-8", "surrogateescape"))
    write_atomically(place / f"{step:08d}.webp", content.getvalue())
    return place / f"{step:08d}.webp"


def forget_pictures(store: Store, run: str, keys: Collection[str]) -> int:
    """Delete a run's pictures of samples, of their planes and of their windows; returns how many went.

    Args:
        store: the home that the run lies in. run: its id. keys: of the samples.

    Raises:
        ResourceError: the home does not answer, or nothing may be deleted there.
    """
    gone = 0
    there = [entry.key for entry in store.list(f"runs/{run}/") if "/pictures/" in entry.key]
    for file in [key for key in there if key.endswith(f"/{NAME_FILE}")]:
        name = store.get(file).decode("utf-8", "surrogateescape")
        if any(name == key or name.startswith((f"{key}#", f"{key}[")) for key in keys):
            shown = [key for key in there if key.startswith(file.removesuffix(NAME_FILE)) and key != file]
            for key in [*shown, file]:  # what says whose they are goes last: interrupted, it can be done again
                store.delete(key)
            if isinstance(store, Folder):
                with suppress(OSError):
                    (store.root / file).parent.rmdir()
            gone += len(shown)
    return gone


def folder_name(name: str) -> str:
    """A name as that of a folder on any machine: other characters as _XX, long ones cut and told apart by a digest."""
    safe = quote(name, safe=" ").replace(".", "%2E").replace("_", "%5F").replace("%", "_") or "_"
    if len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[:80]}-{blake3(name.encode('utf-8', 'surrogateescape')).hexdigest(length=8)}"
