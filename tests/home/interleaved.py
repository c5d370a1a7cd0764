"""Threads that use one store by turns: a test decides who does the next operation, so every order can be tried."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Condition, Thread

from tests.home.faults import Killed

from useg.home.store import Entry, Store


class Turns(Store):
    """A store each operation of which waits to be let through."""

    def __init__(self, inner: Store) -> None:
        self.inner, self.url = inner, inner.url
        self._changed = Condition()
        self._allowed = 0
        self._is_waiting = self._is_killed = False

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self._wait()
        return self.inner.get(key, start, end)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self._wait()
        return self.inner.get_ranges(key, ranges)

    def put(self, key: str, content: bytes | Path) -> bool:
        self._wait()
        return self.inner.put(key, content)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        self._wait()
        return iter([*self.inner.list(prefix)])

    def delete(self, key: str) -> None:
        self._wait()
        self.inner.delete(key)

    def time(self) -> float:
        self._wait()
        return self.inner.time()

    def _wait(self) -> None:
        with self._changed:
            self._is_waiting = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._allowed or self._is_killed)
            if self._is_killed:
                raise Killed
            self._allowed -= 1
            self._is_waiting = False


class Actor:
    """Some work in a thread of its own, which goes on by one operation of the store at a time.

    Attributes:
        is_done: it has come to its end, or was killed.
        error: what it raised.
    """

    def __init__(self, store: Store, work: Callable[["Actor", Store], None]) -> None:
        self.store = Turns(store)
        self.is_done = False
        self.error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        self._settle()

    def step(self, count: int = 1) -> None:
        """Let it do so many operations."""
        for _ in range(count):
            if self.is_done:
                return
            with self.store._changed:
                self.store._allowed += 1
                self.store._is_waiting = False
                self.store._changed.notify_all()
            self._settle()

    def finish(self) -> None:
        """Let it come to its end."""
        while not self.is_done:
            self.step()

    def kill(self) -> None:
        """End it where it is."""
        with self.store._changed:
            self.store._is_killed = True
            self.store._changed.notify_all()
        self._thread.join(10)
        assert self.is_done

    def _settle(self) -> None:
        with self.store._changed:
            settled = self.store._changed.wait_for(lambda: self.store._is_waiting or self.is_done, 10)
        assert settled, "it waits for something else than its turn"

    def _run(self, work: Callable[["Actor", Store], None]) -> None:
        try:
            work(self, self.store)
        except BaseException as error:
            self.error = error
        with self.store._changed:
            self.is_done = True
            self.store._changed.notify_all()


class Inline:
    """Stands in for a pool of threads: does everything at once, in the thread of who asks."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., object], *arguments: object) -> Future[object]:
        future: Future[object] = Future()
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: object) -> None:
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        pass
