"""Pictures of withdrawn samples go from the runs that show them."""

import re
from collections.abc import Collection
from html import escape
from pathlib import Path

from useg.data.versions import Dataset
from useg.errors import UsegError
from useg.home.folder import write_atomically
from useg.home.store import open_store
from useg.runs.pictures import forget_pictures
from useg.runs.record import RunFolder

_FIGURE = re.compile(r"<figure class=\"card sample\">.*?</figure>", re.DOTALL)


def forget(runs: Path, dataset: Dataset, keys: Collection[str]) -> list[str]:
    """Take the pictures of samples out of the reports and picture folders of runs; returns the runs that lost some.

    Args:
        runs: the folder of runs.
        dataset: the data set that the samples were withdrawn from.
        keys: of the samples.
    """
    shown = {f"<span>{escape(key)}{end}" for key in keys for end in ("</span>", "#", "[")}

    def kept(match: re.Match[str]) -> str:
        return "" if any(mark in match[0] for mark in shown) else match[0]

    changed = []
    for place in sorted(path for path in runs.glob("*") if path.is_dir()):
        run = RunFolder(place)
        if not _trained_on(run, dataset):
            continue
        lost = sum(forget_pictures(part, keys) for part in (place, *place.glob("folds/*")))
        text = run.report.read_text(encoding="utf-8") if run.report.is_file() else ""
        without = _FIGURE.sub(kept, text)
        if without != text:
            write_atomically(run.report, without.encode())
        if lost or without != text:
            changed.append(run.id)
    return changed


def _trained_on(run: RunFolder, dataset: Dataset) -> bool:
    try:
        origin = run.record().get("origin") or {}
        home = origin.get("home")
        return origin.get("dataset") == dataset.name and (not home or open_store(home).url == dataset.store.url)
    except UsegError:
        return False
