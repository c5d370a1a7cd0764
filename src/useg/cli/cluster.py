"""Clusters: machines of your own, of a cloud or of Kubernetes, brought up, looked at and brought down.

docs/cluster.md leads from one machine to many.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from useg.cli.data_options import Json
from useg.cli.output import emit, note, warn
from useg.cli.tables import laid_out, terminal_width

if TYPE_CHECKING:
    from useg.experiments.hosts.bringing import Machines

File = Annotated[Path, typer.Argument(metavar="FILE", help="Of `useg cluster init`.", exists=True, dir_okay=False)]


def init(
    kind: Annotated[str, typer.Argument(metavar="ssh|aws|gcp|azure|kubernetes", help="Where the machines are.")],
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="By default cluster.toml or .yaml.")] = None,
    json: Json = False,
) -> None:
    """Write a cluster file to fill in, with what each line means."""
    from useg.experiments.hosts.templates import write_template

    path = write_template(kind, file)
    emit({"kind": kind, "file": str(path)}, json=json, text=str(path))
    note(f"fill it in, then: {'kubectl apply -f' if kind == 'kubernetes' else 'useg cluster up'} {path}")


def up(file: File, json: Json = False) -> None:
    """Bring up what is not up yet, and take in what came back; hosts that are fine are left alone."""
    if _is_of_a_cloud(file):
        return _by_ray("up", file, json)
    found = _machines(file).up()
    lines = [f"{each}  {said.get('problem') or ('started' if 'started' in said else 'up')}"
             for each, said in found["hosts"].items()]  # fmt: skip
    emit(found, json=json, text="\n".join([*lines, f"--on {found['address']}"]))
    _end(found, said=not json)


def status(file: File, json: Json = False) -> None:
    """Show the hosts: what each gives and has in use, what runs there, its cache, and what data came to it."""
    if _is_of_a_cloud(file):
        return _by_ray("status", file, json)
    found = _machines(file).status()

    def table() -> str:
        rows = [["host", "state", "CPUs", "in use", "GPUs", "in use", "cache", "from home", "from nodes"]]
        for each, said in found["hosts"].items():
            node = said.get("node") or {}
            state = said.get("problem") or ("up" if said.get("node") else "runs" if said.get("runs") else "down")
            numbers = [f"{node[key]:g}" if node else "" for key in ("cpus", "cpus_used", "gpus", "gpus_used")]
            sizes = [said.get(f"{key}_bytes", 0) / 1e6 for key in ("cache", "from_home", "from_nodes")]
            rows += [[each, state, *numbers, *(f"{size:.1f} MB" for size in sizes)]]
        work = [f"{each}: {line}" for each, said in found["hosts"].items() for line in said.get("work", ())]
        return "\n".join([*laid_out(rows, right=range(2, 9), width=terminal_width()), *work])

    emit(found, json=json, text=table)
    _end(found, said=not json)


def down(file: File, json: Json = False) -> None:
    """End Ray on all hosts, and what runs in it; data, environments and everything else stay."""
    if _is_of_a_cloud(file):
        return _by_ray("down", file, json)
    found = _machines(file).down()
    lines = [f"{each}  {said.get('problem') or ('stopped' if said['stopped'] else 'was down')}"
             for each, said in found["hosts"].items()]  # fmt: skip
    emit(found, json=json, text="\n".join(lines))
    _end(found, said=not json)


def run(
    file: File,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND ...", help="Such as: sweep rates.toml")],
) -> None:
    """Run a useg command on the head, as if it were here: files it names are sent, sweeps and trainings get --on."""
    raise typer.Exit(_machines(file).run(command))


def _machines(file: Path) -> "Machines":
    from useg.experiments.hosts.bringing import Machines
    from useg.experiments.hosts.listed import read_list

    return Machines(read_list(file), note)


def _is_of_a_cloud(file: Path) -> bool:
    return file.suffix in (".yaml", ".yml")


def _by_ray(what: str, file: Path, json: bool) -> None:
    from useg.experiments.hosts.clouds import by_ray

    said = by_ray(what, file)
    emit({"file": str(file), "said": said}, json=json, text=said)


def _end(found: dict[str, Any], *, said: bool) -> None:
    """Name the hosts that something is wrong with, where that is not said, and end so that a script sees it."""
    problems = {each: host["problem"] for each, host in found["hosts"].items() if "problem" in host}
    for each, problem in problems.items():
        if not said:
            warn(f"{each}: {problem}")
    if problems:
        raise typer.Exit(2)


COMMANDS = {"init": init, "up": up, "status": status, "down": down, "run": run}
