"""`useg reproduce`: a run had again, and the proof that it is the same."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from useg.cli.output import emit, note, progress
from useg.cli.train import CacheSize, Home, Sets, homes, say, summary

if TYPE_CHECKING:
    from useg.experiments.reproduce import Environment, Proof

_SHOWN = 10
DIFFERENT = 3
"""Exit status where the two runs differ."""


def reproduce(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, name or folder of the run.")],
    sets: Sets = None,
    env: Annotated[
        str,
        typer.Option(
            help="current: as useg is here; fresh: the recorded versions, installed into an environment of their own, "
            "with useg as it was."
        ),
    ] = "current",
    home: Home = None,
    cache_size: CacheSize = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Have a run again, and compare every loss and the weights.

    A training is repeated from the version of its data and its frozen plan; a script of your own that recorded a run is
    run as it was. The exit status is 0 where both are the same, to the bit or within rounding, and 3 where they differ.
    With --set a training is not repeated but varied: the same data, mapping and settings but for these.
    """
    from useg.errors import ConfigError
    from useg.experiments.listening import Listener, Stop
    from useg.experiments.reproduce import fork
    from useg.experiments.reproduce import reproduce as run_again
    from useg.runs.bringing import here

    if env not in ("current", "fresh"):
        raise ConfigError(f"--env: wanted current or fresh, not {env!r}")
    if sets and env == "fresh":
        raise ConfigError("--set trains anew with this useg: leave out --env fresh, which repeats a run as it was")
    environment: Environment = env  # type: ignore[assignment]
    listener = Listener(note=say, progress=progress, stop=Stop(), keep_output=True)
    listener.stop.install()
    place, elsewhere = homes(home, cache_size)
    if elsewhere is not None:
        run = here(run, place, elsewhere)
    if sets:
        result = fork(run, sets, home=place, listener=listener)
    else:
        result = run_again(run, home=place, environment=environment, listener=listener)
    if result["status"] == "stopped":
        note(f"stopped; what was done lies in {result['folder']}")
        raise typer.Exit(130)
    if sets:
        emit(result, json=json, text=lambda: summary(result))
        return
    proof: Proof = result["proof"]
    emit(
        result | {"proof": asdict(proof)},
        json=json,
        text=lambda: verdict(proof, result["run"], result.get("not_the_same", ())),
    )
    if proof.verdict == "different":
        raise typer.Exit(DIFFERENT)


def verdict(proof: "Proof", run: str, not_the_same: Sequence[str] = ()) -> str:
    """The proof in a few lines, and what could not be as it was."""
    word = "differs, without effect" if proof.verdict == "bit-identical" else "differs"
    around = [f"{word}: {each}" for each in (*proof.surroundings[:_SHOWN], *not_the_same)]
    if len(proof.surroundings) > _SHOWN:
        around.append(f"and {len(proof.surroundings) - _SHOWN} more that differ; see {run}'s record")
    if proof.verdict == "bit-identical":
        what = "the scores" if proof.weights[0] is None else f"the weights ({proof.weights[0][:12]})"
        values = "values" if proof.weights[0] is None else "losses"
        return "\n".join([f"bit-identical: the {values} of {proof.steps} steps and {what} are the same", *around, run])
    first = "no value of a step differs" if proof.weights[0] is None else "no loss differs"
    if proof.losses is not None:
        then, now = proof.losses
        first = f"the first step that differs is {proof.first_step}: {proof.value} {then!r} then, {now!r} now"
    said = "within tolerance" if proof.verdict == "within tolerance" else "different"
    shown = [f"{said}: {first}", f"largest difference of a value: {proof.largest:.2e} of its size"]
    if None not in proof.scores:
        shown.append(f"mean Dice {proof.scores[0]:.4f} then, {proof.scores[1]:.4f} now")
    return "\n".join([*shown, *around, run])
