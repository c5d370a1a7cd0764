"""The end of a run: operating points, scores, bundle, report."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from useg import __version__
from useg.experiments.attempt import Attempt
from useg.experiments.ensemble import Member
from useg.experiments.judge import Predicted, Predictions, decide, score, task_of, tune
from useg.experiments.listening import Listener
from useg.experiments.overlay import error_map, instance_overlay, label_overlay, picture_of
from useg.experiments.prepare import Prepared
from useg.experiments.recording import sample_contents
from useg.experiments.report import Picture, write_report
from useg.home.folder import writing
from useg.runs.record import RunFolder, now
from useg.train.bundle import save_bundle

_SHOWN = 3
_LOOKED_AT = 8
"""So many training samples tell what the task is."""
_NEARLY_ALL = 0.98
"""A class that takes this share of the pixels hides the others, unless it really has about as much."""
_SYMMETRIES_SHARE = 0.05
"""Operating points for averaged symmetries are tuned when that takes at most this share of the budget."""


def finish(
    folder: RunFolder,
    prepared: Prepared,
    attempts: Sequence[Attempt],
    listener: Listener,
    *,
    stopped: bool,
) -> dict[str, Any]:
    """Tune, score, write everything that a finished (or stopped) run leaves; returns the run's result."""
    members = [attempt.member for attempt in attempts]
    splits = prepared.fold_splits[0]
    test_on = [i for i, split in enumerate(splits) if split == "test"]
    held_out = [([attempt.member], index) for attempt in attempts for index in attempt.validate_on]
    with listener.progress("scoring") as advance:
        judged, started = Predictions(held_out, prepared.samples), time.perf_counter()
        deque(_told(judged.kept(), len(judged), advance), maxlen=0)
        seconds = time.perf_counter() - started
        learned = [i for i, split in enumerate(splits) if "train" in split]
        some = learned[:: max(1, len(learned) // _LOOKED_AT)][:_LOOKED_AT]
        task = task_of(members[0], [*map(prepared.samples.glimpse, some)], prepared.fingerprint.spacing_unit)
        tuning = tune(members[0], judged.kept(), task, whole=not prepared.samples.is_cut)
        extra = _tune_with_symmetries(members[0], prepared, held_out, seconds, task)
        if extra:
            tuning["tta"] = extra
        part = "out-of-fold" if len(members) > 1 else "validation"
        if test_on:
            part, judged = "test", Predictions([(members, index) for index in test_on], prepared.samples)
        scores = score(members[0], _told(judged, len(judged), advance), tuning, task)
    scores["part"] = part
    scores["tuned_on"] = "out-of-fold" if len(members) > 1 else "validation"
    bundles, weights = _save_bundles(folder, prepared, attempts, tuning, scores)
    pictures = _pictures(members[0], judged, tuning, scores)
    _warn(members[0], scores, listener)
    for key, content in sample_contents(folder.home, folder.record(), list(scores["samples"])).items():
        scores["samples"][key]["content"] = content
    folder.write_json("scores.json", scores)
    status = "stopped" if stopped else "finished"
    record = folder.update(
        status=status,
        ended=now(),
        weights=weights,
        scores=_short(scores),
        bundles=[str(b.name) for b in bundles],
    )
    _report(folder, prepared, attempts, record, scores, pictures)
    return {
        "run": folder.id,
        "folder": str(folder.path),
        "bundle": str(bundles[0]),
        "bundles": [str(bundle) for bundle in bundles],
        "report": str(folder.report),
        "weights": weights,
        "status": status,
        "scores": scores,
    }


def _told(predicted: Iterable[Predicted], total: int, advance: Any) -> Iterator[Predicted]:
    for done, each in enumerate(predicted, 1):
        advance(done, total=total)
        yield each


def _tune_with_symmetries(
    member: Member, prepared: Prepared, held_out: Sequence[tuple[Sequence[Member], int]], seconds: float, task: Any
) -> dict[str, Any]:
    """Operating points for prediction averaged over symmetries; empty where finding them would take long."""
    plan = prepared.plan
    ways = 8
    if plan.budget_s is None or ways * seconds > _SYMMETRIES_SHARE * plan.budget_s:
        return {}
    found = Predictions(held_out, prepared.samples, with_symmetries=True).kept()
    return tune(member, found, task, whole=not prepared.samples.is_cut)


def _save_bundles(
    folder: RunFolder,
    prepared: Prepared,
    attempts: Sequence[Attempt],
    tuning: dict[str, Any],
    scores: dict[str, Any],
) -> tuple[list[Path], str]:
    """The bundle of each fold; a run's weights digest is that of its (first) bundle."""
    paths, digests = [], []
    for number, attempt in enumerate(attempts):
        path = folder.bundle if len(prepared.fold_splits) == 1 else folder.path / f"model-fold{number}.useg"
        about = {
            "run": folder.id,
            "useg": __version__,
            "made": now(),
            "step": attempt.trainer.step,
            "scores": _short(scores),
        }
        digests.append(
            save_bundle(path, prepared.plan, prepared.mapping, attempt.trainer.average, tuning=tuning, about=about)
        )
        paths.append(path)
    return paths, digests[0]


def _short(scores: dict[str, Any]) -> dict[str, Any]:
    names = ("part", "mean_dice", "mean_iou", "pixel_error", "operating_points", "membranes")
    short = {name: scores.get(name) for name in names}
    objects = scores.get("instances")
    short["instances"] = {k: objects[k] for k in ("ap50", "ap_mean", "pq") if k in objects} if objects else None
    return short


def _warn(member: Member, scores: dict[str, Any], listener: Listener) -> None:
    table = np.asarray(scores["confusion"])
    predicted = table.sum(axis=0)
    likeliest, total = int(predicted.argmax()), max(1, int(table.sum()))
    only = [*member.mapping.class_names, "nothing"][likeliest]
    share = predicted[likeliest] / total
    if np.count_nonzero(predicted) == 1 and len(member.mapping.class_names) > 1:
        listener.note(f"warning: the network predicts {only!r} everywhere; this model is of no use")
    elif share > _NEARLY_ALL and likeliest < len(table) and table[likeliest].sum() / total < _NEARLY_ALL - 0.05:
        listener.note(f"warning: the network predicts {only!r} nearly everywhere ({share:.1%}): train it for longer")
    missed = {n: c["images_missed"] for n, c in scores["classes"].items() if c["images_missed"]}
    for name, count in missed.items():
        have = scores["classes"][name]["images_with_class"]
        listener.note(f"note: class {name!r} was missed altogether in {count} of the {have} images that have it")


def _pictures(
    member: Member, judged: Sequence[Predicted], tuning: dict[str, Any], scores: dict[str, Any]
) -> list[Picture]:
    """The worst and the best samples: image, truth, prediction, errors."""
    rows = [*scores["samples"].values()]
    ranked = sorted(range(len(judged)), key=lambda each: _rank(rows[each]))
    worst = ranked[: min(_SHOWN, (len(ranked) + 1) // 2)]
    best = ranked[::-1][: min(_SHOWN, len(ranked) - len(worst))]
    chosen = [("worst", each) for each in worst] + [("best", each) for each in best]
    return [_picture(member, judged[each], kind, tuning, rows[each]) for kind, each in chosen]


def _rank(row: dict[str, Any]) -> float:
    objects = row.get("instances") or {}
    value = objects.get("ap50")
    value = row["mean_dice"] if value is None else value
    return 1.0 - (row["pixel_error"] or 0.0) if value is None else float(value)


def _picture(member: Member, each: Predicted, kind: Any, tuning: dict[str, Any], row: dict[str, Any]) -> Picture:
    classes, objects = decide(member, each.outputs, tuning)
    image, truth, true_objects = each.loaded.image, each.loaded.classes, each.loaded.instances
    if truth is None:
        raise ValueError(f"{each.loaded.key} has no labels")
    if image.ndim == 4:
        middle = image.shape[1] // 2
        image, truth, classes = image[:, middle], truth[middle], classes[middle]
        objects = None if objects is None else objects[middle]
        true_objects = None if true_objects is None else true_objects[middle]
    shown = picture_of(image)
    palette = member.mapping.palette
    panels = {"image": shown}
    if objects is not None and true_objects is not None:
        panels |= {
            "true": instance_overlay(shown, true_objects),
            "predicted": instance_overlay(shown, objects),
        }
    else:
        panels |= {
            "true": label_overlay(shown, truth, palette),
            "predicted": label_overlay(shown, classes, palette),
        }
    panels["errors"] = error_map(shown, classes, truth)
    dice = "no foreground" if row["mean_dice"] is None else f"Dice {row['mean_dice']:.3f}"
    more = row.get("instances") or {}
    text = dice + (f", AP at 0.5 {more['ap50']:.3f}" if more.get("ap50") is not None else "")
    return Picture(each.loaded.key, kind, text, panels)


def _report(
    folder: RunFolder,
    prepared: Prepared,
    attempts: Sequence[Attempt],
    record: dict[str, Any],
    scores: dict[str, Any],
    pictures: Sequence[Picture],
) -> None:
    names, palette = prepared.mapping.class_names, prepared.mapping.palette
    shown = {
        "name": record.get("name") or folder.id,
        "run": folder.id,
        "began": record.get("started"),
        "warnings": record.get("notes") or [],
        "plan": prepared.plan.model_dump(mode="json"),
        "mapping": prepared.mapping.model_dump(mode="json"),
        "fingerprint": prepared.fingerprint.model_dump(mode="json"),
        "legend": {name: [int(v) for v in palette[i]] for i, name in enumerate(names)},
        "weights": record.get("weights"),
        "machine": record.get("machine"),
        "data": record.get("data"),
        "seconds": sum(e.get("seconds", 0.0) for attempt in attempts for e in attempt.folder.journal()),
    }
    with writing(folder.report):
        write_report(
            folder.report,
            record=shown,
            journal_events=attempts[0].folder.journal(),
            scores=scores,
            pictures=pictures,
        )
