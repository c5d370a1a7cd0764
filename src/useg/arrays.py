"""The shapes that flow through useg, as types; checked on every call while tests run.

Channels always come first, and `*space` is two axes (row, column) or three (plane, row, column).
"""

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped, UInt8

Raw = Shaped[np.ndarray, "channels *space"]
"""An image as stored: any dtype, channels first."""

Image = Float[np.ndarray, "channels *space"]
"""A normalised image, float32, channels first."""

Labels = UInt8[np.ndarray, "*space"]
"""A label map: class ids 0..254 without gaps; 255 (`IGNORE`) means not annotated."""

Instances = Int[np.ndarray, "*space"]
"""An instance map, int32: 0 is background, each object has its own positive id."""

AnyLabels = Integer[np.ndarray, "*space"]
"""Any integer map over space."""

Weights = Float[np.ndarray, "*space"]
"""A weight per pixel, float32, 0 or more."""

Probabilities = Float[np.ndarray, "classes *space"]
"""Class probabilities per pixel, float32; they sum to 1 over classes."""

IGNORE = 255
"""The label of pixels that are neither learned from nor scored."""
