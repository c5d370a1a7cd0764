"""How big the package is, by part, against limits that only a visible commit raises."""

import ast
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path("src/useg")
# 150 and 10,000 were the wish; the readers and writers of every format that is wanted took 5,000 more, versions of data
# (stores, packs, garbage, manifests, queries, merges, stripping) another 7,000, runs (keeper, capture, index,
# comparison) 5,500, alerts, MLflow and environments built anew 2,200, a home over HTTP
# 900, sweeps 1,000, hosts brought up over ssh 600, a queue of jobs 700. A diet is due.
MEDIAN_MODULE_LINES = 160
MODULE_LINES = 400
FUNCTION_BODY_LINES = 50
ALL_SOURCE_LINES = 36_200


@dataclass(frozen=True)
class Module:
    path: Path
    lines: int
    source_lines: int
    functions: tuple[tuple[str, int], ...]


def measure(path: Path) -> Module:
    """Count the lines of a module, those that are source, and those of the body of each of its functions.

    Source is what is neither blank nor comment nor docstring; a body is counted without its docstring.
    """
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.splitlines()
    source = {number for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")}
    functions = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) is not None
            if docstring:
                source -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[docstring:]
                functions.append((node.name, body[-1].end_lineno - body[0].lineno + 1 if body else 0))
    return Module(path, len(lines), len(source), tuple(functions))


def excesses(modules: list[Module]) -> list[str]:
    """Name whatever is beyond a limit."""
    found = []
    for module in modules:
        if module.lines > MODULE_LINES:
            found.append(f"{module.path}: {module.lines} lines, at most {MODULE_LINES}")
        found += [
            f"{module.path}: {name} has a body of {lines} lines, at most {FUNCTION_BODY_LINES}"
            for name, lines in module.functions
            if lines > FUNCTION_BODY_LINES
        ]
    # a package's __init__ that only names things would make the median look good
    median = statistics.median([module.lines for module in modules if module.path.name != "__init__.py"] or [0])
    if median > MEDIAN_MODULE_LINES:
        found.append(f"the median module has {median:g} lines, at most {MEDIAN_MODULE_LINES}")
    whole = sum(module.source_lines for module in modules)
    if whole > ALL_SOURCE_LINES:
        found.append(f"{whole} source lines in all, at most {ALL_SOURCE_LINES}")
    return found


def table(modules: list[Module], root: Path) -> str:
    """Write the sizes as text, a row for each package."""
    packages: dict[str, list[Module]] = {}
    for module in modules:
        parts = module.path.relative_to(root).parts
        packages.setdefault(parts[0] if len(parts) > 1 else ".", []).append(module)
    packages["all"] = modules
    rows = [f"{'package':14}{'modules':>8}{'source':>8}{'lines':>8}{'median':>8}{'longest':>9}  longest function"]
    for name, members in packages.items():
        lines = [module.lines for module in members]
        source = sum(module.source_lines for module in members)
        functions = [(length, function) for module in members for function, length in module.functions]
        length, function = max(functions, default=(0, "-"))
        median = f"{statistics.median(lines):g}"
        rows.append(
            f"{name:14}{len(members):8}{source:8}{sum(lines):8}{median:>8}{max(lines):9}  {length:4} {function}"
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
