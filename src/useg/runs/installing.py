"""Packages brought into a virtual environment by pip, exactly as recorded; everything that cannot be had is named."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from useg.errors import InputError, ResourceError
from useg.home.folder import write_atomically

_BEGUN = re.compile(r"(Collecting|Obtaining|Processing) \S")
_NOT_FOUND = re.compile(r"No matching distribution found for ([^\s;]+)")
_NONE_KNOWN = re.compile(r"\(from versions: none\)")
_NO_ANSWER = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|Read timed out|Max retries|name resolution|ProxyError", re.I
)
_FULL = re.compile(r"No space left|Disk quota")
_CONFIGURED = re.compile(r"(index.url|find.links|no.index)\b")
_MOST_LOOKS = 20
_SHOWN_LINES = 6


def install(
    folder: Path,
    requirements: str,
    total: int,
    advance: Callable[..., None],
    *,
    cpu_index: str | None = None,
) -> None:
    """Install requirements into `folder/venv`.

    Where pip is configured for an index, that one is asked alone first, since it is meant to have everything; indexes
    that the requirements or `cpu_index` name are asked where nothing is configured, or that one lacks something.

    Args:
        folder: gets `requirements.txt`, too.
        requirements: as of `environment.requirements_text`.
        total: how many there are. advance: told how many are there: `advance(done, total=n)`.
        cpu_index: PyTorch's index of builds without CUDA, where such a torch is wanted.

    Raises:
        InputError: packages cannot be had, all of them are named, or no index answers. ResourceError: the disk is full.
    """
    lines = requirements.splitlines()
    named = [line for line in lines if line.startswith("--extra-index-url ")]
    if cpu_index and not named:
        named = [f"--extra-index-url {cpu_index}"]
    plain = [line for line in lines if not line.startswith("--")]
    ways = [plain, [*named, *plain]] if _is_configured(folder) else [[*named, *plain]]
    said = ""
    for way in ways:
        write_atomically(folder / "requirements.txt", ("\n".join(way) + "\n").encode())
        said = _pip(folder, [], total, advance)
        if not said:
            return
        found = _NOT_FOUND.search(said)
        if found is None or not found[1].startswith("torch"):  # the further indexes have torch's builds alone
            break
    raise _problem(folder, plain, said)


def _is_configured(folder: Path) -> bool:
    """Whether pip is told where packages are, by a file or a variable."""
    done = subprocess.run(
        [str(folder / "venv/bin/python"), "-I", "-m", "pip", "config", "list"],
        capture_output=True, text=True, check=False, env=_variables(),
    )  # fmt: skip
    return _CONFIGURED.search(done.stdout) is not None


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _pip(folder: Path, options: list[str], total: int, advance: Callable[..., None]) -> str:
    """Run pip; what it said when it failed, "" when all went well."""
    command = [str(folder / "venv/bin/python"), "-I", "-m", "pip", "install", "--no-deps", "--no-input", "--no-color",
               "--disable-pip-version-check", "--progress-bar=off", *options, "-r",
               str(folder / "requirements.txt")]  # fmt: skip
    said, begun = [], 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        errors="replace", env=_variables(), cwd=folder,
    ) as pip:  # fmt: skip
        try:
            for line in pip.stdout or ():
                said.append(line)
                begun += _BEGUN.match(line) is not None
                advance(max(0, min(begun, total) - 1), total=total)
        except BaseException:
            pip.terminate()
            raise
    return "".join(said) or "pip failed without a word" if pip.returncode else ""


def _problem(folder: Path, lines: list[str], said: str) -> InputError | ResourceError:
    if _FULL.search(said):
        return ResourceError(f"{folder}: the disk is full while packages are installed; free space, then run it again")
    missing: list[str] = []
    while (found := _NOT_FOUND.search(said)) and found[1] not in missing and len(missing) < _MOST_LOOKS:
        missing.append(found[1])
        lines = [line for line in lines if line.split(" ")[0] != found[1]]
        if _NO_ANSWER.search(said) and _NONE_KNOWN.search(said):
            return InputError(
                f"no package index could be reached, so the environment cannot be built ({found[1]} was asked for): "
                "see to the network or to pip's configuration, then run it again"
            )
        write_atomically(folder / "requirements.txt", ("\n".join(lines) + "\n").encode())
        said = _pip(folder, ["--dry-run"], 1, lambda *args, **more: None)
    if missing:
        told = ", ".join(missing)
        return InputError(
            f"{len(missing)} of the recorded packages cannot be had from the index: {told}. Give pip an index that has "
            "them (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS), or use --env current"
        )
    last = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("WARNING")]
    return InputError("the environment cannot be built; pip says:\n  " + "\n  ".join(last[-_SHOWN_LINES:]))


__all__ = ["install"]
