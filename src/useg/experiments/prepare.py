"""From a data folder and settings to what a training needs: samples, splits, plan."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from useg.config import Config
from useg.data.fingerprint import Fingerprint
from useg.data.headers import split_ref
from useg.data.labels import LabelMapping
from useg.data.reading import Reading, Sample
from useg.data.samples import Samples, Source
from useg.data.views import View, ViewFiles
from useg.errors import ConfigError, DataError, Problem
from useg.experiments.examining import examined, weighted
from useg.experiments.splitting import split_samples
from useg.home.folder import write_atomically, writing
from useg.segmentation.orientation import directed_axes
from useg.train import probe
from useg.train.batches import epoch_entries
from useg.train.plan import Plan, load_plan
from useg.train.planning import make_plan, training_seconds

MEETING = "USEG_MEETING"
"""Where this variable has an address and a number, so many workers of several machines meet there, this one first."""
_FEW_STEPS = 50
"""Fewer steps than this teach a network little."""

Note = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """What a training needs.

    Attributes:
        reading, mapping, fingerprint: of the data.
        samples: items of the plan's dimension (planes of volumes where it says so).
        splits: "train", "val", "test" or "gap" per item; with folds, of the first one.
        fold_splits: the splits of each fold; one list without folds.
        plan: frozen.
        notes: what the user should know.
    """

    reading: Reading
    mapping: LabelMapping
    fingerprint: Fingerprint
    samples: Samples
    fold_splits: tuple[tuple[str, ...], ...]
    plan: Plan
    notes: tuple[str, ...]


def prepare(
    data: Path | View,
    config: Config,
    home: Path,
    *,
    classes: Path | None = None,
    plan_file: Path | None = None,
    started: float | None = None,
    note: Note = lambda text: None,
    progress: Progress | None = None,
) -> Prepared:
    """Inspect a folder, split its samples and plan a training.

    Args:
        data: folder, pairs.csv or file; or a view of a data set.
        config: settings.
        home: where the machine's probe is kept.
        classes: label mapping file.
        plan_file: a plan to use as it is, instead of making one.
        started: `time.monotonic()` at which the budget began; default now.
        note: told what the user should know. progress: of reading.

    Raises:
        DataError: the data cannot be trained on. ConfigError: settings do not fit it.
    """
    started = time.monotonic() if started is None else started
    if isinstance(data, View):
        data.files.check(data.reading.samples, also_here=False)
    known = examined(data, classes, progress)
    found, source = known.found, known.source
    mapping, fingerprint = found.mapping, found.fingerprint
    if mapping is None or fingerprint is None:
        raise DataError(f"{found.reading.root}: no labels were found, so there is nothing to train on")
    for line in (found.reading.rule, *found.repairs, *found.warnings):
        note(line)
    labelled = [sample for sample in found.reading.samples if sample.labels]
    _check_names(labelled)
    notes: list[str] = [*found.repairs, *found.warnings]

    if plan_file is not None:
        plan = load_plan(plan_file)
        _check_plan(plan, fingerprint, plan_file)
        samples = Samples(labelled, mapping, plan.stored_channels, planes=plan.planes, source=source)
        splits = split_samples(samples, config, fingerprint, notes)
    else:
        planes = _wants_planes(fingerprint, config)
        samples = Samples(labelled, mapping, fingerprint.channels, planes=planes, source=source)
        splits = split_samples(samples, config, fingerprint, notes)
        learned = known.fingerprint_without(_tested(samples, splits))
        plan = _plan(learned, mapping, samples, splits[0], config, home, started)
    plan = weighted(plan, known.factors)
    notes += _few_steps(plan, config)
    for line in notes[len(found.repairs) + len(found.warnings) :]:
        note(line)
    return Prepared(found.reading, mapping, fingerprint, samples, splits, plan, tuple(notes))


def _few_steps(plan: Plan, config: Config) -> list[str]:
    """A word before a training that a time budget leaves next to no steps."""
    if plan.budget_s is None or plan.seconds_per_step is None or plan.steps >= _FEW_STEPS:
        return []
    enough = math.ceil(_FEW_STEPS * plan.seconds_per_step * plan.budget_s / training_seconds(plan.budget_s) / 60)
    smaller = "" if config.recipe == "modern" else " or take --recipe modern, whose network is fitted to the time"
    return [
        f"only {plan.steps} steps fit into the time, at {plan.seconds_per_step:.1f} s each: too few to learn from; "
        f"give --minutes {enough} or more{smaller}"
    ]


def _tested(samples: Samples, fold_splits: Sequence[tuple[str, ...]]) -> set[str]:
    """Keys of the samples that are for testing in every fold, with all that they hold."""
    used = {
        samples.sample(index).key for splits in fold_splits for index, split in enumerate(splits) if split != "test"
    }
    return {samples.sample(index).key for index in range(len(samples))} - used


def _check_names(samples: Sequence[Sample]) -> None:
    """What a run keeps is UTF-8, so the names of its files must be, too."""
    refs = {ref for sample in samples for ref in (*sample.images, *sample.labels)}
    shown = {ref: ref.encode("utf-8", "backslashreplace").decode() for ref in sorted(refs)}
    problems = [Problem(text, "its name is not UTF-8", "rename it") for ref, text in shown.items() if text != ref]
    if problems:
        raise DataError(f"{len(problems)} files have names that a run cannot keep", problems)


def recall(
    samples: Sequence[Sample],
    config: Config,
    plan: Plan,
    mapping: LabelMapping,
    fingerprint: Fingerprint,
    source: Source | None = None,
) -> Prepared:
    """What an earlier run was begun with, without reading or measuring the folder again.

    Raises:
        DataError: files of the samples are gone; all of them are named.
    """
    refs = []
    if not isinstance(source, ViewFiles):
        refs = [ref for sample in samples for ref in (*sample.images, *sample.labels)]
    gone = [Problem(ref, "was part of this run and is gone") for ref in refs if not split_ref(ref)[0].exists()]
    if gone:
        raise DataError("the data of this run has changed; bring the files back, or name where they are now", gone)
    items = Samples(samples, mapping, plan.stored_channels, planes=plan.planes, source=source)
    splits = split_samples(items, config, fingerprint, [])
    return Prepared(Reading("", tuple(samples), ""), mapping, fingerprint, items, splits, plan, ())


def _wants_planes(fingerprint: Fingerprint, config: Config) -> bool:
    if fingerprint.ndim == 2:
        return False
    if config.data.dims != "auto":
        return config.data.dims == "2"
    spacing = fingerprint.spacing
    return fingerprint.median_space[0] < 16 or bool(spacing and spacing[0] / min(spacing[1:]) > 4)


def _plan(
    fingerprint: Fingerprint,
    mapping: LabelMapping,
    samples: Samples,
    splits: tuple[str, ...],
    config: Config,
    home: Path,
    started: float,
) -> Plan:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if MEETING not in os.environ:
        _check_workers(config.workers, device)
    threads = config.train.threads or max(1, probe.cores() // config.workers)
    memory = _ProbeMemory(home)
    training = [i for i, split in enumerate(splits) if "train" in split]
    spaces = [samples.space(i) for i in training]

    def clock(arguments: dict[str, Any], patch: tuple[int, ...], micro: int, softmax: int, dtype: Any) -> float:
        key = [arguments, patch, micro, softmax, dtype, threads, device]
        seconds: float = memory.recall(
            key,
            lambda: probe.step_seconds(
                arguments, patch, micro, softmax_channels=softmax, dtype=dtype, threads=threads, device=device
            ),
        )
        return seconds

    def dtype(arguments: dict[str, Any], patch: tuple[int, ...], softmax: int) -> tuple[str, str]:
        better: tuple[str, str] = memory.recall(
            ["dtype", arguments, patch, softmax, threads, device],
            lambda: probe.better_dtype(arguments, patch, softmax_channels=softmax, threads=threads, device=device),
        )
        return better

    left = None
    if config.steps is None and config.epochs is None:
        left = 60.0 * (config.minutes if config.minutes is not None else 15.0)
    return make_plan(
        fingerprint,
        config,
        patches=lambda patch: len(epoch_entries(spaces, patch)),
        has_objects=mapping.has_objects,
        class_names=mapping.class_names,
        directed=_directed(samples, training, mapping.num_classes),
        clock=clock,
        dtype=dtype,
        threads=threads,
        device=device,
        seconds_left=None if left is None else left / max(1, config.folds if config.fold is None else 1),
    )


def _directed(samples: Samples, training: list[int], num_classes: int) -> tuple[bool, ...]:
    """Which axes of the label maps have a direction, from an even spread of training samples."""
    spread = training[:: max(1, len(training) // 40)]
    with samples.following(spread):
        labels = [loaded.classes for loaded in map(samples.glimpse, spread) if loaded.classes is not None]
    return directed_axes(labels, num_classes)


def _check_workers(workers: int, device: str) -> None:
    import torch

    there = torch.cuda.device_count() if device == "cuda" else probe.cores()
    if workers > there:
        kind = "GPUs" if device == "cuda" else "cores"
        raise ConfigError(f"{workers} workers want {workers} {kind}; this machine has {there}")


class _ProbeMemory:
    """What was measured on this machine before, so that the same question has the same answer again.

    Two runs with the same settings then have the same plan, although a clock was asked.
    """

    def __init__(self, home: Path) -> None:
        self._file = home / "machines" / f"{probe.machine_digest()}.json"
        try:
            self._known = orjson.loads(self._file.read_bytes())
        except (OSError, ValueError):
            self._known = {}

    def recall(self, question: object, measure: Callable[[], Any]) -> Any:
        key = orjson.dumps(question, option=orjson.OPT_SORT_KEYS).decode()
        if key not in self._known:
            self._known[key] = measure()
            with writing(self._file):
                self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, orjson.dumps(self._known, option=orjson.OPT_INDENT_2))
        return self._known[key]


def _check_plan(plan: Plan, fingerprint: Fingerprint, path: Path) -> None:
    wrong = []
    if plan.stored_channels != fingerprint.channels:
        wrong.append(f"{plan.stored_channels} channels, the data has {fingerprint.channels}")
    if plan.num_classes != fingerprint.num_classes:
        wrong.append(f"{plan.num_classes} classes, the data has {fingerprint.num_classes}")
    if plan.dims > fingerprint.ndim:
        wrong.append(f"{plan.dims} dimensions, the data has {fingerprint.ndim}")
    if wrong:
        raise ConfigError(f"{path} was made for other data: it has {' and '.join(wrong)}")


def estimated_minutes(plan: Plan) -> float | None:
    """Minutes of training as probed."""
    return None if plan.seconds_per_step is None else math.ceil(plan.steps * plan.seconds_per_step / 6) / 10
