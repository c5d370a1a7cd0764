"""Predictions in one folder against labels in another: paired by name, read by one mapping, scored."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from useg.arrays import IGNORE, Instances, Labels
from useg.data.annotations import encode_named, read_annotation
from useg.data.headers import Header, split_ref
from useg.data.images import is_image, read_header, read_image, suffix_of
from useg.data.inspect import examine_reading
from useg.data.labels import LabelMapping
from useg.data.layouts import read_layout
from useg.data.listing import list_files
from useg.data.matching import match
from useg.data.reading import Reading, Sample
from useg.data.roles import Group, as_file
from useg.errors import DataError, InputError, Problem
from useg.experiments.results import FOLDERS
from useg.segmentation.flooding import components
from useg.segmentation.membranes import membrane_class
from useg.segmentation.scoring import SampleCounts, Task, pool, score_sample

__all__ = ["evaluate_folders"]

LOOKED_AT = 4
"""So many label maps are looked at to see whether the task is one of membranes."""

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Pair:
    """A labelled sample and what was predicted for it.

    Attributes:
        sample: where the truth is.
        prediction: file of the predicted label map.
        instances: file of the predicted instance map, if there is one.
    """

    sample: Sample
    prediction: str
    instances: str | None = None


def evaluate_folders(
    predictions: Path,
    labels: Path,
    *,
    classes: Path | None = None,
    membrane: str | None = None,
    partial: bool = False,
    surface: bool = True,
    lines: bool = True,
    tolerance: float | None = None,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Score a folder of predicted label maps.

    Predictions and labels belong together by name: the sample's key, or the stem of its image or label file,
    with its folders or without them where that is unique; where no name is the same, as `useg inspect` pairs files.

    Args:
        predictions: folder of label maps as `useg predict` writes them, objects in its folder `instances`.
        labels: a folder of label maps, or a data set (anything that `useg inspect` reads).
        classes: label mapping (TOML); by default `classes.toml` in `labels`, else inferred from the labels.
        membrane: the class that is the membrane between cells, "none" for another task; by default this is
            seen from the labels.
        partial: score what is paired, and say what is not, instead of refusing.
        surface: measure outline distances.
        lines: measure clDice.
        tolerance: of NSD, in the unit of the spacing; one pixel by default.
        advance: told about pairs done and all pairs.

    Returns:
        What `segmentation.scoring.pool` returns, and: "task" (class names, membrane class, unit), "notes"
        (how things were read), "left_out" (files without a partner).

    Raises:
        DataError: files without a partner, other sizes, unreadable files, values outside the mapping: all
            together.
        InputError: nothing to score, or an unknown class name for `membrane`.
    """
    reading = _truths(labels)
    pairs, unpaired = _pair(predictions, reading)
    if unpaired and not partial:
        raise DataError(
            f"{predictions} and {labels} do not belong together file by file; `--partial` scores what does",
            unpaired,
        )
    if not pairs:
        raise InputError(f"nothing to score: no file in {predictions} has the name of a sample in {labels}")
    mapping, notes = _mapping(reading, pairs, classes)
    spacings, unit = _spacings(pairs)
    reader = _Reader(mapping, notes)
    membrane_id = _membrane(membrane, mapping, pairs)
    task = Task(
        class_names=mapping.class_names,
        background=mapping.class_names[0].casefold() == "background" and membrane_id != 0,
        membrane_class=membrane_id,
        surface=surface,
        lines=lines,
        tolerance=tolerance,
        unit=unit,
    )
    samples = _score_all(pairs, reader, task, spacings, advance)
    names = task.class_names
    return {
        **pool(samples, task),
        "task": {
            "classes": list(names),
            "membrane": None if task.membrane_class is None else names[task.membrane_class],
            "unit": unit,
        },
        "notes": reader.notes,
        "left_out": [problem.where for problem in unpaired],
    }


def _score_all(
    pairs: Sequence[Pair],
    reader: "_Reader",
    task: Task,
    spacings: Sequence[tuple[float, ...] | None],
    advance: Advance | None,
) -> list[SampleCounts]:
    problems = reader.settle(pairs)
    samples: list[SampleCounts] = []
    for done, (pair, spacing) in enumerate(zip(pairs, spacings, strict=True), start=1):
        if not problems:
            try:
                samples.append(_score(pair, reader, task, spacing))
            except DataError as error:
                problems += error.problems or [Problem(pair.sample.key, error.summary)]
        if advance is not None:
            advance(done, len(pairs))
    if problems:
        raise DataError(f"{len(problems)} files cannot be scored", problems)
    return samples


def _score(pair: Pair, reader: "_Reader", task: Task, spacing: tuple[float, ...] | None) -> SampleCounts:
    header = read_header(pair.sample.images[0])
    truth, true_objects = read_annotation(pair.sample, reader.mapping, header)
    if truth is None:
        raise DataError(f"{pair.sample.key}: no label")
    predicted, objects = reader.read(pair.prediction)
    if pair.instances is not None and true_objects is not None:
        objects = _whole_ids(read_image(pair.instances)[0])
    return score_sample(
        pair.sample.key,
        truth,
        predicted,
        task=task,
        true_objects=true_objects,
        predicted_objects=objects,
        spacing=spacing,
    )


def _whole_ids(raw: np.ndarray) -> Instances:
    _, at = np.unique(raw, return_inverse=True)
    return np.where(raw == 0, 0, at.reshape(raw.shape) + 1).astype(np.int32)


class _Reader:
    """Reads predicted label maps by the mapping of the labels, or as class ids where they are those."""

    def __init__(self, mapping: LabelMapping, notes: list[str]) -> None:
        self.mapping = mapping
        self.notes = notes
        self._as_ids = False

    def settle(self, pairs: Sequence[Pair]) -> list[Problem]:
        """Decide for all files together how they are read; return what is wrong with them."""
        problems: list[Problem] = []
        only_ids = not self.mapping.has_objects
        strange = False
        for pair in pairs:
            try:
                for part in (pair.prediction, pair.instances):
                    if part is not None and (bad := _size_problem(part, pair.sample)):
                        problems.append(bad)
                header = read_header(pair.prediction)
                raw = read_image(pair.prediction)
            except DataError as error:
                problems += error.problems or [Problem(pair.prediction, error.summary)]
                continue
            only_ids = only_ids and len(raw) == 1 and self._are_ids(raw)
            try:
                encode_named(self.mapping, raw, header)
            except DataError as error:
                strange = True
                problems += error.problems or [Problem(pair.prediction, error.summary)]
        if strange and only_ids:
            self._as_ids = True
            self.notes.append(
                "predictions hold class ids 0.."
                f"{self.mapping.num_classes - 1} instead of the labels' own values, and are read as such"
            )
            return [problem for problem in problems if problem.what.startswith(_SIZE)]
        return problems

    def _are_ids(self, raw: np.ndarray) -> bool:
        values = np.unique(raw)
        return bool(np.isin(values, [*range(self.mapping.num_classes), IGNORE]).all())

    def read(self, ref: str) -> tuple[Labels, Instances | None]:
        """Class ids and, where the labels have objects, object ids of a predicted label map."""
        raw = read_image(ref)
        if self._as_ids:
            return raw[0].astype(np.uint8), None
        found, objects = encode_named(self.mapping, raw, read_header(ref))
        if not self.mapping.has_objects:
            return found, None
        if objects is None or int(objects.max(initial=0)) == 0 or np.unique(objects[objects > 0]).size == 1:
            objects = components(found == 1)
            if _ONE_VALUE not in self.notes:
                self.notes.append(_ONE_VALUE)
        return found, objects


_OBJECTS = f"{FOLDERS['instances']}/"
_SIZE = "is of another size than its label"
_ONE_VALUE = "some predictions hold one value for all objects: their connected parts are taken as the objects"


def _size_problem(ref: str, sample: Sample) -> Problem | None:
    found, wanted = read_header(ref).space, read_header(sample.images[0]).space
    if found == wanted:
        return None
    sizes = (" x ".join(map(str, space)) for space in (found, wanted))
    return Problem(ref, "{}: {}, wanted {}".format(_SIZE, *sizes), "predict again, without resizing")


def _truths(labels: Path) -> Reading:
    """The labelled samples; in a folder of nothing but label maps each is its own image."""
    reading = read_layout(labels)
    labelled = tuple(sample for sample in reading.samples if sample.labels)
    if labelled:
        return replace(reading, samples=labelled, problems=())
    alone = tuple(replace(sample, labels=sample.images[:1], images=sample.images[:1]) for sample in reading.samples)
    return replace(reading, samples=alone, problems=(), rule="every file is a label map")


def _pair(predictions: Path, reading: Reading) -> tuple[list[Pair], list[Problem]]:
    if not predictions.is_dir():
        raise InputError(f"{predictions}: a folder of predicted label maps was wanted")
    found = list_files(predictions)
    beside = tuple(f"{folder}/" for folder in FOLDERS.values())
    files = [
        (path[: -len(suffix_of(Path(path)))], str(predictions / path)) for path in found.files if is_image(Path(path))
    ]
    maps = [(name, path) for name, path in files if not name.startswith(beside)]
    objects = {name.removeprefix(_OBJECTS): path for name, path in files if name.startswith(_OBJECTS)}
    samples = _names_of(reading)
    unpaired: list[Problem] = []
    pairs: dict[str, Pair] = {}
    alike = {} if any(_lookup(name, samples) for name, _ in maps) else _names_alike([name for name, _ in maps], reading)
    for name, path in maps:
        sample = _lookup(alike.get(name, name), samples)
        if sample is None:
            several = name.rsplit("/", 1)[-1] in samples
            what = "several label maps have this name" if several else "no label map has this name"
            remedy = "keep the folders that tell them apart" if several else "remove it, or name the whole data set"
            unpaired.append(Problem(path, what, remedy))
            continue
        if sample.key in pairs:
            other = pairs[sample.key].prediction
            unpaired.append(Problem(path, f"{sample.key} has two predictions", f"remove this one or {other}"))
            continue
        pairs[sample.key] = Pair(sample, path, objects.get(name))
    unpaired += [
        Problem(sample.labels[0], "no prediction has this name", "predict its image")
        for sample in reading.samples
        if sample.key not in pairs
    ]
    return [pairs[sample.key] for sample in reading.samples if sample.key in pairs], unpaired


def _names_alike(maps: Sequence[str], reading: Reading) -> dict[str, str]:
    """The key of each map's sample where the two differ by the same piece all along (`a`, `a copy`), else nothing."""
    found = match(_group([sample.key for sample in reading.samples]), _group(maps)) if maps else None
    if found is None or not len(found.pairs) == len(maps) == len(reading.samples):
        return {}
    return {file.ref[: -len(".png")]: sample.ref[: -len(".png")] for (sample,), (file,) in found.pairs}


def _group(names: Sequence[str]) -> Group:
    files = tuple(as_file(f"{name}.png") for name in names)
    return Group(files, None, 0, "", {file.ref: () for file in files}, {file.ref: file.stem for file in files})


def _names_of(reading: Reading) -> dict[str, Sample | None]:
    """Every name a prediction may have; None where two samples would answer to it. Longer names go first."""
    found: dict[str, Sample | None] = {sample.key: sample for sample in reading.samples}
    for whole in (True, False):
        level: dict[str, Sample | None] = {}
        for sample in reading.samples:
            for name in {name if whole else name.rsplit("/", 1)[-1] for name in _stems(sample, reading.root)}:
                level[name] = sample if level.get(name, sample) == sample else None
        found = level | found
    return found


def _stems(sample: Sample, root: str) -> Iterable[str]:
    yield sample.key
    for ref in (sample.images[0], *(() if sample.masks_are_objects else sample.labels)):
        path, inside = split_ref(ref)
        below = "_" + inside.replace("/", "_").strip("_") if inside else ""
        stem = str(path)[: -len(suffix_of(path))] + below
        yield Path(stem).relative_to(root).as_posix() if Path(stem).is_relative_to(root) else Path(stem).name


def _lookup(name: str, samples: dict[str, Sample | None]) -> Sample | None:
    """The sample of a name; leading folders of the prediction may be missing in it or be too many."""
    return samples.get(name) or samples.get(name.rsplit("/", 1)[-1])


def _mapping(reading: Reading, pairs: Sequence[Pair], classes: Path | None) -> tuple[LabelMapping, list[str]]:
    """The mapping of all labels, also of those without a prediction: a class may occur only there."""
    inspection = examine_reading(reading, classes=classes)
    used = {ref for pair in pairs for ref in (*pair.sample.labels, *pair.sample.images, pair.sample.key)}
    serious = [problem for problem in inspection.problems if problem.where in used or inspection.mapping is None]
    empty = [problem for problem in serious if problem.what.startswith("only ")]
    if inspection.mapping is None or len(serious) > len(empty):
        raise DataError(f"the labels in {reading.root} cannot be read", serious)
    return inspection.mapping, list(inspection.repairs)


def _spacings(pairs: Sequence[Pair]) -> tuple[list[tuple[float, ...] | None], str]:
    """Physical pixel sizes where all files tell them in one unit, else pixels."""
    headers: list[Header] = [read_header(pair.sample.images[0]) for pair in pairs]
    units = {header.spacing_unit or "unit of the files" for header in headers}
    if len(units) == 1 and all(header.spacing is not None for header in headers):
        return [header.spacing for header in headers], units.pop()
    return [None] * len(pairs), "px"


def _membrane(name: str | None, mapping: LabelMapping, pairs: Sequence[Pair]) -> int | None:
    if name is not None and name != "none":
        if name not in mapping.class_names or mapping.num_classes != 2:
            raise InputError(f"no membrane class {name!r} of two: the labels have {', '.join(mapping.class_names)}")
        return mapping.class_names.index(name)
    if name == "none" or mapping.num_classes != 2 or mapping.has_objects:
        return None
    some = [pairs[index] for index in sorted({round(at) for at in np.linspace(0, len(pairs) - 1, LOOKED_AT)})]
    found = [read_annotation(pair.sample, mapping, read_header(pair.sample.images[0]))[0] for pair in some]
    return membrane_class([label for label in found if label is not None])
