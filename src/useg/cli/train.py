"""`useg train`: from a folder of images and masks to a trained, measured model."""

import os
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from useg.cli.output import console, emit, note, progress, warn

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings as TOML.", exists=True, dir_okay=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as augmentation.elastic=false; repeatable."),
]
Minutes = Annotated[float | None, typer.Option(min=0.01, help="Time for the whole run. [default: 15]")]
Epochs = Annotated[float | None, typer.Option(min=0.001, help="Instead of --minutes: passes over the data.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Instead of --minutes: optimiser steps.")]
Recipe = Annotated[str | None, typer.Option(help="modern, or paper: the network and training of 2015.")]
Folds = Annotated[int | None, typer.Option(min=0, max=20, help="Cross-validate with so many folds.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of everything random. [default: 0]")]
Home = Annotated[
    str | None,
    typer.Option(
        help="A folder for runs and data sets; or s3://, gs://, az://, http:// for data, while runs go to useg-home/. "
        "[default: USEG_HOME, else useg-home/]"
    ),
]
CacheSize = Annotated[
    str | None,
    typer.Option(
        help="How much of data sets this machine keeps, like 50GB. [default: USEG_CACHE_SIZE, else half of "
        "what is free]"
    ),
]
Classes = Annotated[
    Path | None, typer.Option(help="Label mapping; by default classes.toml in DATA.", exists=True, dir_okay=False)
]
Where = Annotated[str | None, typer.Option(help="Of a data set, only samples for which this holds.")]
Transforms = Annotated[
    list[str] | None,
    typer.Option("--transform", help="Of a data set: a change while loading, such as resize=256; repeatable."),
]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|LOW:HIGH", help="Processes (or GPUs) that train together; with --on also from so few to so many."
    ),
]


def train(
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder, pairs.csv or file with images and labels; or NAME[@REF] of a data set."),
    ] = None,
    where: Where = None,
    transforms: Transforms = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    recipe: Recipe = None,
    config: ConfigFile = None,
    sets: Sets = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan by `useg plan`, used as it is.", exists=True, dir_okay=False)
    ] = None,
    folds: Folds = None,
    workers: Workers = None,
    home: Home = None,
    cache_size: CacheSize = None,
    name: Annotated[str | None, typer.Option(help="A name that becomes part of the run's id.")] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="A tag of the run, as of `useg runs tag`; repeatable.")
    ] = None,
    seed: Seed = None,
    classes: Classes = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run; with --minutes or --epochs, extend it.")
    ] = None,
    on: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Head of a Ray cluster: docs/cluster.md.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Train a U-Net on DATA, planned for the data, this machine and the time given."""
    from useg.config import load_config
    from useg.errors import ConfigError
    from useg.experiments.listening import Listener, Stop
    from useg.experiments.recording import named_data
    from useg.experiments.train import train as run_training
    from useg.experiments.train_on import train_on
    from useg.runs.record import check_tags

    check_budget(minutes, epochs, steps)
    check_tags(tags or ())
    if resume is not None:
        own = {"steps": steps, "recipe": recipe, "config": config, "set": sets or None, "plan": plan, "folds": folds,
               "workers": workers, "name": name, "seed": seed, "classes": classes, "where": where,
               "transform": transforms or None, "tag": tags or None}  # fmt: skip
        given = [f"--{option}" for option, value in own.items() if value is not None]
        if given:
            raise ConfigError(
                f"a run goes on with its own settings: leave out {', '.join(given)}, or begin a new run; "
                "--minutes or --epochs extend it"
            )
    settings = load_config(
        config,
        sets or (),
        minutes=minutes if resume is None else None,
        epochs=epochs if resume is None else None,
        recipe=recipe, steps=steps, folds=folds, seed=seed, **workers_of(workers, elastic=on is not None),
    )  # fmt: skip
    listener = Listener(note=say, progress=progress, stop=Stop(), keep_output=True)
    listener.stop.install()
    place, elsewhere = homes(home, cache_size)
    what = None if data is None else named_data(data, where, elsewhere or place, transforms or ())
    if on is not None:
        if resume is not None and (minutes or epochs):
            raise ConfigError("a run is extended on one machine: leave out --on")
        options = {"--where": [where], "--transform": transforms, "--name": [name], "--tag": tags}
        files = {"--classes": classes, "--plan": plan}
        result = train_on(on, elsewhere or str(place.absolute()), what, settings, options, files, resume, listener)
    else:
        if resume is not None and elsewhere is not None:
            resume = _brought(resume, place, elsewhere)
        result = run_training(
            what, home=place, data_home=elsewhere, config=settings, classes=classes, plan_file=plan, name=name,
            tags=tags or (), resume=resume, minutes=minutes if resume is not None else None,
            epochs=epochs if resume is not None else None, listener=listener,
        )  # fmt: skip
    emit(result, json=json, text=lambda: summary(result))
    if result["status"] == "stopped":
        note(f"stopped; go on with: useg train --resume {result['run']}")
        raise typer.Exit(130)


def homes(home: str | None, cache_size: str | None) -> tuple[Path, str | None]:
    """The folder that runs are written to, and the address of data sets if that is another one."""
    from useg.home.amounts import parse_bytes
    from useg.home.opening import CACHE_SIZE, folder_for_runs, is_folder

    if cache_size is not None:
        parse_bytes(cache_size)
        os.environ[CACHE_SIZE] = cache_size  # worker processes keep to it, too
    return folder_for_runs(home), None if is_folder(home) else home or os.environ["USEG_HOME"]


def check_budget(minutes: float | None, epochs: float | None, steps: int | None) -> None:
    """Refuse more than one budget, and one without end.

    Raises:
        ConfigError: two or three of them are given, or one is not finite.
    """
    from useg.errors import ConfigError

    if sum(value is not None for value in (minutes, epochs, steps)) > 1:
        raise ConfigError("give one of --minutes, --epochs and --steps")
    if not isfinite(minutes or 0) or not isfinite(epochs or 0):
        raise ConfigError("--minutes and --epochs want a finite number")


def workers_of(text: str | None, *, elastic: bool = False) -> dict[str, Any]:
    """The settings that --workers means.

    Raises:
        ConfigError: it is neither a number nor two of them, or two where there is no cluster.
    """
    from useg.errors import ConfigError

    least, colon, most = (text or "").rpartition(":")
    if text is None:
        return {}
    if not (most.isdecimal() and (least.isdecimal() or not colon)):
        raise ConfigError(f"--workers {text}: wanted a number, such as 4, or with --on a range, such as 2:8")
    if colon and not elastic:
        raise ConfigError(f"--workers {text}: a range is for a cluster (--on), whose machines come and go")
    return {"workers": int(most)} | ({"least_workers": int(least)} if colon else {})


def say(text: str) -> None:
    """One line for the user; warnings stand out."""
    if text.startswith("warning: "):
        warn(text.removeprefix("warning: "))
    else:
        console().print(text, markup=False, highlight=False, soft_wrap=True)


def summary(result: dict[str, Any]) -> str:
    """The result for people."""
    scores = result["scores"]
    lines = [f"{result['status']} in {result['seconds']:.0f} s; scores on the {scores['part']} part:"]
    width = max(len(name) for name in scores["classes"])
    for name, row in scores["classes"].items():
        dice = "  -  " if row["dice"] is None else f"{row['dice']:.3f}"
        iou = "  -  " if row["iou"] is None else f"{row['iou']:.3f}"
        images = f"{row['images_with_class']} image{'s' * (row['images_with_class'] != 1)}"
        missed = f"  missed in {row['images_missed']}" if row["images_missed"] else ""
        lines.append(f"  {name:<{width}}  Dice {dice}  IoU {iou}  in {images}{missed}")
    objects, membranes = scores.get("instances"), scores.get("membranes")
    lines.append(f"  pixel error {scores['pixel_error']:.4f}")
    if objects:
        lines.append(f"  objects: AP at 0.5 {objects['ap50']:.3f}, panoptic quality {objects['pq']:.3f}")
    if membranes:
        lines.append(f"  membranes: V_rand {membranes['v_rand']:.4f}, V_info {membranes['v_info']:.4f}")
    lines += [f"model   {result['bundle']}", f"report  {result['report']}"]
    return "\n".join(lines)


def _brought(run: str, home: Path, elsewhere: str) -> str:
    """The id of a run that is to go on, and that is here from now on."""
    from useg.runs.bringing import here

    run = here(run, home, elsewhere, also_dead=True)
    folder = home / "runs" / run
    if not any(file for kind in ("checkpoints", "before-cooldown") for file in folder.glob(f"**/{kind}/*")):
        note("its checkpoints are not on this machine, so it begins at its first step")
    return run
