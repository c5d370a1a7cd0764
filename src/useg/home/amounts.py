"""Amounts of bytes, as people write and read them."""

import re

from useg.errors import ConfigError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(text: str) -> int:
    """The bytes meant by `2GB`, `1.5 GiB`, `800M`, or a plain number.

    Raises:
        ConfigError: it is no such amount, or zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    unit = match[2].lower() if match else ""
    if match is None or (match[3] and not unit) or float(match[1]) == 0:
        raise ConfigError(f"{text!r} is no amount of bytes: write it like 2GB, 1.5GiB or 800MB")
    return round(float(match[1]) * (_BINARY if match[3] else _UNITS)[unit])


def size(count: float) -> str:
    """Bytes for people: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""
