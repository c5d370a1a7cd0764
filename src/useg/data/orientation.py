"""The eight orientations of EXIF and TIFF: stored pixels to upright ones and back, and windows likewise."""

import numpy as np
from jaxtyping import Shaped

from useg.data.headers import Window

Stored = Shaped[np.ndarray, "channels *stored"]
Upright = Shaped[np.ndarray, "channels *upright"]

# tag -> (rows and columns are exchanged, rows run backwards, columns run backwards); the exchange comes first
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def exchanges_axes(orientation: int) -> bool:
    """Whether height and width change places between the stored and the upright image."""
    return _STEPS[orientation][0]


def upright(stored: Stored, orientation: int) -> Upright:
    """Turn stored pixels (C, ..., H, W) as the tag says (1 to 8); a view where possible."""
    exchange, rows, columns = _STEPS[orientation]
    image = np.swapaxes(stored, -1, -2) if exchange else stored
    return image[..., :: -1 if rows else 1, :: -1 if columns else 1]


def stored_from_upright(image: Upright, orientation: int) -> Stored:
    """Undo `upright`; a view where possible."""
    exchange, rows, columns = _STEPS[orientation]
    stored = image[..., :: -1 if rows else 1, :: -1 if columns else 1]
    return np.swapaxes(stored, -1, -2) if exchange else stored


def stored_shape(shape: tuple[int, ...], orientation: int) -> tuple[int, ...]:
    """The stored shape of an upright one, and the other way round."""
    return (*shape[:-2], shape[-1], shape[-2]) if exchanges_axes(orientation) else shape


def stored_window(window: Window, space: tuple[int, ...], orientation: int) -> Window:
    """Where a window over the upright `space` lies in the stored image."""
    exchange, rows_back, columns_back = _STEPS[orientation]
    rows, columns = window[-2:]
    if rows_back:
        rows = slice(space[-2] - rows.stop, space[-2] - rows.start)
    if columns_back:
        columns = slice(space[-1] - columns.stop, space[-1] - columns.start)
    return (*window[:-2], columns, rows) if exchange else (*window[:-2], rows, columns)
