"""The command line: which commands there are, and what their exit statuses mean.

A command is the module of this package that has its name; it is imported when it is needed, and loads nothing
heavy before it runs, so that `useg --help` answers at once.
"""

import gc
import importlib
import io
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from useg import __version__, let_threads_sleep
from useg.cli.guard import guarded
from useg.cli.output import BROKEN_PIPE, abandon_stdout, error

__all__ = ["COMMANDS", "application", "main"]

COMMANDS = (
    "inspect", "plan", "train", "sweep", "submit", "jobs", "predict", "evaluate", "data", "runs", "reproduce", "serve",
    "users", "cluster",
)  # fmt: skip


_ENDINGS = [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_STATUSES: dict[int | str | None, str] = {128 + number: number.name for number in _ENDINGS}


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._loaded:
            self._loaded[name] = typer.main.get_command(_made(name))
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _made(name: str) -> typer.Typer:
    """The function of a module that has its name; or, of a group, all that its `COMMANDS` names, and what it does when
    none is named, `DEFAULT`. Each is read by its class in `CLASSES`, where it has one.
    """
    module = importlib.import_module(f"useg.cli.{name}")
    functions, classes = getattr(module, "COMMANDS", None), getattr(module, "CLASSES", {})
    default = getattr(module, "DEFAULT", None)
    made = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=bool(functions and not default))
    for each, function in (functions or {name: getattr(module, name)}).items():
        made.command(each, short_help=_first_line(function), cls=classes.get(each))(guarded(function))
    if functions is not None:
        alone = guarded(default) if default else lambda: None
        made.callback(help=module.__doc__, short_help=_first_line(module), invoke_without_command=bool(default))(alone)
    return made


def _first_line(documented: Any) -> str:
    return str(documented.__doc__ or "").strip().partition("\n")[0]


class _LazyGroup(TyperGroup):
    """`useg` itself."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]  # read only is all that is asked of it


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"useg {__version__}")
        raise typer.Exit


application = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich would double the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
)


@application.callback()
def useg(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """From a folder of images and masks to a trained, measured, reproducible U-Net.

    Results go to stdout, progress and warnings to stderr. Exit status: 0 fine, 2 bad input or usage, 130
    interrupted, 1 a fault of useg itself; of `reproduce`, 3 where the runs differ.
    """


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End by way of every `finally`, so that nothing half-written stays."""
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit status.

    Args:
        arguments: what follows `useg`; by default, what the process was started with.
    """
    let_threads_sleep()
    gc.set_threshold(20_000)  # imports make many objects that stay: to look through them each time costs 20 ms
    status: int | str | None = 0
    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has one ignored
            signal.signal(number, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends nothing
    try:
        application(args=arguments, prog_name="useg")
    except SystemExit as leaving:
        status = leaving.code
    except KeyboardInterrupt:
        status = 130
    if status in _STATUSES:
        error(f"ended by {_STATUSES[status]}")
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()
        status = BROKEN_PIPE
    sys.exit(status)
