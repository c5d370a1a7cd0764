"""The environment of a run built again: a virtual environment of the recorded versions, kept in this machine's cache.

    <cache>/environments/<key>/requirements.txt   what was installed, exactly
    <cache>/environments/<key>/venv/              the environment
    <cache>/environments/<key>/useg/, user/       code made again that is installed editable
    <cache>/environments/<key>/whole              written last; without it the folder is made anew. Its time is that of
                                                  the last use: what nobody used for 60 days goes when one is built
    <cache>/environments/<key>.lock               held while it is built

The key is a digest of the requirements, the code and the Python they are for.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from useg.errors import InputError
from useg.home.cache import cache_folder
from useg.home.folder import write_atomically, writing
from useg.home.locks import locked
from useg.runs.code_texts import itself
from useg.runs.environment import CPU_INDEX, requirements_text
from useg.runs.installing import install
from useg.runs.restoring import Fetch, restore_code

_KEY_DIGITS = 20
_UNUSED_S = 60 * 86400
_COMPUTING = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|VECLIB|NUMEXPR|OPENCV|DNNL|ONEDNN|TBB|CUBLAS|CUDNN|PYTORCH|ATEN)_\w+"
    r"|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER)|PYTHONHASHSEED|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
)
_ELSEWHERE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONSTARTUP")


@dataclass(frozen=True)
class Rebuilt:
    """An environment that was built again.

    Attributes:
        folder: in the cache.
        reused: whether it was there already.
        not_the_same: what could not be as it was, in sentences.
    """

    folder: Path
    reused: bool
    not_the_same: tuple[str, ...]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def useg(self) -> Path:
        """Its `useg`."""
        return self.folder / "venv" / "bin" / "useg"


def rebuild(
    record: Mapping[str, Any],
    fetch: Fetch,
    *,
    note: Callable[[str], None] = lambda text: None,
    advance: Callable[..., None] = lambda *args, **more: None,
) -> Rebuilt:
    """Build the environment of a run, or find it in the cache.

    Args:
        record: of the run.
        fetch: gives the bytes of an object of its home.
        note: told what is done. advance: told how many packages are there: `advance(done, total=n)`.

    Raises:
        InputError: the environment was not recorded, this machine lacks the Python, or packages or code cannot be had;
            all that is missing is named. ResourceError: the disk is full.
    """
    environment = record.get("environment") or {}
    if not environment.get("packages"):
        raise InputError("the environment of this run was not recorded, so it cannot be built again: --env current")
    python = find_python(environment.get("python") or {})
    codes, not_the_same = _codes(record)
    # pip comes with the environment and is no part of what ran; useg is added also where it ran without being installed
    packages = {name: version for name, version in environment["packages"].items() if name != "pip"}
    useg = (record.get("code") or {}).get("useg") or {}
    packages.setdefault("useg", str(useg.get("version")))
    wanted = {**environment, "packages": packages}
    key = _key(wanted, {name: code for name, (code, _) in codes.items()}, python)
    folder = cache_folder() / "environments" / key
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f"{key}.lock"):
        if (folder / "whole").exists():
            with writing(folder):
                os.utime(folder / "whole")
            return Rebuilt(folder, True, not_the_same)
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        _forget_unused(folder.parent)
        note(f"building the environment of {len(packages)} packages in {folder}")
        places = {name: f"./{where}" for name, (_, where) in codes.items()}  # pip runs in the folder
        for code, where in {id(code): (code, where) for code, where in codes.values()}.values():
            restore_code(code, fetch, folder / Path(where).parts[0])
        text = requirements_text(wanted, places)
        _make(python, folder)
        cpu = None if (environment.get("torch") or {}).get("cuda") else CPU_INDEX
        install(folder, text, len(packages), advance, cpu_index=cpu)
        write_atomically(folder / "whole", b"")
    return Rebuilt(folder, False, not_the_same)


def _forget_unused(folder: Path) -> None:
    """Take environments away that no run was had again in for long: they are large, and can be built again."""
    for whole in folder.glob("*/whole"):
        with suppress(OSError):
            if time.time() - whole.stat().st_mtime > _UNUSED_S:
                whole.unlink()
                shutil.rmtree(whole.parent)


def find_python(recorded: Mapping[str, Any]) -> Path:
    """An interpreter of the recorded version, at least of its first two numbers.

    Raises:
        InputError: this machine has none.
    """
    version = str(recorded.get("version") or platform.python_version())
    wanted = ".".join(version.split(".")[:2])
    if wanted == ".".join(platform.python_version_tuple()[:2]):
        return Path(sys.executable)
    found = shutil.which(f"python{wanted}")
    if found is None or not _told_version(found).startswith(f"{wanted}."):  # a version manager's stand-in is none
        raise InputError(
            f"the run was made by Python {version}, and this machine has no python{wanted} on its PATH (this is "
            f"{platform.python_version()}): install Python {wanted}, or use --env current"
        )
    return Path(found)


def _told_version(python: str | Path) -> str:
    """Version and place of an interpreter; "" of what does not run."""
    program = "import platform, sys; print(platform.python_version(), sys.base_prefix)"
    return subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=False).stdout


def variables_of(rebuilt: Rebuilt, recorded: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The variables a command in the environment gets: those of now, but those that change results as recorded."""
    kept = {name: value for name, value in now.items() if name not in _ELSEWHERE and not _COMPUTING.fullmatch(name)}
    # a path may lead to something that is loaded: of a record only plain words and numbers are taken
    taken = {name: value for name, value in recorded.items() if _COMPUTING.fullmatch(name) and "/" not in value}
    path = os.pathsep.join([str(rebuilt.python.parent), now.get("PATH", os.defpath)])
    return kept | taken | {"PATH": path}


def _codes(record: Mapping[str, Any]) -> tuple[dict[str, tuple[Mapping[str, Any], str]], tuple[str, ...]]:
    """For packages that are installed from code that is made again: that code, and where in the folder they lie."""
    code = record.get("code") or {}
    sources = (record.get("environment") or {}).get("sources") or {}
    found: dict[str, tuple[Mapping[str, Any], str]] = {}
    useg, user = code.get("useg") or {}, code.get("user") or {}
    if "git" in useg:
        found["useg"] = (useg, "useg")
    elif useg.get("installed") != "wheel" and not sources.get("useg"):
        raise InputError("the run's useg was run from a folder without git, so its code was not kept: --env current")
    notes = []
    for name, source in sources.items():
        path = source.get("path")
        if name in found or not path or not source.get("editable"):
            continue
        root = str(user.get("root") or "")
        if user.get("git") and root and Path(path).is_relative_to(root):
            found[name] = (user, str(Path("user") / Path(path).relative_to(root)))
        elif not (source.get("url") and source.get("commit")):
            if not Path(path).is_dir():
                raise InputError(f"{name} was installed from {path}, which is not there: bring it back")
            notes.append(f"{name} is installed from {path} as it lies there now; changes since the run are not known")
    return found, tuple(notes)


def _key(environment: Mapping[str, Any], codes: Mapping[str, Mapping[str, Any]], python: Path) -> str:
    code = {name: facts for name, facts in itself(codes).items()}
    parts = [requirements_text(environment), code, _told_version(python), platform.machine()]
    return str(blake3(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest())[:_KEY_DIGITS]


def _make(python: Path, folder: Path) -> None:
    made = subprocess.run(
        [str(python), "-I", "-m", "venv", str(folder / "venv")], capture_output=True, text=True, check=False
    )
    if made.returncode:
        said = (made.stderr or made.stdout).strip().splitlines()
        raise InputError(f"{python} -m venv failed: {said[-1] if said else 'without a word'}; install its venv module")


__all__ = ["Rebuilt", "find_python", "rebuild", "variables_of"]
