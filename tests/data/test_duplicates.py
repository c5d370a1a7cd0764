import numpy as np
import pytest

from useg.data.duplicates import compare_neighbours, correlation, find_duplicates, look_at


def texture(seed, shape=(200, 160)):
    """A picture with structures of several sizes."""
    import cv2

    random = np.random.default_rng(seed)
    total = np.zeros(shape)
    for cells in (6, 12, 24, 48):
        total += cv2.resize(random.normal(size=(cells, cells)), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return ((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)


def looks(*planes):
    return [look_at(plane, f"{plane.shape}{plane.tobytes()!r}") for plane in planes]


def test_equal_smeared_and_scaled_pictures_are_found_and_others_are_not():
    import cv2

    first, other = texture(1), texture(2)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", first, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0)
    small = cv2.resize(first, (80, 100), interpolation=cv2.INTER_AREA)
    brighter = np.clip(first * 0.7 + 40, 0, 255).astype(np.uint8)
    pairs = find_duplicates(
        list("abcdef"),
        looks(first, other, first.copy(), jpeg, small, brighter),
        ["train", "train", "val", "val", None, "train"],
    )
    found = {(p.first, p.second): p for p in pairs}
    assert all("b" not in pair for pair in found)
    assert {("a", "c"), ("a", "d"), ("a", "e"), ("a", "f")} <= set(found)
    assert found["a", "c"].exact
    assert not found["a", "d"].exact
    assert found["a", "c"].across_splits
    assert not found["a", "e"].across_splits
    assert not found["a", "f"].across_splits


def test_many_different_pictures_are_no_duplicates():
    several = looks(*(texture(seed) for seed in range(60)))
    assert find_duplicates([str(i) for i in range(60)], several, [None] * 60) == ()


def test_flat_pictures_equal_only_exactly():
    flat = looks(np.zeros((9, 9)), np.full((9, 9), 7.0), np.zeros((9, 9)), np.full((9, 9), np.nan))
    pairs = find_duplicates(list("abcd"), flat, [None] * 4)
    assert [(p.first, p.second, p.exact) for p in pairs] == [("a", "c", True)]
    assert correlation(flat[0], flat[1]) == 0.0


def test_correlation_with_itself_is_one():
    (look,) = looks(texture(5))
    assert correlation(look, look) == pytest.approx(1.0, abs=0.01)


def test_slices_of_a_volume_are_a_series_and_pictures_are_not():
    between = [texture(seed).astype(float) for seed in range(6)]
    slices = [between[i] * (1 - t) + between[i + 1] * t for i in range(5) for t in (0.0, 0.25, 0.5, 0.75)]
    found = compare_neighbours([looks(*slices)])
    assert found.alike
    assert found.neighbours > found.distant + 0.3
    assert not compare_neighbours([looks(*(texture(seed) for seed in range(20)))]).alike
    assert compare_neighbours([looks(*slices[:5])]).neighbours is None


def test_pictures_that_are_all_alike_are_no_series():
    base = texture(0).astype(float)
    views = [base + 0.7 * texture(seed) for seed in range(1, 20)]
    found = compare_neighbours([looks(*views)])
    assert found.distant > 0.3
    assert not found.alike


def test_greatest_floats_are_compared_without_overflow():
    first = texture(1).astype(np.float64)
    huge = looks(first, (first / 255 * 3e38).astype(np.float32), first / 255 * 1e300)
    assert correlation(huge[0], huge[1]) > 0.999
    assert np.isfinite(huge[2].detail).all()
