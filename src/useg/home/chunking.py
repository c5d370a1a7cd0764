"""Large objects cut where their content says so, so that a change moves only the chunks around it.

The cuts are part of the format: a test pins them. Other cuts would not be wrong, but would share nothing with the
chunks that homes have already.
"""

from collections.abc import Iterator
from typing import Protocol

WHOLE_BYTES = 4 * 2**20
"""Objects up to this length are stored in one piece."""

_SMALL_BYTES, _MIDDLE_BYTES = 64 * 2**20, 2**30


class Reader(Protocol):
    """A file that is open for reading, or what looks like one."""

    def readinto(self, target: memoryview, /) -> int:
        """Fill some of the target; 0 at the end."""


def average_bytes(length: int) -> int:
    """The average that the cutting aims at; in fact a chunk is about a third longer.

    64 KiB would follow from the measurements of others, but half of it sends less for an image stack in which some
    slices changed, and a row of the index costs only 150 bytes.
    """
    return 2**15 if length <= _SMALL_BYTES else 2**17 if length <= _MIDDLE_BYTES else 2**19


def longest_bytes(length: int) -> int:
    """No chunk of an object of this length is longer."""
    return 4 * average_bytes(length)


def cut(reader: Reader, length: int) -> Iterator[memoryview]:
    """The chunks of an object; each may be used until the next one is asked for.

    Args:
        reader: gives the object's bytes.
        length: how many these are, as far as is known; it decides how long the chunks are.
    """
    from pyfastcdc import FastCDC

    average = average_bytes(length)
    cutter = FastCDC(average, min_size=average // 2, max_size=4 * average, normalized_chunking=1, seed=0)
    for chunk in cutter.cut_stream(reader):
        yield chunk.data


__all__ = ["WHOLE_BYTES", "Reader", "average_bytes", "cut", "longest_bytes"]
