"""Rows of one enormous deflated strip, decoded in passing, for TIFFs that were written as a single piece."""

import zlib
from typing import Any

import numpy as np

from useg.data.headers import unreadable

STREAMED_FROM_BYTES = 2**26

_DEFLATE = frozenset({8, 32946})
_INPUT_BYTES = 2**20
_SKIP_BYTES = 2**22


def can_stream(page: Any, strip_bytes: int) -> bool:
    """Whether a page's strips of `strip_bytes` are better read row by row, and can be."""
    return (
        strip_bytes > STREAMED_FROM_BYTES
        and not page.is_tiled
        and int(page.compression) in _DEFLATE
        and int(page.predictor) in (1, 2)
        and page.fillorder == 1
        and page.dtype.kind in ("ui" if int(page.predictor) == 2 else "uif")
        and int(page.bitspersample) == 8 * page.dtype.itemsize
    )


class DeflatedRows:
    """Reads forward; rows of the last read are kept, since the next band may begin with them.

    Going back further starts again at the first row.
    """

    def __init__(self, ref: str, stream: Any, page: Any, offset: int, count: int, byteorder: str) -> None:
        self._ref, self._stream, self._offset, self._count = ref, stream, offset, count
        self._shape = (page.shaped[3], page.shaped[4])
        self._dtype = page.dtype.newbyteorder(byteorder)
        self._predicted = int(page.predictor) == 2
        self._row_bytes = self._shape[0] * self._shape[1] * self._dtype.itemsize
        self._restart()

    def _restart(self) -> None:
        self._inflate = zlib.decompressobj()
        self._waiting = b""
        self._consumed = self._next = self._kept_from = 0
        self._kept = np.empty((0, *self._shape), self._dtype.newbyteorder("="))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` - 1 as (rows, width, samples); not to be changed.

        Raises:
            DataError: the strip ends before the last of these rows.
        """
        if start < self._kept_from:
            self._restart()
        while self._next < start:
            self._kept = self._rows(min(start - self._next, max(1, _SKIP_BYTES // self._row_bytes)))
            self._kept_from = self._next - len(self._kept)
        rows = self._kept[start - self._kept_from : stop - self._kept_from]
        if stop > self._next:
            rows = np.concatenate([rows, self._rows(stop - self._next)])
            self._kept, self._kept_from = rows, start
        return rows

    def _rows(self, count: int) -> np.ndarray:
        data = bytearray()
        wanted = count * self._row_bytes
        while len(data) < wanted:
            if not self._waiting and self._consumed < self._count and not self._inflate.eof:
                self._stream.seek(self._offset + self._consumed)
                self._waiting = self._stream.read(min(_INPUT_BYTES, self._count - self._consumed))
                self._consumed += len(self._waiting)
            piece = self._inflate.decompress(self._waiting, wanted - len(data))
            if not piece and (self._inflate.eof or (not self._waiting and self._consumed >= self._count)):
                raise unreadable(self._ref, "a strip of it ends too early", "copy or export it again")
            self._waiting = self._inflate.unconsumed_tail
            data += piece
        self._next += count
        rows = np.frombuffer(data, self._dtype).reshape(count, *self._shape)
        native = rows.astype(self._dtype.newbyteorder("="), copy=False)
        return np.add.accumulate(native, axis=1, dtype=native.dtype) if self._predicted else native
