"""`useg sweep`: many runs for one question: which settings are best, what each of them matters, how sure that is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from useg.cli.output import emit, note, warn
from useg.cli.tables import laid_out, terminal_width
from useg.cli.train import Home, homes, say

_MOST_ROWS = 20
_VERDICTS = {
    True: "more than seed noise",
    False: "not more than seed noise and chance",
    None: "too few seeds or samples to tell",
}
File = Annotated[
    Path | None, typer.Argument(metavar="SWEEP.toml", help="What is asked: docs/sweep.md.", exists=True, dir_okay=False)
]


def sweep(
    file: File = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Runs in all, instead of the file's budget.")] = None,
    parallel: Annotated[str, typer.Option(metavar="auto|K", help="Trials at the same time.")] = "auto",
    on: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Head of a Ray cluster: docs/cluster.md.")] = None,
    resume: Annotated[str, typer.Option(metavar="ID", help="Go on with a sweep, as the same file does, too.")] = "",
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object.")] = False,
) -> None:
    """Try settings against each other; each trial is an ordinary run of the home."""
    from useg.errors import ConfigError, InputError
    from useg.experiments.listening import Listener, Stop
    from useg.experiments.sweep.session import sweep as run_sweep

    if (file is None) == (not resume):
        raise InputError("name a SWEEP.toml, or a sweep to --resume")
    if parallel != "auto" and not (parallel.isdecimal() and 0 < int(parallel) <= 1000):
        raise ConfigError(f"--parallel {parallel}: wanted auto, or a number from 1 to 1000")
    listener = Listener(note=say, stop=Stop())
    listener.stop.install()
    place, elsewhere = homes(home, None)
    at_once, what = None if parallel == "auto" else int(parallel), file or resume
    result = run_sweep(what, home=place, address=elsewhere, trials=trials, parallel=at_once, on=on, listener=listener)
    emit(result, json=json, text=lambda: summary(result))
    for each in result["failed"]:
        warn(f"trial {each['trial']} failed: {(each['lines'] or ['without a word'])[-1]}")
    if result["status"] == "stopped":
        note(f"stopped; go on with: useg sweep --resume {result['sweep']}")
        raise typer.Exit(130)
    if result["failed"] and not result["trials"]["finished"]:
        raise InputError(f"no trial finished; their last lines stand in {result['log']}")


def summary(found: dict[str, Any]) -> str:
    """The outcome for people."""
    counts = ", ".join(f"{count} {state}" for state, count in found["trials"].items() if count)
    lines = [f"sweep {found['sweep']}: {found['status']}; trials: {counts or 'none'}"]
    if best := found["best"]:
        spread = "" if best["spread"] is None else f" ± {best['spread']:.2g} between seeds"
        lines += [f"best {found['metric']} {best['score']:.4f}{spread}, configuration {best['configuration']}:"]
        lines += [f"  {key} = {value!r}" for key, value in best["settings"].items()]
        lines += [f"  runs {', '.join(best['runs'])}"]
    lines += ["", *_table(found["configurations"], found["metric"]), ""]
    lines += [
        "what each setting explains of what the others leave (95 % interval):",
        *map(_importance, found["importance"]),
    ]
    for each in found["differences"]:
        over = f" over {each['samples']} samples" if each["samples"] else ""
        said = f"{each['first']} against {each['second']}: {each['difference']:+.4f}{over}"
        lines += [f"{said}, p {each['p_corrected']:.2g} corrected: {_VERDICTS[each['more_than_noise']]}"]
    return "\n".join([*lines, *(f"note: {each}" for each in found["notes"]), f"log   {found['log']}"])


def _table(rows: list[dict[str, Any]], metric: str) -> list[str]:
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    cells = [["", metric, "±", "finished", "given up", "failed", *keys]]
    for row in rows[:_MOST_ROWS]:
        numbers = ["-" if row[name] is None else f"{row[name]:.4g}" for name in ("score", "spread")]
        counts = [str(row[name]) for name in ("finished", "given_up", "failed")]
        cells += [[str(row["configuration"]), *numbers, *counts, *(str(row["settings"].get(key, "")) for key in keys)]]
    lines = laid_out(cells, width=terminal_width())
    return lines + [f"... and {len(rows) - _MOST_ROWS} more (--json has all)"] * (len(rows) > _MOST_ROWS)


def _importance(row: dict[str, Any]) -> str:
    said = f"too few configurations to say ({row['configurations']})"
    if row["share"] is not None:
        said = f"{row['share']:.0%} ({row['low']:.0%} to {row['high']:.0%})" + ", perhaps nothing" * (row["low"] == 0)
    levels = ", ".join(f"{name}: {mean:.4g}" for name, _, mean in row["levels"] if mean is not None)
    return f"  {row['key']}  {said}; mean by value: {levels or 'none'}"
