"""Objects of a home as files of this machine's cache: each fetched once by all its processes, in few large requests."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

from useg.home.cache import Cache
from useg.home.locks import claims_in
from useg.home.objects import LOT_BYTES, Objects, in_lots

_Piece = TypeVar("_Piece")
Wanted = tuple[str, str]
"""A digest, and the suffix that its file is to have."""

_WAIT_S = 0.01


class Stopped(Exception):
    """Nobody waits for these files any more."""


class Fetcher:
    """Files of a home's objects; safe for several threads, and for several processes on one cache.

    Args:
        objects: of the home.
        cache: where files are kept.
    """

    def __init__(self, objects: Objects, cache: Cache) -> None:
        self.objects, self.cache = objects, cache

    def files(self, wanted: Sequence[Wanted], *, stop: Event | None = None) -> list[Path]:
        """The files of these objects, in this order; those that are not here are fetched together.

        While nobody pins them, they may go as the least recently used.

        Args:
            wanted: digests and suffixes.
            stop: ends the fetching when it is set.

        Raises:
            Missing: the home does not have one. DamagedFile: its bytes are not what was written.
            ResourceError: the disk or the cache is full. Stopped: it was set.
        """
        paths = [path for each in wanted if (path := self.cache.path(*each)) is not None]
        if len(paths) == len(wanted):
            return paths
        stop = stop or Event()
        # pinned, so that what is here already does not make room for what is not
        with self.cache.pin({digest for digest, _ in wanted}):
            while True:
                found = {each: self.cache.path(*each) for each in wanted}
                missing = [each for each, path in found.items() if path is None]
                if not missing:
                    return [path for each in wanted if (path := found[each]) is not None]
                if not self._fetch(missing, stop):
                    time.sleep(_WAIT_S)

    @contextmanager
    def holding(self, wanted: Sequence[Wanted], *, stop: Event | None = None) -> Iterator[list[Path]]:
        """Meanwhile these files stay; see `files`."""
        with self.cache.pin({digest for digest, _ in wanted}):
            yield self.files(wanted, stop=stop)

    def _fetch(self, missing: Sequence[Wanted], stop: Event) -> bool:
        """Fetch what nobody else is fetching; False when others fetch all of it."""
        suffixes: defaultdict[str, list[str]] = defaultdict(list)
        for digest, suffix in missing:
            suffixes[digest].append(suffix)
        any_claimed = False
        for lot in in_lots((digest, self.objects.length(digest)) for digest in suffixes):
            _check(stop)
            with claims_in(self.cache.folder).claim(lot) as claimed:
                any_claimed = any_claimed or bool(claimed)
                # it may have come before the one who had claimed it let go
                still = {digest: [s for s in suffixes[digest] if not self.cache.path(digest, s)] for digest in claimed}
                self._fill({digest: absent for digest, absent in still.items() if absent}, stop)
        return any_claimed

    def _fill(self, suffixes: Mapping[str, Sequence[str]], stop: Event) -> None:
        packed = []
        for digest, absent in suffixes.items():
            whole = self.objects.store.path(f"packs/{digest}")
            for suffix in absent:
                if whole is not None and whole.is_file():
                    self.cache.lend(digest, whole, suffix)
                elif self.objects.length(digest) > LOT_BYTES:
                    self.cache.add(digest, _unless(stop, self.objects.stream(digest)), suffix)
                else:
                    packed.append(digest)
                    break
        if packed:
            coming = _unless(stop, self.objects.get_many(packed))
            self.cache.add_many((digest, suffix, content) for digest, content in coming for suffix in suffixes[digest])


def _check(stop: Event) -> None:
    if stop.is_set():
        raise Stopped


def _unless(stop: Event, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    for piece in pieces:
        _check(stop)
        yield piece


__all__ = ["Fetcher", "Stopped", "Wanted"]
