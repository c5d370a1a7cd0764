"""Cluster files to fill in: complete and commented, one for each place where machines are."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

from useg import __version__
from useg.config import near
from useg.errors import InputError
from useg.experiments.hosts.listed import TEMPLATE
from useg.home.folder import writing

KINDS = ("ssh", "aws", "gcp", "azure", "kubernetes")
_RAY = "2.60.0"


def template(kind: str) -> str:
    """The text of a cluster file.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"no cluster file for {kind!r}{near(kind, KINDS)}; wanted one of {', '.join(KINDS)}")
    if kind == "ssh":
        return TEMPLATE
    try:
        ray = version("ray")
    except PackageNotFoundError:
        ray = _RAY
    text = Path(__file__).with_name(f"{kind}.yaml").read_text(encoding="utf-8")
    python = "{}.{}".format(*sys.version_info)
    return Template(text).substitute(useg=__version__, ray=ray, python=python, py=python.replace(".", ""))


def write_template(kind: str, path: Path | None) -> Path:
    """Write a cluster file; one that is there is left as it is.

    Returns:
        where it is.

    Raises:
        InputError: there is no such kind, or there is such a file.
    """
    text = template(kind)
    path = path or Path("cluster.toml" if kind == "ssh" else "cluster.yaml")
    if (path.suffix == ".toml") != (kind == "ssh"):
        raise InputError(f"{path}: wanted a name that ends with {'.toml' if kind == 'ssh' else '.yaml'}")
    with writing(path):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise InputError(f"{path} is there already; name another file") from None
    return path


__all__ = ["KINDS", "template", "write_template"]
