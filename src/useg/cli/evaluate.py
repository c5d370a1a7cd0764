"""`useg evaluate`: scores of predicted label maps, or of a model on a data set."""

from pathlib import Path
from typing import Annotated, Any

import typer

from useg.cli.output import emit, note, progress, warn
from useg.cli.tables import laid_out, terminal_width
from useg.errors import InputError

__all__ = ["evaluate"]


def evaluate(
    predictions: Annotated[
        list[Path], typer.Argument(help="Folder of predicted label maps, or models (*.useg) that are averaged.")
    ],
    labels: Annotated[Path, typer.Argument(help="Folder of label maps, or a data set with labels.")],
    classes: Annotated[
        Path | None, typer.Option(help="Label mapping (TOML); default: classes.toml beside the labels, else inferred.")
    ] = None,
    membrane: Annotated[
        str | None,
        typer.Option(help="Class that is the membrane between cells, or none; default: seen from the labels."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="Tolerance of NSD, in the unit of the files; default: one pixel.")
    ] = None,
    surface: Annotated[bool, typer.Option(help="Measure outline distances (HD95, ASSD, NSD).")] = True,
    lines: Annotated[bool, typer.Option(help="Measure centre lines (clDice); slow on large volumes.")] = True,
    partial: Annotated[bool, typer.Option("--partial", help="Score what is paired, leave out the rest.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Models: average over symmetries.")] = False,
    split: Annotated[str | None, typer.Option(help="Models: only the samples given as train, val or test.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score PREDICTIONS against LABELS: overlap, outlines, centre lines, objects, membranes."""
    with progress("scoring") as advance:

        def told(done: int, total: int) -> None:
            advance(done, total=total)

        if all(path.suffix == ".useg" for path in predictions):
            from useg.experiments.evaluate_model import evaluate_model

            if membrane is not None or tolerance is not None or partial:
                raise InputError("--membrane, --tolerance and --partial are for folders of predictions, not models")

            scores = evaluate_model(
                predictions, labels, classes=classes, split=split, tta=tta, surface=surface, lines=lines, advance=told
            )
        elif tta or split is not None:
            raise InputError("--tta and --split are for models (.useg), not for folders of predictions")
        else:
            from useg.experiments.evaluate import evaluate_folders

            scores = evaluate_folders(
                _one_folder(predictions),
                labels,
                classes=classes,
                membrane=membrane,
                partial=partial,
                surface=surface,
                lines=lines,
                tolerance=tolerance,
                advance=told,
            )
    for line in scores["notes"]:
        note(line)
    if scores["left_out"]:
        warn(f"{len(scores['left_out'])} files without a partner left out: {', '.join(scores['left_out'][:5])}")
    emit(scores, json=json, text=lambda: as_text(scores))


def _one_folder(predictions: list[Path]) -> Path:
    if len(predictions) > 1:
        raise InputError("one folder of predictions was wanted, or models that end in .useg")
    return predictions[0]


def as_text(scores: dict[str, Any]) -> str:
    """The scores as lines for people: a table of classes, then what else was measured."""
    surface = scores["surface"] or {"classes": {}}
    head = ["class", "Dice", "IoU", "Dice/image", "images", "missed", "false", "clDice", "HD95", "ASSD", "NSD"]
    rows = [head]
    for name, found in scores["classes"].items():
        outline = surface["classes"].get(name, {})
        rows.append(
            [
                name,
                *(_number(found[key]) for key in ("dice", "iou", "dice_mean")),
                *(str(found[f"images_{key}"]) for key in ("with_class", "missed", "false")),
                _number(found.get("cldice")),
                *(_number(outline.get(key), digits) for key, digits in (("hd95", 2), ("assd", 2), ("nsd", 4))),
            ]
        )
    lines = laid_out(rows, right=range(1, len(head)), width=terminal_width())
    mean_over = ", ".join(scores["mean_over"])
    lines += [
        "",
        f"images {scores['images']}   pixel error {_number(scores['pixel_error'])}   "
        f"mean Dice {_number(scores['mean_dice'])}   mean IoU {_number(scores['mean_iou'])}   "
        f"(over {mean_over})",
    ]
    if scores["surface"]:
        low, high = (f"{value:.4g}" for value in surface["missed_values"])
        lines.append(
            f"outlines in {surface['unit']}: NSD within {surface['tolerance'][0]:g}; "
            f"a missed class counts as the image diagonal, {low}{f'..{high}' if high != low else ''}"
        )
    lines += [_objects(scores["instances"])] if scores["instances"] else []
    lines += [_membranes(scores["membranes"])] if scores["membranes"] else []
    return "\n".join(lines)


def _objects(found: dict[str, Any]) -> str:
    curve = "  ".join(f"{threshold} {_number(score, 3)}" for threshold, score in found["ap"].items())
    return (
        f"objects {found['truths']} true, {found['predictions']} predicted: AP50 {_number(found['ap50'])}   "
        f"AP50-95 {_number(found['ap_mean'])}   PQ {_number(found['pq'])} = SQ {_number(found['sq'])} x RQ "
        f"{_number(found['rq'])}   SEG {_number(found['seg'])}\n"
        f"  AP at {curve}\n"
        f"  merges {found['merges']} ({found['merged_objects']} objects)   splits {found['splits']} "
        f"({found['fragments']} fragments)   missed {found['missed50']}   false {found['false50']}"
    )


def _membranes(found: dict[str, Any]) -> str:
    return (
        f"membranes: V_rand {_number(found['v_rand'])} (split {_number(found['v_rand_split'])}, merge "
        f"{_number(found['v_rand_merge'])})   V_info {_number(found['v_info'])}, thinned, inside true cells"
    )


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
