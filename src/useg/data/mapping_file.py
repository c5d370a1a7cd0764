"""The text of `classes.toml`: read, and written with a comment on every key."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from useg.errors import DataError

MAPPING_FILE = "classes.toml"
"""Name of the mapping file that is looked for in a data folder."""

_HEAD = """\
# How the values in the label files become classes, and how predictions are written back.
# Edit it and give it back: `--classes FILE`, or as `classes.toml` in the data folder.
# A file may hold only some of the keys (for instance `ignore = [11]`); useg infers the others.

"""

_COMMENTS = {
    "kind": """\
# What the label files hold:
#   "values"     a number per class                "colours"    a colour per class
#   "threshold"  grey values around two classes    "instances"  a number per object
#   "objects"    one mask file per object
""",
    "threshold": "# Greater values are the second class.\n",
    "ignore": '# What means "not annotated": such pixels are neither learned from nor scored.\n',
    "nearest": "# true: a value or colour that is not listed takes the class of the nearest listed one.\n",
    "alpha": "# true: the numbers lie in the alpha channel; the colours of the label files say nothing.\n",
    "dtype": "# The number type of the label files; predictions are written in it.\n",
    "channels": "# How many channels the label files have (3: a grey picture saved as RGB).\n",
    "stored_palette": "# The palette of the label files, by index; predictions are written with it.\n",
}

_CLASSES = """\
# The classes in the order of their ids; the background comes first where there is one.
# Rename them as you like; list several values in one class to merge them.
"""


def parse_keys(text: str, where: str) -> dict[str, Any]:
    """The keys of a mapping file.

    Raises:
        DataError: not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{where}: not a TOML file: {error}") from None


def read_keys(path: Path) -> dict[str, Any]:
    """The keys of a `classes.toml`, which may be partial.

    Raises:
        DataError: the file cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the label mapping cannot be read: {error}") from None
    return parse_keys(text, str(path))


def write_keys(keys: Mapping[str, Any]) -> str:
    """The commented text of a mapping file; keys that are None, empty or at their default are left out."""
    lines = [_HEAD]
    for key, comment in _COMMENTS.items():
        value = keys.get(key)
        if value is None or value is False or value == () or (key == "channels" and value == 1):
            continue
        lines.append(f"{comment}{key} = {_value(value)}\n\n")
    lines.append(_CLASSES)
    for cls in keys["classes"]:
        lines.append("[[classes]]\n")
        lines += [f"{key} = {_value(cls[key])}\n" for key in ("name", "values", "colours") if cls[key] != ()]
        lines.append("\n")
    return "".join(lines).rstrip("\n") + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Iterable):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"a mapping holds no {type(value).__name__}")


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
