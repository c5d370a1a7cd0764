"""`useg predict`: images of any size through trained networks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from useg.cli.output import emit, note, progress
from useg.errors import DataError, InputError, Problem
from useg.home.amounts import parse_bytes

__all__ = ["predict"]

_SHOWN = 5


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE... INPUT...",
            help="Trained models (files ending in .useg; several are averaged), then images, folders of "
            "images, or refs such as file.h5#dataset.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if it is not there.")],
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over flips and rotations: better, 8 times slower.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write class probabilities (float16).")
    ] = False,
    instances: Annotated[bool, typer.Option("--instances", help="Also write separate objects (int32).")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write pictures of the result.")] = False,
    memory_limit: Annotated[
        str | None, typer.Option(help="Most memory to use, like 2GB; by default half of what is free.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Predict label maps for images of any size, in the values, names and formats of the user.

    Images that cannot be predicted are listed at the end (exit status 2); the others are written.
    """
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    bundles = [Path(path) for path in paths if path.endswith(".useg")]
    inputs = [path for path in paths if not path.endswith(".useg")]
    if not bundles:
        raise InputError("no model was named: give one or more files ending in .useg before the images")
    if not inputs:
        raise InputError("no image was named: give files or folders after the model")
    missing = [Problem(str(path), "there is no such file") for path in bundles if not path.is_file()]
    if missing:
        raise DataError("a model is missing", missing)
    # Loading torch and the network takes seconds; mistakes of the command line are told before.
    from useg.experiments.predict import choose_device
    from useg.experiments.predict import predict as predict_files

    problems: list[Problem] = []
    notes: list[str] = []
    with progress("predicting Mpx") as advance:
        outputs = predict_files(
            bundles,
            inputs,
            out,
            tta=tta,
            probabilities=probabilities,
            instances=instances,
            overlay=overlay,
            memory_limit_bytes=limit,
            device=choose_device(device),
            progress=advance,
            problems=problems,
            notes=notes,
        )
    for line in notes:
        note(line)
    result: dict[str, Any] = {"outputs": outputs, "problems": problems}
    emit(result, json=json, text=lambda: _summary(outputs, out))
    if problems:
        note("")
        raise DataError(f"{len(problems)} of {len(problems) + len(outputs)} images were not predicted", problems)


def _summary(outputs: list[dict[str, Any]], out: Path) -> str:
    lines = [f"{one['input']} -> {one['labels']} ({one['seconds']:.1f} s)" for one in outputs[:_SHOWN]]
    if len(outputs) > _SHOWN:
        lines.append(f"... and {len(outputs) - _SHOWN} more")
    return "\n".join([*lines, f"{len(outputs)} predicted" + (f"; results are in {out}" if outputs else "")])
