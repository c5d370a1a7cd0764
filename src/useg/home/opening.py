"""A home by its address: a folder of this machine, a bucket, or what `useg serve` offers."""

import hashlib
import os
from pathlib import Path

from useg.home.amounts import parse_bytes
from useg.home.cache import Cache, cache_folder
from useg.home.folder import find_home, nearest_home
from useg.home.objects import Objects
from useg.home.store import Store, open_store

CACHE_SIZE = "USEG_CACHE_SIZE"


def open_home(address: str | Path | None = None) -> tuple[Store, Objects]:
    """The home at an address and its objects.

    Args:
        address: a folder, `s3://`, `gs://`, `az://`, `http://`; by default `USEG_HOME`, else the nearest `useg-home/`.

    Raises:
        InputError: no address of a home.
    """
    text = str(address if address is not None else os.environ.get("USEG_HOME") or "")
    if is_folder(text):
        store = open_store(find_home(Path(text) if text else None))
        return store, Objects(store)
    store = open_store(text)
    known = cache_folder() / "index" / hashlib.sha256(store.url.encode()).hexdigest()[:16]
    return store, Objects(store, index_cache=known)


def is_folder(address: str | Path | None = None) -> bool:
    """Whether an address (by default `USEG_HOME`, else the nearest `useg-home/`) is that of a folder."""
    text = str(address if address is not None else os.environ.get("USEG_HOME") or "")
    return "://" not in text and not text.startswith("memory:")


def folder_for_runs(address: str | None = None) -> Path:
    """The folder that runs are written to: the home itself; of a home that is no folder, the nearest `useg-home/`."""
    if is_folder(address):
        return find_home(Path(address) if address else None)
    return nearest_home()


def cache_for(store: Store) -> Cache | None:
    """This machine's cache, for what is read again and again from a home that is not a folder."""
    return None if "://" not in store.url else machine_cache()


def machine_cache() -> Cache:
    """This machine's cache, bounded by `USEG_CACHE_SIZE` where that is set.

    Raises:
        ConfigError: it is no amount of bytes.
    """
    bound = os.environ.get(CACHE_SIZE)
    return Cache(cache_folder(), max_bytes=parse_bytes(bound) if bound else None)
