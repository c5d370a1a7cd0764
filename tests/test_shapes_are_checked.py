"""While tests run, a wrong dtype or shape in `useg.segmentation` is an error at the call."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from useg.segmentation.metrics import confusion


def test_a_wrong_dtype_is_noticed():
    right = np.zeros((4, 4), np.uint8)
    assert confusion(right, right, 2)[0, 0] == 16
    with pytest.raises(TypeCheckError):
        confusion(right.astype(np.float32), right, 2)


def test_shapes_that_do_not_fit_each_other_are_noticed():
    with pytest.raises(TypeCheckError):
        confusion(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)
