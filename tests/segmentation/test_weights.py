from inspect import unwrap
from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from useg.arrays import IGNORE
from useg.errors import InputError
from useg.segmentation import two_nearest
from useg.segmentation.weights import (
    border_weights_2015,
    border_weights_2019,
    class_weights,
    components,
    open_gaps,
    weight_map,
)


def blobs(space, count, seed=0, largest=6, id_step=1):
    """Discs or balls anywhere; many touch, overlap and are cut by others."""
    rng = np.random.default_rng(seed)
    instances = np.zeros(space, np.int32)
    for number in range(1, count + 1):
        distance = sum((a - rng.integers(0, side)) ** 2 for a, side in zip(np.indices(space), space, strict=True))
        instances[distance < rng.integers(2, largest) ** 2] = number * id_step
    return instances


def stacked_distances(instances, sampling=None):
    """One distance transform of the whole image an object, sorted: what everyone copies."""
    numbers = [number for number in np.unique(instances) if number > 0]
    every = [ndimage.distance_transform_edt(instances != number, sampling=sampling) for number in numbers]
    every += [np.full(instances.shape, np.inf)] * 2
    return np.sort(np.stack(every), axis=0)[:2]


def neighbours(instances):
    """For each pixel, the ids of all neighbours, by sides, edges and corners."""
    padded = np.pad(np.maximum(instances, 0), 1)
    for offset in product((-1, 0, 1), repeat=instances.ndim):
        if any(offset):
            yield (
                offset,
                padded[
                    tuple(slice(1 + step, 1 + step + side) for step, side in zip(offset, instances.shape, strict=True))
                ],
            )


def naive_2015(instances, w0, sigma, sampling=None):
    first, second = stacked_distances(instances, sampling)
    term = w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    met = np.zeros(instances.shape, bool)
    for _, other in neighbours(instances):
        met |= (other > 0) & (other != instances) & (instances > 0)
    return np.where((instances > 0) & ~met, 0, term)


def naive_gaps(instances):
    gapped = instances.copy()
    for offset, other in neighbours(instances):
        if offset < (0,) * instances.ndim:
            gapped[(instances > 0) & (other > 0) & (other != instances)] = 0
    return gapped


def naive_2019(instances, w0, sigma, ratio, decay, sampling=None):
    gapped = naive_gaps(instances)
    first, second = stacked_distances(gapped, sampling)
    border = w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    belt = (1 - ratio) * np.exp(-(first**2) / (2 * decay**2))
    return np.where(gapped > 0, 1, ratio + border + belt)


CASES = [
    ((60, 70), 25, None),
    ((61, 33), 3, None),
    ((40, 1), 4, None),
    ((1, 50), 6, None),
    ((50, 60), 20, (0.7, 1.0)),
    ((50, 60), 20, (3.0, 1.0)),
    ((14, 24, 26), 20, None),
    ((10, 24, 26), 14, (4.0, 1.0, 1.0)),
    ((10, 24, 26), 14, (2.3, 1.1, 1.0)),
]


@pytest.mark.parametrize(("space", "count", "sampling"), CASES)
@pytest.mark.parametrize("sigma", [1.5, 5.0, 20.0])
def test_the_border_term_of_2015_is_that_of_stacked_distance_transforms(space, count, sampling, sigma):
    for seed in range(2):
        instances = blobs(space, count, seed)
        found = border_weights_2015(instances, w0=10.0, sigma_px=sigma, sampling=sampling)
        assert found.dtype == np.float32
        assert np.abs(found - naive_2015(instances, 10.0, sigma, sampling)).max() <= 1e-2


@pytest.mark.parametrize(("space", "count", "sampling"), CASES)
@pytest.mark.parametrize(("sigma", "decay"), [(6.0, 10.0), (8.0, 3.0)])
def test_the_weights_of_2019_are_those_of_stacked_distance_transforms(space, count, sampling, sigma, decay):
    instances = blobs(space, count, 3)
    found = border_weights_2019(instances, w0=50.0, sigma_px=sigma, ratio=0.2, decay_px=decay, sampling=sampling)
    assert np.abs(found - naive_2019(instances, 50.0, sigma, 0.2, decay, sampling)).max() <= 5e-2


def test_large_ids_and_negative_ones_change_nothing():
    small = blobs((60, 70), 20)
    wanted = border_weights_2015(small)
    assert wanted.max() > 0
    steps = (blobs((60, 70), 20, id_step=step) for step in (3_000, 100_003))
    for large in (*steps, np.where(small > 0, small + (2**31 - 100), 0).astype(np.int32)):
        assert np.array_equal(border_weights_2015(large), wanted)
    below = np.where(small > 0, small, -7).astype(np.int32)
    assert np.array_equal(border_weights_2015(below), wanted)
    everywhere = np.where(small > 0, small, 21).astype(np.int32)
    assert np.array_equal(border_weights_2015(everywhere * 100_000), border_weights_2015(everywhere))


def test_the_widest_border_does_not_overflow():
    instances = np.zeros((4, 2000), np.int32)
    instances[1:3, 3], instances[1:3, -4] = 1, 2**31 - 1
    for sampling in (None, (1.3, 1.0)):
        found = border_weights_2015(instances, sigma_px=1000.0, sampling=sampling)
        assert np.abs(found - naive_2015(instances, 10.0, 1000.0, sampling)).max() <= 1e-2
    assert found.max() > 1


def test_blocks_of_work_leave_no_seams(monkeypatch):
    instances = blobs((60, 70), 25)
    whole = border_weights_2015(instances)
    volume = blobs((12, 20, 24), 20)
    whole_volume = border_weights_2015(volume)
    monkeypatch.setattr(two_nearest, "_BLOCK", 300)
    assert np.array_equal(border_weights_2015(instances), whole)
    assert np.array_equal(border_weights_2015(volume), whole_volume)


def test_flips_and_transposes_go_with_the_image():
    instances = blobs((50, 60), 20)
    found = border_weights_2015(instances)
    assert np.array_equal(border_weights_2015(instances.T.copy()), found.T)
    assert np.array_equal(border_weights_2015(instances[::-1, ::-1].copy()), found[::-1, ::-1])


def test_a_gap_between_two_objects_weighs_the_more_the_narrower_it_is():
    heights = []
    for gap in (1, 2, 4, 8):
        instances = np.zeros((9, 40), np.int32)
        instances[:, 4:10], instances[:, 10 + gap : 20 + gap] = 1, 2
        found = border_weights_2015(instances, w0=10.0, sigma_px=5.0)
        assert not found[instances > 0].any()
        heights.append(found[4, 10])
        assert found[4, 10] == pytest.approx(10 * np.exp(-((gap + 1) ** 2) / 50), rel=1e-5)
    assert heights == sorted(heights, reverse=True)


def test_objects_that_touch_get_weight_on_their_rims():
    instances = np.zeros((12, 12), np.int32)
    instances[2:10, 2:6], instances[2:10, 6:10] = 1, 2
    found = border_weights_2015(instances, w0=10.0, sigma_px=5.0)
    assert found[2:10, 5:7] == pytest.approx(10 * np.exp(-1 / 50), rel=1e-5)
    assert not found[3:9, 2:5].any()
    assert not found[3:9, 7:10].any()


def test_fewer_than_two_objects_have_no_border():
    one = np.zeros((20, 20), np.int32)
    assert not border_weights_2015(one).any()
    assert border_weights_2019(one) == pytest.approx(0.1)
    one[5:9, 5:9] = 3
    assert not border_weights_2015(one).any()
    alone = border_weights_2019(one)
    assert (alone[5:9, 5:9] == 1).all()
    assert alone[4, 6] == pytest.approx(0.1 + 0.9 * np.exp(-1 / 200), rel=1e-5)
    assert (border_weights_2015(np.full((5, 5), 4, np.int32)) == 0).all()


@pytest.mark.parametrize("space", [(30, 40), (10, 14, 16)])
def test_opened_gaps_keep_objects_apart_and_take_only_rims(space):
    instances = blobs(space, 20, largest=7)
    gapped = open_gaps(instances)
    assert np.array_equal(gapped, naive_gaps(instances))
    assert np.array_equal(open_gaps(gapped), gapped)
    assert not (naive_2015(gapped, 1.0, 1.0)[gapped > 0]).any()
    assert set(np.unique(gapped)) <= set(np.unique(instances))


# --- class weights


def test_class_weights_have_the_mean_one_over_all_pixels():
    for counts in ([5, 5], [900, 90, 10], [10**9, 1], [3]):
        found = class_weights(counts)
        assert found.dtype == np.float32
        assert (found * counts).sum() / np.sum(counts) == pytest.approx(1, rel=1e-5)
    found = class_weights([900, 90, 10])
    assert found[1] / found[0] == pytest.approx(10**0.5, rel=1e-5)
    assert found[2] / found[0] == pytest.approx(90**0.5, rel=1e-5)
    assert np.array_equal(class_weights([7, 7, 7]), np.ones(3, np.float32))


def test_no_class_weighs_more_than_the_cap_times_another():
    found = class_weights([10**9, 1, 1000])
    assert found.max() / found.min() == pytest.approx(10, rel=1e-5)
    assert np.ptp(class_weights([10**9, 1], cap=1.0)) == 0


def test_an_absent_class_weighs_one_and_does_not_move_the_others():
    found = class_weights([900, 0, 100])
    assert found[1] == 1
    assert np.array_equal(found[[0, 2]], class_weights([900, 100]))
    assert np.array_equal(class_weights([0, 0]), np.ones(2, np.float32))


# --- the whole map


def test_ignored_pixels_weigh_nothing_by_any_formula():
    instances = blobs((40, 50), 20)
    classes = (instances > 0).astype(np.uint8)
    classes[:, 20:30] = IGNORE
    for border in ("none", "2015", "2019"):
        found = weight_map(classes, instances, class_weights=np.float32([0.5, 2.0]), border=border)
        assert found.dtype == np.float32
        assert not found[classes == IGNORE].any()
        assert (found[classes != IGNORE] > 0).all()


def test_the_map_is_the_class_weight_with_the_border_of_the_formula():
    instances = blobs((40, 50), 20)
    classes = (instances > 0).astype(np.uint8)
    balance = np.float32([0.5, 2.0])
    plain = weight_map(classes, instances, class_weights=balance, border="none")
    assert np.array_equal(plain, balance[classes])
    assert (weight_map(classes, instances, border="none") == 1).all()
    found = weight_map(classes, instances, class_weights=balance, border="2015", w0=7.0, sigma_px=3.0)
    assert np.allclose(found, plain + border_weights_2015(instances, w0=7.0, sigma_px=3.0))
    found = weight_map(classes, instances, class_weights=balance, border="2019", w0=7.0, sigma_px=3.0)
    assert np.allclose(found, plain * border_weights_2019(instances, w0=7.0, sigma_px=3.0))


def test_without_instances_connected_parts_are_the_objects():
    classes = np.zeros((12, 30), np.uint8)
    classes[2:10, 2:8] = classes[2:10, 10:16] = 1
    classes[2:10, 16:20] = 2
    classes[2:10, 24:28] = IGNORE
    parts = components(classes)
    assert parts.dtype == np.int32
    assert len(np.unique(parts)) == 4
    assert not parts[classes == IGNORE].any()
    assert parts[5, 3] != parts[5, 12] != parts[5, 17]
    assert np.array_equal(weight_map(classes, None), weight_map(classes, parts))
    assert weight_map(classes, None)[5, 8] > 5


def test_what_makes_no_sense_is_refused():
    instances = blobs((20, 20), 4)
    classes = (instances > 0).astype(np.uint8)
    for values in ({"w0": -1.0}, {"sigma_px": 0.0}, {"sampling": (1.0,)}, {"sampling": (1.0, 0.0)}):
        with pytest.raises(InputError, match=r"border weights: w0 .* for 2 axes; wanted w0 from 0, sigma from 0.1"):
            border_weights_2015(instances, **values)
    for values in ({"ratio": 1.5}, {"decay_px": 0.0}):
        with pytest.raises(InputError, match=r"border weights: ratio .* decay .* px; wanted 0 to 1, and above 0"):
            border_weights_2019(instances, **values)
    for counts, cap in (([], 10.0), ([-1, 2], 10.0), ([[1, 2]], 10.0), ([1, 2], 0.5)):
        with pytest.raises(InputError, match=r"class weights: counts .* wanted counts from 0 and a cap from 1"):
            class_weights(np.array(counts), cap=cap)
    with pytest.raises(InputError, match="class 1 in a label map, but weights for 1 classes only"):
        weight_map(classes, instances, class_weights=np.float32([1.0]))
    with pytest.raises(InputError, match=r"weight map: classes of \(20, 20\) with instances of \(19, 20\)"):
        unwrap(weight_map)(classes, instances[1:])  # without the check of shapes before it
    with pytest.raises(InputError, match="weight map: border '2020'; wanted none, 2015 or 2019"):
        unwrap(weight_map)(classes, instances, border="2020")
