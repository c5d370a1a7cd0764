"""Video clips as stacks of RGB frames, any frame exactly by its number."""

from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from useg.data.headers import Header, Opened, Window, unreadable
from useg.errors import MissingExtra

# Turns of the picture, counter-clockwise in degrees, as orientation tags.
_TURNS = {0: 1, 90: 8, 180: 3, 270: 6}


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtra("video", "reading video files") from None
    return av


@dataclass(frozen=True)
class _Index:
    """Time stamps of all frames in the order shown, those to start decoding from, size and turn."""

    times: tuple[int, ...]
    starts: tuple[int, ...]
    height: int
    width: int
    orientation: int


@lru_cache(maxsize=64)
def _index(path: str, changed_ns: int, size: int) -> _Index:
    """Scan the packets of a clip, decoding only its first frame; `changed_ns` and `size` keep it fresh."""
    av = _av()
    with av.open(path) as container:
        if not container.streams.video:
            raise unreadable(path, "there are no pictures in this video")
        times, starts = [], []
        for packet in container.demux(container.streams.video[0]):
            if packet.size and packet.pts is not None and not packet.is_discard:
                times.append(int(packet.pts))
                if packet.is_keyframe:
                    starts.append(int(packet.pts))
    with av.open(path) as container:
        first = next(container.decode(container.streams.video[0]), None)
        if first is None or not times:
            raise unreadable(path, "no frame of this video can be decoded")
        turn = int(getattr(first, "rotation", 0)) % 360
        height, width = first.height, first.width
    return _Index(tuple(sorted(times)), tuple(sorted(starts)), height, width, _TURNS.get(turn, 1))


def _frames(path: str, index: _Index, first: int) -> Generator[np.ndarray, None, None]:
    """The frames from `first` on as (H, W, 3), decoded from the last start before it."""
    av = _av()
    wanted = index.times[first:]
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        at = bisect_right(index.starts, wanted[0]) - 1
        if at > 0:
            container.seek(index.starts[at], stream=stream, backward=True)
        found = first
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < wanted[0]:
                continue
            if frame.pts != index.times[found]:
                raise unreadable(f"{path}#{found}", "this frame cannot be decoded")
            yield frame.to_ndarray(format="rgb24")
            found += 1
            if found == len(index.times):
                return
    raise unreadable(f"{path}#{found}", "the clip ends before this frame", "it is damaged or cut off")


class _Reader:
    """Windows of a clip; a read that begins where the last one ended goes on decoding there."""

    def __init__(self, path: str, index: _Index) -> None:
        self._path, self._index = path, index
        self._next = -1
        self._frames: Generator[np.ndarray, None, None] | None = None

    def __call__(self, window: Window) -> np.ndarray:
        planes, rows, columns = window
        if self._frames is None or planes.start != self._next:
            self.close()
            self._frames = _frames(self._path, self._index, planes.start)
        count = planes.stop - planes.start
        stack = np.stack([frame[rows, columns] for frame in islice(self._frames, count)])
        self._next = planes.stop
        return np.ascontiguousarray(stack.transpose(3, 0, 1, 2))

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()


@contextmanager
def open_video(path: Path) -> Iterator[Opened]:
    """Open a clip as a stack (3, frames, H, W)."""
    av = _av()
    av.logging.set_level(None)
    status = path.stat()
    index = _index(str(path), status.st_mtime_ns, status.st_size)
    header = Header(
        ref=str(path),
        format="video",
        shape=(3, len(index.times), index.height, index.width),
        dtype=np.dtype(np.uint8),
        colour="rgb",
        lossy=True,
        orientation=index.orientation,
        file_bytes=status.st_size,
    )

    reader = _Reader(str(path), index)
    try:
        yield Opened(header, reader, streamable=True)
    finally:
        reader.close()
