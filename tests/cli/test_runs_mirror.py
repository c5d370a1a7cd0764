"""`useg runs mirror` where there is no server, no mlflow, or no sense in what was asked; see also test_mirror_real."""

import sys
from pathlib import Path

import pytest
from tests.cli.calling import call
from tests.runs.making import finished, write_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("USEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_run(tmp_path / "home", "old", finished(80))
    return tmp_path / "home"


def test_without_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("runs", "mirror") == 2
    assert "--to is missing: wanted the address of an MLflow server" in capsys.readouterr().err


def test_without_mlflow(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert call("runs", "mirror", "--to", "http://127.0.0.1:9") == 2
    said = capsys.readouterr().err
    assert "sending runs to MLflow needs the extra `mlflow`: pip install 'useg[mlflow]'" in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of mlflow
def test_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="no client of MLflow: pip install mlflow-skinny")
    assert call("runs", "mirror", "--to", "http://me:secret@127.0.0.1:9", "--patience", "0") == 2
    said = capsys.readouterr().err
    assert "http://127.0.0.1:9 does not answer: Connection refused" in said
    assert "secret" not in said
    assert call("runs", "mirror", "--to", "mlruns") == 2
    assert "--to 'mlruns': wanted the address of an MLflow server, such as http://host:5000" in capsys.readouterr().err
