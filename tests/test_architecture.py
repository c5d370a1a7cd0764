"""The pages say what the code says, and the contracts cover what they must."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
specification = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(specification)
specification.loader.exec_module(generate)

REMEDY = "`make docs` writes it again"


def contracts():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_the_tree_in_the_architecture_page_is_the_tree():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert generate.architecture(page) == page, REMEDY


def test_the_command_line_page_has_every_option():
    assert generate.command_reference() == (DOCS / "cli.md").read_text(encoding="utf-8"), REMEDY


def test_every_module_says_in_one_sentence_what_it_is():
    for path in sorted(generate.SOURCE.rglob("*.py")):
        purpose = generate.purpose(path)
        assert purpose, f"{path} has no docstring"
        assert len(purpose) <= 120, f"{path}: {purpose}"


def test_the_tree_of_a_small_package(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "__init__.py").write_text('"""The whole."""\n')
    (tmp_path / "a.py").write_text('"""First.\n\nMore.\n"""\n')
    (tmp_path / "inner" / "__init__.py").write_text("")
    (tmp_path / "inner" / "b.py").write_text('"""Second: part"""\n')
    lines = [line.split() for line in generate.tree(tmp_path)]
    assert lines == [[f"{tmp_path.name}/", "The", "whole"], ["a.py", "First"], ["inner/"], ["b.py", "Second:", "part"]]


def test_everything_that_is_kept_is_forbidden_to_load_torch():
    (kept,) = (contract for contract in contracts() if "torch" in contract.get("forbidden_modules", ()))
    there = {f"useg.{name}" for name in ("config", "home", "data", "runs", "web") if _exists(name)}
    assert set(kept["source_modules"]) == there


def _exists(name):
    return (generate.SOURCE / name / "__init__.py").exists() or (generate.SOURCE / f"{name}.py").exists()


@pytest.mark.parametrize(
    ("module", "code", "broken"),
    [
        ("data/late.py", "def f():\n    import torch\n", "What is kept never loads what computes"),
        ("train/late.py", "import typer\n", "What computes knows no service and no command line"),
        ("data/late.py", "import useg.segmentation.metrics\n", "Imports go down only"),
        ("elsewhere.py", "", "Imports go down only"),
    ],
)
def test_the_contracts_notice(tmp_path, module, code, broken):
    """A copy of the package with one wrong import must fail, each time in the contract that is meant."""
    import shutil

    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "useg" / module).write_text(code)
    program = (
        "import sys; sys.path.insert(0, 'src')\n"
        "from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{broken} BROKEN" in done.stdout
    assert "1 broken" in done.stdout
