"""A run had again: its data by digest, its frozen plan, the same decisions; then proof by each loss and the weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from useg.config import load_config
from useg.data.headers import split_ref
from useg.data.reading import Sample
from useg.data.views import View
from useg.errors import DataError, InputError, Problem
from useg.experiments.attempt import standing_decisions
from useg.experiments.prepare import Prepared, recall
from useg.experiments.recalling import home_of_run, recall_inputs
from useg.experiments.recording import view_of
from useg.experiments.train import Listener, held, run_prepared, train, write_inputs
from useg.home.folder import find_run, new_run
from useg.runs.journal import Event, read_journal
from useg.runs.record import RunFolder

TOLERANCE = 1e-3
"""Losses that differ by less, relative to their size, differ by rounding: another number of threads, another build."""


@dataclass(frozen=True)
class Proof:
    """Whether two runs are the same.

    Attributes:
        verdict: "bit-identical", "within tolerance" or "different".
        steps: steps that both took.
        first_step: the first step whose loss is another one; None where there is none.
        losses: of that step, before and now.
        largest: the largest relative difference of a loss.
        weights: digests of the weights, before and now.
        scores: mean Dice, before and now.
    """

    verdict: str
    steps: int
    first_step: int | None
    losses: tuple[float, float] | None
    largest: float
    weights: tuple[str, str]
    scores: tuple[float | None, float | None]


def reproduce(run: str, *, home: Path, listener: Listener | None = None) -> dict[str, Any]:
    """Have a run again, from its version and its frozen plan, and compare.

    Args:
        run: its id, name or folder.
        home: where runs are.
        listener: where words and progress go.

    Returns:
        What `train` gives, and "proof".

    Raises:
        InputError: it did not end, or its data was never recorded. DataError: samples were withdrawn or are damaged;
        all of them are named. DamagedFile: files of the run are missing.
    """
    listener = listener or Listener()
    old = RunFolder(find_run(home, run))
    record = old.record()
    if "weights" not in record:
        raise InputError(f"{old.id} is {record.get('status')}: a run that ended can be had again")
    prepared, config = _prepared(old, record)
    folder = RunFolder(new_run(home, record.get("name")))
    origin = record["origin"] | {"of": "view"}
    with held(folder, home_of_run(old), listener) as number:
        write_inputs(folder, config, prepared, origin, name=record.get("name"), data=record["data"], parent=old.id)
        listener.note(f"run {folder.id} repeats {old.id}")
        result = run_prepared(
            folder,
            prepared,
            config,
            listener,
            number=number,
            decisions=lambda part: standing_decisions(read_journal(old.path / part)),
        )
    proof = prove(old, folder)
    folder.update(proof=proof.__dict__)
    return result | {"proof": proof}


def fork(run: str, sets: Sequence[str], *, home: Path, listener: Listener | None = None) -> dict[str, Any]:
    """Train as a run was trained but for some settings: on the same version, with the same label mapping.

    Args:
        run: its id, name or folder.
        sets: `KEY=VALUE`, as of `useg train --set`.
        home: where runs are.
        listener: where words and progress go.

    Returns:
        What `train` gives.

    Raises:
        ConfigError: a setting is unknown or out of range. InputError: the run's data was never recorded.
    """
    old = RunFolder(find_run(home, run))
    record = old.record()
    config = load_config(None, sets, base=recall_inputs(old).config)
    view, classes = view_of_run(old, record), old.path / "classes.toml"
    data_home = record["origin"].get("home")
    return train(view, home=home, data_home=data_home, config=config, classes=classes, name=record.get("name"),
                 parent=old.id, listener=listener)  # fmt: skip


def view_of_run(folder: RunFolder, record: dict[str, Any]) -> View:
    """The version that a run learned from, with its query and its transforms.

    Raises:
        InputError: the run's data was never recorded.
    """
    origin = record.get("origin")
    if not origin:
        raise InputError(f"{folder.id}: its data was never recorded as a version, so it cannot be had again")
    home = origin.get("home") or folder.home
    return view_of(home, origin["dataset"], origin["commit"], origin["where"], origin["transforms"])


def _prepared(folder: RunFolder, record: dict[str, Any]) -> tuple[Prepared, Any]:
    view = view_of_run(folder, record)
    inputs = recall_inputs(folder)
    named = {sample.key: sample for sample in view.reading.samples}
    gone = [
        Problem(sample.key, "is not in the version any more") for sample in inputs.samples if sample.key not in named
    ]
    if gone:
        raise DataError(f"{folder.id}: {len(gone)} of its samples cannot be had", gone)
    samples = [_as_in_version(sample, named[sample.key]) for sample in inputs.samples]
    view.files.know(inputs.spaces)
    view.files.check(samples)
    prepared = recall(samples, inputs.config, inputs.plan, inputs.mapping, inputs.fingerprint, view.files)
    mine = [dict(zip(prepared.samples.keys, splits, strict=True)) for splits in prepared.fold_splits]
    if folder.read_json("splits.json") != mine:
        raise InputError(f"{folder.id}: this release of useg splits its samples in another way")
    return prepared, inputs.config


def _as_in_version(sample: Sample, named: Sample) -> Sample:
    """The sample of a run with the refs of the version; planes that were read as channels stay channels."""
    images = tuple(
        name + ("#channels" if split_ref(ref)[1] == "channels" and not name.endswith("#channels") else "")
        for ref, name in zip(sample.images, named.images, strict=True)
    )
    return replace(named, images=images, group=sample.group, split=sample.split)


def prove(before: RunFolder, after: RunFolder) -> Proof:
    """Compare the loss at every step, and the weights digests."""
    pairs = [pair for part in _parts(before) for pair in _losses(before.path / part, after.path / part)]
    different = [(step, old, new) for step, old, new in pairs if old != new]
    largest = max((abs(old - new) / max(abs(old), 1e-12) for _, old, new in different), default=0.0)
    old_record, new_record = before.record(), after.record()
    weights = old_record["weights"], new_record["weights"]
    scores = tuple((record.get("scores") or {}).get("mean_dice") for record in (old_record, new_record))
    if not different and weights[0] == weights[1]:
        verdict = "bit-identical"
    else:
        verdict = "within tolerance" if different and largest <= TOLERANCE else "different"
    first = different[0] if different else None
    return Proof(
        verdict,
        len(pairs),
        first and first[0],
        first and (first[1], first[2]),
        largest,
        weights,
        (scores[0], scores[1]),
    )


def _parts(run: RunFolder) -> list[str]:
    folds = sorted((run.path / "folds").glob("*"), key=lambda path: int(path.name))
    return [f"folds/{path.name}" for path in folds] or ["."]


def _losses(before: Path, after: Path) -> list[tuple[int, float, float]]:
    """Steps that either took, with both losses; NaN where one did not take it."""
    old, new = ({e["step"]: e["loss"] for e in _steps(read_journal(path))} for path in (before, after))
    nothing = float("nan")
    return [(step, old.get(step, nothing), new.get(step, nothing)) for step in sorted({*old, *new})]


def _steps(events: list[Event]) -> list[Event]:
    return [event for event in events if event["event"] == "step"]
