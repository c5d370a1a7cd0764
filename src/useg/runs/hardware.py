"""The machine as this process sees it: processor, cores, memory, GPU; read from files, so that it costs little."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

_FLAGS = re.compile(
    r"sse4_2|avx|avx2|fma|f16c|avx512\w*|avx_vnni\w*|avx_ne_convert|avx10\w*|amx\w*|asimd\w*|neon|sve\w*|sme(?!p)\w*|bf16"
    r"|svebf16|i8mm|svei8mm|fphp|vfpv4"
)
_GPU_S = 2.0
_MOST_BYTES = 16384


def processor() -> dict[str, Any]:
    """Model and the instructions that matter to arithmetic: {"model", "flags"}."""
    text = _beginning("/proc/cpuinfo")
    facts = dict(re.findall(r"^([^\n:\t]+?)[\t ]*:[ \t]*([^\n]*)$", text.partition("\n\n")[0], re.MULTILINE))
    if not facts and platform.system() == "Darwin":
        facts["model name"] = _printed("sysctl", "-n", "machdep.cpu.brand_string")
    words = (facts.get("flags") or facts.get("Features") or "").split()
    number = " ".join(facts[name] for name in ("CPU implementer", "CPU part") if name in facts)
    model = facts.get("model name") or number or platform.processor() or platform.machine()
    return {"model": model, "flags": sorted(word for word in set(words) if _FLAGS.fullmatch(word))}


def cores(cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> dict[str, Any]:
    """{"machine": of the machine, "affinity": this process may run on, "quota": as many as the container may use}."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = []
    for folder in _cgroup_folders(cgroup, own, "cpu"):
        words = _beginning(folder / "cpu.max").split()
        if not words:
            words = [_beginning(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        with suppress(ValueError, IndexError, ZeroDivisionError):
            quota = int(words[0]) / int(words[1])
            quotas += [round(quota, 3)] if quota > 0 else []
    return {"machine": os.cpu_count(), "affinity": affinity, "quota": min(quotas, default=None)}


def memory(cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> dict[str, Any]:
    """{"bytes": of the machine, "limit_bytes": of the container, None without one}."""
    total = None
    with suppress(ValueError, OSError, AttributeError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = []
    for folder in _cgroup_folders(cgroup, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(ValueError):
                limits.append(int(_beginning(folder / name)))
    least = min(limits, default=None)
    return {"bytes": total, "limit_bytes": least if least is not None and (total is None or least < total) else None}


def _cgroup_folders(top: Path, own: Path, kind: str) -> list[Path]:
    """The group of this process and those above it, of either version."""
    found = []
    for line in _beginning(own).splitlines():
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if number == "0" and not kinds:
            root = top
        elif kind in kinds.split(","):
            root = top / kind
        else:
            continue
        place = Path(os.path.normpath(root / path.lstrip("/")))
        if not place.is_relative_to(root):
            place = root
        found += [place, *(above for above in place.parents if above.is_relative_to(root))]
    return found


def gpus(driver: Path = Path("/proc/driver/nvidia")) -> dict[str, Any]:
    """{"driver": version, "models": [name]}; without a GPU {"driver": None, "models": []}. Never an error."""
    with suppress(OSError):
        version = re.search(r"(?:Module|for \S+)\s+(?:for \S+\s+)?(\d+\.\d+(?:\.\d+)?)", _beginning(driver / "version"))
        models = [
            found[1].strip()
            for place in sorted((driver / "gpus").iterdir())
            if (found := re.search(r"^Model:\s*(.+)$", _beginning(place / "information"), re.MULTILINE))
        ]
        if version and models:
            return {"driver": version[1], "models": models}
    lines = _printed("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader").splitlines()
    pairs = [line.split(", ", 1) for line in lines if ", " in line]
    return {"driver": pairs[0][0] if pairs else None, "models": [name for _, name in pairs]}


def _printed(*words: str) -> str:
    """What a program prints, if it is there and answers soon."""
    import shutil

    program = shutil.which(words[0])
    if program is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([program, *words[1:]], capture_output=True, timeout=_GPU_S, stdin=subprocess.DEVNULL)
        return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
    return ""


def _beginning(path: str | Path) -> str:
    """What a file of the system begins with; the whole of /proc/cpuinfo takes long where there are many cores."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        return (file.read(_MOST_BYTES) or b"").decode("utf-8", "replace")
    return ""


__all__ = ["cores", "gpus", "memory", "processor"]
