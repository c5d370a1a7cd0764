import numpy as np
import pytest

from useg.data.census import take_census
from useg.data.infer import infer_mapping
from useg.data.objectness import size_explained

RANDOM = np.random.default_rng(3)


def nuclei(number, dtype, shape=(128, 128), first=1, step=1):
    """Discs of random sizes, numbered in random order."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    plane = np.zeros(shape, dtype)
    places = [(r, c) for r in range(8, shape[0] - 7, 15) for c in range(8, shape[1] - 7, 15)]
    for value, at in enumerate(RANDOM.permutation(len(places))[:number]):
        radius = RANDOM.integers(2, 7)
        plane[(rows - places[at][0]) ** 2 + (columns - places[at][1]) ** 2 <= radius**2] = first + step * value
    return plane


def organs(present, dtype=np.uint8):
    """Each class one compact piece of its own size, as in a body."""
    plane = np.zeros((128, 128), dtype)
    for value in present:
        size = 3 + 2 * value
        row, column = 16 * (value // 4), 32 * (value % 4)
        plane[row : row + min(size, 15), column : column + size + RANDOM.integers(0, 2)] = value
    return plane


def scene(number):
    """Many patches of each class."""
    return RANDOM.integers(0, number, (32, 32)).repeat(4, 0).repeat(4, 1).astype(np.uint8)


def kind(*planes):
    return infer_mapping([take_census(p[None], f"{i}") for i, p in enumerate(planes)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32])
def test_numbered_objects(dtype):
    planes = [nuclei(number, dtype) for number in (25, 12, 40, 31)]
    found = kind(*planes)
    assert found.mapping.kind == "instances"
    assert "object numbers" in found.repairs[0]
    assert found.mapping.dtype == np.dtype(dtype).name


def test_one_file_of_objects_with_gaps_in_the_numbers():
    assert kind(nuclei(50, np.uint16, step=3)).mapping.kind == "instances"
    few = kind(nuclei(7, np.uint8))
    assert few.mapping.kind == "instances"
    assert "values" in few.warnings[0]


def test_few_objects_in_several_files():
    found = kind(*(nuclei(n, np.uint16) for n in (3, 7, 5, 6, 8)))
    assert found.mapping.kind == "instances"


def test_as_many_objects_in_each_file():
    found = kind(*(nuclei(6, np.uint16) for _ in range(6)))
    assert found.mapping.kind == "instances"
    assert 'kind = "values"' in found.warnings[0]
    few = kind(*(nuclei(4, np.uint8) for _ in range(6)))
    assert few.mapping.kind == "values"
    assert 'kind = "instances"' in few.warnings[0]


def test_objects_with_a_few_in_two_pieces():
    plane = nuclei(30, np.uint16)
    plane[0, 0], plane[0, 127] = 4, 9
    assert kind(plane).mapping.kind == "instances"


def test_organs_are_classes():
    planes = [organs(range(1, 14)), organs(range(1, 10)), organs(range(3, 14)), organs(range(1, 14))]
    found = kind(*planes)
    assert found.mapping.kind == "values"
    assert found.mapping.num_classes == 14


def test_patches_of_many_classes_are_classes():
    assert kind(scene(12), scene(12)).mapping.kind == "values"
    assert kind(scene(40)).mapping.kind == "values"


def test_three_classes_in_one_piece_each_are_classes():
    found = kind(*(organs([1, 2, 3]) for _ in range(4)))
    assert found.mapping.kind == "values"
    assert not found.warnings


def test_names_settle_it():
    census = [take_census(nuclei(30, np.uint16)[None], "a")]
    names = {str(v): f"class {v}" for v in range(31)}
    assert infer_mapping(census, hints={"class_names": names}).mapping.kind == "values"


def test_explained_sizes():
    owner = np.array([1, 2, 1, 2, 1, 2])
    assert size_explained(owner, np.array([10, 100, 10, 100, 10, 100])) == pytest.approx(1.0)
    assert size_explained(owner, np.array([10, 10, 100, 100, 55, 55])) < 0.3
    assert size_explained(np.array([1, 2, 3]), np.array([1, 2, 3])) is None
