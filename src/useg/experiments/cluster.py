"""A Ray cluster: reached with its token, looked over before it gets work; the only module that knows Ray."""

import math
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from useg import __version__
from useg.errors import InputError, MissingExtra, ResourceError, UsegError
from useg.home.opening import is_folder, open_home
from useg.home.peers import HERE
from useg.home.served import token_for

_REACH_S = 5.0
_LOOK_S = 180.0
_GET_S = 60.0
_NODES_S = 2.0
_JOIN_S = 45.0
_CREDENTIALS = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}

Place = tuple[Any, int]


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that gives CPUs.

    Attributes:
        id: Ray's. host: its name. cpus, gpus: how many it gives.
    """

    id: str
    host: str
    cpus: int
    gpus: int


class Work:
    """A generator that runs on some node, followed from here.

    Attributes:
        node: where it runs; None before it has begun. is_over: whether nothing more comes.
        problem: what it raised, as text. is_lost: whether its node or its process died.
    """

    def __init__(self, cluster: "Cluster", stream: Any) -> None:
        self._cluster, self._stream, self._next = cluster, stream, None
        self.node: str | None = None
        self.problem: str | None = None
        self.is_over = self.is_lost = False

    def heard(self) -> list[Any]:
        """What it has told since this was last asked."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError, RayTaskError

        found: list[Any] = []
        while not self.is_over and (self._next is not None or ray.wait([self._stream], timeout=0)[0]):
            try:
                self._next = next(self._stream) if self._next is None else self._next
                found.append(ray.get(self._next, timeout=_GET_S))
            except StopIteration:
                self.is_over = True
            except GetTimeoutError:
                break
            except RayTaskError as error:
                cause = error.cause
                said = str(cause) if isinstance(cause, UsegError) else f"{type(cause).__name__}: {cause}"
                self.is_over, self.problem = True, said
            except RayError as error:
                self.is_over = self.is_lost = True
                self.problem = str(error).strip().partition("\n")[0]
            self._next = None
        if found and self.node is None:
            self.node = found.pop(0)
        # what waits for an answer of a machine that is cut off would wait for long
        if not self.is_over and self.node is not None and self.node not in self._cluster.alive():
            self.is_over = self.is_lost = True
            self.problem = "its node died"
        return found

    def cancel(self, *, at_once: bool = False) -> None:
        """Interrupt it; it may still tell of its end, but not `at_once`, which ends its process."""
        import ray

        with suppress(Exception):  # it has ended, or its node has
            ray.cancel(self._stream, force=at_once)


class Cluster:
    """A cluster that this process is connected to; see `connected`.

    Attributes:
        address: as it was given. nodes: those that give CPUs.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._alive: set[str] = set()
        self._looked = -_NODES_S
        self.look()

    def alive(self) -> set[str]:
        """Ids of the nodes that live, as of the last seconds."""
        if time.monotonic() - self._looked > _NODES_S:
            self._alive, self._looked = {each["NodeID"] for each in self._known()}, time.monotonic()
        return self._alive

    def _known(self) -> list[dict[str, Any]]:
        import ray

        return [each for each in ray.nodes() if each["Alive"]]

    def check(self, home: str, seen: str, environment: dict[str, str]) -> None:
        """Look from every node, whether it has this useg and reaches the home.

        Args:
            home: its address. seen: a key that is there. environment: what a node needs to open the home.

        Raises:
            InputError: it cannot; all nodes that cannot are named.
        """
        import ray
        from ray.exceptions import RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def look(version: str, *what: Any) -> str | None:  # by value: there may be no useg on the node
            from importlib.util import find_spec

            if find_spec("useg") is None:
                return "useg is not installed there"
            import useg

            if useg.__version__ != version:
                return f"has useg {useg.__version__}, here it is {version}"
            from useg.experiments.cluster import unreachable

            return unreachable(*what)

        asked = {}
        for node in self.nodes:
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            task = ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            asked[task.remote(__version__, home, seen, environment)] = node
        done, late = ray.wait([*asked], num_returns=len(asked), timeout=_LOOK_S)
        problems = [(asked[each], f"did not answer in {_LOOK_S:.0f} s") for each in late]
        for each in done:
            try:
                said = ray.get(each, timeout=_GET_S)
            except RayError as error:
                said = str(error).strip().splitlines()[-1]
            problems += [(asked[each], said)] if said else []
        if problems:
            told = sorted(f"  - {node.host}: {said}" for node, said in problems)
            raise InputError("\n".join([f"--on {self.address}: not every node can do this work", *told]))

    def start(
        self, work: Callable[..., Iterator[Any]], *given: Any, cpus: int, gpus: int, place: Place | None = None,
        node: str | None = None,
    ) -> Work:  # fmt: skip
        """Have a generator run where so much is free, or in a place that was reserved, or on a node, once; it waits
        for that."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

        def telling() -> Iterator[Any]:
            os.environ[HERE] = ray.get_runtime_context().get_node_id()
            yield os.environ[HERE]
            yield from work(*given)

        where: Any = "DEFAULT" if place is None else PlacementGroupSchedulingStrategy(*place)
        where = where if node is None else NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(telling).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=0, num_returns="streaming", scheduling_strategy=where
        )
        return Work(self, task.remote())

    @contextmanager
    def reserved(self, count: int, cpus: int, gpus: int) -> Iterator[list[Place]]:
        """Hold so many places of so much each, on as many nodes as can be; all of them, or none.

        Raises:
            ResourceError: others have what is there, and do not give it back.
        """
        from ray.util.placement_group import placement_group, remove_placement_group

        group = placement_group([{"CPU": cpus} | ({"GPU": gpus} if gpus else {})] * count, strategy="SPREAD")
        try:
            if not group.wait(_LOOK_S):
                raise ResourceError(
                    f"--on {self.address}: {count} workers of {cpus} cores have not been free for {_LOOK_S:.0f} s; "
                    "repeat later, or ask for fewer --workers"
                )
            yield [(group, place) for place in range(count)]
        finally:
            remove_placement_group(group)

    def look(self) -> None:
        """See which nodes there are now.

        Raises:
            InputError: none that gives CPUs.
        """
        self.nodes = tuple(
            Node(each["NodeID"], each["NodeManagerHostname"], cpus, int(each["Resources"].get("GPU", 0)))
            for each in self._known() if (cpus := int(each["Resources"].get("CPU", 0)))
        )  # fmt: skip
        if not self.nodes:
            raise InputError(f"--on {self.address}: no node of this cluster gives a CPU, so that nothing can run on it")

    def room(self, cpus: int, gpus: int = 0) -> int:
        """How many pieces of work of so much each its nodes could hold at the same time."""
        return sum(min(node.cpus // cpus, node.gpus // gpus if gpus else node.cpus) for node in self.nodes)

    def free(self, cpus: int, gpus: int = 0) -> int:
        """How many pieces of work of so much each would be begun now."""
        from ray._private.state import available_resources_per_node

        left = available_resources_per_node()
        mine = [left.get(node.id, {}) for node in self.nodes]
        return sum(
            int(min(each.get("CPU", 0) // cpus, each.get("GPU", 0) // gpus if gpus else math.inf)) for each in mine
        )

    def wait(self, works: Sequence[Work], timeout_s: float) -> None:
        """Until one of them has something to tell, or for so long."""
        import ray

        streams = [each._stream for each in works if not each.is_over]
        if streams:
            ray.wait(streams, num_returns=1, timeout=timeout_s)


@contextmanager
def connected(address: str, note: Callable[[str], None]) -> Iterator[Cluster]:
    """Connect this process to a cluster.

    Args:
        address: HOST:PORT of its head. note: told what one should know of it.

    Raises:
        MissingExtra: Ray is not installed. InputError: there is no such cluster, or it does not let us in, or gives
            no CPU.
    """
    with _joined(address, note):
        yield Cluster(address)


@contextmanager
def _joined(address: str, note: Callable[[str], None]) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--on {address}: wanted HOST:PORT of a Ray head, such as 10.0.0.1:6379")
    has_token = _find_token()
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("cluster", f"--on {address}") from error
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--on {address}: nothing answers there: {error}; wanted the address of a Ray head, as "
            "`ray start --head --port=6379` tells it"
        ) from error
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _stderr_taken() as said:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        why = _why(" ".join([str(error), *said]), address)
        raise InputError(f"--on {address}: {why}") from error
    finally:
        for number, handler in handlers.items():  # Ray has its own ones
            signal.signal(number, handler)
    try:
        if not has_token:
            note(f"warning: {address} wants no token: whoever reaches it can run code there; see docs/cluster.md")
        with redirect_stdout(sys.stderr):  # Ray prints there what it sees die
            yield
    finally:
        ray.shutdown()


def overview(address: str, *wanted: str) -> list[dict[str, Any]]:
    """The nodes of a cluster: where they are, what they give, how much of that is in use.

    Args:
        address: HOST:PORT of its head. wanted: addresses of nodes that are waited for, a minute at most.

    Raises:
        MissingExtra: Ray is not installed. InputError: there is no such cluster, or it does not let us in.
    """
    with _joined(address, lambda text: None):
        import ray
        from ray._private.state import available_resources_per_node

        until = time.monotonic() + _JOIN_S
        while True:
            nodes = [each for each in ray.nodes() if each["Alive"]]
            if {*wanted} <= {each["NodeManagerAddress"] for each in nodes} or time.monotonic() > until:
                break
            time.sleep(0.5)
        free, found = available_resources_per_node(), []
        for node in nodes:
            given, left = node["Resources"], free.get(node["NodeID"], {})
            counts = {name: given.get(key, 0.0) for name, key in (("cpus", "CPU"), ("gpus", "GPU"))}
            used = {f"{name}_used": counts[name] - left.get(name[:-1].upper(), 0.0) for name in counts}
            found.append({"address": node["NodeManagerAddress"], **counts, **used})
    return found


def _find_token() -> bool:
    """Whether a token for clusters is known here; if so it is used. To be called before Ray is imported."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or file.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return os.environ.get("RAY_AUTH_MODE") == "token"


@contextmanager
def _stderr_taken() -> Iterator[list[str]]:
    """Have what is written to stderr in a list in the end: why it lets nobody in, Ray tells nowhere else."""
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        sys.stderr.flush()
        before, lines = os.dup(2), list[str]()
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            lines += file.readlines()


def _why(said: str, address: str) -> str:
    """What Ray means."""
    if "mismatch" in said:
        mine = "every machine of a cluster, and this one, want the same Ray and the same Python"
        return f"{mine}. {' '.join(said.split())}"
    if "authentic" in said.lower():
        return (
            "the cluster wants its token, and this is another one or none: put it into ~/.ray/auth_token (chmod 600) "
            "or RAY_AUTH_TOKEN"
        )
    if "node" in said.lower():
        return (
            "this machine is no part of the cluster; it becomes one that gives nothing by: "
            f"ray start --address={address} --num-cpus=0"
        )
    return f"what listens there does not answer as a Ray head: {said.partition(chr(10))[0]}"


def credentials(home: str) -> dict[str, str]:
    """The variables by which a node may open a home as this process does; they are handed over with the work, since
    an environment that Ray knows of is shown on its dashboard."""
    if is_folder(home):
        return {}
    if home.startswith("http"):
        token = token_for(home.rstrip("/"))
        return {"USEG_TOKEN": token} if token else {}
    prefix = _CREDENTIALS[home.partition(":")[0]]
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


def address_here() -> str:
    """The address by which other nodes reach the one that this work runs on."""
    import ray

    return str(ray.util.get_node_ip_address())


def unreachable(home: str, seen: str, environment: dict[str, str]) -> str | None:
    """Why this machine cannot work with a home; None if it can."""
    if is_folder(home):
        lost = f"does not see {home}: share this folder, or serve it: useg serve --home {home} --host ADDRESS"
        return None if (Path(home) / seen).exists() else lost
    os.environ.update(environment)
    try:
        next(iter(open_home(home)[0].list("refs/")), None)
    except UsegError as error:
        return f"cannot reach the home: {error}"
    return None


__all__ = ["Cluster", "Node", "Work", "address_here", "connected", "credentials", "overview", "unreachable"]
