"""Pictures of withdrawn samples go from the runs that show them."""

import re
from collections.abc import Collection
from html import escape

from useg.data.versions import Dataset
from useg.errors import UsegError
from useg.home.folder import write_atomically
from useg.home.store import Folder, Missing, Store, open_store
from useg.runs.pictures import forget_pictures
from useg.runs.record import read_record

_FIGURE = re.compile(r"<figure class=\"card sample\">.*?</figure>", re.DOTALL)


def forget(store: Store, dataset: Dataset, keys: Collection[str]) -> list[str]:
    """Take the pictures of samples out of the reports and picture folders of runs; returns the runs that lost some.

    Args:
        store: the home whose runs are looked at.
        dataset: the data set that the samples were withdrawn from.
        keys: of the samples.

    Raises:
        ResourceError: the home does not answer, or nothing may be deleted there.
    """
    shown = {f"<span>{escape(key)}{end}" for key in keys for end in ("</span>", "#", "[")}

    def kept(match: re.Match[str]) -> str:
        return "" if any(mark in match[0] for mark in shown) else match[0]

    changed = []
    for run in sorted({entry.key.split("/")[1] for entry in store.list("runs/")}):
        if not _trained_on(store, run, dataset):
            continue
        lost = forget_pictures(store, run, keys)
        report = f"runs/{run}/report.html"
        try:
            text = store.get(report).decode("utf-8", "surrogateescape")
        except Missing:
            text = ""
        without = _FIGURE.sub(kept, text)
        if without != text:
            _replace(store, report, without.encode("utf-8", "surrogateescape"))
        if lost or without != text:
            changed.append(run)
    return changed


def _replace(store: Store, key: str, content: bytes) -> None:
    if isinstance(store, Folder):
        write_atomically(store.root / key, content)
    else:
        store.delete(key)
        store.put(key, content)


def _trained_on(store: Store, run: str, dataset: Dataset) -> bool:
    """Whether a run learned from a data set, or lies beside it and learned from one of this name."""
    try:
        origin = read_record(store, run).get("origin") or {}
        if origin.get("dataset") != dataset.name:
            return False
        return dataset.store.url in (store.url, origin.get("home") and open_store(origin["home"]).url)
    except UsegError:
        return False


__all__ = ["forget"]
