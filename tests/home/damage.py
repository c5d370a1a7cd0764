"""Bytes of a home in memory, changed behind its back."""

from useg.home.store import Memory


def flip(store: Memory, key: str, place: int) -> None:
    """Turn one bit of what lies under a key."""
    content = bytearray(store.get(key))
    content[place] ^= 1
    _replace(store, key, bytes(content))


def truncate(store: Memory, key: str, length: int) -> None:
    """Leave only the first bytes of what lies under a key."""
    _replace(store, key, store.get(key)[:length])


def _replace(store: Memory, key: str, content: bytes) -> None:
    _, modified = store._held[key]
    store._held[key] = (content, modified)
