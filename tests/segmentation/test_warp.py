import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import CubicHermiteSpline

from useg.errors import InputError
from useg.segmentation.augment import AugmentSettings, Change, draw
from useg.segmentation.warp import displacements, source_window, warp

ALL = AugmentSettings(shear=0.2, noise_probability=0.0)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def smooth(*shape: int) -> np.ndarray:
    return ndimage.gaussian_filter(picture(*shape), [0, *(3,) * (len(shape) - 1)]) * 20


def labels(*shape: int, largest: int = 2_000_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Blocks with a class each, and with an id each."""
    random = np.random.default_rng(seed)
    grid = random.integers(1, largest, [-(-side // 6) for side in shape]).astype(np.int32)
    for axis in range(len(shape)):
        grid = grid.repeat(6, axis=axis)
    instances = np.ascontiguousarray(grid[tuple(slice(side) for side in shape)])
    return (instances % 3).astype(np.uint8), instances


def general(change: Change) -> Change:
    """The same change by the way that interpolates: with an elastic field that is zero."""
    return replace(change, elastic=np.zeros((change.ndim, *(3,) * change.ndim)).tolist())


def twin_map(change: Change, patch: tuple[int, ...], begin: list[int]) -> np.ndarray:
    """Where each pixel comes from, by one step after the other, in float64 (2D)."""
    field = np.zeros((2, *patch))
    if change.elastic:
        field = np.stack([hermite(np.array(component), patch) for component in change.elastic])
    middle = [(side - 1) / 2 for side in patch]
    steps = np.stack(np.meshgrid(*[np.arange(n) - m for n, m in zip(patch, middle, strict=True)], indexing="ij"))
    steps = steps + field
    steps = np.stack([steps[0], steps[1] + change.shear * steps[0]]) / change.scale
    angle = math.radians(change.angles_deg[0])
    turned = np.stack(
        [math.cos(angle) * steps[0] + math.sin(angle) * steps[1], -math.sin(angle) * steps[0] + math.cos(angle) * steps[1]]
    )
    places = turned + np.array([b + m for b, m in zip(begin, middle, strict=True)])[:, None, None]
    return places[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in change.flip))]


def hermite(values: np.ndarray, patch: tuple[int, ...]) -> np.ndarray:
    """Bicubic interpolation, axis by axis: slopes at the nodes are those of the line through their neighbours."""
    for axis, width in enumerate(patch):
        slopes = np.gradient(values, axis=axis)
        spline = CubicHermiteSpline(np.arange(values.shape[axis]), values, slopes, axis=axis)
        values = spline(np.linspace(0, values.shape[axis] - 1, width))
    return values


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_the_identity_is_the_crop_bit_by_bit(dtype):
    image = (picture(2, 50, 61) * 1000).astype(dtype)
    classes, instances = labels(50, 61)
    for change in (Change.identity(2), general(Change.identity(2))):
        for method in ("cubic", "linear"):
            done, some, others = warp(image, classes, instances, change, patch=(20, 31), interpolation=method)
            assert np.array_equal(done, image[:, 15:35, 15:46].astype(np.float32))
            assert np.array_equal(some, classes[15:35, 15:46])
            assert np.array_equal(others, instances[15:35, 15:46])


@pytest.mark.parametrize("anisotropy", [1.0, 2.5, 6.0])
def test_the_identity_of_a_volume_is_the_crop_bit_by_bit(anisotropy):
    image, (classes, instances) = picture(2, 13, 30, 32), labels(13, 30, 32)
    still = replace(Change.identity(3), anisotropy=anisotropy)
    for change in (still, general(still)):
        done, some, others = warp(image, classes, instances, change, patch=(5, 16, 32))
        assert np.array_equal(done, image[:, 4:9, 7:23])
        assert np.array_equal(some, classes[4:9, 7:23])
        assert np.array_equal(others, instances[4:9, 7:23])


def test_the_centre_is_the_middle_pixel_of_the_patch():
    image = picture(1, 40, 50)
    for change in (Change.identity(2), general(Change.identity(2))):
        done, _, _ = warp(image, None, None, change, patch=(7, 9), centre=(20, 30))
        assert np.array_equal(done, image[:, 17:24, 26:35])


def test_shift_is_a_share_of_the_patch_in_whole_pixels():
    image = picture(1, 60, 60)
    done, _, _ = warp(image, None, None, replace(Change.identity(2), shift=(0.25, -0.1)), patch=(20, 20))
    assert np.array_equal(done, image[:, 25:45, 18:38])


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("elastic", [True, False])
def test_a_flip_is_the_flip_of_the_result(ndim, elastic):
    space = (9, 40, 44)[-ndim:]
    image, (classes, instances) = picture(2, *space), labels(*space)
    change = draw(1, 0, 0, settings=replace(ALL, elastic=elastic), ndim=ndim)
    plain = warp(image, classes, instances, replace(change, flip=(False,) * ndim), patch=space)
    for flip in ((True, False, True)[-ndim:], (True,) * ndim):
        axes = [axis - ndim for axis in range(ndim) if flip[axis]]
        flipped = warp(image, classes, instances, replace(change, flip=flip), patch=space)
        for one, other in zip(plain, flipped, strict=True):
            assert np.array_equal(np.flip(one, axes), other)


def test_flipping_twice_changes_nothing():
    image, (classes, instances) = picture(1, 30, 31), labels(30, 31)
    change = replace(Change.identity(2), flip=(True, True))
    once = warp(image, classes, instances, change, patch=(30, 31))
    twice = warp(*once, change, patch=(30, 31))
    assert all(np.array_equal(one, other) for one, other in zip(twice, (image, classes, instances), strict=True))


@pytest.mark.parametrize(("ndim", "anisotropy"), [(2, 1.0), (3, 1.0), (3, 8.0)])
def test_no_label_appears_that_was_not_there(ndim, anisotropy):
    space = (20, 70, 60)[-ndim:]
    classes, instances = labels(*space)
    for index in range(10):
        change = draw(4, 0, index, settings=replace(ALL, anisotropy=anisotropy), ndim=ndim)
        _, some, others = warp(picture(1, *space), classes, instances, change, patch=space)
        assert some.dtype == np.uint8
        assert others.dtype == np.int32
        assert set(np.unique(others)) <= set(np.unique(instances))
        assert np.array_equal(others % 3, some)


@given(index=st.integers(0, 10_000), rows=st.integers(1, 60), columns=st.integers(1, 60))
def test_the_same_map_step_by_step_with_scipy(index, rows, columns):
    patch, space = (40, 48), (rows, columns)
    image, (classes, _) = smooth(1, *space), labels(*space)
    change = draw(0, 0, index, settings=replace(ALL, elastic_std_px=2.0), ndim=2)
    begin = [
        math.floor(p * (n - w) + 0.5) + round(s * w)
        for p, n, w, s in zip(change.position, space, patch, change.shift, strict=True)
    ]
    places = twin_map(change, patch, begin)
    done, some, _ = warp(image, classes, None, change, patch=patch, interpolation="linear")
    assert np.allclose(done[0], ndimage.map_coordinates(image[0], places, order=1, mode="mirror"), atol=2e-3)
    twin = ndimage.map_coordinates(classes, places, order=0, mode="mirror")
    assert np.mean(twin != some) < 0.005  # of pixels half-way between two


@pytest.mark.parametrize("anisotropy", [1.0, 2.0])
def test_a_volume_is_interpolated_as_scipy_does(anisotropy):
    space = patch = (11, 30, 33)
    image, (classes, _) = smooth(2, *space), labels(*space)
    index = tuple(np.indices(space).astype(np.float32))
    change = draw(0, 0, 1, settings=replace(ALL, anisotropy=anisotropy, elastic_std_px=2.0), ndim=3)
    change = replace(change, shift=(0.0,) * 3, scale=1.6)  # stays inside, so that the map can be read off
    done, some, _ = warp(image, classes, None, change, patch=patch)
    inside = warp(np.ones((1, *space), np.float32), None, None, change, patch=patch, centre=None)[0]
    assert np.allclose(inside, 1)
    places = np.stack([warp(axis[None], None, None, change, patch=patch)[0][0] for axis in index])
    twin = np.stack([ndimage.map_coordinates(channel, places, order=1, mode="mirror") for channel in image])
    assert np.allclose(done, twin, atol=5e-3)
    near = ndimage.map_coordinates(classes, places, order=0, mode="mirror")
    assert np.mean(near != some) < 0.01


def test_planes_of_thick_volumes_stay_apart_and_equal_two_dimensions():
    image = picture(1, 6, 40, 40)
    image[0] = np.arange(6)[:, None, None]
    change = replace(draw(0, 0, 3, settings=replace(ALL, anisotropy=8.0), ndim=3), flip=(True, False, False))
    done, _, _ = warp(image, None, None, change, patch=(6, 32, 32))
    assert np.array_equal(done[0].max(axis=(1, 2)), done[0].min(axis=(1, 2)))
    shifted = np.arange(5, -1, -1) + round(change.shift[0] * 6)
    assert np.array_equal(done[0, :, 0, 0], [5 - abs(5 - abs(z)) for z in shifted])


def test_an_image_smaller_than_the_patch_is_mirrored_as_often_as_needed():
    image, (classes, instances) = picture(1, 11, 7), labels(11, 7)
    pads = [(27, 26), (29, 28)]  # a patch of 64 begins at floor((11 - 64) / 2 + 0.5) = -26
    pads = [(-math.floor((n - 64) / 2 + 0.5), 64 - n + math.floor((n - 64) / 2 + 0.5)) for n in (11, 7)]
    for change in (Change.identity(2), general(Change.identity(2))):
        done, some, others = warp(image, classes, instances, change, patch=(64, 64))
        assert np.array_equal(done[0], np.pad(image[0], pads, mode="reflect"))
        assert np.array_equal(some, np.pad(classes, pads, mode="reflect"))
        assert np.array_equal(others, np.pad(instances, pads, mode="reflect"))


def test_image_and_labels_stay_aligned():
    classes, _ = labels(80, 80)
    for index in range(5):
        change = draw(0, 1, index, settings=ALL, ndim=2)
        for method in ("linear", "cubic"):
            done, some, _ = warp(classes[None], classes, None, change, patch=(64, 64), interpolation=method)
            assert np.mean(np.abs(done[0] - some)) < 0.2
            inner = ndimage.maximum_filter(some, 5) == ndimage.minimum_filter(some, 5)
            assert inner.sum() > 100
            assert np.abs(done[0] - some)[inner].max() < 0.01


def test_codes_are_not_interpolated():
    codes = labels(60, 60)[0].astype(np.float32) * 10
    change = draw(0, 0, 5, settings=ALL, ndim=2)
    done, some, _ = warp(
        np.stack([codes, codes]), (codes / 10).astype(np.uint8), None, change, patch=(48, 48), categorical=(1,)
    )
    assert np.array_equal(done[1], some * 10.0)
    assert not np.array_equal(done[0], done[1])


@pytest.mark.parametrize(("ndim", "anisotropy"), [(2, 1.0), (3, 1.0), (3, 8.0)])
def test_a_window_is_enough(ndim, anisotropy):
    space, patch = (40, 300, 280)[-ndim:], (8, 40, 36)[-ndim:]
    image, (classes, instances) = picture(1, *space), labels(*space)
    for index in range(8):
        settings = replace(ALL, anisotropy=anisotropy, elastic=index % 3 > 0)
        change = draw(2, 0, index, settings=settings if index else AugmentSettings.none(), ndim=ndim)
        centre = None if index % 2 else tuple(n * 0.99 for n in space)
        window = source_window(change, patch, centre, space)
        assert math.prod(part.stop - part.start for part in window) < image.size / 6
        whole = warp(image, classes, instances, change, patch=patch, centre=centre)
        part = warp(
            image[:, *window], classes[window], instances[window], change, patch=patch, centre=centre,
            space=space, offset=tuple(axis.start for axis in window),
        )  # fmt: skip
        assert all(np.array_equal(one, other) for one, other in zip(whole, part, strict=True))


def test_a_far_corner_of_a_huge_image_is_as_precise_as_the_first():
    change = replace(draw(0, 0, 2, settings=ALL, ndim=2), shift=(0.0, 0.0))
    image = smooth(1, 200, 200)
    near = warp(image, None, None, change, patch=(32, 32), centre=(100, 100))[0]
    far = warp(
        image, None, None, change, patch=(32, 32), centre=(30_100, 60_100), space=(10**5, 10**5), offset=(30_000, 60_000)
    )[0]
    assert np.array_equal(near, far)


def test_the_elastic_field_meets_its_nodes_and_is_bicubic():
    change = replace(draw(0, 0, 0, settings=ALL, ndim=2), scale=1.0)
    field = displacements(change, (257, 129))
    assert np.allclose(field[:, ::128, ::64], change.elastic, atol=1e-4)
    twin = np.stack([hermite(np.array(component), (257, 129)) for component in change.elastic])
    assert np.allclose(field, twin, atol=1e-3)
    volume = draw(0, 0, 0, settings=replace(ALL, elastic_std_px=1.0), ndim=3)
    twin = np.stack([hermite(np.array(component), (33, 40, 50)) for component in volume.elastic])
    assert np.allclose(displacements(volume, (33, 40, 50)), twin, atol=1e-4)


def test_the_elastic_field_repeats_what_is_linear():
    rows, columns = np.meshgrid([0.0, 1, 2, 3], [0.0, 1, 2, 3], indexing="ij")
    change = replace(Change.identity(2), elastic=((2 * rows + 3).tolist(), (rows - columns).tolist()))
    field = displacements(change, (64, 100))
    assert np.allclose(field[0], np.linspace(3, 9, 64)[:, None], atol=1e-4)
    assert np.allclose(field[1], np.linspace(0, 3, 64)[:, None] - np.linspace(0, 3, 100), atol=1e-4)


def test_the_elastic_field_moves_pixels_as_far_as_asked():
    fields = [displacements(draw(0, 0, i, settings=ALL, ndim=2), (256, 256)) for i in range(300)]
    at_nodes = np.stack([field[:, [0, 0, -1, -1], [0, -1, 0, -1]] for field in fields])
    assert at_nodes.std() == pytest.approx(10, rel=0.05)
    assert 5 < np.stack(fields).std() < 10
    assert np.stack(fields).std(axis=0).min() > 4  # it changes from sample to sample everywhere


@pytest.mark.parametrize("side", [16, 64, 256])
def test_the_elastic_field_never_folds(side):
    for index in range(50):
        field = displacements(draw(0, 0, index, settings=ALL, ndim=2), (side, side)).astype(np.float64)
        (yy, yx), (xy, xx) = np.gradient(field[0]), np.gradient(field[1])
        assert ((1 + yy) * (1 + xx) - yx * xy).min() > 0


def test_the_number_of_threads_does_not_matter():
    image, (classes, instances) = picture(3, 300, 300), labels(300, 300)
    change = draw(0, 0, 1, settings=ALL, ndim=2)
    results = []
    threads = cv2.getNumThreads()
    try:
        for count in (1, 4):
            cv2.setNumThreads(count)
            results.append(warp(image, classes, instances, change, patch=(256, 256)))
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))


def test_sides_beyond_the_limit_of_opencv():
    image, (classes, instances) = smooth(1, 40_000, 3), labels(40_000, 3)
    change = replace(general(Change.identity(2)), scale=0.999)
    done, some, others = warp(image, classes, instances, change, patch=(33_000, 3))
    places = np.indices((33_000, 3)) - np.array([16_499.5, 1])[:, None, None]
    places = places / 0.999 + np.array([3500 + 16_499.5, 1])[:, None, None]
    assert np.allclose(done[0], ndimage.map_coordinates(image[0], places, order=1, mode="mirror"), atol=5e-3)
    assert np.array_equal(others % 3, some)
    volume = smooth(1, 200, 200, 12)
    turned = draw(0, 0, 0, settings=ALL, ndim=3)
    whole = warp(volume, None, None, turned, patch=(190, 190, 10))[0]
    middle = warp(volume, None, None, replace(turned, elastic=(), position=(0.5,) * 3), patch=(10, 10, 10))[0]
    assert np.isfinite(whole).all()
    assert np.isfinite(middle).all()


def test_one_pixel_is_enough_of_an_image():
    image = np.full((1, 1, 1), 5, np.uint8)
    done, some, _ = warp(image, image[0], None, draw(0, 0, 0, settings=ALL, ndim=2), patch=(8, 8))
    assert np.all(done == 5)
    assert np.all(some == 5)
    volume = np.full((1, 1, 20, 20), 5, np.uint8)
    assert np.allclose(warp(volume, None, None, draw(0, 0, 0, settings=ALL, ndim=3), patch=(4, 8, 8))[0], 5)


def test_the_result_is_never_a_view_of_what_was_given():
    image, (classes, instances) = picture(1, 8, 8), labels(8, 8)
    for given_array, found in zip(
        (image, classes, instances), warp(image, classes, instances, Change.identity(2), patch=(8, 8)), strict=True
    ):
        assert not np.shares_memory(given_array, found)


def test_what_does_not_fit_is_refused():
    image, (classes, _) = picture(1, 20, 20), labels(21, 20)
    still = Change.identity(2)
    with pytest.raises(InputError, match=r"label maps of \(21, 20\)"):
        warp(image, classes, None, still, patch=(8, 8))
    with pytest.raises(InputError, match=r"a 2D change for a patch of \(8, 8, 8\)"):
        warp(picture(1, 9, 9, 9), None, None, still, patch=(8, 8, 8))
    with pytest.raises(InputError, match="read source_window"):
        warp(image, None, None, still, patch=(8, 8), space=(50, 50), offset=(0, 0))
    with pytest.raises(InputError, match="a 2D change"):
        source_window(still, (0, 8), None, (20, 20))
