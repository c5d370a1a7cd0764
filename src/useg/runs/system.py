"""What a trainer uses of its machine: processor, memory, disk, GPUs; sampled without a word to the trainer."""

import os
import select
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

_QUERY = "--query-gpu=index,utilization.gpu,memory.used,power.draw"
_MIB = 2**20

Sample = dict[str, Any]


class Sampler:
    """Samples of one process, with all processes below it.

    Args:
        pid: of the trainer.
        folder: on the disk whose free space counts.
        interval_s: how often GPUs are looked at.
    """

    def __init__(self, pid: int, folder: Path, *, interval_s: float = 5.0) -> None:
        import psutil

        self._folder = folder
        self._gpus = Gpus(interval_s)
        self._trainer: psutil.Process | None = None
        with suppress(psutil.Error):
            self._trainer = psutil.Process(pid)
        self._before: dict[int, float] = {}
        self._since = time.monotonic()
        self._used()

    def sample(self) -> Sample:
        """What is used now; `cpu_percent` since the last sample.

        Returns:
            {"time": seconds since the epoch; "cpu_percent": 100 for one core; "memory_bytes": resident, of all the
            trainer's processes, shared pages counted in each; "memory_free_bytes": what the machine, or the container,
            can still give; "disk_free_bytes"; "read_bytes", "written_bytes": from and to disks since the trainer began;
            "gpus": [{"percent", "memory_bytes", "power_w"}] of the whole machine}. None where nothing tells.
        """
        return {"time": time.time(), **self._used(), **self._free(), "gpus": self._gpus.latest()}

    def close(self) -> None:
        """Let go of the GPUs."""
        self._gpus.close()

    def _used(self) -> dict[str, float | None]:
        import psutil

        keys = ("cpu_percent", "memory_bytes", "read_bytes", "written_bytes")
        if self._trainer is None:
            return dict.fromkeys(keys)
        try:
            processes = [self._trainer, *self._trainer.children(recursive=True)]
        except psutil.Error:
            return dict.fromkeys(keys)
        now, seconds, memory = time.monotonic(), {}, 0
        disk = [0, 0]
        for process in processes:
            with suppress(psutil.Error, OSError), process.oneshot():
                times = process.cpu_times()
                # what ended children had used is counted by the one who waited for them
                seconds[process.pid] = times.user + times.system + times.children_user + times.children_system
                memory += process.memory_info().rss
                if hasattr(process, "io_counters"):
                    counts = process.io_counters()
                    disk = [disk[0] + counts.read_bytes, disk[1] + counts.write_bytes]
        passed = sum(used - self._before.get(pid, 0.0) for pid, used in seconds.items())
        passed -= sum(used for pid, used in self._before.items() if pid not in seconds)
        percent = round(100 * max(0.0, passed) / max(now - self._since, 1e-3), 1)
        self._before, self._since = seconds, now
        return dict(zip(keys, (percent, memory, *disk), strict=True))

    def _free(self) -> dict[str, int | None]:
        import psutil

        free: list[int | None] = [psutil.virtual_memory().available, None]
        with suppress(OSError):
            free[1] = shutil.disk_usage(self._folder).free
        with suppress(OSError, ValueError):
            group = Path("/sys/fs/cgroup")
            limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            free[0] = min(free[0] or 0, max(0, limit - used))
        return {"memory_free_bytes": free[0], "disk_free_bytes": free[1]}


class Gpus:
    """What nvidia-smi says, from one process of it that repeats itself; nothing where there is none."""

    def __init__(self, interval_s: float = 5.0) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._rows: dict[str, Sample] = {}
        command = shutil.which("nvidia-smi")
        if command is None:
            return
        words = [command, _QUERY, "--format=csv,noheader,nounits", f"--loop-ms={max(100, round(1000 * interval_s))}"]
        with suppress(OSError):
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )

    def latest(self) -> list[Sample]:
        """The last that is known of each GPU: percent, memory_bytes, power_w; None for what it does not tell."""
        if self._process is None or self._process.stdout is None:
            return []
        while select.select([self._process.stdout], [], [], 0)[0]:
            content = os.read(self._process.stdout.fileno(), 65536)
            if not content:  # it ended: there is no driver, or no GPU any more
                self.close()
                return []
            *lines, self._rest = (self._rest + content).split(b"\n")
            self._rows.update(row for row in map(_row, lines) if row is not None)
        return [self._rows[name] for name in sorted(self._rows, key=int)]

    def close(self) -> None:
        """End nvidia-smi."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


def add_sample(file: Path, sample: Sample) -> None:
    """Append one line; a full disk costs the sample, nothing else."""
    with suppress(OSError), file.open("ab", buffering=0) as opened:
        opened.write(orjson.dumps(sample) + b"\n")


def _row(line: bytes) -> tuple[str, Sample] | None:
    words = [word.strip() for word in line.decode(errors="replace").split(",")]
    if len(words) != 4 or not words[0].isdigit():
        return None
    percent, memory, power = (_number(word) for word in words[1:])
    memory_bytes = None if memory is None else round(memory * _MIB)
    return words[0], {"percent": percent, "memory_bytes": memory_bytes, "power_w": power}


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


__all__ = ["Gpus", "Sample", "Sampler", "add_sample"]
