"""Samples of the system: the trainer's own processor time and memory, with its children; GPUs as nvidia-smi tells."""

import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from tests.runs.trainers import until

from useg.runs.system import Gpus, Sampler, add_sample

BUSY = "import time\nkeep = bytearray(80 * 2**20)\nwhile True: pass"
NAMES = ["time", "cpu_percent", "memory_bytes", "read_bytes", "written_bytes", "memory_free_bytes", "disk_free_bytes",
         "gpus"]  # fmt: skip


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_busy_process_and_its_children_count(tmp_path: Path, without_gpu: None) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {BUSY!r}])"],
        start_new_session=True,
    )
    try:
        sampler = Sampler(parent.pid, tmp_path)
        until(lambda: (sampler.sample()["memory_bytes"] or 0) > 80 * 2**20)
        time.sleep(0.5)
        sample = sampler.sample()
        assert list(sample) == NAMES
        assert 5 < sample["cpu_percent"] < 150
        assert sample["gpus"] == []
        assert sample["memory_free_bytes"] > 0
        assert sample["disk_free_bytes"] > 0
        assert abs(sample["time"] - time.time()) < 5
        add_sample(tmp_path / "system.jsonl", sample)
        add_sample(tmp_path / "system.jsonl", sample)
        assert [orjson.loads(line) for line in (tmp_path / "system.jsonl").read_bytes().splitlines()] == [sample] * 2
    finally:
        os.killpg(parent.pid, 9)
        parent.wait()
    sample = sampler.sample()
    assert sample["cpu_percent"] is None
    assert sample["memory_free_bytes"] > 0
    sampler.close()


def test_bytes_written_are_counted(tmp_path: Path, without_gpu: None) -> None:
    program = (
        "import os, sys; file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(file, bytes(2**20)); "
        "os.fsync(file); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program, str(tmp_path / "file")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert Sampler(process.pid, tmp_path).sample()["written_bytes"] >= 2**20
        process.communicate(b"\n")


def test_no_disk_no_sample_no_error(tmp_path: Path) -> None:
    add_sample(tmp_path / "gone" / "system.jsonl", {"time": 1.0})


def smi(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{program}")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_gpus_as_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(
        tmp_path, "echo \"$*\" >> $0.words; echo '1, 0, 3, [N/A]'; echo '0, 5, 7, 1'; echo '0, 97, 1024, 350.25'; "
        "printf '1, 4'; sleep 60", monkeypatch,
    )  # fmt: skip
    gpus = Gpus(2.5)
    expected = [
        {"percent": 97.0, "memory_bytes": 2**30, "power_w": 350.25},
        {"percent": 0.0, "memory_bytes": 3 * 2**20, "power_w": None},
    ]
    until(lambda: gpus.latest() == expected)
    assert gpus.latest() == expected
    gpus.close()
    assert "--loop-ms=2500" in (tmp_path / "nvidia-smi.words").read_text()
    assert gpus.latest() == []


@pytest.mark.parametrize("program", ["echo 'NVIDIA-SMI has failed'; exit 9", "exit 0"])
def test_a_machine_without_a_working_driver_has_no_gpus(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, program, monkeypatch)
    gpus = Gpus()
    until(lambda: gpus.latest() == [] and gpus._process is None)
    gpus.close()
