"""`useg submit`: puts a training into the queue of a home, for a dispatcher to run."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from useg.cli.data_options import Json
from useg.cli.output import emit, note
from useg.cli.train import Home, check_budget, workers_of

_ELSEWHERE = {"on": "a dispatcher names the cluster: useg jobs dispatch --on", "resume": "a job goes on by itself",
              "cache_size": "a dispatcher's machines have their own"}  # fmt: skip
_PATHS = ("data", "config", "classes", "plan")


class Submitting(TyperCommand):
    """Leaves the options of the command that is put into the queue to that command."""

    allow_interspersed_args = False


def submit(
    command: Annotated[list[str], typer.Argument(metavar="-- train NAME[@REF] ...", help="As it would be run here.")],
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="What is higher goes first.")] = 0,
    gpus: Annotated[
        int | None, typer.Option(min=0, max=64, help="GPUs it needs. [default: 1 where there are any]")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Cores it needs. [default: as train.threads, else its share]")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Put a training into the queue of the home; a dispatcher (useg jobs dispatch) runs it: docs/cluster.md."""
    from useg.config import load_config
    from useg.data.views import View
    from useg.errors import InputError
    from useg.experiments.ordered import threads_of, words_and_files
    from useg.experiments.recording import named_data
    from useg.home.opening import open_home
    from useg.runs.queue_log import QueueLog
    from useg.runs.record import check_tags
    from useg.runs.surroundings import user

    given = _parsed(command)
    home, json = given["home"] or home, given["json"] or json
    check_budget(given["minutes"], given["epochs"], given["steps"])
    check_tags(given["tags"] or ())
    settings = load_config(
        given["config"], given["sets"] or (),
        **{key: given[key] for key in ("minutes", "epochs", "recipe", "steps", "folds", "seed")},
        **workers_of(given["workers"]),
    )  # fmt: skip
    store = open_home(home)[0]
    data = named_data(given["data"], given["where"], home or store.url, given["transforms"] or ())
    options = {"--where": [given["where"]], "--transform": given["transforms"], "--name": [given["name"]],
               "--tag": given["tags"]}  # fmt: skip
    words, files = words_and_files(data, settings, options, {"--classes": given["classes"], "--plan": given["plan"]})
    threads = threads_of(settings, files)
    try:
        texts = {option: content.decode() for option, content in files.items()}
    except UnicodeDecodeError as error:
        raise InputError(f"{' '.join(command)}: a file that it names is no text in UTF-8: {error}") from error
    asked = {"words": words, "files": texts, "threads": threads, "workers": settings.workers,
             "records": [data.origin.commit] if isinstance(data, View) else []}  # fmt: skip
    needs = {"cpus": cpus or (threads * settings.workers if threads else None), "gpus": gpus, "priority": priority}
    what = shlex.join(word for word in command if word != "--json")
    number = QueueLog(store).submit(asked, {"what": what, "user": user() or "unknown", **needs})
    emit({"job": number, "home": store.url}, json=json, text=f"job {number}")
    note("a dispatcher runs it: useg jobs dispatch; look at it with: useg jobs")


def _parsed(command: list[str]) -> dict[str, Any]:
    """The options of a training, checked as if it were begun here.

    Raises:
        InputError: it is no training, or has options that a job cannot have.
    """
    from useg.cli.train import train
    from useg.errors import InputError

    if command[0] != "train":
        raise InputError(
            f"wanted `train NAME ...`, got {command[0]!r}: jobs are trainings; a sweep gives its trials to a cluster "
            "by itself (useg sweep --on)"
        )
    usage_error: type[Any] = typer.BadParameter.__mro__[1]  # click's, or that of typer's own copy
    made = typer.Typer(add_completion=False)
    made.command()(train)
    try:
        given = typer.main.get_command(made).make_context("useg train", command[1:]).params
    except usage_error as error:
        raise InputError(f"train: {error.format_message()}") from error
    for option, why in _ELSEWHERE.items():
        if given[option]:
            raise InputError(f"train --{option.replace('_', '-')} cannot be queued: {why}")
    if given["data"] is None:
        raise InputError("nothing to train on: name a data set of the home")
    return {name: Path(value) if name in _PATHS and value is not None else value for name, value in given.items()}


CLASSES = {"submit": Submitting}
