import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from useg.data.forms import (
    as_colours,
    as_grey,
    count_values,
    inside,
    is_grey,
    pack_colours,
    unpack_colours,
    whole_numbers,
)
from useg.errors import DataError


@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16]), (4, 6)))
def test_packed_colours_unpack(colours):
    np.testing.assert_array_equal(unpack_colours(pack_colours(colours), 4), colours.T)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.uint32, np.int16, np.int64]),
        (3, 5),
        elements={"max_value": 100},
    )
)
def test_counting_is_what_unique_counts(plane):
    values, counts = count_values(plane)
    wanted = np.unique(plane, return_counts=True)
    np.testing.assert_array_equal(values, wanted[0])
    np.testing.assert_array_equal(counts, wanted[1])


def test_grey_saved_as_colour_is_grey():
    raw = np.repeat(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), 4, 0)
    raw[3] = 255
    assert is_grey(raw)
    np.testing.assert_array_equal(as_grey(raw), raw[0])
    raw[1, 0, 0] = 9
    assert not is_grey(raw)
    with pytest.raises(DataError, match="coloured"):
        as_grey(raw)
    assert as_grey(raw, mean=True)[0, 0] == 3
    with pytest.raises(DataError, match="5 channels"):
        as_grey(np.zeros((5, 2, 2)))
    with pytest.raises(DataError, match="5 channels"):
        as_colours(np.zeros((5, 2, 2)))


def test_whole_numbers_of_booleans_and_floats():
    assert whole_numbers(np.array([True, False])).dtype == np.uint8
    assert whole_numbers(np.array([3.0, -1.0])).tolist() == [3, -1]
    with pytest.raises(DataError, match="complex"):
        whole_numbers(np.array([1j]))


def test_inside_is_more_than_half_of_the_maximum():
    assert inside(np.array([0, 1])).tolist() == [False, True]
    assert inside(np.array([3, 120, 130, 250], np.uint8)).tolist() == [False, False, True, True]
    assert not inside(np.zeros(3, np.uint8)).any()
    assert inside(np.array([True])).all()
