import numpy as np

from useg.arrays import IGNORE
from useg.segmentation.orientation import directed_axes


def streets(count, rng):
    """Sky above houses above road, the heights a little different each time."""
    found = []
    for _ in range(count):
        labels = np.ones((60, 80), np.uint8)
        labels[: rng.integers(15, 25)] = 0
        labels[rng.integers(38, 48) :] = 2
        labels[rng.integers(25, 35), rng.integers(0, 70) :][:10] = 1
        found.append(labels)
    return found


def discs(count, rng, space=(64, 64)):
    found = []
    for _ in range(count):
        labels = np.zeros(space, np.uint8)
        for _ in range(6):
            distance = sum(
                (axis - rng.integers(0, side)) ** 2 for axis, side in zip(np.indices(space), space, strict=True)
            )
            labels[distance < rng.integers(4, 9) ** 2] = 1
        found.append(labels)
    return found


def test_sky_above_road_has_a_direction_from_above_to_below_only():
    rng = np.random.default_rng(0)
    assert directed_axes(streets(12, rng), 3) == (True, False)
    assert directed_axes([labels.T.copy() for labels in streets(12, rng)], 3) == (False, True)


def test_discs_anywhere_have_no_direction():
    for seed in range(10):
        assert directed_axes(discs(20, np.random.default_rng(seed)), 2) == (False, False)
    assert directed_axes(discs(8, np.random.default_rng(0), (16, 24, 24)), 2) == (False, False, False)


def test_an_organ_always_at_one_side_of_a_volume():
    rng = np.random.default_rng(0)
    volumes = discs(8, rng, (12, 20, 24))
    for volume in volumes:
        volume[rng.integers(3, 5) : 8, 6:14, 2:9] = 2
    assert directed_axes(volumes, 3) == (False, False, True)


def test_few_images_show_no_direction():
    rng = np.random.default_rng(0)
    assert directed_axes(streets(4, rng), 3) == (False, False)
    assert directed_axes(streets(5, rng), 3) == (True, False)
    assert directed_axes([], 2) == ()


def test_a_class_in_few_images_shows_none_whatever_the_others():
    labels = discs(12, np.random.default_rng(3))
    for one in labels[:4]:
        one[:8] = 2
    assert directed_axes(labels, 3) == (False, False)


def test_a_direction_that_varies_from_image_to_image_is_none():
    labels = streets(12, np.random.default_rng(0))
    assert directed_axes([one[::-1] if number % 2 else one for number, one in enumerate(labels)], 3) == (False, False)


def test_ignored_pixels_count_nowhere():
    labels = discs(12, np.random.default_rng(5), (64, 65))
    for one in labels:
        one[:26] = IGNORE  # what is left of the first half is judged by its share of what is annotated
    assert directed_axes(labels, 2)[1] is False
    for one in labels:
        one[...] = IGNORE
    assert directed_axes(labels, 2) == (False, False)
