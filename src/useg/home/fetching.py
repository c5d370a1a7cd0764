"""Objects of a home as files of this machine's cache: each fetched once by all its processes, in few large requests."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TypeVar

from useg.errors import DamagedFile
from useg.home.cache import Cache
from useg.home.locks import claims_in
from useg.home.moved import count_moved
from useg.home.objects import LOT_BYTES, Objects, in_lots
from useg.home.peers import Peers, Wanted

_Piece = TypeVar("_Piece", bytes, tuple[str, bytes])
_WAIT_S = 0.01


class Stopped(Exception):
    """Nobody waits for these files any more."""


class Fetcher:
    """Files of a home's objects; safe for several threads, and for several processes on one cache.

    Args:
        objects: of the home.
        cache: where files are kept.
        peers: machines that share what they have fetched.
    """

    def __init__(self, objects: Objects, cache: Cache, peers: Peers | None = None) -> None:
        self.objects, self.cache, self._peers = objects, cache, peers

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
        owners = self._peers.owners(self.objects, [*suffixes]) if self._peers else {}
        any_claimed = False
        for lot in self._lots(suffixes, owners):
            _check(stop)
            with claims_in(self.cache.folder).claim(lot) as claimed:
                any_claimed = any_claimed or bool(claimed)
                # it may have come before the one who had claimed it let go
                still = {digest: [s for s in suffixes[digest] if not self.cache.path(digest, s)] for digest in claimed}
                absent: Mapping[str, Sequence[str]] = {digest: left for digest, left in still.items() if left}
                if self._peers and not owners.keys().isdisjoint(absent):
                    absent = self._fill_from(self._peers, owners, absent, stop)
                self._fill(absent, stop)
        return any_claimed

    def _lots(self, digests: Iterable[str], owners: Mapping[str, str]) -> Iterator[list[str]]:
        """What others wait for comes first: who waits for others holds nothing that they ask this machine for."""
        for part in (False, True):
            ours = (digest for digest in digests if (digest in owners) == part)
            yield from in_lots((digest, self.objects.length(digest)) for digest in ours)

    def _fill(self, suffixes: Mapping[str, Sequence[str]], stop: Event) -> None:
        packed, came = [], _Came(stop)
        for digest, absent in suffixes.items():
            whole = self.objects.store.path(f"packs/{digest}")
            for suffix in absent:
                if whole is not None and whole.is_file():
                    self.cache.lend(digest, whole, suffix)
                elif self.objects.length(digest) > LOT_BYTES:
                    self.cache.add(digest, came.through(self.objects.stream(digest)), suffix)
                else:
                    packed.append(digest)
                    break
        if packed:
            coming = came.through(self.objects.get_many(packed))
            self.cache.add_many((digest, suffix, content) for digest, content in coming for suffix in suffixes[digest])
        count_moved(self.cache.folder, home=came.bytes)

    def _fill_from(
        self, peers: Peers, owners: Mapping[str, str], suffixes: Mapping[str, Sequence[str]], stop: Event
    ) -> dict[str, Sequence[str]]:
        """Keep what other machines give; returns what is left to the home."""
        left, shares, large = dict(suffixes), defaultdict[str, list[Wanted]](list), list[str]()
        came = _Came(stop)
        for digest in (digest for digest in suffixes if digest in owners):
            if self.objects.length(digest) > LOT_BYTES:
                large.append(digest)
            else:
                shares[owners[digest]].append((digest, suffixes[digest][0]))

        def small() -> Iterator[tuple[str, str, bytes]]:
            for digest, content in came.through(peers.get_many(shares)):
                for suffix in left.pop(digest, ()):
                    yield digest, suffix, content

        self.cache.add_many(small())
        for digest in large:
            with suppress(DamagedFile):  # it broke off
                for suffix in suffixes[digest]:
                    self.cache.add(digest, came.through(peers.stream(owners[digest], (digest, suffix))), suffix)
                del left[digest]
        count_moved(self.cache.folder, nodes=came.bytes)
        return left


def _check(stop: Event) -> None:
    if stop.is_set():
        raise Stopped


class _Came:
    """Counts what comes, and ends it where it is told to stop."""

    def __init__(self, stop: Event) -> None:
        self._stop, self.bytes = stop, 0

    def through(self, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
        for piece in pieces:
            _check(self._stop)
            content = piece if isinstance(piece, bytes) else piece[1]
            self.bytes += len(content)
            yield piece


__all__ = ["Fetcher", "Stopped", "Wanted"]
