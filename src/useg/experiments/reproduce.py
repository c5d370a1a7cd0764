"""A run had again: its data by digest, its frozen plan, the same decisions; then proof by each loss and the weights."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from useg.config import load_config
from useg.data.headers import split_ref
from useg.data.reading import Sample
from useg.data.views import View
from useg.errors import DataError, InputError, Problem
from useg.experiments.attempt import standing_decisions
from useg.experiments.listening import Listener
from useg.experiments.prepare import Prepared, recall
from useg.experiments.proving import Proof, prove
from useg.experiments.recalling import home_of_run, recall_inputs
from useg.experiments.recording import view_of
from useg.experiments.repeating import run_script, train_there
from useg.experiments.train import held, run_prepared, train, write_inputs
from useg.home.folder import new_run
from useg.home.opening import open_home
from useg.runs.find import find_run
from useg.runs.journal import read_journal
from useg.runs.rebuilding import Rebuilt, rebuild
from useg.runs.record import RunFolder

Environment = Literal["current", "fresh"]

__all__ = ["Environment", "Proof", "fork", "reproduce", "view_of_run"]


def reproduce(
    run: str, *, home: Path, environment: Environment = "current", listener: Listener | None = None
) -> dict[str, Any]:
    """Have a run again, and compare: a training from its version and its frozen plan, a script from its code.

    Args:
        run: its id, name or folder.
        home: where runs are.
        environment: what it is run in: "current" is this one, "fresh" one that is built of the recorded versions,
            with useg itself as it was.
        listener: where words and progress go.

    Returns:
        What `train` gives, and "proof" (a `Proof`); for "fresh" also "environment" and "not_the_same", what could not
        be as it was. Without a proof where it was stopped.

    Raises:
        InputError: it did not end, its data was never recorded, or its environment cannot be had. DataError: samples
        were withdrawn or are damaged; all of them are named. DamagedFile: files of the run are missing.
    """
    listener = listener or Listener()
    old = RunFolder(find_run(home, run))
    record = old.record()
    is_script = "plan" not in record and not old.plan.exists()
    if not is_script and "weights" not in record:
        raise InputError(f"{old.id} is {record.get('status')}: a run that ended can be had again")
    rebuilt = _rebuilt(old, record, listener) if environment == "fresh" else None
    if is_script:
        result = run_script(old, record, home, rebuilt, listener)
    elif rebuilt is not None:
        result = train_there(old, record, home, rebuilt, listener)
    else:
        result = _train_here(old, record, home, listener)
    if rebuilt is not None:
        told = {"environment": str(rebuilt.folder), "not_the_same": list(rebuilt.not_the_same)}
        result |= told
    if result["status"] == "stopped":
        return result
    folder = RunFolder(Path(result["folder"]))
    proof = prove(old, folder)
    folder.update(proof=asdict(proof))
    return result | {"proof": proof}


def _rebuilt(old: RunFolder, record: dict[str, Any], listener: Listener) -> Rebuilt:
    objects = open_home(home_of_run(old))[1]
    with listener.progress("installing packages") as advance:
        rebuilt = rebuild(record, objects.get, note=listener.note, advance=advance)
    if rebuilt.reused:
        listener.note(f"the environment of {old.id} is in {rebuilt.folder} already")
    for each in rebuilt.not_the_same:
        listener.note(f"warning: {each}")
    return rebuilt


def _train_here(old: RunFolder, record: dict[str, Any], home: Path, listener: Listener) -> dict[str, Any]:
    prepared, config = _prepared(old, record)
    folder = RunFolder(new_run(home, record.get("name")))
    origin = record["origin"] | {"of": "view"}
    with held(folder, home_of_run(old), listener) as number:
        write_inputs(folder, config, prepared, origin, name=record.get("name"), data=record["data"], parent=old.id)
        listener.note(f"run {folder.id} repeats {old.id}")
        return run_prepared(
            folder,
            prepared,
            config,
            listener,
            number=number,
            decisions=lambda part: standing_decisions(read_journal(old.path / part)),
        )


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
    if "plan" not in record and not old.plan.exists():
        raise InputError(f"{old.id} was recorded by a script, which takes its settings itself: --set is for trainings")
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
