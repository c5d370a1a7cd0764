"""Homes with given contents."""

import orjson
from blake3 import blake3

from useg.home.objects import Objects
from useg.home.store import Memory


def noise(length, seed=0):
    """Bytes that no compression makes smaller."""
    return blake3(seed.to_bytes(4, "little")).digest(length)


def home_of(contents, store=None):
    """A home whose run names these objects: the store, its objects, the digests."""
    store = store or Memory()
    objects = Objects(store)
    with objects.writer() as writer:
        digests = [writer.put(content) for content in contents]
        writer.commit()
    store.put("runs/x/record.json", orjson.dumps({"names": digests}))
    return store, objects, digests
