"""Names and texts such as MLflow takes them: what it refuses is changed so that two names never become one."""

import math
import posixpath
import re
from collections.abc import Mapping
from typing import Any

import orjson
from blake3 import blake3

from useg.runs.facts import flattened

LONGEST_NAME = 250
LONGEST_PARAM = 6000
LONGEST_TAG = 5000
"""Newer servers take 8000."""
_CUT_NAME = 200
_REFUSED = re.compile(r"[^\w.\- /]")
_REFUSED_IN_FILES = re.compile(r"[^A-Za-z0-9_.\- ]")


def name_for(name: str) -> str:
    """A name of a param or a metric: letters, digits and `_-. /`, a path that is no other path, 250 characters.

    Where something had to be changed, a digest of the name follows.

    Example:
        >>> name_for("val/dice"), name_for("acc@5")
        ('val/dice', 'acc_5-8f9d5bbc')
    """
    changed = _REFUSED.sub("_", name)
    path = posixpath.normpath(changed).lstrip("/")
    while path.startswith(".."):
        path = path[2:].lstrip("/")
    path = "_" if path in ("", ".") else path
    if path == name and len(name) <= LONGEST_NAME:
        return name
    return f"{path[:_CUT_NAME].rstrip('/')}-{_digest(name)}"


def file_name_for(name: str) -> str:
    """The same for a part of the name of a file: ASCII, no slash, at most 100 characters."""
    changed = _REFUSED_IN_FILES.sub("_", name)
    return name if changed == name and 0 < len(name) <= 100 else f"{changed[:80]}-{_digest(name)}"


def _digest(name: str) -> str:
    return str(blake3(name.encode("utf-8", "surrogatepass")).hexdigest(length=4))


def text_for(value: Any, longest: int) -> str:
    """A value as text: what is no text as JSON; what is too long is cut, and says how long it was."""
    text = value if isinstance(value, str) else _json(value)
    # PostgreSQL keeps no zero bytes, and nothing keeps half a surrogate pair
    text = text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()
    if len(text) <= longest:
        return text
    end = f"… ({len(text)} characters; all of it is in record.json)"
    return text[: longest - len(end)] + end


def _json(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # numbers of more than 64 bits
        return str(value)


def params_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Settings, plan and seeds of a run as params: by the names that `useg runs list --where` knows them by."""
    found = {}
    for field in ("config", "plan", "seeds"):
        if isinstance(record.get(field), dict):
            for name, value in flattened(record[field], field):
                found[name_for(name)] = text_for(value, LONGEST_PARAM)
    return found


def tags_of(record: Mapping[str, Any], run: str, status: str, home: str) -> dict[str, str]:
    """What else is known of a run, as tags; those that MLflow's pages show have MLflow's names."""
    code = record.get("code") if isinstance(record.get("code"), dict) else {}
    user_code = (code or {}).get("user") or {}
    origin = record.get("origin") if isinstance(record.get("origin"), dict) else {}
    command = record.get("command")
    known = {
        "mlflow.user": record.get("user"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": " ".join(map(str, command)) if isinstance(command, list) else command,
        "mlflow.source.git.commit": user_code.get("commit") if isinstance(user_code, dict) else None,
        "useg.run": run,
        "useg.home": home,
        "useg.status": status,
        "useg.tags": ",".join(map(str, record.get("tags") or [])) or None,
        "useg.release": record.get("useg"),
        **{f"useg.{name}": record.get(name) for name in ("name", "note", "data", "weights", "parent", "error", "host")},
        "useg.config_digest": record.get("config_digest"),
        **{f"useg.origin.{name}": (origin or {}).get(name) for name in ("dataset", "version", "commit", "view")},
    }
    return {name: text_for(value, LONGEST_TAG) for name, value in known.items() if value not in (None, "", {}, [])}


__all__ = ["LONGEST_NAME", "LONGEST_PARAM", "LONGEST_TAG", "file_name_for", "name_for", "params_of", "tags_of",
           "text_for"]  # fmt: skip
