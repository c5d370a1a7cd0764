import numpy as np
import pytest

from useg.data.census import take_census
from useg.data.labels import LabelClass, LabelMapping
from useg.errors import DataError


def test_values_counts_and_pieces():
    plane = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [1, 0, 2, 2]], np.uint8)
    found = take_census(plane[None], "a")
    assert found.values.tolist() == [0, 1, 2]
    assert found.counts.tolist() == [9, 3, 4]
    assert found.pieces.tolist()[1:] == [2, 2]
    assert found.largest.tolist()[1:] == [2, 2]
    assert not found.coloured
    assert found.as_raw().tolist() == [[0, 1, 2]]


def test_only_the_region_counts():
    plane = np.array([[0, 1], [5, 5]], np.uint8)
    found = take_census(plane[None], "a", region=np.array([[True, True], [False, False]]))
    assert found.values.tolist() == [0, 1]
    assert found.outside == 2


def test_values_outside_the_region_do_not_disturb_the_pieces():
    plane = np.array([[0, 1, 2], [9, 9, 9]], np.uint8)
    found = take_census(plane[None], "a", region=plane != 9)
    assert found.pieces.tolist() == [1, 1, 1]


def test_colours_are_counted():
    raw = np.zeros((3, 2, 2), np.uint8)
    raw[0, 0] = 255
    found = take_census(raw, "a")
    assert found.coloured
    assert found.values.tolist() == [[0, 0, 0], [255, 0, 0]]
    assert found.counts.tolist() == [2, 2]
    assert found.as_raw().shape == (3, 2)
    grey = take_census(np.array([[[0, 7]]], np.uint8), "b").in_colour()
    assert grey.values.tolist() == [[0, 0, 0], [7, 7, 7]]


def test_nearly_grey_colours_of_a_lossy_file_are_grey():
    raw = np.array([[[0, 250]], [[3, 251]], [[0, 255]]], np.uint8)
    assert take_census(raw, "a", lossy=True).values.tolist() == [1, 252]
    assert take_census(raw, "a").coloured


def test_fractions_count_only_with_a_threshold():
    raw = np.array([[[0.0, 0.2, 0.7, 0.9]]], np.float32)
    with pytest.raises(DataError, match="3 label pixels are not whole"):
        take_census(raw, "a")
    classes = (LabelClass(name="a", values=(0,)), LabelClass(name="b", values=(1,)))
    mapping = LabelMapping(kind="threshold", threshold=0.5, classes=classes)
    found = take_census(raw, "a", given=mapping)
    assert found.counts.tolist() == [2, 2]
    assert mapping.encode(found.as_raw())[0].tolist() == [0, 1]
    with pytest.raises(DataError, match="NaN"):
        take_census(np.array([[[np.nan]]]), "a", given=mapping)


def test_a_picture_is_no_label_map():
    with pytest.raises(DataError, match="this is a picture"):
        take_census(np.arange(70_000, dtype=np.uint32).reshape(1, 100, 700), "a")
    with pytest.raises(DataError, match="colour-coded label map of dtype float32"):
        take_census(np.arange(12, dtype=np.float32).reshape(3, 2, 2), "a")
