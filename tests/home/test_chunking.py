import warnings
from io import BytesIO

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from useg.home.chunking import average_bytes, cut, longest_bytes

GOLDEN = [73882, 44234, 39748, 77081, 25944, 42748, 96363]
GOLDEN_LARGE = [157864, 77081, 148754, 16301]


def lengths(content, length=None):
    return [len(chunk) for chunk in cut(BytesIO(content), len(content) if length is None else length)]


def test_the_cuts_are_these_for_ever():
    """Homes that exist would share nothing with what other cuts give."""
    content = blake3(b"cuts").digest(400_000)
    assert lengths(content) == GOLDEN
    assert lengths(content, 100 * 2**20) == GOLDEN_LARGE


def test_a_plain_python_cutter_cuts_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyfastcdc.py import FastCDC
    content = blake3(b"cuts").digest(400_000)
    cutter = FastCDC(2**15, min_size=2**14, max_size=2**17, normalized_chunking=1, seed=0)
    assert [chunk.length for chunk in cutter.cut_buf(content)] == GOLDEN


@given(st.lists(st.integers(1, 70_000), min_size=1))
def test_it_does_not_matter_in_which_pieces_the_bytes_come(pieces):
    class Slow:
        def __init__(self):
            self.file, self.turn = BytesIO(content), 0

        def readinto(self, target):
            self.turn += 1
            return self.file.readinto(target[: pieces[self.turn % len(pieces)]])

    content = blake3(b"pieces").digest(150_000)
    assert b"".join(bytes(chunk) for chunk in cut(Slow(), len(content))) == content
    assert [len(chunk) for chunk in cut(Slow(), len(content))] == lengths(content)


@pytest.mark.parametrize("size", [0, 1, 100, 2**14, 200_000])
def test_chunks_are_the_object_and_within_their_bounds(size):
    content = blake3(b"whole").digest(size)
    found = [bytes(chunk) for chunk in cut(BytesIO(content), size)]
    assert b"".join(found) == content
    assert all(2**14 <= len(chunk) <= longest_bytes(size) for chunk in found[:-1])


def test_a_change_moves_only_the_chunks_around_it():
    content = np.random.default_rng(0).bytes(2_000_000)
    before = {blake3(chunk).digest() for chunk in cut(BytesIO(content), len(content))}
    for after in (b"a header" + content, content[:900_000] + b"x" + content[900_001:], content[:500] + content[700:]):
        new = [len(chunk) for chunk in cut(BytesIO(after), len(after)) if blake3(chunk).digest() not in before]
        assert sum(new) < 5 * average_bytes(len(after))


def test_larger_objects_have_longer_chunks():
    assert [average_bytes(size) for size in (0, 2**26, 2**26 + 1, 2**30, 2**30 + 1)] == [
        2**15,
        2**15,
        2**17,
        2**17,
        2**19,
    ]
