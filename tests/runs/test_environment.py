import sys
from importlib.metadata import distributions
from pathlib import Path

import orjson
import pytest

from useg.runs import hardware
from useg.runs.environment import (
    _contents,
    _packages,
    _variables,
    environment,
    environment_difference,
    requirements_text,
)


def make(place: Path, name: str, **files: str) -> None:
    folder = place / name
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file.replace("_json", ".json")).write_text(content)


def test_every_distribution_is_there_as_python_knows_it():
    found = environment()
    known: dict[str, str] = {}
    for each in distributions():
        name = each.metadata["Name"].replace("_", "-").replace(".", "-").lower()
        known.setdefault(name, each.version)
    assert found["packages"] == dict(sorted(known.items()))
    assert orjson.loads(orjson.dumps(found)) == found
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cores"]["affinity"] >= 1
    assert found["memory"]["bytes"] > 2**28
    assert found["torch"] is None
    assert environment({"threads": 4})["torch"] == {"threads": 4}


def test_nothing_of_torch_is_loaded_and_it_is_quick():
    import subprocess

    program = (
        "import sys, useg.runs.environment as e; e.environment(); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_where_packages_came_from(tmp_path: Path):
    make(tmp_path, "From_Index-1.0.dist-info", RECORD="a.py,sha256=x,1\n../../bin/a,sha256=y,2\na.pyc,,\n")
    make(
        tmp_path, "archive-2.0+cpu.dist-info", RECORD="a.py,sha256=x,1\n",
        direct_url_json='{"url": "https://me:pw@host/archive.whl", "archive_info": {"hashes": {"sha256": "abc"}}}',
    )  # fmt: skip
    make(
        tmp_path, "old-3.dist-info", direct_url_json='{"url": "file:///o.whl", "archive_info": {"hash": "sha256=def"}}'
    )
    make(
        tmp_path, "vcs-4.dist-info",
        direct_url_json='{"url": "https://host/v.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}',
    )  # fmt: skip
    make(tmp_path, "mine-5.dist-info", direct_url_json='{"url": "file:///no%20where", "dir_info": {"editable": true}}')
    make(tmp_path, "~roken-6.dist-info", RECORD="")
    make(tmp_path, "damaged-7.dist-info", direct_url_json="{")
    make(tmp_path, "nameless.dist-info", METADATA="Name: Told.Name\nVersion: 8\n\nVersion: 9\n")
    (tmp_path / "egg-9-py3.11.egg-info").write_text("Name: egg\n")
    make(tmp_path / "later", "from_index-0.5.dist-info")
    found = _packages([str(tmp_path), str(tmp_path / "later"), str(tmp_path / "not there"), str(tmp_path)])
    assert found["packages"] == {
        "archive": "2.0+cpu", "damaged": "7", "egg": "9", "from-index": "1.0", "mine": "5", "old": "3",
        "told-name": "8", "vcs": "4",
    }  # fmt: skip
    assert found["wheels"] == {"archive": "sha256:abc", "old": "sha256:def"}
    assert list(found["contents"]) == ["from-index"]
    assert found["sources"] == {
        "archive": {"url": "https://host/archive.whl", "editable": False},
        "mine": {"path": "/no where", "editable": True},
        "old": {"path": "/o.whl", "editable": False},
        "vcs": {"url": "https://host/v.git", "editable": False, "commit": "c0ffee"},
    }
    assert requirements_text(found | {"python": {"version": "3.11.7"}}, {"mine": "/again"}).splitlines() == [
        "# Python 3.11.7",
        "archive @ https://host/archive.whl#sha256=abc",
        "damaged==7",
        "egg==9",
        "from-index==1.0",
        "-e /again",
        "old @ file:///o.whl",
        "told-name==8",
        "vcs @ git+https://host/v.git@c0ffee",
    ]


def test_contents_do_not_depend_on_where_a_wheel_was_installed():
    one = b"a.py,sha256=x,1\n../../bin/a,sha256=y,2\na.dist-info/INSTALLER,sha256=z,1\na.dist-info/RECORD,,\n"
    other = b"../bin/a,sha256=w,3\na.py,sha256=x,1\n__pycache__/a.pyc,,\na.dist-info/direct_url.json,sha256=v,1\n"
    assert _contents(one) == _contents(other) != _contents(b"a.py,sha256=q,1\n")


def test_variables_are_those_allowed_and_no_tokens():
    given = {
        "OMP_NUM_THREADS": "4",
        "CUDA_VISIBLE_DEVICES": "GPU-8a7b6c5d-1111-2222-3333-444455556666",
        "PYTHONHASHSEED": "0",
        "USEG_HOME": "https://me:pw@host:8000/home",
        "USEG_CACHE": "/tmp/\udcff",
        "USEG_TOKEN": "x",
        "USEG_S3_KEY": "x",
        "USEG_ALERT": "https://hooks.example.org/T0/aB3dE6gH9jK2mN5pQ8sT1vW4",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HOME": "/home/me",
        "DATABASE_URL": "x",
        "MKL_CBWR": "A" * 2000,
    }
    assert _variables(given) == {
        "CUDA_VISIBLE_DEVICES": given["CUDA_VISIBLE_DEVICES"],
        "MKL_CBWR": "A" * 1000,
        "OMP_NUM_THREADS": "4",
        "PYTHONHASHSEED": "0",
        "USEG_CACHE": "/tmp/\\udcff",
        "USEG_HOME": "https://host:8000/home",
    }


BEFORE = {
    "packages": {"torch": "2.12.0", "numpy": "2.3.0", "rich": "13", "gone": "1", "nvidia-cudnn-cu12": "9"},
    "wheels": {"scipy": "sha256:a"},
    "contents": {"torch": "a", "rich": "a", "numpy": "a"},
    "processor": {"model": "A", "flags": ["avx2", "avx512f"]},
    "gpu": {"driver": "1", "models": ["H200"]},
    "variables": {"OMP_NUM_THREADS": "4", "LANG": "C"},
    "timezone": "UTC",
}
AFTER = {
    "packages": {"torch": "2.13.0", "numpy": "2.3.0", "rich": "14", "nvidia-cudnn-cu12": "10"},
    "wheels": {},
    "contents": {"torch": "b", "rich": "b", "numpy": "b", "scipy": "c"},
    "processor": {"model": "B", "flags": ["avx2", "amx_bf16"]},
    "gpu": {"driver": "2", "models": ["H200"]},
    "variables": {"OMP_NUM_THREADS": "8", "LANG": "de"},
    "timezone": "CET",
}


def test_what_may_change_results_comes_first():
    assert environment_difference(BEFORE, BEFORE) == []
    assert [str(each) for each in environment_difference(BEFORE, AFTER)] == [
        "numpy (same version, other files): a -> b (may change results)",
        "torch: 2.12.0 -> 2.13.0 (may change results)",
        "nvidia-cudnn-cu12: 9 -> 10 (may change results)",
        "variables.OMP_NUM_THREADS: 4 -> 8 (may change results)",
        "processor.flags: -avx512f +amx_bf16 (may change results)",
        "processor.model: A -> B (may change results)",
        "gpu.driver: 1 -> 2 (may change results)",
        "gone: 1 -> none (hardly)",
        "rich: 13 -> 14 (hardly)",
        "timezone: UTC -> CET (hardly)",
        "variables.LANG: C -> de (hardly)",
    ]
    first = environment_difference(BEFORE, AFTER)[1]
    assert (first.name, first.before, first.after) == ("torch", "2.12.0", "2.13.0")


@pytest.mark.parametrize(
    ("version", "source", "lines"),
    [
        ("2.13.0+cpu", None, ["--extra-index-url https://download.pytorch.org/whl/cpu", "x==2.13.0+cpu"]),
        ("2.13.0+cu126", None, ["--extra-index-url https://download.pytorch.org/whl/cu126", "x==2.13.0+cu126"]),
        ("1+local.tag", None, ["x==1+local.tag"]),
        ("1", {"path": "/a", "editable": True, "commit": "abc", "url": None}, ["-e /a"]),
        (
            "1",
            {"path": "/a", "editable": True, "commit": "abc", "url": "git@h:me/x.git"},
            ["x @ git+ssh://git@h/me/x.git@abc"],
        ),
        ("1", {"path": "/a", "editable": True, "commit": "abc", "url": "/srv/x.git"}, ["-e /a"]),
    ],
)
def test_lines_of_requirements(version: str, source, lines: list[str]):
    text = requirements_text({"packages": {"x": version}, "sources": {"x": source} if source else {}})
    assert text.splitlines() == ["# Python unknown", *lines]


def test_requirements_of_this_environment_are_read_by_pip():
    from packaging.requirements import Requirement

    for line in requirements_text(environment()).splitlines():
        if not line.startswith(("#", "-")):
            assert Requirement(line).name


def test_limits_of_a_container(tmp_path: Path):
    own = tmp_path / "own"
    own.write_text("0::/above/mine\n")
    mine = tmp_path / "top/above/mine"
    mine.mkdir(parents=True)
    (mine / "cpu.max").write_text("max 100000\n")
    (mine / "memory.max").write_text("max\n")
    (mine.parent / "cpu.max").write_text("150000 100000\n")
    (mine.parent / "memory.max").write_text("1048576\n")
    assert hardware.cores(tmp_path / "top", own)["quota"] == 1.5
    assert hardware.memory(tmp_path / "top", own)["limit_bytes"] == 1048576
    own.write_text("4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n")
    for name, content in (
        ("cpu/cpu.cfs_quota_us", "200000"),
        ("cpu/cpu.cfs_period_us", "100000"),
        ("memory/memory.limit_in_bytes", str(2**63 - 1)),
    ):
        (tmp_path / "top" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "top" / name).write_text(content)
    assert hardware.cores(tmp_path / "top", own)["quota"] == 2.0
    assert hardware.memory(tmp_path / "top", own)["limit_bytes"] is None
    own.unlink()
    assert hardware.cores(tmp_path / "top", own)["quota"] is None


def test_gpus_as_the_driver_tells_them(tmp_path: Path, monkeypatch):
    for number in (1, 0):
        (tmp_path / f"gpus/0000:{number}").mkdir(parents=True)
        (tmp_path / f"gpus/0000:{number}/information").write_text(f"Model: \t\t NVIDIA {number}\nIRQ: 3\n")
    for text in (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release\n",
    ):
        (tmp_path / "version").write_text(text)
        assert hardware.gpus(tmp_path) == {"driver": "535.104.05", "models": ["NVIDIA 0", "NVIDIA 1"]}
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    program.write_text("#!/bin/sh\necho '580.1, NVIDIA H200'\n")
    program.chmod(0o755)
    assert hardware.gpus(tmp_path / "none") == {"driver": "580.1", "models": ["NVIDIA H200"]}
    monkeypatch.setattr(hardware, "_GPU_S", 0.2)
    for script in ("exec sleep 60", "echo broken; exit 9", "echo No devices were found"):
        program.write_text(f"#!/bin/sh\n{script}\n")
        assert hardware.gpus(tmp_path / "none") == {"driver": None, "models": []}
