"""One sample followed over runs and versions of the data: by its key, and by the digest of its content."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from useg.errors import InputError
from useg.home.store import Missing, Store
from useg.runs.numbers import from_json
from useg.runs.verdict import PRIMARY, sample_rows

_SHOWN = 10
_DIGEST = re.compile(r"[0-9a-f]{6,64}")


def follow_sample(store: Store, runs: Iterable[str], sample: str, metric: str | None = None) -> dict[str, Any]:
    """What runs scored on one sample.

    Args:
        store: the home.
        runs: ids, in the order of the rows.
        sample: its key, or the beginning of the digest of its image or its labels. Whoever has the same image is the
            same sample, whatever its key; the digest of the labels tells whether it was relabelled.
        metric: by dotted name; default: the task's.

    Returns:
        {"sample", "metric", "rows": [{"run", "part", "key", "image", "labels", "score"}]}; digests are None and the
        score is None where a run has none.

    Raises:
        InputError: no run scored this sample, or none of them has this metric.
    """
    scored = {run: scores for run in runs if (scores := _scores(store, run))}
    wanted = _images(scored.values(), sample)
    found, names = [], set[str]()
    for run, scores in scored.items():
        numbers = sample_rows(scores)
        for key, row in scores["samples"].items():
            content = row.get("content") or {}
            if key == sample or content.get("image") in wanted or _begins(content, sample):
                names |= numbers[key].keys()
                digests = {name: content.get(name) for name in ("image", "labels")}
                found.append({"run": run, "part": scores.get("part"), "key": key, **digests, "scores": numbers[key]})
    if not found:
        keys = ", ".join(sorted({key for scores in scored.values() for key in scores["samples"]})[:_SHOWN]) or "none"
        raise InputError(
            f"no run scored a sample {sample!r}: wanted its key (there: {keys}), or 6 digits or more of its digest"
        )
    chosen = metric or next((name for name in PRIMARY if name in names), PRIMARY[-1])
    if metric is not None and metric not in names:
        raise InputError(f"--metric {metric}: wanted one of {', '.join(sorted(names))}")
    rows = [row | {"score": row.pop("scores").get(chosen)} for row in found]
    return {"sample": sample, "metric": chosen, "rows": rows}


def _scores(store: Store, run: str) -> Mapping[str, Any] | None:
    """All scores of a run; None where it has none of single samples, or they cannot be read."""
    try:
        found = from_json(store.get(f"runs/{run}/scores.json"))
    except (Missing, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("samples") else None


def _images(all_scores: Iterable[Mapping[str, Any]], sample: str) -> set[str]:
    """Digests of the images that a key, or the beginning of a digest, leads to."""
    found = set()
    for scores in all_scores:
        for key, row in scores["samples"].items():
            content = row.get("content") or {}
            if "image" in content and (key == sample or _begins(content, sample)):
                found.add(content["image"])
    return found


def _begins(content: Mapping[str, str], text: str) -> bool:
    return bool(_DIGEST.fullmatch(text)) and any(digest.startswith(text) for digest in content.values())


__all__ = ["follow_sample"]
