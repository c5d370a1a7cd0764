"""What the README and the start page tell to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from useg.cli import application
from useg.runs.record import RunFolder

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/index.md", "CONTRIBUTING.md")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def commands(page):
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch("[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


USEG = [pytest.param(words[1:], id=" ".join(words)) for page in PAGES for words in commands(page) if words[0] == "useg"]


def test_there_is_something_to_check():
    names = {case.values[0][0] for case in USEG}
    assert names >= {"inspect", "plan", "train", "predict", "evaluate", "data", "runs", "reproduce"}


@pytest.mark.parametrize("words", USEG)
def test_useg_understands_every_command(words):
    command, left = typer.main.get_command(application).commands[words[0]], list(words[1:])
    if hasattr(command, "commands"):
        command = command.commands[left.pop(0)]
    # parses and converts all arguments as for a run, and does not run
    context = command.make_context(words[0], left)
    assert context.args == []


def test_an_option_that_is_not_there_would_be_noticed():
    command = typer.main.get_command(application).commands["train"]
    with pytest.raises(Exception, match="No such option"):
        command.make_context("train", ["data", "--hours", "3"])


def test_make_has_every_target_and_all_other_programs_are_known():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for words in commands(page):
            if words[0] == "make":
                assert set(words[1:]) <= targets, words
            else:
                assert words[0] in {"useg", "pip"}, words


def test_the_examples_in_python_run_and_say_what_is_true(tmp_path, monkeypatch):
    loop, example = blocks("README.md", "python")
    monkeypatch.setenv("USEG_HOME", str(tmp_path))
    exec(loop, {})
    (run,) = (tmp_path / "runs").iterdir()
    assert RunFolder(run).record()["scores"] == {"loss": 0.1}
    names = {}
    exec(example, names)
    parameters = sum(parameter.numel() for parameter in names["network"].parameters())
    assert f"{parameters:,} parameters" in example


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r'<img[^>]*src="([^":]+)"', text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
