"""Machines that work on the same data fetch from each other, so that the home sends each byte about once.

Each stretch of a pack belongs to one of them, the same for all (rendezvous hashing): that machine alone fetches it from
the home, the others fetch it there. One that does not answer is passed over, and the home is asked instead.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import BoundedSemaphore, Event
from weakref import finalize

from blake3 import blake3

from useg.errors import ConfigError
from useg.home.objects import Objects

PEERS = "USEG_PEERS"
"""The machines, as NAME=http://host:port, with spaces between them."""
PEERS_TOKEN = "USEG_PEERS_TOKEN"
HERE = "USEG_NODE"
"""The name of this machine among them."""
HEAD_BYTES = 40
"""An object comes as its digest, its length in eight bytes, the highest first, and its bytes."""

Wanted = tuple[str, str]
"""A digest, and the suffix that its file is to have."""

_ONE = re.compile(r"([\w.-]+)=(https?://[^/?#@\s]+)")
_CONNECT_S = 3.0
_ANSWER_S = 60.0
_PASSED_OVER_S = 60.0
_HELD_AT_ONCE = 64


class Peers:
    """The machines that share what they have; safe for several threads.

    Args:
        addresses: of all of them, by name. here: the name of this one. token: what they want to see.
    """

    def __init__(self, addresses: Mapping[str, str], here: str, token: str) -> None:
        import httpx

        self._addresses, self._here = dict(addresses), here
        self._passed_over: dict[str, float] = {}
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            trust_env=False,  # no proxy lies between them
        )
        finalize(self, self._client.close)

    def owners(self, objects: Objects, digests: Sequence[str]) -> dict[str, str]:
        """The machine to ask for each object; none where it is the home."""
        return {
            digest: owner
            for digest, region in zip(digests, objects.regions(digests), strict=True)
            if (owner := self._owner(region)) is not None
        }

    def _owner(self, region: str) -> str | None:
        owner = max(self._addresses, key=lambda name: blake3(f"{region} {name}".encode()).digest(), default=self._here)
        return None if owner == self._here or self._passed_over.get(owner, 0.0) > time.monotonic() else owner

    def get_many(self, shares: Mapping[str, Sequence[Wanted]]) -> Iterator[tuple[str, bytes]]:
        """Those of these objects that their owners give, verified, in any order.

        Args:
            shares: what to ask each of them for.
        """
        if not shares:
            return
        coming: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
        room, gone = BoundedSemaphore(_HELD_AT_ONCE), Event()

        def ask(owner: str) -> None:
            try:
                for found in self._from(owner, shares[owner]):
                    while not room.acquire(timeout=1):
                        if gone.is_set():
                            return
                    coming.put(found)
            finally:
                coming.put(None)

        with ThreadPoolExecutor(len(shares), thread_name_prefix="peers") as pool:
            try:
                for owner in shares:
                    pool.submit(ask, owner)
                left = len(shares)
                while left:
                    found = coming.get()
                    if found is None:
                        left -= 1
                    else:
                        room.release()
                        yield found
            finally:
                gone.set()

    def stream(self, owner: str, wanted: Wanted) -> Iterator[bytes]:
        """An object piece by piece, not verified; it may break off, or be nothing at all."""
        skipped = 0
        for piece in self._answer(owner, [wanted]):
            rest = piece[max(0, HEAD_BYTES - skipped) :]
            skipped = min(HEAD_BYTES, skipped + len(piece))
            if rest:
                yield rest

    def _from(self, owner: str, wanted: Sequence[Wanted]) -> Iterator[tuple[str, bytes]]:
        """Objects of an answer, until it is over or something in it is not as it should be."""
        held = bytearray()
        for piece in self._answer(owner, wanted):
            held += piece
            while len(held) >= HEAD_BYTES:
                end = HEAD_BYTES + int.from_bytes(held[32:HEAD_BYTES])
                if len(held) < end:
                    break
                content = bytes(held[HEAD_BYTES:end])
                digest = blake3(content).hexdigest()
                if digest != held[:32].hex():
                    self._pass_over(owner)
                    return
                del held[:end]
                yield digest, content

    def _answer(self, owner: str, wanted: Sequence[Wanted]) -> Iterator[bytes]:
        """What a machine answers; it breaks off when it does not, and is not asked again for some time."""
        from httpx import HTTPError

        try:
            asked = "\n".join(digest + suffix for digest, suffix in wanted).encode()
            with self._client.stream("POST", f"{self._addresses[owner]}/v1/objects", content=asked) as answer:
                if answer.status_code != 200:
                    self._pass_over(owner)
                    return
                yield from answer.iter_raw(2**20)
        except HTTPError:
            self._pass_over(owner)

    def _pass_over(self, owner: str) -> None:
        self._passed_over[owner] = time.monotonic() + _PASSED_OVER_S


def known_peers() -> Peers | None:
    """The machines that the environment names; None where it names none.

    Raises:
        ConfigError: it is not written as it should be.
    """
    text = os.environ.get(PEERS, "")
    if not text:
        return None
    found = [_ONE.fullmatch(word) for word in text.split()]
    addresses = {match[1]: match[2] for match in found if match}
    if len(addresses) < len(found):
        raise ConfigError(f"{PEERS}={text!r}: wanted NAME=http://host:port for each machine, with spaces between them")
    return Peers(addresses, os.environ.get(HERE, ""), os.environ.get(PEERS_TOKEN, ""))


__all__ = ["HEAD_BYTES", "HERE", "PEERS", "PEERS_TOKEN", "Peers", "Wanted", "known_peers"]
