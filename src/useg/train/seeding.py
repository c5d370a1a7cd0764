"""Randomness as a pure function of (seed, where it is used): nothing to save, nothing to restore."""

import numpy as np

_STREAM = 0x75736567_74726E31


def generator(seed: int, *place: int) -> np.random.Generator:
    """A generator for one place of use; the same for ever for the same seed and place (up to 4 numbers).

    Only `Generator.random` and `integers` of it are used, over raw Philox words.
    """
    counter = [*place, 0, 0, 0, 0][:4]
    key = np.array([seed, _STREAM], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array(counter, dtype=np.uint64)))


def permutation(count: int, seed: int, *place: int) -> np.ndarray:
    """A random order of `count` things: the order of random words, so that no library's shuffle is relied on."""
    words = generator(seed, *place).bit_generator.random_raw(count)
    return np.argsort(words, kind="stable")


def torch_seed(seed: int, *place: int) -> int:
    """A seed for torch's own streams (dropout) at one place of use."""
    return int(generator(seed, *place).bit_generator.random_raw() >> 1)
