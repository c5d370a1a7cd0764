import numpy as np
import pytest
from PIL import Image, ImageOps

from useg.data.orientation import stored_from_upright, stored_shape, stored_window, upright

IMAGE = np.arange(2 * 3 * 5).reshape(2, 3, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_there_and_back_is_the_identity(orientation: int) -> None:
    turned = upright(IMAGE, orientation)
    assert turned.shape == stored_shape(IMAGE.shape, orientation)
    np.testing.assert_array_equal(stored_from_upright(turned, orientation), IMAGE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_shows(orientation: int) -> None:
    picture = Image.fromarray(IMAGE[0].astype(np.uint8))
    picture.getexif()[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(upright(IMAGE, orientation)[0], shown)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_window_of_the_upright_image_is_found_in_the_stored_one(orientation: int) -> None:
    whole = upright(IMAGE, orientation)
    window = (slice(1, 3), slice(0, 2))
    inside = stored_window(window, whole.shape[1:], orientation)
    np.testing.assert_array_equal(upright(IMAGE[:, *inside], orientation), whole[:, *window])
