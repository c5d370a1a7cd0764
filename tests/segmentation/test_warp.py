from dataclasses import replace
from inspect import unwrap

import cv2
import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import CubicHermiteSpline

from useg.errors import InputError
from useg.segmentation.augment import AugmentSettings, Change, draw
from useg.segmentation.warp import displacements, source_of, warp

STRONG = AugmentSettings(shear=0.2)


def smooth(space, channels=1):
    """A picture whose values change little from pixel to pixel, so that all interpolations agree."""
    axes = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in space), indexing="ij")
    waves = [np.cos(sum(axis * (0.11 + 0.02 * number) for axis in axes) + number) for number in range(channels)]
    return np.stack(waves).astype(np.float32)


def rough(space, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, *space)).astype(np.float32)


def ids(space, seed=0, largest=100_000):
    return np.random.default_rng(seed).integers(0, largest, space).astype(np.int32)


def still(ndim=2, **values):
    return replace(Change.identity(ndim), **values)


def drawn(index=0, *, settings=STRONG, ndim=2):
    return draw(0, 0, index, settings=settings, ndim=ndim)


# --- changes that only move whole pixels


@pytest.mark.parametrize(("space", "patch"), [((20, 31), (20, 31)), ((20, 31), (8, 15)), ((6, 9, 12), (4, 9, 6))])
def test_the_identity_gives_the_crop_bit_for_bit(space, patch):
    image, classes, instances = rough(space), (ids(space) % 3).astype(np.uint8), ids(space)
    middle = tuple(slice((a - b + 1) // 2, (a - b + 1) // 2 + b) for a, b in zip(space, patch, strict=True))
    found = warp(image, classes, instances, still(len(space)), patch=patch)
    for mine, given in zip(found, (image, classes, instances), strict=True):
        assert np.array_equal(mine, given[(..., *middle)])
        assert mine.dtype == given.dtype


def test_the_position_reaches_from_the_first_to_the_last_place():
    image = rough((20, 30))
    first, *_ = warp(image, None, None, still(position=(0.0, 1.0)), patch=(8, 9))
    assert np.array_equal(first, image[:, :8, -9:])
    shifted, *_ = warp(image, None, None, still(position=(0.0, 1.0), shift=(0.5, -1 / 3)), patch=(8, 9))
    assert np.array_equal(shifted, image[:, 4:12, -12:-3])


def test_a_centre_lies_in_the_middle_of_the_patch():
    image = rough((20, 30))
    found, *_ = warp(image, None, None, still(), patch=(5, 7), centre=(10.0, 12.0))
    assert np.array_equal(found, image[:, 8:13, 9:16])


@pytest.mark.parametrize("ndim", [2, 3])
def test_flips_mirror_the_axes_and_twice_is_none(ndim):
    space = (5, 12, 14)[-ndim:]
    image, labels = rough(space), ids(space)
    for axis in range(ndim):
        change = still(ndim, flip=tuple(other == axis for other in range(ndim)))
        once, _, once_labels = warp(image, None, labels, change, patch=space)
        assert np.array_equal(once, np.flip(image, axis + 1))
        assert np.array_equal(once_labels, np.flip(labels, axis))
        assert np.array_equal(warp(once, None, None, change, patch=space)[0], image)
    every, *_ = warp(image, None, None, still(ndim, flip=(True,) * ndim), patch=space)
    assert np.array_equal(every, np.flip(image, tuple(range(1, ndim + 1))))


def test_a_flip_of_a_deformed_patch_is_the_flipped_deformed_patch():
    change = drawn()
    image, labels = rough((60, 70)), ids((60, 70))
    plain = warp(image, None, labels, replace(change, flip=(False, False)), patch=(40, 44))
    for flip in ((True, False), (False, True), (True, True)):
        flipped = warp(image, None, labels, replace(change, flip=flip), patch=(40, 44))
        axes = np.flatnonzero(flip)
        assert np.allclose(flipped[0], np.flip(plain[0], tuple(axes + 1)), atol=1e-3)
        assert np.mean(flipped[2] == np.flip(plain[2], tuple(axes))) > 0.999


def test_a_quarter_turn_is_exact_on_labels():
    labels = ids((21, 21))
    found = warp(rough((21, 21)), None, labels, still(angles_deg=(90.0,)), patch=(21, 21))[2]
    assert any(np.array_equal(found, np.rot90(labels, turns)) for turns in (1, 3))
    back = warp(rough((21, 21)), None, found, still(angles_deg=(-90.0,)), patch=(21, 21))[2]
    assert np.array_equal(back, labels)


# --- edges


def mirrored(image, patch):
    """The crop in the middle, where the image goes on mirrored beyond its edges."""
    before = [(b - a) // 2 for a, b in zip(image.shape[1:], patch, strict=True)]
    after = [b - a - one for a, b, one in zip(image.shape[1:], patch, before, strict=True)]
    return np.pad(image, [(0, 0), *zip(before, after, strict=True)], mode="reflect")


@pytest.mark.parametrize(("space", "patch"), [((9, 10), (17, 16)), ((5, 6), (41, 60)), ((3, 4, 5), (9, 8, 15))])
def test_a_patch_larger_than_the_image_is_mirrored(space, patch):
    image, labels = rough(space), ids(space)
    found, _, found_labels = warp(image, None, labels, still(len(space)), patch=patch)
    assert np.array_equal(found, mirrored(image, patch))
    assert np.array_equal(found_labels, mirrored(labels[None], patch)[0])
    # the least turn takes the other way through the program
    turned, *_ = warp(
        image, None, None, still(len(space), angles_deg=(1e-9, 0.0, 0.0)[: 2 * len(space) - 3]), patch=patch
    )
    assert np.allclose(turned, mirrored(image, patch), atol=1e-3)


def test_an_image_of_one_pixel_fills_the_patch():
    for change in (still(), drawn()):
        found, classes, _ = warp(np.full((1, 1, 1), 7.0), np.full((1, 1), 3, np.uint8), None, change, patch=(6, 5))
        assert (found == 7).all()
        assert (classes == 3).all()


# --- interpolation


def naive_field(change, patch):
    """The paper's bicubic field, axis after axis, by Hermite splines with the slopes of central differences."""
    field = np.array(change.elastic)
    for axis, side in enumerate(patch):
        nodes = np.linspace(0, side - 1, field.shape[axis + 1])
        slopes = np.gradient(field, nodes, axis=axis + 1)
        field = CubicHermiteSpline(nodes, field, slopes, axis=axis + 1)(np.arange(side))
    return field


@pytest.mark.parametrize("patch", [(160, 201), (81, 70, 90)])
def test_the_elastic_field_is_the_bicubic_one_of_its_nodes(patch):
    settings = replace(STRONG, elastic_std_px=2.0)
    for index in range(2):
        change = drawn(index, settings=settings, ndim=len(patch))
        found = displacements(change, patch)
        assert np.abs(found - naive_field(change, patch)).max() < 1e-3
        ends = np.ix_(range(len(patch)), *([0, (side - 1) // 2, side - 1] for side in patch if side % 2))
        if len(ends) == len(patch) + 1:
            assert np.allclose(found[ends], change.elastic, atol=1e-4)


def test_more_nodes_are_met_too():
    change = drawn(settings=replace(STRONG, elastic_nodes=5, elastic_std_px=3.0))
    assert np.abs(displacements(change, (201, 161)) - naive_field(change, (201, 161))).max() < 1e-3


def test_the_deviation_of_the_field_is_as_asked():
    changes = [drawn(index, settings=replace(STRONG, elastic_std_px=10.0)) for index in range(150)]
    corners = np.array([displacements(change, (512, 512))[:, ::511, ::511] for change in changes])
    assert corners.std() == pytest.approx(10, rel=0.07)


def test_a_field_too_strong_for_a_small_patch_is_weakened_until_it_does_not_fold():
    for index in range(20):
        change = drawn(index)
        field = displacements(change, (24, 24))
        slopes = [np.abs(np.diff(field, axis=axis)).max() for axis in (1, 2)]
        assert max(slopes) <= 0.75
        wanted = naive_field(change, (24, 24))
        factor = (field * wanted).sum() / (wanted * wanted).sum()
        assert 0 < factor <= 1 + 1e-6
        assert np.allclose(field, factor * wanted, atol=1e-3)


def naive_places(change, patch, space):
    """Where each pixel comes from: turned, sheared and scaled about the patch's middle, in plain arithmetic."""
    unit = np.array([change.anisotropy, 1, 1])[-change.ndim :].reshape(-1, *[1] * change.ndim)
    flip = tuple(np.flatnonzero(change.flip) + 1)
    middle = np.array([(side - 1) / 2 for side in patch]).reshape(unit.shape)
    steps = (np.indices(patch) - middle) * unit
    if change.elastic:
        steps = steps + displacements(change, patch)
    steps[-1] += change.shear * steps[-2]
    steps = steps / change.scale
    plane, *tilts = np.radians(change.angles_deg)
    turns = [(plane, -2, -1), *zip(tilts, (0, 0), (1, 2), strict=False)]
    for angle, one, other in turns:
        first, second = steps[one].copy(), steps[other].copy()
        steps[one] = np.cos(angle) * first + np.sin(angle) * second
        steps[other] = -np.sin(angle) * first + np.cos(angle) * second
    starts = [
        np.floor(place * (side - width) + 0.5) + round(shift * width)
        for place, side, width, shift in zip(change.position, space, patch, change.shift, strict=True)
    ]
    places = steps / unit + middle + np.array(starts).reshape(unit.shape)
    return np.flip(places, flip)


@pytest.mark.parametrize(
    ("space", "patch", "anisotropy"),
    [((90, 100), (64, 72), 1.0), ((30, 36, 40), (20, 24, 22), 1.0), ((20, 40, 44), (10, 30, 32), 2.0)],
)
def test_the_whole_map_is_that_of_a_naive_twin(space, patch, anisotropy):
    settings = replace(STRONG, anisotropy=anisotropy, elastic_std_px=2.0)
    image, labels = smooth(space, 2), ids(space)
    for index in range(4):
        change = drawn(index, settings=settings, ndim=len(space))
        if change.ndim == 3:
            change = replace(change, shear=0.0)
        places = naive_places(change, patch, space)
        found, _, found_labels = warp(image, None, labels, change, patch=patch, interpolation="linear")
        for channel in range(2):
            wanted = ndimage.map_coordinates(image[channel], places, order=1, mode="mirror")
            assert np.abs(found[channel] - wanted).max() < 0.01
        nearest = ndimage.map_coordinates(labels, places, order=0, mode="mirror")
        assert np.mean(found_labels == nearest) > 0.98  # places halfway between two pixels may go either way


def test_cubic_interpolation_is_closer_than_linear_one():
    space = (80, 80)
    change = still(angles_deg=(30.0,), scale=1.2)
    rows, columns = naive_places(change, (40, 40), space)
    truth = np.cos(0.9 * rows + 0.8 * columns)
    axes = np.indices(space)
    image = np.cos(0.9 * axes[0] + 0.8 * axes[1])[None].astype(np.float32)
    errors = {
        kind: np.abs(warp(image, None, None, change, patch=(40, 40), interpolation=kind)[0][0] - truth).max()
        for kind in ("linear", "cubic")
    }
    assert errors["cubic"] < 0.5 * errors["linear"]


@pytest.mark.parametrize(("ndim", "anisotropy"), [(2, 1.0), (3, 1.0), (3, 5.0)])
def test_labels_keep_their_values_and_stay_on_the_image(ndim, anisotropy):
    space, patch = ((80, 90), (48, 50)) if ndim == 2 else ((12, 40, 44), (8, 30, 32))
    settings = replace(STRONG, anisotropy=anisotropy, elastic_std_px=3.0)
    blocks = ids(tuple(-(-side // 8) for side in space), largest=1_000_000)
    instances = np.kron(blocks, np.ones((8,) * ndim, np.int32))[tuple(slice(side) for side in space)].astype(np.int32)
    classes = (instances % 5).astype(np.uint8)
    classes[instances % 7 == 0] = 255
    for index in range(4):
        change = drawn(index, settings=settings, ndim=ndim)
        image, found_classes, found = warp(
            instances[None].astype(np.float32), classes, instances, change, patch=patch, categorical=(0,)
        )
        assert set(np.unique(found)) <= set(np.unique(instances))
        assert found.max() > 65535
        assert np.array_equal(image[0], found.astype(np.float32))  # codes in a channel follow the labels exactly
        assert np.array_equal(found_classes, np.where(found % 7 == 0, 255, found % 5))
        amounts, *_ = warp((classes == 255)[None].astype(np.float32), None, None, change, patch=patch)
        assert np.mean((amounts[0] > 0.5) == (found_classes == 255)) > (0.98 if ndim == 2 else 0.95)


def test_planes_far_apart_come_from_one_plane_each():
    space = (9, 40, 40)
    image = np.broadcast_to(np.arange(9.0)[:, None, None], space)[None]
    for index in range(5):
        change = drawn(index, settings=replace(STRONG, anisotropy=4.0), ndim=3)
        found, *_ = warp(image, None, None, change, patch=(6, 30, 30))
        assert np.ptp(found, axis=(2, 3)).max() < 1e-4
        assert np.abs(found - np.rint(found)).max() < 1e-4


@pytest.mark.parametrize(("ndim", "anisotropy"), [(2, 1.0), (3, 1.0), (3, 5.0)])
def test_a_window_of_the_image_gives_the_same_patch(ndim, anisotropy):
    space, patch = ((300, 310), (40, 44)) if ndim == 2 else ((30, 80, 90), (6, 20, 24))
    image, labels = rough(space), ids(space)
    settings = replace(STRONG, anisotropy=anisotropy, elastic_std_px=3.0)
    for index in range(6):
        for change in (drawn(index, settings=settings, ndim=ndim), replace(still(ndim), position=(0.9,) * ndim)):
            for centre in (None, (2.0,) * ndim):
                source = source_of(change, patch, centre, space)
                held = np.prod([part.stop - part.start for part in source.window])
                assert held < np.prod(space)
                whole = warp(image, None, labels, change, patch=patch, centre=centre)
                window = (slice(None), *source.window)
                part = warp(image[window], None, labels[source.window], change, patch=patch, source=source)
                assert np.array_equal(whole[0], part[0])
                assert np.array_equal(whole[2], part[2])


def test_the_number_of_threads_does_not_change_the_result():
    image, labels = rough((300, 300)), ids((300, 300))
    before = cv2.getNumThreads()
    found = []
    try:
        for count in (1, 2):
            cv2.setNumThreads(count)
            found.append(warp(image, None, labels, drawn(), patch=(256, 256)))
    finally:
        cv2.setNumThreads(before)
    for other in found[1:]:
        assert np.array_equal(found[0][0], other[0])
        assert np.array_equal(found[0][2], other[2])


def test_images_longer_than_opencv_can_address_are_warped_all_the_same():
    image = smooth((40_000, 3))
    labels = np.arange(120_000, dtype=np.int32).reshape(40_000, 3)
    change = still(scale=1.0000001)
    found, _, found_labels = warp(image, None, labels, change, patch=(40_000, 3), interpolation="linear")
    assert np.abs(found - image).max() < 0.01
    assert np.array_equal(found_labels, labels)


def test_every_stored_type_is_taken():
    for kind in (np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.float16, np.float64, bool):
        image = (rough((30, 30)) > 0).astype(kind)
        for change in (still(), drawn()):
            found, *_ = warp(image, None, None, change, patch=(16, 16))
            assert found.dtype == np.float32
            assert np.isfinite(found).all()


def test_what_does_not_fit_is_refused():
    image = rough((20, 30))
    with pytest.raises(InputError, match=r"image of \(20, 30\) with label maps of \(20, 31\); wanted the same size"):
        unwrap(warp)(image, None, ids((20, 31)), still(), patch=(8, 8))  # without the check of shapes before it
    with pytest.raises(InputError, match=r"a 3D change for a patch of \(8, 8\) of an image of \(20, 30\)"):
        warp(image, None, None, still(3), patch=(8, 8))
    with pytest.raises(InputError, match=r"a 2D change for a patch of \(8, 0\) of an image"):
        source_of(still(), (8, 0), None, (20, 30))
    for change in (still(), drawn()):
        source = source_of(change, (8, 8), None, (20, 30))
        with pytest.raises(
            InputError, match=r"an image of \(20, 30\); wanted what lies in \(slice\(.*\), slice\(.*\)\)"
        ):
            warp(image, None, None, change, patch=(8, 8), source=source)
