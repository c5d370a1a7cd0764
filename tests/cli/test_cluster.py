"""`useg cluster` as people call it, where nothing can be brought up; `make cluster-test` does the rest."""

from pathlib import Path

import pytest
from tests.cli.calling import Told, call

from useg.cli.cluster import COMMANDS


def test_a_file_is_written_and_said_what_to_do_with_it(tmp_path: Path, told: Told) -> None:
    found = told("cluster", "init", "ssh", tmp_path / "lab.toml")
    assert found == {"kind": "ssh", "file": str(tmp_path / "lab.toml")}
    assert told.err.endswith(f"useg cluster up {tmp_path / 'lab.toml'}\n")
    told("cluster", "init", "kubernetes", tmp_path / "k.yaml")
    assert "kubectl apply -f" in told.err
    assert call("cluster", "init", "ssh", tmp_path / "lab.toml") == 2
    assert call("cluster", "init", "moon") == 2
    assert set(COMMANDS) == {"init", "up", "status", "down", "run"}


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_what_kubernetes_brings_up_is_left_to_it(
    command: str, tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    told("cluster", "init", "kubernetes", tmp_path / "k.yaml")
    assert call("cluster", command, tmp_path / "k.yaml") == 2
    verb = {"up": "apply", "status": "get", "down": "delete"}[command]
    assert f"kubectl {verb} -f" in capsys.readouterr().err


def test_hosts_that_refuse_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho 'root@10.9.9.1: Permission denied (publickey).' >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "lab.toml"
    file.write_text('name = "lab"\nhead = "10.9.9.1"\nworkers = ["10.9.9.2"]\n')
    for command in ("up", "status", "down"):
        assert call("cluster", command, file) == 2
        said = capsys.readouterr()
        assert "Permission denied (publickey)" in said.out + said.err
        assert "10.9.9.2" in said.out + said.err
        assert "Traceback" not in said.err


def test_what_ray_says_of_a_cloud_file_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "ray"
    program.write_text('#!/bin/sh\n[ "$1" != up ] || { echo no credentials; exit 1; }\necho "$@"; env | grep RAY_\n')
    program.chmod(0o755)
    monkeypatch.setattr("useg.experiments.hosts.clouds.sys", type("Sys", (), {"executable": str(tmp_path / "python")}))
    file = tmp_path / "cluster.yaml"
    assert call("cluster", "init", "aws", file) == 0
    capsys.readouterr()
    assert call("cluster", "up", file) == 2
    assert "failed:\n  no credentials" in capsys.readouterr().err
    assert call("cluster", "down", file) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"down --yes {file}\n")
    assert "RAY_UP_enable_autoscaler_v2=0" in said
    assert "RAY_AUTH_MODE=token" in said
    monkeypatch.setattr("useg.experiments.hosts.clouds._ALLOWED_S", {"down": 0.2})
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    assert call("cluster", "down", file) == 2
    assert "has not ended" in capsys.readouterr().err
    program.unlink()
    assert call("cluster", "down", file) == 2
    assert "pip install 'useg[cluster]'" in capsys.readouterr().err
