"""`useg inspect DATA`: what is in a folder, what is wrong with it, and how its labels are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from useg.cli.output import emit, error, note, progress

if TYPE_CHECKING:
    from useg.data.inspect import Inspection
    from useg.errors import Problem

__all__ = ["inspect"]


def inspect(
    data: Annotated[Path, typer.Argument(help="Folder of images and label maps, a pairs.csv, or one image.")],
    classes: Annotated[
        Path | None,
        typer.Option(help="Label mapping (TOML), complete or only some keys; default: DATA/classes.toml if there."),
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Write the label mapping to this file, to be edited.")] = None,
    augment: Annotated[
        Path | None, typer.Option(help="Write a picture of augmented samples with their weight maps.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what is in DATA, what is wrong with it, and how its labels are understood."""
    from useg.data.inspect import examine
    from useg.errors import DataError, Problem

    try:
        with progress("reading") as advance:
            found = examine(
                data,
                classes=classes,
                labels_needed=False,
                progress=lambda done, total: advance(done, total=total),
            )
    except DataError as failure:
        if json:
            problems = list(failure.problems) or [Problem(str(data), failure.summary)]
            emit(_empty(problems), json=True, text="")
        raise
    if write is not None and found.mapping is not None:
        _write(write, found.mapping.to_toml())
    if augment is not None and not found.problems:
        from useg.experiments.augmentation_sheet import write_augmentation_sheet

        write_augmentation_sheet(found, augment)
        note(f"augmented samples drawn in {augment}")
    emit(as_json(found), json=json, text=lambda: _text(found, str(data)))
    if found.problems:
        number = len(found.problems)
        error(f"{data} cannot be used yet: {number} problem{'s' if number > 1 else ''}")
        if json:
            for problem in found.problems:
                note(f"  - {problem}")
        raise typer.Exit(2)


def as_json(found: "Inspection") -> dict[str, Any]:
    """What `--json` prints."""
    reading = found.reading
    return {
        "reading": {
            "root": reading.root,
            "rule": reading.rule,
            "alternatives": reading.alternatives,
            "leftovers": reading.leftovers,
            "samples": reading.samples,
        },
        "mapping": found.mapping,
        "fingerprint": found.fingerprint,
        "problems": found.problems,
        "warnings": found.warnings,
        "repairs": found.repairs,
    }


def _empty(problems: "list[Problem]") -> dict[str, Any]:
    return {
        "reading": None,
        "mapping": None,
        "fingerprint": None,
        "problems": problems,
        "warnings": [],
        "repairs": [],
    }


def _text(found: "Inspection", data: str) -> str:
    from useg.cli.inspect_report import render

    return render(found, data)


def _write(path: Path, text: str) -> None:
    from useg.errors import InputError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} exists already; name another file, or remove it first") from None
    except FileNotFoundError:
        raise InputError(f"{path}: there is no folder {path.parent}") from None
    note(f"label mapping written to {path}")
