"""Hosts that are this machine: `ssh` is a program that runs here what it is told to run there."""

import importlib.metadata
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from useg.errors import ConfigError, InputError
from useg.experiments.hosts import parcel as parcel_module
from useg.experiments.hosts import there
from useg.experiments.hosts.bringing import Machines, token_of
from useg.experiments.hosts.listed import Listed, read_list
from useg.experiments.hosts.parcel import pack
from useg.experiments.hosts.ssh import Host, ask, stream

pytest.importorskip("ray")

SSH = """\
#!/bin/sh
while [ "$1" != -- ]; do shift; done
case "$2" in
  *10.9.9.2) echo 'ssh: connect to host 10.9.9.2 port 22: Connection refused' >&2; exit 255;;
  *10.9.9.3) exec sleep 60;;
esac
exec sh -c "$3"
"""


@pytest.fixture(autouse=True)
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def host(address: str = "10.9.9.1", python: str = sys.executable) -> Host:
    return Host(address, None, None, 22, python, None)


def listed(tmp_path: Path, **more: Any) -> Listed:
    given = {"name": "lab", "head": "10.9.9.1", "python": sys.executable, "folder": str(tmp_path / "there")}
    return Listed.model_validate(given | {"free_gb": 0} | more)


def request(tmp_path: Path, **more: Any) -> dict[str, Any]:
    packed = pack()
    return {"folder": str(tmp_path / "there"), "environments": str(tmp_path / "environments"), "token": "secret",
            "environment": packed.environment, "useg": packed.useg, "free_gb": 0, "wheel": packed.wheel.hex(),
            "requirements": "", "wheelhouse": "", "timeout_s": 20} | more  # fmt: skip


def test_what_is_wrong_with_a_host_is_said(tmp_path: Path) -> None:
    look = request(tmp_path, do="look")
    assert ask(host(), look, 20)["is_made"] is False
    assert "refused" in ask(host("10.9.9.2"), look, 20)["problem"]
    assert ask(host("10.9.9.3"), look, 0.5) == {"problem": "did not answer in 0 s"}
    assert "has no /no/python" in ask(host(python="/no/python"), look, 20)["problem"]
    assert "GB free, wanted 1e+09: free space" in ask(host(), look | {"free_gb": 1e9}, 20)["problem"]
    (tmp_path / "file").touch()
    lost = ask(host(), look | {"folder": str(tmp_path / "file" / "x")}, 20)["problem"]
    assert "cannot be made" in lost


def test_another_python_is_refused_before_anything_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("useg.experiments.hosts.ssh.sys", type("Sys", (), {"version_info": (3, 99)}))
    here = "{}.{}".format(*sys.version_info)
    said = ask(host(), request(tmp_path, do="look"), 20)["problem"]
    assert said.startswith(f"has Python {here}, here it is 3.99")


def test_an_environment_is_made_once_and_has_the_useg_of_here(tmp_path: Path) -> None:
    wanted = request(tmp_path, do="make")
    assert ask(host(), wanted, 120) == {"made": True}
    assert ask(host(), wanted, 120) == {"made": False}
    assert ask(host(), wanted | {"do": "look"}, 20)["is_made"] is True
    useg = tmp_path / "there" / "useg" / wanted["useg"]
    said = subprocess.run([sys.executable, "-c", "import useg; print(useg.__file__)"], env={"PYTHONPATH": str(useg)},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert said.stdout.strip() == str(useg / "useg" / "__init__.py")
    bad = wanted | {"environment": "other", "requirements": "no-such-package-of-useg==1\n", "wheelhouse": str(tmp_path)}
    assert ask(host(), bad, 120)["problem"].startswith("pip failed: ")
    assert ask(host(), bad | {"do": "look"}, 20)["is_made"] is False


def test_what_was_started_is_ended_with_its_children_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'], env={})"
    started = subprocess.Popen([sys.executable, "-c", program], env={"USEG_HOST": str(folder)})
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"], env={"USEG_HOST": f"{folder}-2"})
    try:
        wait_until(lambda: len(there._processes(folder)) == 2)
        assert ask(host(), request(tmp_path, do="stop"), 60) == {"stopped": True}
        assert started.wait(10) != 0
        assert other.poll() is None
        assert ask(host(), request(tmp_path, do="stop"), 60) == {"stopped": False}
    finally:
        other.kill()
        other.wait()


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_command_gets_its_files_and_ends_with_its_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = request(tmp_path, do="make")
    ask(host(), wanted, 120)
    python = tmp_path / "environments" / wanted["environment"] / "venv/bin/python"
    python.unlink()
    python.write_text('#!/bin/sh\necho "$3" $USEG_TOKEN; cat rates.toml; exit 7\n')
    python.chmod(0o755)
    given = wanted | {"do": "run", "command": ["sweep"], "files": {"rates.toml": b"what is asked".hex()},
                      "variables": {"USEG_TOKEN": "secret"}}  # fmt: skip
    assert stream(host(), given) == 7
    assert capfd.readouterr().out == "sweep secret\nwhat is asked"


def test_without_its_head_there_is_no_cluster(tmp_path: Path) -> None:
    machines = Machines(listed(tmp_path, head="10.9.9.2"), lambda text: None)
    with pytest.raises(InputError, match=r"as its head is not\n  - 10\.9\.9\.2: ssh does not let us in: .*refused"):
        machines.up()
    assert machines.down()["hosts"]["10.9.9.2"]["problem"].startswith("ssh does not let us in")
    large = tmp_path / "large"
    large.write_bytes(bytes(2 << 20))
    with pytest.raises(InputError, match="more than 1 MiB"):
        machines.run(["predict", str(large)])


def test_a_token_is_made_once_and_is_its_users_alone(tmp_path: Path) -> None:
    token = token_of("lab")
    assert token_of("lab") == token != token_of("other")
    assert len(token) == 64
    mode = (tmp_path / "config" / "useg" / "clusters" / "lab.token").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_no_secret_stands_on_a_command_line(tmp_path: Path) -> None:
    assert "secret" not in " ".join(host().command(10)) + json.dumps(listed(tmp_path).options("10.9.9.1"))


def test_what_is_sent_is_a_wheel_and_the_same_each_time() -> None:
    packed = pack()
    assert pack() == packed
    names = zipfile.ZipFile(io.BytesIO(packed.wheel)).namelist()
    assert {"useg/__init__.py", "useg/experiments/hosts/aws.yaml"} <= set(names)
    lines = packed.requirements.splitlines()
    assert f"ray=={importlib.metadata.version('ray')}" in lines
    assert not [line for line in lines if "+" in line or line.startswith("pytest")]


def test_useg_that_is_not_installed_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(parcel_module, "distribution", absent)
    with pytest.raises(InputError, match="without being installed"):
        pack()


def test_a_list_with_mistakes_names_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('name = "a b"\nhead = "somewhere"\nworkers = ["10.0.0.1"]\nport = 1\n')
    with pytest.raises(ConfigError, match=r"(?s)name: .*head: .*addresses such as.*port: Extra"):
        read_list(path)
    path.write_text('name = "a"\nhead = "10.0.0.1"\nworkers = ["10.0.0.1"]\n')
    with pytest.raises(ConfigError, match="listed twice"):
        read_list(path)
    path.write_text('name = "a"\nhead = "10.0.0.1"\n[hosts."10.0.0.2"]\ncpus = 1\n')
    with pytest.raises(ConfigError, match=r"names 10\.0\.0\.2, which is neither"):
        read_list(path)


def test_a_host_gives_what_the_list_says(tmp_path: Path) -> None:
    own = {"10.9.9.2": {"user": "anna", "cpus": 2, "gpus": 1, "folder": "/f"}}
    some = listed(tmp_path, workers=["10.9.9.2"], hosts=own, user="ben", head_works=False, environments="/e")
    assert some.options("10.9.9.1") == ["--head", "--port=6379", "--dashboard-host=127.0.0.1",
                                        "--node-ip-address=10.9.9.1", "--num-cpus=0"]  # fmt: skip
    assert some.options("10.9.9.2") == ["--address=10.9.9.1:6379", "--node-ip-address=10.9.9.2", "--num-cpus=2",
                                        "--num-gpus=1"]  # fmt: skip
    assert (some.host("10.9.9.1").user, some.host("10.9.9.2").user) == ("ben", "anna")
    assert some.folders("10.9.9.2") == ("/f", "/e")


def test_an_interrupted_command_is_interrupted_there_and_waited_for(tmp_path: Path) -> None:
    wanted = request(tmp_path, do="make")
    ask(host(), wanted, 120)
    python = tmp_path / "environments" / wanted["environment"] / "venv/bin/python"
    python.unlink()
    python.write_text(
        f"#!{sys.executable}\nimport time\ntry:\n    print('begun', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.5)\n    print('saved', flush=True)\n    raise SystemExit(130)\n"
    )
    python.chmod(0o755)
    given = wanted | {"do": "run", "command": ["sweep"], "files": {}, "variables": {}}
    program = (
        "import sys, json; from useg.experiments.hosts.ssh import Host, stream; "
        "sys.exit(stream(Host('10.9.9.1', None, None, 22, sys.executable, None), json.load(open(sys.argv[1]))))"
    )
    (tmp_path / "request.json").write_text(json.dumps(given))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "request.json")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "saved\n"
        assert process.wait(20) == 130


RAY = """\
#!/bin/sh
for given in "$@"; do case $given in --node-ip-address=*) echo "${given#*=}" >> PLACE/joined;; esac; done
PLACE/raylet 99 &
until grep -q raylet /proc/$!/cmdline; do sleep 0.01; done
"""
NODES = """\
import json, pathlib
found = pathlib.Path("PLACE/joined").read_text().split()
print(json.dumps([{"address": each, "cpus": 1, "cpus_used": 0, "gpus": 0, "gpus_used": 0} for each in found]))
"""


def test_up_starts_what_is_absent_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    """Ray is a program that only says that it was started."""
    packed, environments = pack(), tmp_path / "environments"
    programs = environments / packed.environment / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs.parents[1] / "whole").touch()
    shutil.copy("/bin/sleep", tmp_path / "raylet")
    scripts = {"ray": RAY, "python": f"#!/bin/sh\nexec {sys.executable} {tmp_path}/nodes.py\n"}
    (tmp_path / "nodes.py").write_text(NODES.replace("PLACE", str(tmp_path)))
    for name, text in scripts.items():
        (programs / name).write_text(text.replace("PLACE", str(tmp_path)))
        (programs / name).chmod(0o755)
    folders = {each: {"folder": str(tmp_path / each)} for each in ("10.9.9.1", "10.9.9.4")}
    some = listed(tmp_path, workers=["10.9.9.4", "10.9.9.2"], environments=str(environments), hosts=folders)
    machines = Machines(some, lambda text: None)
    try:
        first = machines.up()["hosts"]
        assert [each for each in first if "started" in first[each]] == ["10.9.9.1", "10.9.9.4"]
        assert "refused" in first["10.9.9.2"]["problem"]
        token = tmp_path / "10.9.9.4" / "token"
        assert token.read_text() == token_of("lab")
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        again = machines.up()["hosts"]
        assert not [each for each in again if "started" in again[each]]
        (tmp_path / "joined").write_text("10.9.9.1\n")  # the other one is lost
        lost = machines.status()["hosts"]
        assert "no part of the cluster" in lost["10.9.9.4"]["problem"]
        assert lost["10.9.9.1"]["node"]["cpus"] == 1
        back = machines.up()["hosts"]
        assert [each for each in back if "started" in back[each]] == ["10.9.9.4"]
        (tmp_path / "config" / "useg" / "clusters" / "lab.token").write_text("another")
        with pytest.raises(InputError, match="runs with another token"):
            machines.up()
    finally:
        down = machines.down()["hosts"]
    assert [down[each]["stopped"] for each in folders] == [True, True]
    assert not there._processes(tmp_path / "10.9.9.1")
