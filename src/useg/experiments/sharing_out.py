"""The nodes of a cluster offer each other what they have fetched of a home, for as long as something runs on them."""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from useg.experiments.cluster import Cluster, address_here, credentials
from useg.home.fetching import Fetcher
from useg.home.offering import offered
from useg.home.opening import is_folder, machine_cache, open_home
from useg.home.peers import PEERS, PEERS_TOKEN

_TO_BEGIN_S = 60.0
_WAIT_S = 0.5


@contextmanager
def sharing(
    cluster: Cluster, address: str, environment: Mapping[str, str], note: Callable[[str], None]
) -> Iterator[dict[str, str]]:
    """Have every node offer its cache to the others.

    Args:
        cluster: connected. address: of the home. environment: what a node needs to open it.
        note: told which nodes do not offer anything.

    Yields:
        The environment for work on these nodes.
    """
    if is_folder(address) or len(cluster.nodes) < 2:
        yield dict(environment)
        return
    token = secrets.token_urlsafe(32)
    works = {node: cluster.start(offer, address, dict(environment), token, cpus=0, gpus=0, node=node.id)
             for node in cluster.nodes}  # fmt: skip
    places: dict[str, str] = {}
    until = time.monotonic() + _TO_BEGIN_S
    try:
        while len(places) < len(works) and time.monotonic() < until:
            waiting = {node: work for node, work in works.items() if node.id not in places and not work.is_over}
            if not waiting:
                break
            cluster.wait([*waiting.values()], _WAIT_S)
            places |= {node.id: place for node, work in waiting.items() for place in work.heard()}
        for node, work in works.items():
            if node.id not in places:
                note(f"warning: {node.host} shares nothing with other nodes: {work.problem or 'it did not answer'}")
        known = " ".join(f"{name}={place}" for name, place in places.items())
        yield {**environment, PEERS: known, PEERS_TOKEN: token}
    finally:
        for work in works.values():
            work.cancel(at_once=True)


@contextmanager
def ready(cluster: Cluster, address: str, note: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Have a cluster work with a home: every node is looked at, and they share what they fetch.

    Yields:
        The environment for work on its nodes.

    Raises:
        InputError: a node cannot do this work; all such are named.
    """
    known = credentials(address)
    cluster.check(address, next((entry.key for entry in open_home(address)[0].list("refs/")), "refs"), known)
    with sharing(cluster, address, known, note) as environment:
        yield environment


def offer(address: str, environment: Mapping[str, str], token: str) -> Iterator[str]:
    """Offer this node's cache until this work is cancelled; yields where."""
    os.environ.update(environment)
    with offered(Fetcher(open_home(address)[1], machine_cache()), address_here(), token) as place:
        yield place
        while True:
            time.sleep(_WAIT_S)


__all__ = ["offer", "ready", "sharing"]
