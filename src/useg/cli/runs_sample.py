"""`useg runs sample`: one sample followed over runs and versions of the data."""

from typing import TYPE_CHECKING, Annotated

import typer

from useg.cli import runs_show
from useg.cli.data_options import Home, Json
from useg.cli.output import emit

if TYPE_CHECKING:
    from useg.runs.index import Index

_DIGITS = 12


def sample(
    sample: Annotated[str, typer.Argument(metavar="KEY|DIGEST", help="A sample, by key or by digest of its content.")],
    metric: Annotated[str | None, typer.Option(help="Which score. [default: the task's]")] = None,
    where: Annotated[str | None, typer.Option(help="Only runs for which this holds.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what each run scored on one sample, the oldest run first; also where it had another key or other labels."""
    from useg.runs.find import open_runs
    from useg.runs.index import asking
    from useg.runs.sample_scores import follow_sample
    from useg.runs.selecting import select

    store = open_runs(home)

    def look(index: "Index") -> list[str]:
        return [run.id for run in select(index, where, "started")]

    found = follow_sample(store, asking(store, look), sample, metric)

    def text() -> str:
        shown = [row | {name: (row[name] or "")[:_DIGITS] for name in ("image", "labels")} for row in found["rows"]]
        rows = [row | {found["metric"]: row["score"]} for row in shown]
        return runs_show.table(["run", "part", "key", "image", "labels", found["metric"]], rows)

    emit(found, json=json, text=text)
