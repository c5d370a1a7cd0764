"""Options that many commands have, and the data set that is meant."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from useg.data.versions import Dataset

Home = Annotated[
    str | None, typer.Option(help="A folder, or s3://, gs://, az://, http://. [default: USEG_HOME, else useg-home/]")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Name = Annotated[str, typer.Argument(metavar="NAME[@REF]", help="A data set, and a branch, tag, digest or ~n of it.")]


def opened(name: str, home: str | None) -> "tuple[Dataset, str]":
    """The data set that `NAME[@REF]` names, and the ref."""
    from useg.data.versions import Dataset, split_name
    from useg.home.opening import cache_for, open_home

    name, ref = split_name(name)
    store, objects = open_home(home)
    return Dataset.open(store, objects, name, cache_for(store)), ref
