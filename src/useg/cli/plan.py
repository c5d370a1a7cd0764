"""`useg plan`: what a training would do, as a file to read, edit and give back."""

from pathlib import Path
from typing import Annotated

import typer

from useg.cli.output import emit, note, progress
from useg.cli.train import (
    CacheSize,
    Classes,
    ConfigFile,
    Epochs,
    Folds,
    Home,
    Minutes,
    Recipe,
    Seed,
    Sets,
    Steps,
    Transforms,
    Where,
    Workers,
    check_budget,
    homes,
    workers_of,
)


def plan(
    data: Annotated[
        Path, typer.Argument(help="Folder, pairs.csv or file with images and labels; or NAME[@REF] of a data set.")
    ],
    where: Where = None,
    transforms: Transforms = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the plan here instead of to stdout.")] = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    sets: Sets = None,
    folds: Folds = None,
    workers: Workers = None,
    home: Home = None,
    cache_size: CacheSize = None,
    seed: Seed = None,
    classes: Classes = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object.")] = False,
) -> None:
    """Plan a training on DATA: patch, depth, width, steps, loss, and why."""
    from useg.config import load_config
    from useg.experiments.prepare import prepare
    from useg.experiments.recording import named_data

    check_budget(minutes, epochs, steps)
    settings = load_config(
        config, sets or (), recipe=recipe, minutes=minutes, epochs=epochs, steps=steps, folds=folds, seed=seed,
        **workers_of(workers),
    )  # fmt: skip
    place, elsewhere = homes(home, cache_size)
    with progress("reading") as advance:
        prepared = prepare(
            named_data(data, where, elsewhere or place, transforms or ()), settings, place, classes=classes, note=note,
            progress=lambda done, total: advance(done, total=total),
        )  # fmt: skip
    if out is not None:
        prepared.plan.save(out)
        note(f"plan written to {out}; train with: useg train {data} --plan {out}")
    emit(prepared.plan.model_dump(mode="json"), json=json, text="" if out is not None else prepared.plan.to_toml())
