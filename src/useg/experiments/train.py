"""A training from folder to bundle, scores and report; stopped, resumed and extended without losing a bit."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from useg import __version__
from useg.config import Config
from useg.data.reading import Sample, absolute
from useg.data.views import View, ViewFiles
from useg.errors import InputError, TrainingError, UsegError
from useg.experiments.attempt import Attempt, Budget
from useg.experiments.finish import finish
from useg.experiments.listening import Listener
from useg.experiments.prepare import Prepared, prepare
from useg.experiments.recalling import home_of_run, recall_run
from useg.experiments.recording import record_folder
from useg.experiments.workers import check_workers, together, world_of
from useg.home.folder import new_run, writing
from useg.home.opening import open_home
from useg.runs.find import find_run
from useg.runs.journal import Event
from useg.runs.keeper import start_keeper
from useg.runs.lease import check_free, claim_attempt
from useg.runs.record import RunFolder, now
from useg.runs.surroundings import surroundings
from useg.train import probe
from useg.train.batches import Batches, class_histogram, threads_beside
from useg.train.loop import overfit_one_batch
from useg.train.planning import training_seconds

EVALUATION_SHARE = 0.1


def train(
    data: Path | View | None,
    *,
    home: Path,
    data_home: str | None = None,
    config: Config | None = None,
    classes: Path | None = None,
    plan_file: Path | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    resume: str | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    parent: str | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Train a U-Net on a folder, or go on with a run.

    Args:
        data: folder, pairs.csv or file, or a view of a data set; with `resume` only a folder that has moved.
        home: where the run's folder is made.
        data_home: the home that has the data set, or gets the folder as one; default `home`.
        config: settings. classes: label mapping file. plan_file: a plan to use as it is.
        name: part of the run's id. tags: of the run.
        resume: a run to go on with: one that was killed or stopped ends as if it had not been; a finished one
            is extended by `minutes` or `epochs`, from before its learning rate began to fall.
        parent: id of the run that this one is a variant of.
        listener: where words and progress go.

    Returns:
        {"run", "folder", "bundle", "weights", "scores", "seconds", "status"}.

    Raises:
        DataError, ConfigError: before anything is written. TrainingError: the loss became NaN; the record says so.
    """
    started = time.monotonic()
    listener = listener or Listener()
    if resume is not None:
        folder = RunFolder(find_run(home, resume))
        address = home_of_run(folder)
        check_free(open_home(address)[0], folder.id)
        prepared, config = recall_run(folder, data if isinstance(data, Path) else None)
        with held(folder, address, listener) as number:
            folder.update(status="running")
            listener.note(f"going on with {folder.id}: {describe(prepared)}")
            result = run_prepared(folder, prepared, config, listener, minutes, epochs, number=number, resuming=True)
    elif data is not None:
        config = config or Config()
        with listener.progress("reading") as advance:
            prepared = prepare(
                data, config, home, classes=classes, plan_file=plan_file, started=started, note=listener.note,
                progress=lambda done, total: advance(done, total=total),
            )  # fmt: skip
        folder = RunFolder(new_run(home, name))
        shown = data.reading.root if isinstance(data, View) else str(data.absolute())
        with held(folder, data_home or home, listener) as number:
            origin = _origin(data_home or home, data, prepared, listener)
            tagged = {"tags": list(tags)} if tags else {}
            write_inputs(folder, config, prepared, origin, name=name, data=shown, parent=parent, **tagged)
            listener.note(f"run {folder.id}: {describe(prepared)}")
            result = run_prepared(folder, prepared, config, listener, number=number)
    else:
        raise InputError("nothing to train on: name a data folder, or a run to --resume")
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


@contextmanager
def held(folder: RunFolder, home: Path | str, listener: Listener) -> Iterator[int]:
    """Claim the next attempt of a run, and have a keeper beside it until it ends; the record says how it did.

    Args:
        folder: of the run on this machine.
        home: where the run belongs; what is not a folder gets it from the keeper.
        listener: says whether stdout and stderr are kept.

    Yields:
        The attempt's number.
    """
    number = claim_attempt(open_home(home)[0], folder.id)
    place = folder.path / "attempts" / str(number)
    keeper = start_keeper(place, run=folder.id, home=home, keep_output=listener.keep_output)
    status = "failed"
    try:
        yield number
        status = str(folder.record()["status"])
    except TrainingError as error:
        folder.update(status="failed", error=str(error), ended=now())
        raise
    except UsegError as error:
        _best_effort(folder, status="failed", error=str(error), ended=now())
        raise
    except (KeyboardInterrupt, SystemExit):
        status = "stopped"
        _best_effort(folder, status="stopped", ended=now())
        raise
    except Exception as error:
        _best_effort(folder, status="failed", error=f"{type(error).__name__}: {error}", ended=now())
        raise
    finally:
        keeper.close(status)


def run_prepared(
    folder: RunFolder,
    prepared: Prepared,
    config: Config,
    listener: Listener,
    minutes: float | None = None,
    epochs: float | None = None,
    *,
    number: int,
    resuming: bool = False,
    decisions: Callable[[str], list[Event]] | None = None,
) -> dict[str, Any]:
    """Train each fold, then measure and report.

    Args:
        folder: of the run, its inputs written. prepared: what it learns from. config: settings.
        listener: where words and progress go.
        minutes, epochs: what a run that is resumed is extended by.
        number: of the attempt that was claimed.
        resuming: whether it began before.
        decisions: those of another run to be taken again, by the part of its folder that a fold has.
    """
    attempts = []
    plan = prepared.plan
    world = world_of(config)
    check_workers(plan, world)
    several = len(prepared.fold_splits) > 1
    for fold, splits in enumerate(prepared.fold_splits):
        place = RunFolder(folder.path / "folds" / str(fold)) if several else folder
        with writing(place.path):
            place.path.mkdir(parents=True, exist_ok=True)
        train_on = [i for i, split in enumerate(splits) if "train" in split]
        validate_on = [i for i, split in enumerate(splits) if "val" in split]
        batches = Batches(plan, prepared.samples, train_on, workers=threads_beside(plan.threads))
        again = None if decisions is None else decisions(f"folds/{fold}" if several else ".")
        budget = Budget(None if plan.budget_s is None else training_seconds(plan.budget_s))
        attempt = Attempt(
            place, plan, prepared, batches, validate_on, budget, number=number, world=world, decisions=again,
        )  # fmt: skip
        more_steps = attempt.steps_for(minutes, epochs) if resuming and (minutes or epochs) else None
        if not attempt.has_history:
            _preflight(plan, batches, prepared, train_on, listener)
        label = f"training fold {fold + 1} of {len(prepared.fold_splits)}" if several else "training"
        with together(folder.path, fold, plan, world):
            attempt.run(listener, label=label, more_steps=more_steps, minutes=None if epochs else minutes)
        attempts.append(attempt)
        if listener.stop.asked:
            break
    return finish(folder, prepared, attempts, listener, stopped=listener.stop.asked)


def describe(prepared: Prepared) -> str:
    """The plan in one line."""
    plan = prepared.plan
    width = f"{plan.dims}D U-Net of base {plan.base}, depth {plan.depth}"
    batch = f"{plan.micro_batch} patches of {'x'.join(map(str, plan.patch))}"
    seconds = f", {plan.seconds_per_step:.2f} s each" if plan.seconds_per_step else ""
    mode = f", objects by {plan.instance_mode}" if plan.instance_mode != "none" else ""
    return f"{width}, {plan.num_classes} classes{mode}; {plan.steps} steps of {batch}{seconds}"


def _preflight(plan: Any, batches: Batches, prepared: Prepared, train_on: list[int], listener: Listener) -> None:
    """What would go wrong is said before the time is spent."""
    shown = train_on[:: max(1, len(train_on) // 32)]
    counts = class_histogram(prepared.samples, shown, plan.num_classes)
    total = max(1, counts.sum())
    names = [*prepared.mapping.class_names, "ignored"]
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in zip(names, counts, strict=True) if count)
    listener.note(f"labels: {shares}")
    if plan.steps < 60 or plan.recipe == "paper":
        return  # one step of the network of 2015 takes as long as this whole check may
    first, last = overfit_one_batch(plan, batches, steps=max(8, min(20, plan.steps // 50)))
    if not last < first:
        listener.note(
            f"warning: the network could not learn a single batch by heart (loss {first:.3f} to {last:.3f}); "
            "look at the images and labels with `useg inspect`"
        )


def _origin(home: Path | str, data: Path | View, prepared: Prepared, listener: Listener) -> dict[str, Any] | None:
    """What a run's record says of its data; from here on files of a folder are checked when they are read."""
    place = {} if isinstance(home, Path) else {"home": home}
    if isinstance(data, View):
        return {"of": "view"} | place | data.origin.record()
    try:
        with listener.progress("recording the data"):
            origin, files = record_folder(home, data, _labelled(prepared))
    except UsegError as error:
        listener.note(f"warning: the data could not be recorded as a version, so the run may not be had again: {error}")
        return None
    prepared.samples.read_from(files)
    return {"of": "folder"} | place | origin.record()


def _labelled(prepared: Prepared) -> list[Sample]:
    return [sample for sample in prepared.reading.samples if sample.labels]


def write_inputs(
    folder: RunFolder, config: Config, prepared: Prepared, origin: dict[str, Any] | None, **more: Any
) -> None:
    """Write down what goes into a run.

    Args:
        folder: of the run. config: settings. prepared: plan and samples.
        origin: which version of which data set; None where it could not be recorded.
        more: further fields of the record, such as name and data.
    """
    folder.update(
        format=2,
        run=folder.id,
        status="running",
        started=now(),
        useg=__version__,
        command=[word.encode("utf-8", "backslashreplace").decode() for word in sys.argv],
        origin=origin,
        records=[origin["commit"]] if origin else [],
        samples=len(_labelled(prepared)),
        config=config.model_dump(mode="json"),
        config_digest=config.digest(),
        plan=prepared.plan.model_dump(mode="json"),
        seeds={"seed": config.seed},
        machine=probe.machine(),
        **surroundings(open_home((origin or {}).get("home") or folder.home)[1], torch=probe.torch_build()),
        notes=list(prepared.notes),
        **more,
    )
    folder.write_json("config.json", config.model_dump(mode="json"))
    folder.write_json("fingerprint.json", prepared.fingerprint.model_dump(mode="json"))
    folder.write_text("classes.toml", prepared.mapping.to_toml())
    folder.write_json("mapping.json", prepared.mapping.model_dump(mode="json"))
    source = prepared.samples.source
    if isinstance(source, ViewFiles):
        rows = [asdict(sample) | {"space": source.space(sample)} for sample in _labelled(prepared)]
    else:
        rows = [asdict(absolute(sample)) for sample in _labelled(prepared)]
    folder.write_json("samples.json", rows)
    folder.write_json(
        "splits.json", [dict(zip(prepared.samples.keys, splits, strict=True)) for splits in prepared.fold_splits]
    )
    prepared.plan.save(folder.plan)


def _best_effort(folder: RunFolder, **changes: Any) -> None:
    try:
        folder.update(**changes)
    except UsegError:
        return  # the disk is full or gone: the error that is being raised says so already
