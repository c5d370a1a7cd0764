"""From a data folder and settings to what a training needs: samples, splits, plan."""

import math
import time
from collections import Counter
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
from useg.data.splits import GAP, assign_splits, blocks, fold_splits, folds
from useg.data.views import View, ViewFiles
from useg.errors import ConfigError, DataError, Problem
from useg.experiments.examining import examined, weighted
from useg.home.folder import write_atomically, writing
from useg.segmentation.orientation import directed_axes
from useg.train import probe
from useg.train.batches import epoch_entries
from useg.train.plan import Plan, load_plan
from useg.train.planning import make_plan

FEW_SLICES = 32
"""Of a stack of at most so many slices a band of each is held out, of a longer one a block of slices."""

SMALLEST_BAND_PX = 48
"""A narrower band says too little of what lies next to its edges."""

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
        splits = _split(samples, config, fingerprint, notes)
    else:
        planes = _wants_planes(fingerprint, config)
        samples = Samples(labelled, mapping, fingerprint.channels, planes=planes, source=source)
        splits = _split(samples, config, fingerprint, notes)
        learned = known.fingerprint_without(_tested(samples, splits))
        plan = _plan(learned, mapping, samples, splits[0], config, home, started)
    plan = weighted(plan, known.factors)
    for line in notes[len(found.repairs) + len(found.warnings) :]:
        note(line)
    return Prepared(found.reading, mapping, fingerprint, samples, splits, plan, tuple(notes))


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
    splits = _split(items, config, fingerprint, [])
    return Prepared(Reading("", tuple(samples), ""), mapping, fingerprint, items, splits, plan, ())


def _split(samples: Samples, config: Config, fingerprint: Fingerprint, notes: list[str]) -> tuple[tuple[str, ...], ...]:
    keys, given, groups = samples.keys, samples.splits, samples.groups
    if len(samples) == 0:
        raise DataError("no sample has labels, so there is nothing to train on")
    if len(samples) == 1 and config.folds <= 1 and given[0] in (None, "train"):
        return (_split_one(samples, config, notes),)
    alone = len({*groups}) == 1
    sequence = fingerprint.sequence or (samples.planes and alone)
    # blocks of a sequence need samples without groups: there, twins of held-out samples are left out afterwards
    in_blocks = sequence and alone
    if in_blocks and config.folds <= 1 and (bands := _split_bands(samples, config, notes)) is not None:
        return (bands,)
    if not in_blocks:
        groups = _with_duplicates(samples, fingerprint)
    if config.folds > 1:
        found = _split_folds(keys, groups, given, config, notes, sequence=sequence)
    else:
        found = (_split_once(keys, groups, given, config, notes, sequence=sequence),)
    return tuple(_without_twins(splits, keys, fingerprint) for splits in found) if in_blocks else found


def _split_folds(
    keys: list[str],
    groups: list[str | None],
    given: list[str | None],
    config: Config,
    notes: list[str],
    *,
    sequence: bool,
) -> tuple[tuple[str, ...], ...]:
    """The splits of each fold; the test part is the same in all of them and belongs to none."""
    if config.data.test > 0:
        shares = {"train": 1 - config.data.test, "test": config.data.test}
        apart = assign_splits(keys, groups, given, fractions=shares, seed=config.seed, sequence=sequence, notes=notes)
        given = [*apart]
    trainable = [i for i, split in enumerate(given) if split in (None, "train", "val")]
    fold_of = folds(
        [keys[i] for i in trainable], [groups[i] for i in trainable], config.folds, config.seed, sequence=sequence
    )
    result = []
    for fold in range(config.folds):
        splits = [split or "train" for split in given]
        for index, split in zip(trainable, fold_splits(fold_of, fold, sequence=sequence), strict=True):
            splits[index] = split
        result.append(tuple(splits))
    return tuple(result)


def _split_once(
    keys: list[str],
    groups: list[str | None],
    given: list[str | None],
    config: Config,
    notes: list[str],
    *,
    sequence: bool,
) -> tuple[str, ...]:
    validation, test = config.data.validation, config.data.test
    splits = assign_splits(
        keys,
        groups,
        given,
        fractions={"train": 1 - validation - test, "val": validation, "test": test},
        seed=config.seed,
        sequence=sequence,
        notes=notes,
    )
    counts = Counter(splits)
    if counts["train"] == 0:
        raise DataError("no sample is left for training: every one is given as val or test")
    if counts["val"] == 0:
        notes.append(
            "there is a single sample (or group): it is trained on and scored on alike, so the scores are "
            "optimistic; annotate a second image for honest ones"
        )
        splits = ["val+train" if split == "train" else split for split in splits]
    if sequence:
        notes.append("neighbouring samples look alike: validation is one block of them, with a gap")
    return tuple(splits)


def _with_duplicates(samples: Samples, fingerprint: Fingerprint) -> list[str | None]:
    """Groups, joined where samples of two of them show the same picture; planes follow their volume."""
    keys, groups = samples.keys, samples.groups
    whole = [samples.sample(index).key for index in range(len(samples))]
    names = [key if group is None else group for key, group in zip(keys, groups, strict=True)]
    joined = dict(zip(whole, names, strict=True))
    for pair in fingerprint.duplicates:
        old, new = joined.get(pair.second), joined.get(pair.first)
        if old is not None and new is not None and not pair.across_splits:
            joined = {key: new if name == old else name for key, name in joined.items()}
    counts = Counter(joined[key] for key in whole)
    return [
        joined[key] if group is not None or counts[joined[key]] > 1 else None
        for key, group in zip(whole, groups, strict=True)
    ]


def _without_twins(splits: tuple[str, ...], keys: list[str], fingerprint: Fingerprint) -> tuple[str, ...]:
    """Leaves out training samples that show the same picture as a held-out one, unless none would remain."""
    split_of = dict(zip(keys, splits, strict=True))
    held_out = {"val", "test"}
    twins = {
        one
        for pair in fingerprint.duplicates
        for one, other in ((pair.first, pair.second), (pair.second, pair.first))
        if split_of.get(one) == "train" and split_of.get(other) in held_out and not pair.across_splits
    }
    fewer = tuple(GAP if key in twins else split for key, split in zip(keys, splits, strict=True))
    return fewer if "train" in fewer else splits


def _split_one(samples: Samples, config: Config, notes: list[str]) -> tuple[str, ...]:
    """A single image is cut into a part to learn from and a part held out, with a gap between them."""
    space = samples.space(0)
    cut = blocks(space, config.data.validation, gap_px=max(1, min(16, max(space) // 20)), seed=config.seed)
    samples.cut({0: [*cut.train, cut.val]})
    notes.append(
        "there is a single image: a block of it is held out for validation, with a gap. Neighbouring parts of one "
        "image are alike, so its scores are optimistic; annotate a second image for honest ones"
    )
    return ("train",) * len(cut.train) + ("val",)


def _split_bands(samples: Samples, config: Config, notes: list[str]) -> tuple[str, ...] | None:
    """The same band of every slice of a short stack is held out, with a gap; None where whole slices are.

    Where slices are few, a block of them that is left out takes along what no other slice shows.
    """
    given = samples.splits
    learned = [index for index, split in enumerate(given) if split in (None, "train")]
    spaces = {samples.space(index) for index in learned}
    held_out = min(max(space) for space in spaces) * config.data.validation if spaces else 0
    plain = config.data.test == 0 and "val" not in given and len(spaces) == 1 and {len(s) for s in spaces} == {2}
    if not plain or not 1 < len(learned) <= FEW_SLICES or held_out < SMALLEST_BAND_PX:
        return None
    (space,) = spaces
    cut = blocks(space, config.data.validation, gap_px=max(1, min(16, max(space) // 20)), seed=config.seed)
    origins = samples.cut({index: [*cut.train, cut.val] for index in learned})
    parts = iter((*("train",) * len(cut.train), "val") * len(learned))
    notes.append(
        "neighbouring samples look alike, and they are few: the same band of each is held out for validation, with a "
        "gap. Slices that were never seen may come out less well; give a column split to hold out whole ones"
    )
    cut_up = set(learned)
    return tuple(next(parts) if origin in cut_up else given[origin] or "train" for origin in origins)


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
                arguments,
                patch,
                micro,
                softmax_channels=softmax,
                dtype=dtype,
                threads=threads,
                device=device,
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
        seconds_left=None if left is None else left / max(1, config.folds),
    )


def _directed(samples: Samples, training: list[int], num_classes: int) -> tuple[bool, ...]:
    """Which axes of the label maps have a direction, from an even spread of training samples."""
    spread = training[:: max(1, len(training) // 40)]
    labels = [loaded.classes for loaded in samples.each(spread) if loaded.classes is not None]
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
