"""Where a dispatcher's jobs run: as processes of this machine, or on the nodes of a cluster."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import orjson

from useg.errors import InputError
from useg.experiments.cluster import Cluster, Node, connected
from useg.experiments.cluster import Work as ClusterWork
from useg.experiments.ordered import Order, as_line, carry_out
from useg.experiments.sharing_out import ready
from useg.runs.hardware import cores, gpus

_LOOK_S = 5.0


class ThisMachine:
    """Jobs as processes here, each with cores and GPUs of its own."""

    def __init__(self) -> None:
        known, visible = cores(), os.environ.get("CUDA_VISIBLE_DEVICES")
        names = map(str, range(len(gpus()["models"]))) if visible is None else filter(None, visible.split(","))
        self._free, self._told = [*names], Event()
        count = max(1, int(min(known["affinity"] or 1, known["quota"] or math.inf)))
        self._nodes = (Node("here", os.uname().nodename, count, len(self._free)),)

    def nodes(self) -> Sequence[Node]:
        """This one."""
        return self._nodes

    def start(self, order: Order, cpus: int, gpus: int) -> "Process":
        """Have an order carried out by a process."""
        devices = self._free[:gpus]
        del self._free[:gpus]
        return Process(order, devices, self._free, self._told)

    def wait(self, works: Sequence[Any], timeout_s: float) -> None:
        """Until one of them has something to tell, or for so long."""
        if self._told.wait(timeout_s):
            self._told.clear()


class Process:
    """A process that carries out an order, and ends when this one does.

    Attributes:
        node: here. is_over: whether nothing more comes. problem: why it did not end well. is_lost: it died.
    """

    def __init__(self, order: Order, devices: list[str], free: list[str], told: Event) -> None:
        self.node: str | None = "here"
        self.problem: str | None = None
        self.is_over = self.is_lost = False
        self._devices, self._free, self._told = devices, free, told
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "useg.experiments.ordered"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(devices)}, start_new_session=True,
        )  # fmt: skip
        with suppress(BrokenPipeError):
            self._stdin().write(as_line(order))
            self._stdin().flush()
        Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def heard(self) -> list[Any]:
        """What it has told since this was last asked."""
        found: list[Any] = []
        while not self.is_over:
            try:
                line = self._lines.get_nowait()
            except Empty:
                break
            if line is None:
                code = self._process.wait()
                self.is_over, self.is_lost = True, code != 0
                self.problem = f"its process ended with status {code}" if code else None
                self._free += self._devices
            else:
                found.append(orjson.loads(line))
        return found

    def cancel(self, *, at_once: bool = False) -> None:
        """Interrupt it: its training saves and stops."""
        with suppress(OSError):
            self._stdin().close()
        if at_once:
            self._process.send_signal(signal.SIGKILL)

    def _stdin(self) -> Any:
        return self._process.stdin

    def _read(self, stdout: Iterable[bytes]) -> None:
        for line in stdout:
            self._lines.put(line)
            self._told.set()
        self._lines.put(None)
        self._told.set()


class OnCluster:
    """Jobs on the nodes of a cluster; it may grow and shrink.

    Args:
        cluster: connected.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._looked = cluster, time.monotonic()

    def nodes(self) -> Sequence[Node]:
        """Those that give CPUs, as of the last seconds."""
        if time.monotonic() > self._looked + _LOOK_S:
            self._looked = time.monotonic()
            try:
                self._cluster.look()
            except InputError:
                return ()
        return self._cluster.nodes

    def start(self, order: Order, cpus: int, gpus: int) -> ClusterWork:
        """Have an order carried out where so much is free."""
        return self._cluster.start(carry_out, order, cpus=cpus, gpus=gpus)

    def wait(self, works: Sequence[Any], timeout_s: float) -> None:
        """Until one of them has something to tell, or for so long."""
        if any(not work.is_over for work in works):
            self._cluster.wait(works, timeout_s)
        else:
            time.sleep(timeout_s)


@contextmanager
def place_at(
    on: str | None, address: str, note: Callable[[str], None]
) -> Iterator[tuple[ThisMachine | OnCluster, dict[str, str]]]:
    """Where jobs of a home run, and what is needed there to open it.

    Args:
        on: of a cluster; None for this machine. address: of the home. note: told what one should know of the cluster.

    Raises:
        InputError: there is no such cluster, or a node of it cannot do this work.
    """
    if on is None:
        yield ThisMachine(), {}
        return
    with connected(on, note) as cluster, ready(cluster, address, note) as environment:
        yield OnCluster(cluster), environment


__all__ = ["OnCluster", "Process", "ThisMachine", "place_at"]
