"""`useg sweep` from the command line: what it refuses, before anything is trained."""

from pathlib import Path

import pytest
from tests.cli.calling import call

TEXT = 'data = "{}"\nmethod = "{}"\n[budget]\ntrials = 2\n[search]\ntrain.lr = [0.1, 0.2]\n'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask.toml", "--on", "ray://1.2.3.4:10001"], "there is no such file or folder"),
        ([], "name a SWEEP.toml, or a sweep to --resume"),
        (["--resume", "nothing"], "no sweep 'nothing' in"),
        (["ask.toml", "--resume", "x"], "name a SWEEP.toml, or a sweep to --resume"),
        (["ask.toml", "--parallel", "0"], "--parallel 0: wanted auto, or a number"),
        (["ask.toml", "--parallel", "many"], "--parallel many: wanted auto, or a number"),
        (["ask.toml"], "there is no such file or folder"),
        (["absent.toml"], "does not exist"),
    ],
)
def test_what_is_refused(tmp_path: Path, monkeypatch, capsys, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ask.toml").write_text(TEXT.format("absent", "grid"))
    assert call("sweep", *words, "--home", "home") == 2
    assert said in capsys.readouterr().err
    assert not Path("home").exists()


def test_tpe_without_optuna_says_what_to_install(tmp_path: Path, monkeypatch, capsys) -> None:
    from useg.experiments.sweep import session

    monkeypatch.setattr(session, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("ask.toml").write_text(TEXT.format("data", "tpe"))
    assert call("sweep", "ask.toml", "--home", "home") == 2
    assert "needs the extra `sweep`: pip install 'useg[sweep]'" in capsys.readouterr().err
    assert not Path("home").exists()
