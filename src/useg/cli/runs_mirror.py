"""`useg runs mirror`: runs sent to an MLflow server, once or for as long as they go on."""

from typing import TYPE_CHECKING, Annotated

import typer

from useg.cli.data_options import Home, Json
from useg.cli.output import emit, note, progress, warn

if TYPE_CHECKING:
    from useg.runs.index import Index, Run
    from useg.runs.mirror import Mirror

_ALWAYS = 10.0 * 365 * 24 * 3600


def mirror(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Only these, by id or part of it. [default: all]")
    ] = None,
    to: Annotated[
        str, typer.Option(metavar="URI", envvar="MLFLOW_TRACKING_URI", help="The server: http://host:5000.")
    ] = "",
    experiment: Annotated[str, typer.Option(metavar="NAME", help="The experiment there; made if need be.")] = "useg",
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help='Only runs for which this holds: "score > 0.8".')
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what runs and comes; Ctrl-C ends it.")
    ] = False,
    patience: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds to wait for a server that is down. [default: 60; -f: always]", show_default=False
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Send runs to an MLflow server: params, metrics, pictures, models, tags; nothing twice."""
    from useg.errors import InputError
    from useg.runs.find import find, open_runs
    from useg.runs.mirror import Mirror
    from useg.runs.mirror_known import mirroring
    from useg.runs.mirror_server import Server
    from useg.runs.selecting import select

    if not to:
        raise InputError("--to is missing: wanted the address of an MLflow server, such as --to http://host:5000")
    store = open_runs(home)

    def choose(index: "Index") -> "list[Run]":
        meant = {find(index, text).id for text in runs or ()}
        return [run for run in select(index, where) if not meant or run.id in meant]

    server = Server(to, patience if patience is not None else _ALWAYS if follow else 60.0, warn)
    with mirroring(store, to, experiment) as folder:
        sender = Mirror(store, server, experiment, folder, warn)
        if follow:
            note(f"{store.url} is mirrored to {server.shown}, experiment {experiment!r}")
            for run in sender.go_on(choose, until_ended=bool(runs)):
                if run.id not in sender.problems:
                    note(f"{run.id}: {run.status}, {_counted(sender)} sent in all")
        else:
            _send(sender, sender.changed(choose))
    found = {"home": store.url, "to": server.shown, "experiment": experiment, **sender.counts}
    emit(
        found | {"problems": sender.problems},
        json=json,
        text=f"{server.shown}: {_counted(sender)} sent to {experiment!r}",
    )
    if sender.problems:
        raise InputError("\n".join(f"{run}: {problem}" for run, problem in sender.problems.items()))


def _send(sender: "Mirror", runs: "list[Run]") -> None:
    with progress("sending runs", total=len(runs)) as advance:
        for number, run in enumerate(runs):
            advance(number, status=run.id)
            sender.send(run)
        if runs:
            advance(len(runs))


def _counted(sender: "Mirror") -> str:
    return ", ".join(f"{count} {what}" for what, count in sender.counts.items())
