"""Files fetched before they are asked for, by a thread that follows the order in which they will be."""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from os.path import exists
from pathlib import Path
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Self

from useg.errors import ResourceError, UsegError
from useg.home.cache import room_of
from useg.home.fetching import Fetcher, Stopped, Wanted

_LOT_BYTES = 16 * 2**20
_LOT_GROUPS = 64
_SLACK = 64
"""By how many groups the order of asking may differ from the order that was told."""


@dataclass(frozen=True)
class _Group:
    """Files that are asked for together, e.g. an image and its labels."""

    wanted: tuple[Wanted, ...]
    paths: list[Path]
    room: int


class Ahead:
    """Groups of files, ready before they are asked for and pinned until they were read.

    Groups may be asked for from several threads, in about the order told; what is never asked for is passed over, and
    what was not foreseen is fetched at once. A group that could not be fetched ahead is fetched again when it is asked
    for, so that whoever needs it gets it late or gets the error.

    Args:
        fetcher: what fetches.
        order: the groups in the order in which they will be asked for; it may be endless.
        depth_bytes: how much may lie ready; at most half of the cache is used.
    """

    def __init__(self, fetcher: Fetcher, order: Iterable[Sequence[Wanted]], *, depth_bytes: int = 512 * 2**20) -> None:
        self._fetcher = fetcher
        self._order = iter(order)
        self._depth = min(depth_bytes, fetcher.cache.max_bytes // 2)
        self._ready: OrderedDict[int, _Group] = OrderedDict()
        self._places: defaultdict[tuple[Wanted, ...], deque[int]] = defaultdict(deque)
        self._coming: list[tuple[Wanted, ...]] = []
        self._held: list[_Group] = []
        self._room = 0
        self._asked = self._waiting = 0
        self._at_work = False
        self._pinned = 0
        self._broken: Exception | None = None
        self._stop = Event()
        self._changed = Condition()
        self._pin = fetcher.cache.pin()
        self._thread = Thread(target=self._run, name="fetch-ahead", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, wanted: Sequence[Wanted]) -> Iterator[list[Path]]:
        """The files of these objects, in this order, which stay meanwhile; see `Fetcher.files`.

        Raises:
            UsegError: what `Fetcher.files` raises. Whatever `order` raised.
        """
        key = tuple(wanted)
        with self._changed:
            if self._broken is not None:
                raise self._broken
            group = self._meet(key)
            self._asked += 1
            self._changed.notify_all()
        if group is None:
            with ExitStack() as stack:
                try:
                    paths = stack.enter_context(self._fetcher.holding(key))
                except ResourceError:  # what lies ready may take the room
                    with self._standing_back():
                        paths = stack.enter_context(self._fetcher.holding(key))
                yield paths
            return
        try:
            yield group.paths
        finally:
            with self._changed:
                self._held = [held for held in self._held if held is not group]
                if self._waiting:
                    self._hold_only_what_is_read()

    def close(self) -> None:
        """Stop fetching, and let go of what is pinned."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        self._thread.join()
        self._pin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _meet(self, key: tuple[Wanted, ...]) -> _Group | None:
        """Under the lock: take a group that is ready, and pass over those that were due long before it."""
        if key in self._places:
            place = self._places[key][0]
            group = self._drop(place)
            self._held.append(group)
            while self._ready and next(iter(self._ready)) < place - _SLACK:
                self._drop(next(iter(self._ready)))
            return group
        if key in self._coming:
            self._coming.remove(key)
        elif self._room >= self._depth:
            # what is ready lags behind what is asked for: let it catch up
            for place in list(self._ready)[:2]:
                self._drop(place)
        return None

    @contextmanager
    def _standing_back(self) -> Iterator[None]:
        """Meanwhile, the room of what nobody has asked for yet is for somebody who waits."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._at_work)
            for place in list(self._ready):
                self._drop(place)
            self._hold_only_what_is_read()
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

    def _hold_only_what_is_read(self) -> None:
        self._pin.hold([digest for group in self._held for digest, _ in group.wanted])

    def _drop(self, place: int) -> _Group:
        group = self._ready.pop(place)
        self._room -= group.room
        places = self._places[group.wanted]
        places.remove(place)
        if not places:
            del self._places[group.wanted]
        return group

    def _run(self) -> None:
        try:
            place = 0
            most = 1  # the first groups are wanted soon, and few of them come soonest
            while not self._stop.is_set() and (lot := list(self._lot(most))):
                asked = self._asked
                try:
                    groups = self._fetch(lot)
                except (UsegError, OSError):
                    # whoever asks for one of these gets the error; until somebody asks, trying on would be no use
                    with self._changed:
                        self._rest()
                        self._changed.wait_for(lambda: self._stop.is_set() or self._asked > asked)  # noqa: B023
                    continue
                self._add(place, groups)
                place += len(groups)
                most = min(2 * most, _LOT_GROUPS)
        except Stopped:
            pass
        except Exception as error:  # raised again by whoever asks next
            with self._changed:
                self._broken = error
        finally:
            with self._changed:
                self._rest()

    def _lot(self, most: int) -> Iterator[_Group]:
        """The next groups, when there is room for them."""
        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or (self._room < self._depth and not self._waiting))
            self._at_work = True
            left = min(self._depth - self._room, _LOT_BYTES)
        for wanted in self._order:
            group = self._look(tuple(wanted))
            yield group
            most, left = most - 1, left - group.room
            if most == 0 or left <= 0 or self._stop.is_set():
                return

    def _look(self, wanted: tuple[Wanted, ...]) -> _Group:
        """A group with the files that are here already."""
        paths, room = [], 0
        for digest, suffix in wanted:
            found = self._fetcher.cache.look(digest, suffix)
            if found is not None:
                paths.append(found[0])
                room += room_of(found[1])
            else:
                with suppress(UsegError):  # told when it is fetched
                    room += room_of(self._fetcher.objects.length(digest))
        return _Group(wanted, paths, room)

    def _fetch(self, lot: list[_Group]) -> list[_Group]:
        self._hold(lot)
        # those that were all here may have gone before they were pinned
        here = {id(group) for group in lot if len(group.paths) == len(group.wanted) and all(map(exists, group.paths))}
        lacking = [each for group in lot if id(group) not in here for each in group.wanted]
        paths = iter(self._fetcher.files(lacking, stop=self._stop))
        return [
            group if id(group) in here else replace(group, paths=[next(paths) for _ in group.wanted]) for group in lot
        ]

    def _hold(self, lot: list[_Group]) -> None:
        with self._changed:
            self._coming = [group.wanted for group in lot]
            groups = [*self._ready.values(), *self._held]
        coming = [digest for group in lot for digest, _ in group.wanted]
        size = sum(group.room for group in lot)
        self._pinned += size
        # what was passed is let go now and then: each time would be most of the work where all files are here already
        if self._pinned > self._depth + min(self._depth, self._fetcher.cache.max_bytes // 4):
            self._pin.hold([*coming, *(digest for group in groups for digest, _ in group.wanted)])
            self._pinned = size + sum(group.room for group in groups)
        else:
            self._pin.hold_also(coming)

    def _add(self, place: int, groups: list[_Group]) -> None:
        with self._changed:
            for offset, group in enumerate(groups):
                if group.wanted not in self._coming:  # asked for while it came
                    continue
                self._coming.remove(group.wanted)
                self._ready[place + offset] = group
                self._places[group.wanted].append(place + offset)
                self._room += group.room
            self._rest()

    def _rest(self) -> None:
        """Under the lock: nothing is being fetched now."""
        self._coming, self._at_work = [], False
        self._changed.notify_all()
