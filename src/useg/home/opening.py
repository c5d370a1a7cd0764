"""A home by its address: a folder of this machine, or a bucket."""

import hashlib
import os
from pathlib import Path

from useg.home.cache import Cache, cache_folder
from useg.home.folder import find_home
from useg.home.objects import Objects
from useg.home.store import Store, open_store


def open_home(address: str | Path | None = None) -> tuple[Store, Objects]:
    """The home at an address and its objects.

    Args:
        address: a folder, `s3://`, `gs://` or `az://`; by default `USEG_HOME`, else the nearest `useg-home/`.

    Raises:
        InputError: no address of a home.
    """
    text = str(address if address is not None else os.environ.get("USEG_HOME") or "")
    if "://" not in text and not text.startswith("memory:"):
        store = open_store(find_home(Path(text) if text else None))
        return store, Objects(store)
    store = open_store(text)
    known = cache_folder() / "index" / hashlib.sha256(store.url.encode()).hexdigest()[:16]
    return store, Objects(store, index_cache=known)


def cache_for(store: Store) -> Cache | None:
    """This machine's cache, for what is read again and again from a home that is not a folder."""
    return None if "://" not in store.url else Cache(cache_folder())
