"""A store that fails where a test wants it to: killed, refused, cut short, or with a clock that jumps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

from useg.errors import ResourceError
from useg.home.store import Entry, Store

VERBS = ("get", "put", "list", "delete", "time")
WRITES = ("put", "delete")
T = TypeVar("T")


class Killed(BaseException):
    """The process ended here, as by kill -9; nothing may catch it."""


@dataclass(eq=False)
class Faulty(Store):
    """Another store, with faults.

    The operations that count are numbered from 0. `get_ranges` counts as one `get`.

    Attributes:
        inner: what is really there; look into it afterwards.
        kill_at: the process ends at this operation: it and all later ones raise `Killed`.
        fail_at: this operation raises a `ResourceError`, as when the disk is full.
        fail_times: so do the ones after it, this many in all.
        is_after_effect: the fault comes after the operation has been done, its answer is lost.
        verbs: which operations count.
        truncated: how many bytes `get` gives at most of a key's content, by key.
        clock_shift_s: added to the clock; change it at any time.
        calls: (verb, key) of every operation so far, counted or not.
    """

    inner: Store
    kill_at: int | None = None
    fail_at: int | None = None
    fail_times: int = 1
    is_after_effect: bool = False
    verbs: Sequence[str] = WRITES
    truncated: dict[str, int] = field(default_factory=dict)
    clock_shift_s: float = 0.0
    calls: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.url = self.inner.url
        self._numbers = count()
        self._is_dead = False

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._do("get", key, lambda: self._cut(key, start, end))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return self._do("get", key, lambda: [self._cut(key, start, end) for start, end in ranges])

    def put(self, key: str, content: bytes | Path) -> bool:
        return self._do("put", key, lambda: self.inner.put(key, content))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        return iter(self._do("list", prefix, lambda: [*self.inner.list(prefix)]))

    def delete(self, key: str) -> None:
        return self._do("delete", key, lambda: self.inner.delete(key))

    def time(self) -> float:
        return self._do("time", "", self.inner.time) + self.clock_shift_s

    def path(self, key: str) -> Path | None:
        return None if key in self.truncated else self.inner.path(key)

    def requests(self, verb: str | None = None) -> int:
        """How many operations there were, of this verb or of all."""
        return sum(verb in (None, done) for done, _ in self.calls)

    def _cut(self, key: str, start: int, end: int | None) -> bytes:
        if key in self.truncated:
            return self.inner.get(key)[: self.truncated[key]][start:end]
        return self.inner.get(key, start, end)

    def _do(self, verb: str, key: str, operation: Callable[[], T]) -> T:
        self.calls.append((verb, key))
        if self._is_dead:
            raise Killed(verb, key)
        if verb not in self.verbs:
            return operation()
        number = next(self._numbers)
        is_killed = number == self.kill_at
        if not is_killed and (self.fail_at is None or not 0 <= number - self.fail_at < self.fail_times):
            return operation()
        if self.is_after_effect:
            operation()
        if is_killed:
            self._is_dead = True
            raise Killed(verb, key)
        raise ResourceError(f"{self.url}/{key}: cannot write: No space left on device")


def crashes(
    fresh: Callable[[], Store], work: Callable[[Store], object], *, verbs: Sequence[str] = WRITES
) -> Iterator[Store]:
    """Do some work on a fresh store, killed before and after each of its operations in turn; what each crash has left.

    Example:
        for left in crashes(Memory, lambda store: commit(store)):
            assert is_sound(left)
    """
    number = 0
    while True:
        for is_after_effect in (False, True):
            faulty = Faulty(fresh(), kill_at=number, is_after_effect=is_after_effect, verbs=verbs)
            try:
                work(faulty)
            except Killed:
                yield faulty.inner
            else:
                assert number, "there was nothing at which it could be killed"
                return
        number += 1
