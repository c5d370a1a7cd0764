"""Random streams that stay the same for ever."""

import numpy as np
import pytest

from useg.train.seeding import generator, permutation, torch_seed


def test_golden_numbers() -> None:
    """These never change: a run of any earlier version is repeated by the same numbers.

    python -c "from useg.train.seeding import *; print(generator(7, 1, 2).bit_generator.random_raw(3).tolist(),
    generator(0, 2, 5, 9).random(2).tolist(), permutation(8, 3, 1, 4).tolist(), torch_seed(5, 12, 100, 1))"
    """
    assert generator(7, 1, 2).bit_generator.random_raw(3).tolist() == [
        2267725648138033092,
        1741272831252874411,
        8307302608180646822,
    ]
    assert generator(0, 2, 5, 9).random(2).tolist() == [0.19775384025499976, 0.45822315362032817]
    assert permutation(8, 3, 1, 4).tolist() == [5, 7, 6, 3, 2, 0, 1, 4]
    assert torch_seed(5, 12, 100, 1) == 5010331808212720744


def test_every_place_has_its_own_stream() -> None:
    places = [(s, a, b) for s in (0, 1, 2**62) for a in range(3) for b in (0, 1, 10**6)]
    first = {generator(s, a, b).bit_generator.random_raw(2).tobytes() for s, a, b in places}
    assert len(first) == len(places)
    assert len({torch_seed(*place) for place in places}) == len(places)
    assert all(0 <= torch_seed(*place) < 2**63 for place in places)


def test_streams_of_neighbouring_places_do_not_overlap() -> None:
    words = np.concatenate([generator(0, 1, 2, place).bit_generator.random_raw(1000) for place in range(20)])
    assert len(np.unique(words)) == len(words)


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_a_permutation_is_one(count: int) -> None:
    orders = [permutation(count, 0, 1, epoch) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(count)) for order in orders)
    if count == 100:
        assert len({order.tobytes() for order in orders}) == 3


def test_permutations_are_even() -> None:
    firsts = np.bincount([permutation(5, seed)[0] for seed in range(2000)], minlength=5)
    assert (np.abs(firsts - 400) < 80).all()  # more than four standard deviations
