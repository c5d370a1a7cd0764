"""`useg plan`: what a training would do, as a file to read, edit and give back."""

from pathlib import Path
from typing import Annotated

import typer

from useg.cli.output import emit, note, progress
from useg.cli.train import (
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
    Workers,
    check_budget,
)


def plan(
    data: Annotated[Path, typer.Argument(help="Folder, pairs.csv or file with images and labels.")],
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
    seed: Seed = None,
    classes: Classes = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object.")] = False,
) -> None:
    """Plan a training on DATA: patch, depth, width, steps, loss, and why."""
    from useg.config import load_config
    from useg.experiments.prepare import prepare
    from useg.home.folder import find_home

    check_budget(minutes, epochs, steps)
    settings = load_config(
        config, sets or (), recipe=recipe, minutes=minutes, epochs=epochs, steps=steps, folds=folds,
        workers=workers, seed=seed,
    )  # fmt: skip
    with progress("reading") as advance:
        prepared = prepare(
            data, settings, find_home(home), classes=classes, note=note,
            progress=lambda done, total: advance(done, total=total),
        )  # fmt: skip
    if out is not None:
        prepared.plan.save(out)
        note(f"plan written to {out}; train with: useg train {data} --plan {out}")
    emit(
        prepared.plan.model_dump(mode="json"),
        json=json,
        text="" if out is not None else prepared.plan.to_toml(),
    )
