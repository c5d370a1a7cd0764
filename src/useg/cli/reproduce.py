"""`useg reproduce`: a run had again, and the proof that it is the same."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from useg.cli.output import emit, note, progress
from useg.cli.train import CacheSize, Home, Sets, homes, say, summary

if TYPE_CHECKING:
    from useg.experiments.reproduce import Proof

DIFFERENT = 3
"""Exit status where the two runs differ."""


def reproduce(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, name or folder of the run.")],
    sets: Sets = None,
    home: Home = None,
    cache_size: CacheSize = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Have a run again, from the version of its data and its frozen plan, and compare every loss and the weights.

    The exit status is 0 where both are the same, to the bit or within rounding, and 3 where they differ. With --set the
    run is not repeated but varied: the same data, mapping and settings but for these.
    """
    from useg.experiments.reproduce import fork
    from useg.experiments.reproduce import reproduce as run_again
    from useg.experiments.train import Listener, Stop

    listener = Listener(note=say, progress=progress, stop=Stop(), keep_output=True)
    listener.stop.install()
    place, _ = homes(home, cache_size)
    result = fork(run, sets, home=place, listener=listener) if sets else run_again(run, home=place, listener=listener)
    if result["status"] == "stopped":
        note(f"stopped; what was done lies in {result['folder']}")
        raise typer.Exit(130)
    if sets:
        emit(result, json=json, text=lambda: summary(result))
        return
    proof: Proof = result["proof"]
    emit(result | {"proof": asdict(proof)}, json=json, text=lambda: verdict(proof, result["run"]))
    if proof.verdict == "different":
        raise typer.Exit(DIFFERENT)


def verdict(proof: "Proof", run: str) -> str:
    """The proof in a few lines."""
    if proof.verdict == "bit-identical":
        same = f"the losses of {proof.steps} steps and the weights ({proof.weights[0][:12]}) are the same"
        return f"bit-identical: {same}\n{run}"
    first = "no loss differs"
    if proof.losses is not None:
        first = (
            f"the first step that differs is {proof.first_step}: loss {proof.losses[0]!r} then, {proof.losses[1]!r} now"
        )
    said = "within tolerance" if proof.verdict == "within tolerance" else "different"
    shown = [f"{said}: {first}", f"largest difference of a loss: {proof.largest:.2e} of its size"]
    if None not in proof.scores:
        shown.append(f"mean Dice {proof.scores[0]:.4f} then, {proof.scores[1]:.4f} now")
    return "\n".join([*shown, run])
