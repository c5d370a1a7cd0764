"""Clusters of a cloud: Ray's own commands, called with what makes them reliable, within a time."""

import os
import subprocess
import sys
from pathlib import Path

from useg.errors import InputError, MissingExtra

_ALLOWED_S = {"up": 3600.0, "status": 120.0, "down": 1800.0}
_SHOWN_LINES = 6


def by_ray(what: str, file: Path) -> str:
    """`up`, `status` or `down` of a cluster file of Ray.

    Returns:
        what Ray said.

    Raises:
        InputError: it failed, with its last lines, or took too long. MissingExtra: there is no Ray.
    """
    if "kind: RayCluster" in file.read_text(encoding="utf-8"):
        verb = {"up": "apply", "status": "get", "down": "delete"}[what]
        raise InputError(f"{file} is for Kubernetes, which brings it up itself: kubectl {verb} -f {file}")
    program = Path(sys.executable).with_name("ray")
    if not program.exists():
        raise MissingExtra("cluster", f"`useg cluster {what}`")
    if what == "up":  # the file hands ~/.ray/auth_token to every node
        _call(program, ["get-auth-token", "--generate"], file, _ALLOWED_S["status"])
    there = "RAY_AUTH_MODE=token ~/useg-env/bin/ray status"
    asked = {"up": ["up", "--yes", "--no-config-cache", str(file)], "down": ["down", "--yes", str(file)],
             "status": ["exec", str(file), there]}[what]  # fmt: skip
    return _call(program, asked, file, _ALLOWED_S[what])


def _call(program: Path, asked: list[str], file: Path, allowed_s: float) -> str:
    # its second autoscaler starts one node too few
    variables = os.environ | {"RAY_UP_enable_autoscaler_v2": "0", "RAY_AUTH_MODE": "token"}
    try:
        done = subprocess.run(
            [str(program), *asked], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False, env=variables, timeout=allowed_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(
            f"`ray {asked[0]}` of {file} has not ended in {allowed_s / 60:.0f} minutes; look at the provider's console "
            "which machines run, and repeat"
        ) from None
    if done.returncode:
        last = [line.rstrip() for line in done.stdout.splitlines() if line.strip()][-_SHOWN_LINES:]
        raise InputError("\n  ".join([f"`ray {asked[0]}` of {file} failed:", *last]))
    return done.stdout.strip()


__all__ = ["by_ray"]
