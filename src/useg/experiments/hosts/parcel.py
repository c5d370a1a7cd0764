"""What every host gets: useg as it is here, as a wheel, and the exact versions of all that it needs."""

import base64
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from useg.errors import InputError, MissingExtra

_DIGEST_DIGITS = 16
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Parcel:
    """What an environment is made of.

    Attributes:
        requirements: a file for pip. wheel: useg itself. environment, useg: their digests.
    """

    requirements: str
    wheel: bytes
    environment: str
    useg: str


def pack(root: str = "useg", extra: str = "cluster") -> Parcel:
    """Pack what runs here, from a checkout as from an installation.

    Raises:
        MissingExtra: it is not installed whole. InputError: useg is not installed.
    """
    try:
        mine = distribution(root)
    except PackageNotFoundError:
        raise InputError("useg runs here without being installed: pip install it, or `make setup`") from None
    wheel = _wheel(mine)
    lines = "".join(f"{each}\n" for each in sorted(_versions(root, extra)))
    digests = (hashlib.sha256(each).hexdigest()[:_DIGEST_DIGITS] for each in (lines.encode(), wheel))
    return Parcel(lines, wheel, *digests)


def _versions(root: str, extra: str) -> set[str]:
    """`NAME==VERSION` of all that a package with an extra needs here."""
    try:
        from packaging.requirements import Requirement
    except ImportError as error:
        raise MissingExtra(extra, "`useg cluster`") from error
    found, seen, waiting = set[str](), set[tuple[str, str]](), [(root, ""), (root, extra)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            package = distribution(name)
        except PackageNotFoundError as error:
            raise MissingExtra(extra, "`useg cluster`") from error
        if name != root:  # a build such as +cpu is this machine's: a host takes its index's
            found.add(f"{name}=={package.version.partition('+')[0]}")
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": wanted}):
                plain = re.sub(r"[-_.]+", "-", needed.name).lower()
                waiting += [(plain, each) for each in ("", *needed.extras)]
    return found


def _wheel(package: Distribution) -> bytes:
    """The package that runs, as a wheel; the same code always gives the same bytes."""
    folder, version = Path(__file__).parents[2], package.version
    inside = f"useg-{version}.dist-info"
    files = {f"useg/{path.relative_to(folder).as_posix()}": path.read_bytes()
             for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    files[f"{inside}/METADATA"] = (package.read_text("METADATA") or "").encode()
    files[f"{inside}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: useg\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{inside}/entry_points.txt"] = (package.read_text("entry_points.txt") or "").encode()
    rows = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items()]
    files[f"{inside}/RECORD"] = "".join([*rows, f"{inside}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


__all__ = ["Parcel", "pack"]
