"""One training on the nodes of a cluster: its first worker an ordinary `useg train` there, the others beside it."""

import os
import socket
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import orjson

from useg.config import Config
from useg.data.views import View
from useg.errors import ConfigError, InputError, ResourceError, UsegError
from useg.experiments.cluster import Cluster, Work, address_here, connected
from useg.experiments.listening import Listener
from useg.experiments.ordered import Order, carry_out, threads_of, words_and_files
from useg.experiments.prepare import MEETING
from useg.experiments.sharing_out import ready
from useg.home.opening import is_folder, open_home
from useg.home.store import Missing
from useg.runs.bringing import bring
from useg.runs.find import find_run
from useg.runs.lease import check_free, stop_run
from useg.runs.numbers import from_json

MOST_DEATHS = 3
"""A training whose workers died so often is not begun again."""
_WAIT_S = 0.5
_TO_END_S = 15.0
_TO_CLOSE_S = 120.0
_INPUTS_S = 120.0
_INPUTS = ("plan.toml", "config.json", "samples.json", "splits.json", "mapping.json", "fingerprint.json")
_GROW_AFTER = 10
"""A training with less workers than it may have looks for room after the time of so many checkpoints."""
_TO_FREE_S = 10.0


class Share(TypedDict):
    """What each worker has of a node."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Wanted:
    """How many workers there may be.

    Attributes:
        least, most: of them. grow_s: with less than `most`, room for more is looked for so often.
    """

    least: int
    most: int
    grow_s: float

    @classmethod
    def of(cls, config: Config) -> "Wanted":
        """As settings say."""
        least = config.workers if config.least_workers is None else config.least_workers
        return cls(least, config.workers, _GROW_AFTER * config.train.checkpoint_seconds)

    def world(self, room: int, least: int = 1) -> int:
        """The most that share the micro-batches of a step evenly and have room; 0 where that is less than `least`."""
        return max((n for n in range(least, self.most + 1) if self.most % n == 0 and n <= room), default=0)


def train_on(
    on: str, address: str, data: Path | View | None, config: Config, options: Mapping[str, Sequence[str | None] | None],
    files: Mapping[str, Path | None], resume: str | None, listener: Listener,
) -> dict[str, Any]:  # fmt: skip
    """Train on a cluster, or go on with a run there.

    Args:
        on: of the cluster. address: of the home. data: a data set of it. config: settings.
        options: further ones of `useg train`. files: those that name a file. resume: id of a run to go on with.
        listener: where words go, and who asks to stop.

    Returns:
        What `useg train` returns, with places in the home.

    Raises:
        InputError, ConfigError: before anything is written. ResourceError: workers died too often.
    """
    if data is None and resume is None:
        raise InputError("nothing to train on: name a data set of the home, or a run to --resume")
    words, contents = words_and_files(None if resume is not None else data, config, options, files)
    threads = threads_of(config, contents)
    if resume is not None:
        resume, config, threads = _recalled(address, resume)
    wanted = Wanted.of(config)
    if config.folds:
        raise ConfigError("folds are trained one after another here: have a sweep with `folds = K` train them on nodes")
    with connected(on, listener.note) as cluster:
        most = max(node.cpus for node in cluster.nodes)
        threads = threads or max((n for n in range(1, most + 1) if cluster.room(n) >= wanted.least), default=1)
        gpus = int(any(node.gpus for node in cluster.nodes))
        if not wanted.world(cluster.room(threads, gpus), wanted.least):
            there = ", ".join(f"{node.host} {node.cpus} cores and {node.gpus} GPUs" for node in cluster.nodes)
            raise ConfigError(
                f"{wanted.least} workers of {threads} cores each are more than {on} can ever have ({there}); "
                "lower --workers or train.threads"
            )
        with ready(cluster, address, listener.note) as environment:
            order = Order(address, (*words, "--set", f"train.threads={threads}"), contents, resume, environment)
            return _until_done(cluster, order, wanted, Share(cpus=threads, gpus=gpus), listener)


def _recalled(address: str, resume: str) -> tuple[str, Config, int]:
    """Id, settings and threads of a run of the home."""
    run = find_run(Path(address), resume).name if is_folder(address) else resume
    store = open_home(address)[0]
    try:
        config = Config.model_validate(from_json(store.get(f"runs/{run}/config.json")))
        threads = tomllib.loads(store.get(f"runs/{run}/plan.toml").decode())["threads"]
    except Missing:
        raise InputError(f"no run {run!r} in {address} that can be gone on with; give its whole id") from None
    check_free(store, run)
    return run, config, threads


def _until_done(cluster: Cluster, order: Order, wanted: Wanted, share: Share, listener: Listener) -> dict[str, Any]:
    """Train; begin again where workers die, on what is left, and where there is room for more of them."""
    deaths = 0
    while deaths <= MOST_DEATHS:
        world = _room(cluster, wanted, share)
        if not world:
            break
        if wanted.least < wanted.most:
            listener.note(f"{world} workers of {wanted.least} to {wanted.most}")
        group = _Group(cluster, order, world, wanted, share, listener)
        result = group.train()
        if result is not None:
            return result
        deaths += not group.grows
        order = replace(order, run=group.run)
        listener.note(group.problem if group.grows else f"warning: {group.problem}; it goes on with what is left")
    raise ResourceError(
        f"too many workers died, or no node has {share['cpus']} free cores any more"
        + (f"; go on with: useg train --resume {order.run} --on {cluster.address}" if order.run else "")
    )


def _room(cluster: Cluster, wanted: Wanted, share: Share) -> int:
    """How many workers to begin with: of a fixed number as many as there can be, which are waited for; of a range as
    many as are free, when what ran before has given back what it had, but not less than the least."""
    cluster.look()
    most = wanted.world(cluster.room(**share))
    if wanted.least == wanted.most:
        return most
    until = time.monotonic() + _TO_FREE_S
    while (world := wanted.world(cluster.free(**share), wanted.least)) < most and time.monotonic() < until:
        time.sleep(_WAIT_S)
    fitting = [n for n in range(wanted.least, most + 1) if wanted.most % n == 0]
    return world or min(fitting, default=0)


class _Group:
    """Workers that train together until all of them have ended.

    Attributes:
        run: its id, when it is known. problem: why it has to begin again. grows: to have more of them.
    """

    def __init__(
        self, cluster: Cluster, order: Order, world: int, wanted: Wanted, share: Share, listener: Listener
    ) -> None:
        self.run, self.problem, self.grows = order.run, "", False
        self._cluster, self._order, self._world = cluster, order, world
        self._wanted, self._look_at = wanted, time.monotonic() + wanted.grow_s
        self._share, self._listener = share, listener
        self._works: list[Work] = []
        self._meeting, self._end = "", (1, "", "")
        self._stop_after = 0.0

    def train(self) -> dict[str, Any] | None:
        """The result; None where a worker died, and the others have been ended."""
        with self._cluster.reserved(self._world, **self._share) as places:
            self._works = [self._cluster.start(lead, self._order, self._world, place=places[0], **self._share)]
            try:
                while not self._works[0].is_over and not any(work.is_over and work.problem for work in self._works):
                    self._listen()
                    if len(self._works) < self._world and self._meeting and self.run:
                        self._works += [
                            self._cluster.start(
                                beside, self._order, self.run, rank, self._world, self._meeting, place=place,
                                **self._share,
                            )
                            for rank, place in enumerate(places[1:], 1)
                        ]  # fmt: skip
                    self._cluster.wait([self._works[0]], _WAIT_S)
                self._listen()
                return self._ended()
            finally:
                self._close()

    def _listen(self) -> None:
        for kind, value in self._works[0].heard():
            if kind == "run":
                self.run = value
            elif kind == "meeting":
                self._meeting = value
            elif kind == "end":
                self._end = value
            else:
                self._listener.note(value)
        for work in self._works[1:]:
            work.heard()
        self._look_for_room()
        if (self._listener.stop.asked or self.grows) and time.monotonic() >= self._stop_after:
            self._stop_after = time.monotonic() + _TO_END_S
            if self.run is None or self._works[0].node is None:
                self._works[0].cancel()
            else:
                with suppress(UsegError):  # it has ended
                    stop_run(open_home(self._order.address)[0], self.run)

    def _look_for_room(self) -> None:
        """Whether more workers have room than there are; then this group saves and stops, for a larger one."""
        has_begun = self.run is not None and len(self._works) == self._world
        if self.grows or self._world == self._wanted.most or not has_begun or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._wanted.grow_s
        with suppress(InputError):  # no node is left, which is found out elsewhere
            self._cluster.look()
        world = self._wanted.world(self._world + self._cluster.free(**self._share))
        if world > self._world:
            self.grows, self.problem = True, f"there is room for {world} workers; it goes on with them"

    def _ended(self) -> dict[str, Any] | None:
        """What came of it; a worker that dies breaks the others off, and may be known to be dead after them."""
        first, until = self._works[0], time.monotonic() + _TO_END_S
        lost: list[Work] = []
        while not (self._end[1] or lost) and time.monotonic() < until:
            self._listen()
            lost = [work for work in self._works if work.is_lost]
            if len(self._works) == 1 and first.is_over:
                break
            time.sleep(_WAIT_S)
        code, result, said = self._end
        found = dict(orjson.loads(result)) if result else {}
        self.grows = self.grows and found.get("status") == "stopped" and not self._listener.stop.asked
        if self.grows:
            return None
        if found:
            return found
        if self._listener.stop.asked:
            raise KeyboardInterrupt
        self.problem = f"a worker died: {lost[0].problem}" if lost else "a worker was killed"
        if lost or code < 0:
            return None
        told = [said, *(work.problem for work in self._works), f"it ended with status {code}"]
        raise InputError(next(filter(None, told)))

    def _close(self) -> None:
        """End what still runs: the first one as Ctrl-C does, since it writes; the others at once."""
        first, *others = self._works
        for work in others:
            if not work.is_over:
                work.cancel(at_once=True)
        first.cancel()
        until = time.monotonic() + _TO_CLOSE_S
        while time.monotonic() < until and not first.is_over:
            first.heard()
            time.sleep(_WAIT_S)


def lead(order: Order, world: int) -> Iterator[tuple[str, Any]]:
    """Be the first worker, on this node.

    Yields:
        ("meeting", where the others find it), and what `carry_out` does.
    """
    with socket.socket() as free:
        free.bind(("", 0))
        meeting = f"tcp://{address_here()}:{free.getsockname()[1]}"
    _name_interface()
    yield "meeting", meeting
    yield from carry_out(order, {MEETING: f"{meeting} {world}"})


def beside(order: Order, run: str, rank: int, world: int, meeting: str) -> Iterator[Any]:
    """Be another worker, on this node, until the first one has ended."""
    from useg.experiments.workers import accompany

    os.environ.update(order.environment)
    _name_interface()
    if is_folder(order.address):
        accompany(Path(order.address) / "runs" / run, rank, world, meeting)
        return
    store, until = open_home(order.address)[0], time.monotonic() + _INPUTS_S
    while time.monotonic() < until:  # its keeper brings them
        there = {entry.key for entry in store.list(f"runs/{run}/")}
        if there.issuperset(f"runs/{run}/{name}" for name in _INPUTS):
            break
        time.sleep(_WAIT_S)
    with tempfile.TemporaryDirectory(prefix="useg-beside-") as place:
        accompany(bring(store, run, Path(place), only_inputs=True), rank, world, meeting)
    yield from ()


def _name_interface() -> None:
    """Tell torch.distributed by which network the others are reached; what a host's name means is often loopback."""
    import psutil

    mine = address_here()
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == mine for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


__all__ = ["beside", "lead", "train_on"]
