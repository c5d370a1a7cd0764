"""`useg runs watch`: a command or a web address told when a run starts, ends, fails, dies or passes a score."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from useg.cli.data_options import Home
from useg.cli.output import emit, note, warn

if TYPE_CHECKING:
    from useg.home.store import Store
    from useg.runs.telling import Recipient

_ON = "starts,ends,fails,dies"


def watch(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Only these, until they have ended. [default: all]")
    ] = None,
    on: Annotated[
        str, typer.Option(metavar="KIND,...", help="What to tell; ends: finished or stopped. '' for none.")
    ] = _ON,
    when: Annotated[
        list[str] | None,
        typer.Option(metavar="FILTER", help='Tell, once, of each run for which this holds: "last.mean_dice > 0.9".'),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMMAND", help="For the shell: gets the event as JSON on stdin, and as USEG_* variables."
        ),
    ] = None,
    post: Annotated[list[str] | None, typer.Option(metavar="URL", help="Gets the event as JSON, by POST.")] = None,
    past: Annotated[bool, typer.Option("--past", help="Tell also what happened before the first start.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Look once, tell once, and end: for cron.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a command or an answer may take.")] = 60.0,
    remember: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What was told. [default: in this machine's cache]", show_default=False),
    ] = None,
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="Print each event as one JSON object.")] = False,
) -> None:
    """Tell when runs start, end, fail, die, or pass a score; whoever trains knows nothing of it."""
    from useg.errors import ResourceError
    from useg.runs.find import open_runs, with_run
    from useg.runs.watching import Wanted, Watch, memory_file, remembering

    kinds, recipients = _kinds(on), _recipients(run or [], post or [], timeout)
    store, names = open_runs(home), None
    if runs:
        found = [with_run(home, text, lambda store, index, one: (store, one.id)) for text in runs]
        store, names = _one_home([each[0] for each in found]), [each[1] for each in found]
    file = remember or memory_file(store, recipients, names)
    with remembering(file) as memory:
        eye = Watch(store, Wanted(kinds, when or [], names, past), recipients, memory, warn)
        begins = "; what happened before is not told (--past tells it)" if memory.is_new and not past else ""
        note(f"watching {store.url if names is None else ', '.join(names)}{begins}; remembered in {file}")
        events = eye.once() if once else eye.go_on(until_ended=names is not None)
        for event in events:
            emit(event, json=json, text=f"{event['time']}  {event['text']}")
        if eye.waiting or eye.given_up:
            raise ResourceError(
                f"{eye.waiting} not told yet, and told at the next start; {eye.given_up} given up (see the warnings)"
            )


def _kinds(text: str) -> list[str]:
    from useg.errors import InputError
    from useg.runs.watching import KINDS

    kinds = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in kinds if word not in KINDS]
    if unknown:
        raise InputError(f"--on: wanted some of {', '.join(KINDS)}, not {', '.join(map(repr, unknown))}")
    return kinds


def _recipients(commands: list[str], addresses: list[str], timeout: float) -> "list[Recipient]":
    from useg.errors import InputError
    from useg.runs.telling import Command, WebAddress

    if not all(command.strip() for command in commands):
        raise InputError("--run: wanted a command, not an empty text")
    return [*(Command(each, timeout) for each in commands), *(WebAddress(each, timeout) for each in addresses)]


def _one_home(stores: "list[Store]") -> "Store":
    from useg.errors import InputError

    urls = sorted({store.url for store in stores})
    if len(urls) > 1:
        raise InputError(f"the runs lie in several homes ({', '.join(urls)}); watch each home by itself")
    return stores[0]
