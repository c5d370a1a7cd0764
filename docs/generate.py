"""Writes the pages that repeat what the code says: the tree of modules and the options of the command line."""

import ast
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "useg"
BEGIN, END = "<!-- tree -->", "<!-- /tree -->"


def purpose(path: Path) -> str:
    """The first line of a module's docstring, without the full stop at its end."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].removesuffix(".")


def tree(folder: Path = SOURCE, depth: int = 0) -> list[str]:
    """A line for each module with its purpose, packages after the modules beside them."""
    indent = "  " * depth
    lines = [f"{indent}{folder.name + '/':<{27 - 2 * depth}} {purpose(folder / '__init__.py')}".rstrip()]
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            lines.append(f"{indent}  {path.name:<{25 - 2 * depth}} {purpose(path)}".rstrip())
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        lines += tree(package, depth + 1)
    return lines


def architecture(page: str) -> str:
    """The architecture page with the tree of today."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    listing = "\n".join(tree())
    return f"{before}{BEGIN}\n```\n{listing}\n```\n{END}{after}"


def command_reference() -> str:
    """A page with every command, argument and option."""
    import typer

    from useg.cli import COMMANDS, application

    group: Any = typer.main.get_command(application)
    parts = [
        "# Command line\n",
        "<!-- written by docs/generate.py -->\n",
        "Results go to stdout (`--json`: one JSON object as the last line), progress and warnings to stderr.\n",
        "| exit status | |",
        "|---|---|",
        "| 0 | fine |",
        "| 1 | a fault of useg; the details are in a file that the message names |",
        "| 2 | bad input or usage; the message says what to do |",
        "| 130 | interrupted |",
        "| 141 | the reader of the output went away |\n",
    ]
    for name in COMMANDS:
        command = group.commands[name]
        below = getattr(command, "commands", {})
        if below:
            parts += [f"## useg {name}\n", f"{command.help}\n"]
            own = [f"| {_names(parameter)} | {_told(parameter)} |" for parameter in command.params]
            parts += ["| | |", "|---|---|", *own, ""] if own else []
        for title, each in {f"{name} {word}": each for word, each in below.items()}.items() or [(name, command)]:
            parts += _of_command(title, each, level=3 if below else 2)
    return "\n".join(parts)


def _of_command(title: str, command: Any, *, level: int) -> list[str]:
    usage = " ".join(["useg", title, *(_argument(p) for p in command.params if _is_argument(p)), "[OPTIONS]"])
    heading = [f"{'#' * level} useg {title}\n", f"{command.help}\n", f"```\n{usage}\n```\n", "| | |", "|---|---|"]
    return [*heading, *(f"| {_names(parameter)} | {_told(parameter)} |" for parameter in command.params), ""]


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if _is_argument(parameter):
        return f"`{_argument(parameter)}`"
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def _told(parameter: Any) -> str:
    told = " ".join((parameter.help or "").split()).replace("|", "\\|")
    default = parameter.default
    if default is None or default is False or _is_argument(parameter) or callable(default) or "default" in told:
        return told
    return f"{told} Default: `{'yes' if default is True else default}`."


def main() -> None:
    """Write both pages."""
    page = ROOT / "docs" / "architecture.md"
    page.write_text(architecture(page.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "cli.md").write_text(command_reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
