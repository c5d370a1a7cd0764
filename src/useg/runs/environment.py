"""What a run ran in: packages, Python, system, processor, GPU, allowed variables; how two differ; and having it again.

packages    {name: version} of every installed distribution
wheels      {name: "sha256:..."} of the archive it came from, where pip wrote it down
contents    {name: BLAKE3 of what its RECORD says of the files it brought}: not the digest of any archive
sources     {name: {"path" | "url", "commit", "editable"}} of what came from a folder or a repository
"""

import locale
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import orjson
from blake3 import blake3

from useg.runs import hardware
from useg.runs.git import Git, GitFailed, without_credentials
from useg.runs.sources import looks_secret

_VARIABLES = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|VECLIB|NUMEXPR|OPENCV|DNNL|ONEDNN|TBB|CUBLAS|CUDNN|PYTORCH|USEG)_\w+"
    r"|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|LAUNCH_BLOCKING|MODULE_LOADING|CACHE_DISABLE)|NVIDIA_(VISIBLE_DEVICES"
    r"|TF32_OVERRIDE)|HIP_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|ATEN_CPU_CAPABILITY|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
    r"|PYTHON(HASHSEED|OPTIMIZE|PATH|MALLOC|NOUSERSITE)|MALLOC_ARENA_MAX|LD_PRELOAD|TZ|LANG|LC_ALL|LC_CTYPE|LC_NUMERIC"
)
_SECRET_WORDS = re.compile(r"TOKEN|SECRET|PASS|PWD|KEY|CREDENTIAL|AUTH|COOKIE|SESSION|PRIVATE|SALT")
_RANDOM = re.compile(r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{20,}")
_MOST_LETTERS = 1000
_INSTALLER_FILES = ("/INSTALLER", "/REQUESTED", "/RECORD", "/direct_url.json")
_COMPUTES = (
    "torch", "numpy", "scipy", "opencv-python-headless", "opencv-python", "opencv-contrib-python", "scikit-image",
    "pillow", "tifffile", "imagecodecs", "nibabel", "h5py", "av", "numba", "triton", "mkl", "intel-openmp", "useg",
)  # fmt: skip
_COMPUTES_TOO = re.compile(r"nvidia-.*|pytorch-.*|torch.*|cuda-.*|opencv-.*|intel-.*|mkl-.*|onednn.*|tbb")
_THREADS = re.compile(r"variables\.\w*(THREADS|AFFINITY|PROC_BIND|PLACES|DYNAMIC|SCHEDULE)\w*|torch\.\w*threads\w*")
_INDEX = "https://download.pytorch.org/whl/"
CPU_INDEX = _INDEX + "cpu"
"""PyTorch's own index of builds without CUDA."""
_TORCH_BUILD = re.compile(r"cpu|cu\d+|rocm[\d.]+|xpu")

Importance = Literal["may change results", "hardly"]


def environment(torch: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What this process runs in; looked up once a process, but for the variables.

    Args:
        torch: facts that only torch knows: its build, its threads.
    """
    facts = dict(_lasting())
    facts["cores"] = hardware.cores()
    facts["variables"] = _variables(os.environ)
    facts["torch"] = dict(torch) if torch is not None else None
    return facts


@cache
def _lasting() -> dict[str, Any]:
    kind = "venv" if sys.prefix != sys.base_prefix else "system"
    if os.path.isdir(os.path.join(sys.prefix, "conda-meta")):
        kind = "conda"
    libc = " ".join(platform.libc_ver()).strip()
    return {
        **_packages(sys.path),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "kind": kind,
            "executable": sys.executable,
        },
        "system": {
            "os": platform.system(),
            "kernel": platform.release(),
            "libc": libc or None,
            "machine": platform.machine(),
        },
        "processor": hardware.processor(),
        "memory": hardware.memory(),
        "gpu": hardware.gpus(),
        "locale": locale.setlocale(locale.LC_ALL),
        "timezone": time.tzname[0],
    }


def _variables(given: Mapping[str, str]) -> dict[str, str]:
    """Those that are allowed; what looks like a token is left out, and a password is taken out of an address."""
    found = {}
    for name in sorted(given):
        value = without_credentials(given[name].encode("utf-8", "backslashreplace").decode())
        is_secret = _SECRET_WORDS.search(name) is not None or looks_secret(value.encode())
        is_secret |= name.startswith("USEG_") and _RANDOM.search(value) is not None
        if _VARIABLES.fullmatch(name) and not is_secret:
            found[name] = value[:_MOST_LETTERS]
    return found


def _packages(places: list[str]) -> dict[str, dict[str, Any]]:
    """Every distribution that Python can find, the first where there are several of one name."""
    found: dict[str, dict[str, Any]] = {"packages": {}, "wheels": {}, "contents": {}, "sources": {}}
    for place in dict.fromkeys(places):
        with suppress(OSError):
            for name in sorted(os.listdir(place or ".")):
                if name.endswith((".dist-info", ".egg-info")) and not name.startswith("~"):
                    _add_package(found, os.path.join(place or ".", name))
    return {group: dict(sorted(values.items())) for group, values in found.items()}


def _add_package(found: dict[str, dict[str, Any]], folder: str) -> None:
    stem, ending = os.path.splitext(os.path.basename(folder))
    name, _, version = stem.partition("-")
    if ending == ".egg-info":
        version = version.partition("-py")[0]
    if not version:
        name, version = _told(folder, name)
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in found["packages"] or not version:
        return
    found["packages"][name] = version
    direct: dict[str, Any] = {}
    with suppress(OSError, ValueError), open(os.path.join(folder, "direct_url.json"), "rb") as file:
        direct = orjson.loads(file.read())
    archive = direct.get("archive_info") or {}
    hashes = archive.get("hashes") or {}
    if "sha256" in hashes or str(archive.get("hash", "")).startswith("sha256="):
        found["wheels"][name] = "sha256:" + (hashes.get("sha256") or archive["hash"].partition("=")[2])
    else:
        with suppress(OSError), open(os.path.join(folder, "RECORD"), "rb") as file:
            found["contents"][name] = _contents(file.read())
    if direct.get("url"):
        found["sources"][name] = _source(direct)


def _told(folder: str, name: str) -> tuple[str, str]:
    """Name and version as the metadata tell them, where the folder's name does not."""
    version = ""
    for file_name in ("METADATA", "PKG-INFO", ""):
        with suppress(OSError), open(os.path.join(folder, file_name).rstrip("/"), encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                name = value.strip() if key == "Name" else name
                version = value.strip() if key == "Version" else version
                if not line.strip():
                    break
            return name, version
    return name, version


def _contents(record: bytes) -> str:
    """The same for a wheel wherever it is installed: without what the installer adds, such as scripts with paths."""
    lines = []
    for line in record.splitlines():
        path, _, rest = line.rpartition(b",")[0].rpartition(b",")
        own = not path.startswith((b"../", b"/")) and not path.decode("utf-8", "replace").endswith(_INSTALLER_FILES)
        if own and rest:
            lines.append(line)
    return str(blake3(b"\n".join(sorted(lines))).hexdigest())


def _source(direct: Mapping[str, Any]) -> dict[str, Any]:
    parts = urlsplit(direct["url"])
    is_editable = bool((direct.get("dir_info") or {}).get("editable"))
    facts: dict[str, Any] = {"url": without_credentials(direct["url"]), "editable": is_editable}
    if "vcs_info" in direct:
        return facts | {"commit": direct["vcs_info"].get("commit_id")}
    if parts.scheme != "file":
        return facts
    facts = {"path": unquote(parts.path), "editable": is_editable}
    if is_editable:
        with suppress(GitFailed, OSError):
            git = Git(os.fsencode(facts["path"]), 2.0)
            facts["commit"] = git.run("rev-parse", "--verify", "HEAD^{commit}").strip().decode()
            remote = git.line("config", "--get", "remote.origin.url")
            facts["url"] = without_credentials(os.fsdecode(remote)) if remote else None
    return facts


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in two environments.

    Attributes:
        name: such as "torch", "variables.OMP_NUM_THREADS", "processor.model".
        before, after: None where it was not there.
        importance: whether results may change by it.
    """

    name: str
    before: Any
    after: Any
    importance: Importance

    def __str__(self) -> str:
        if isinstance(self.before, list) and isinstance(self.after, list):
            signs = [f"-{each}" for each in self.before if each not in self.after]
            told = " ".join([*signs, *(f"+{each}" for each in self.after if each not in self.before)])
            told = told or "another order"
        else:
            told = " -> ".join("none" if each is None else str(each) for each in (self.before, self.after))
        return f"{self.name}: {told} ({self.importance})"


def environment_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """What differs from the environment `a` to `b`, what may change results first."""
    found = []
    flat = [dict(_flattened(each)) for each in (a, b)]
    for name in sorted(flat[0].keys() | flat[1].keys()):
        before, after = flat[0].get(name), flat[1].get(name)
        if before != after and not _is_told_already(name, flat, before, after):
            found.append((_rank(name), Difference(_shown(name), before, after, _importance(name))))
    return [difference for _, difference in sorted(found, key=lambda pair: (pair[0], pair[1].name))]


def _flattened(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from _flattened(each, f"{above}{key}.")
        else:
            yield f"{above}{key}", each


def _is_told_already(name: str, flat: list[dict[str, Any]], before: Any, after: Any) -> bool:
    """Digests count where both are known, of the same version."""
    group, _, package = name.partition(".")
    if group not in ("wheels", "contents"):
        return False
    versions = [each.get(f"packages.{package}") for each in flat]
    editable = any(each.get(f"sources.{package}.editable") for each in flat)
    return before is None or after is None or versions[0] != versions[1] or editable


def _shown(name: str) -> str:
    group, _, package = name.partition(".")
    if group == "packages":
        return package
    return f"{package} (same version, other files)" if group in ("wheels", "contents") else name


_RANKS: tuple[Callable[[str], Any], ...] = (
    lambda name: _package_of(name) in _COMPUTES,
    lambda name: bool(_COMPUTES_TOO.fullmatch(_package_of(name))),
    lambda name: bool(_THREADS.fullmatch(name)),
    lambda name: name.startswith("processor."),
    lambda name: name.startswith("gpu."),
    lambda name: name.startswith("torch."),
    lambda name: name in ("cores.affinity", "cores.quota", "python.version", "system.machine"),
    lambda name: name.startswith("variables.") and not re.fullmatch(r"variables\.(USEG_\w+|LANG|LC_\w+|TZ)", name),
)
"""What may change results, the gravest first."""


def _package_of(name: str) -> str:
    group, _, rest = name.partition(".")
    if group == "sources":
        return rest.rpartition(".")[0] if rest.endswith(".commit") else ""
    return rest if group in ("packages", "wheels", "contents") else ""


def _rank(name: str) -> int:
    return next((rank for rank, fits in enumerate(_RANKS) if fits(name)), len(_RANKS))


def _importance(name: str) -> Importance:
    return "may change results" if _rank(name) < len(_RANKS) else "hardly"


def requirements_text(environment: Mapping[str, Any], places: Mapping[str, str] | None = None) -> str:
    """A requirements file for `pip install --no-deps -r`, which installs what was recorded, exactly.

    Args:
        environment: as recorded.
        places: folders to install packages from, by name, instead of where they came from: useg's code made again.
    """
    packages, sources = environment.get("packages") or {}, environment.get("sources") or {}
    lines = []
    indexes = set()
    for name, version in packages.items():
        source = sources.get(name, {})
        if places and name in places:
            lines.append(f"-e {places[name]}")
        elif source:
            lines.append(_from_source(name, source, environment))
        else:
            build = version.partition("+")[2]
            indexes |= {_INDEX + build} if _TORCH_BUILD.fullmatch(build) else set()
            lines.append(f"{name}=={version}")
    version = (environment.get("python") or {}).get("version", "unknown")
    head = [f"# Python {version}", *(f"--extra-index-url {index}" for index in sorted(indexes))]
    return "\n".join([*head, *lines]) + "\n"


def _from_source(name: str, source: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    url, path, commit = (source.get(key) for key in ("url", "path", "commit"))
    if url and commit:
        match = re.fullmatch(r"([^/@:]+@)?([^/:]+):(?!//)(.+)", url)  # git's short form, which pip does not know
        url = f"ssh://{match[1] or ''}{match[2]}/{match[3]}" if match else url
        if "://" in url:
            return f"{name} @ git+{url}@{commit}"
    if path and source.get("editable"):
        return f"-e {path}"
    if path:
        return f"{name} @ file://{path}"
    digest = (environment.get("wheels") or {}).get(name, "")
    return f"{name} @ {url}" + (f"#sha256={digest.removeprefix('sha256:')}" if digest else "")


__all__ = ["CPU_INDEX", "Difference", "environment", "environment_difference", "requirements_text"]
