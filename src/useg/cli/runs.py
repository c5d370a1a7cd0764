"""Runs: what was tried, what came of it, and what made a model.

A run is named by its id, a part of it that no other has, its name, or the path of its folder. The home is a folder or a
bucket: --home, else USEG_HOME, else the nearest useg-home/.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from useg.cli import runs_show
from useg.cli.data_options import Home, Json
from useg.cli.output import emit, progress, warn
from useg.cli.output import note as tell
from useg.cli.runs_compare import compare
from useg.cli.runs_mirror import mirror
from useg.cli.runs_sample import sample
from useg.cli.runs_watch import watch

if TYPE_CHECKING:
    from useg.home.store import Store
    from useg.runs.index import Index, Run

OneRun = Annotated[str, typer.Argument(metavar="RUN", help="Id, part of it, name, or path of its folder.")]
Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Id, part of it, name, or path of its folder.")]
Where = Annotated[
    str | None, typer.Option(help="Only runs for which this holds: \"score.dice > 0.8 and tags has 'paper'\".")
]
COLUMNS = "run,status,started,seconds,scores.mean_dice,last.step,data,tags"
LIMIT = 50
POLL_S = 0.5


def list_runs(
    where: Where = None,
    sort: Annotated[str, typer.Option(metavar="[-]FIELD,...", help="Order; -: the largest first.")] = "-started",
    columns: Annotated[str, typer.Option(metavar="FIELD,...", help="What to show.")] = COLUMNS,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many. [default: 50; all with --json]", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them, also those that were removed.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """List runs, the newest first."""
    from useg.runs.find import open_runs
    from useg.runs.index import asking
    from useg.runs.naming import Names
    from useg.runs.selecting import select

    store = open_runs(home)

    def look(index: "Index") -> tuple[int, list[str], list[dict[str, Any]]]:
        found = select(index, where, sort, removed=all_)
        resolve = Names(index.has, index.names).resolve
        names = [resolve(name.strip()) for name in columns.split(",") if name.strip()]
        cut = limit if limit is not None else None if json or all_ else LIMIT
        shown = found[:cut]
        values = {name: index.column(name, shown) for name in names}
        _warn_of_damaged(index)
        return len(found), names, [{name: values[name].get(run.number) for name in names} for run in shown]

    total, names, rows = asking(store, look)
    none = f"{store.url}: no runs" + (" for which this holds" if where else "")
    found = {"home": store.url, "total": total, "runs": rows}
    emit(found, json=json, text=lambda: runs_show.table(names, rows) if rows else none)
    if not json and len(rows) < total:
        tell(f"{len(rows)} of {total} runs; more with --limit or --all")


def _warn_of_damaged(index: "Index") -> None:
    damaged = [run for run in index.runs() if run.problem]
    for run in damaged[:3]:
        warn(f"{run.id!r} cannot be read and is left out: {run.problem}")
    if len(damaged) > 3:
        warn(f"{len(damaged) - 3} more cannot be read and are left out")


def show(run: OneRun, home: Home = None, json: Json = False) -> None:
    """Show all of one run: its plan, data, code, scores, curves."""
    from useg.runs.find import with_run
    from useg.runs.following import history
    from useg.runs.record import read_record

    def look(store: "Store", index: "Index", found: "Run") -> tuple["Store", str, str, dict[str, Any]]:
        return store, found.id, found.status, index.values(found)

    store, name, status, values = with_run(home, run, look)
    record = read_record(store, name) | {"run": name, "status": status}
    events = [] if json else history(store, name)
    emit(record, json=json, text=lambda: runs_show.page(record, values, events))


def tail(
    run: OneRun,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    lines: Annotated[int, typer.Option("-n", min=0, help="How many events and printed lines of those there are.")] = 20,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the last events and printed lines of a run, and with -f those to come; with --json a JSON object each."""
    import time

    from useg.runs.find import with_run
    from useg.runs.following import Follower
    from useg.runs.lease import status_of

    store, name = with_run(home, run, lambda store, index, found: (store, found.id))
    follower = Follower(store, name)
    there = follower.more()
    events, printed = ([each for each in there if isinstance(each, str) == is_text] for is_text in (False, True))
    items = [*events[-lines:], *printed[-lines:]] if lines else []
    while True:
        # asked before what there is was read: what an ended run had still said is read after that
        status = status_of(store, name) if follow else ""
        for item in [*items, *(follower.more() if follow else [])]:
            result = {"log": item} if isinstance(item, str) else item
            emit(result, json=json, text=lambda item=item: runs_show.line_of(item))  # type: ignore[misc]
        items = []
        if status != "running":
            break
        time.sleep(POLL_S)
    if follow:
        tell(f"{name}: {status}")


def stop(runs: Runs, home: Home = None, json: Json = False) -> None:
    """Ask running runs to stop after their step, wherever they are."""
    from useg.errors import InputError
    from useg.runs.find import with_run
    from useg.runs.lease import stop_run

    def ask(store: "Store", index: "Index", found: "Run") -> str:
        stop_run(store, found.id)
        return found.id

    asked, problems = [], []
    for run in runs:
        try:
            asked.append(with_run(home, run, ask))
        except InputError as error:
            problems.append(str(error))
    emit({"asked": asked, "problems": problems}, json=json, text=f"asked to stop: {', '.join(asked) or 'none'}")
    if problems:
        raise InputError("\n".join(problems))


class Tagging(TyperCommand):
    """Reads `-word` as a tag to take away, and not as options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words as options that there are."""
        is_option = {"-h"}
        return super().parse_args(
            ctx, [f"--remove={arg[1:]}" if re.match(r"-[^-]", arg) and arg not in is_option else arg for arg in args]
        )


def tag(
    run: OneRun,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[+TAG | -TAG]...", help="Tags to give, and to take away.")
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help="A tag to take away; the same as -TAG.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Give a run tags, take some away, or list them."""
    from useg.runs.find import with_run
    from useg.runs.record import append_record, check_tags, read_record

    given, taken = [word.removeprefix("+") for word in words or ()], list(remove or ())
    check_tags((*given, *taken))

    def change(store: "Store", index: "Index", found: "Run") -> tuple[str, list[str]]:
        before = read_record(store, found.id).get("tags") or []
        tags = [*dict.fromkeys(each for each in [*before, *given] if each not in taken)]
        if tags != before:
            append_record(store, found.id, {"tags": tags})
        return found.id, tags

    name, tags = with_run(home, run, change)
    emit({"run": name, "tags": tags}, json=json, text=f"{name}: {', '.join(tags) or 'no tags'}")


def note(
    run: OneRun,
    text: Annotated[str | None, typer.Argument(help="What is to be known; '' takes it away; none: show it.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write down what is to be known of a run, or show it."""
    from useg.runs.find import with_run
    from useg.runs.record import append_record, read_record

    def change(store: "Store", index: "Index", found: "Run") -> tuple[str, str]:
        if text is None:
            return found.id, str(read_record(store, found.id).get("note") or "")
        append_record(store, found.id, {"note": text.encode("utf-8", "backslashreplace").decode()})
        return found.id, text

    name, written = with_run(home, run, change)
    emit({"run": name, "note": written}, json=json, text=f"{name}: {written or 'no note'}")


def rm(
    runs: Runs,
    undo: Annotated[bool, typer.Option("--undo", help="Bring them back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Take runs away; until garbage is collected they can be brought back with --undo."""
    from useg.errors import InputError
    from useg.runs.find import with_run
    from useg.runs.record import append_record

    found = [with_run(home, run, lambda store, index, one: (store, one)) for run in runs]
    going_on = [run.id for _, run in found if run.status == "running"]
    if going_on and not undo:
        raise InputError(f"running, and not removed: {', '.join(going_on)}; first `useg runs stop RUN`")
    names = [run.id for _, run in found]
    if not undo and not yes:
        typer.confirm(f"remove {', '.join(names)}?", abort=True, err=True)
    for store, run in found:
        if bool(run.removed) == undo:
            append_record(store, run.id, {"removed": not undo})
    word = "brought back" if undo else "removed (back with --undo)"
    emit({"runs": names, "removed": not undo}, json=json, text=f"{word}: {', '.join(names)}")


def export(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to.")],
    where: Where = None,
    form: Annotated[str | None, typer.Option("--format", help="csv, parquet or json. [default: as FILE ends]")] = None,
    curves: Annotated[bool, typer.Option("--curves", help="A row an event of the journals, not a row a run.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write runs with all their fields, or their curves, as a table."""
    from useg.errors import InputError
    from useg.runs.export import write_rows
    from useg.runs.find import open_runs
    from useg.runs.following import events_of_runs
    from useg.runs.index import asking
    from useg.runs.selecting import select

    wanted: Any = form or out.suffix.removeprefix(".").lower()
    if wanted not in ("csv", "parquet", "json"):
        raise InputError(f"--format: wanted csv, parquet or json, not {wanted!r}")
    store = open_runs(home)

    def look(index: "Index") -> tuple[int, list[str]]:
        runs = select(index, where)
        _warn_of_damaged(index)
        if curves:
            names = [run.id for run in runs]
            return write_rows(out, wanted, lambda: events_of_runs(store, names), runs_show.FIRST_OF_CURVES)
        return write_rows(out, wanted, lambda: map(index.values, runs), COLUMNS.split(","))

    count, names = asking(store, look)
    found = {"out": str(out), "format": wanted, "rows": count, "columns": names}
    emit(found, json=json, text=f"{out}: {count} rows, {len(names)} columns")


def find(
    what: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A model file, or a run.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Tell what made a model: which run, on which data, with which scores."""
    from useg.runs.find import open_runs, origin_of, with_run

    if not Path(what).is_file():
        values = with_run(home, what, lambda store, index, found: index.values(found))
        emit({"runs": [runs_show.summary(values)]}, json=json, text=lambda: runs_show.summary_text(values))
        return
    store = open_runs(home)
    found = origin_of(store, Path(what))
    result = {
        "model": what,
        "weights": found.model.weights,
        "kind": found.model.kind,
        "about": found.model.about,
        "runs": [runs_show.summary(run) for run in found.runs],
        "says": None if found.says is None else runs_show.summary(found.says),
    }
    emit(result, json=json, text=lambda: runs_show.origin_text(what, store.url, found))
    if not found.runs and found.says is None:
        raise typer.Exit(2)


def index(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make it anew from the files.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Bring the table of runs up to date that lists are made of."""
    from useg.runs.find import open_runs
    from useg.runs.index import asking, index_file

    store = open_runs(home)
    with progress("reading runs") as advance:
        runs, fields = asking(
            store, lambda index: (index.runs(), len(index.names())), rebuild=rebuild, progress=advance
        )
    problems = {run.id: run.problem for run in runs if run.problem}
    file = index_file(store)
    found = {"home": store.url, "index": str(file), "runs": len(runs) - len(problems), "fields": fields}
    lines = [f"{store.url}: {len(runs) - len(problems)} runs, {fields} fields, in {file}"]
    lines += [f"  - {name!r}: {problem}" for name, problem in problems.items()]
    emit(found | {"problems": problems}, json=json, text="\n".join(lines))


COMMANDS = {
    "list": list_runs,
    "show": show,
    "tail": tail,
    "stop": stop,
    "tag": tag,
    "note": note,
    "rm": rm,
    "compare": compare,
    "sample": sample,
    "export": export,
    "find": find,
    "index": index,
    "watch": watch,
    "mirror": mirror,
}
"""What the group offers, by name."""

CLASSES = {"tag": Tagging}
"""Commands that read their words in another way."""
