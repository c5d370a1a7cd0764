"""How big the package is, by part, against limits that only a visible commit raises."""

import ast
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path("src/useg")
MEDIAN_MODULE_LINES = 150
MODULE_LINES = 400
FUNCTION_LINES = 50
ALL_LINES = 10_000


@dataclass(frozen=True)
class Module:
    path: Path
    lines: int
    functions: tuple[tuple[str, int], ...]


def measure(path: Path) -> Module:
    """Count the lines of a module and of each of its functions (these without docstrings)."""
    text = path.read_text(encoding="utf-8")
    functions = tuple(
        (node.name, _function_lines(node))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return Module(path, len(text.splitlines()), functions)


def _function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def excesses(modules: list[Module]) -> list[str]:
    """Name whatever is beyond a limit."""
    found = []
    for module in modules:
        if module.lines > MODULE_LINES:
            found.append(f"{module.path}: {module.lines} lines, at most {MODULE_LINES}")
        found += [
            f"{module.path}: {name} has {lines} lines, at most {FUNCTION_LINES}"
            for name, lines in module.functions
            if lines > FUNCTION_LINES
        ]
    # a package's __init__ that only names things would make the median look good
    median = statistics.median(
        [module.lines for module in modules if module.path.name != "__init__.py"] or [0]
    )
    if median > MEDIAN_MODULE_LINES:
        found.append(f"the median module has {median:g} lines, at most {MEDIAN_MODULE_LINES}")
    whole = sum(module.lines for module in modules)
    if whole > ALL_LINES:
        found.append(f"{whole} lines in all, at most {ALL_LINES}")
    return found


def table(modules: list[Module], source: Path) -> str:
    """Write the sizes as text, a row for each package."""
    packages: dict[str, list[Module]] = {}
    for module in modules:
        parts = module.path.relative_to(source).parts
        packages.setdefault(parts[0] if len(parts) > 1 else ".", []).append(module)
    packages["all"] = modules
    rows = [f"{'package':14}{'modules':>8}{'lines':>8}{'median':>8}{'longest':>9}  longest function"]
    for name, members in packages.items():
        lines = [module.lines for module in members]
        functions = [(length, function) for module in members for function, length in module.functions]
        length, function = max(functions, default=(0, "-"))
        median = f"{statistics.median(lines):g}"
        rows.append(
            f"{name:14}{len(members):8}{sum(lines):8}{median:>8}{max(lines):9}  {length:4} {function}"
        )
    return "\n".join(rows)


def main(source: Path = SOURCE) -> int:
    """Print the sizes, and what is beyond a limit."""
    modules = [measure(path) for path in sorted(source.rglob("*.py"))]
    print(table(modules, source))
    found = excesses(modules)
    for excess in found:
        print(f"too big: {excess}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
