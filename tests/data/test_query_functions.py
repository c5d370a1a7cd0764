"""Tests of the frozen functions of queries: the same as the plain ones, number for number."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from useg.data import splits
from useg.data.query_functions import SAMPLING, Place, below, decimal, mixed, parse_parts, parts_text

numbers = st.integers(0, 2**64 - 1)
seeds = st.integers(0, 10**18)


@given(st.lists(numbers, max_size=5), numbers)
def test_mixed_is_mix(values, seed):
    assert mixed(np.array(values, np.uint64), seed).tolist() == [splits.mix(value, seed) for value in values]


@given(st.text(max_size=5), seeds)
def test_places_are_those_of_splits(group, seed):
    hashes = np.array([splits.group_hash(group)], np.uint64)
    assert Place("", seed).of(hashes)[0] / 2**53 == splits.place(group, seed)
    salted = splits.mix(splits.mix(splits.group_hash(group), SAMPLING), seed) >> 11
    assert Place("", seed, SAMPLING).of(hashes).tolist() == [salted]


def test_the_salt_is_for_ever():
    assert SAMPLING == 8506031990128323006


def test_parts_take_places_in_one_order_whatever_was_written():
    first = parse_parts("train:0.7, b:0.05,a:0.05,test:0.1,val:0.10")
    assert list(first) == ["test", "val", "a", "b", "train"]
    assert parts_text(first) == "test:0.1,val:0.1,a:0.05,b:0.05,train:0.7"
    assert parse_parts(parts_text(first)) == first


@given(st.integers(0, 10**18))
def test_decimals_are_exact(number):
    share = Fraction(number, 10**18)
    assert Fraction(decimal(share)) == share
    assert 0 <= below(share) <= 2**53
