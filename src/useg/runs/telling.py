"""Who is told of an event: a command that gets it as JSON on stdin, or a web address that it is posted to."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.parse import urlsplit

import orjson
from typing_extensions import override

from useg import __version__
from useg.errors import InputError, UsegError

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 600.0
_LONGEST_VALUE = 10_000
_SHOWN = 200

Happening = dict[str, Any]
"""What is told: `id`, `event`, `run`, `status`, `home`, `time`, `text`, and what is known of the run."""


def pause_s(tries: int) -> float:
    """Seconds to wait after so many tries that failed; they double from 1 s to 10 minutes."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20))


class NotTold(UsegError):
    """Whoever was to be told was not reached, or refused; it may be tried again."""


@dataclass(frozen=True)
class Recipient(ABC):
    """Somebody who is told of events.

    Attributes:
        address: the command line, or the web address, which may be a secret.
        timeout_s: for how long one try may take.
    """

    address: str
    timeout_s: float = 60.0

    @property
    def key(self) -> str:
        """By which a file remembers who is meant, without what may be a secret."""
        return sha256(f"{type(self).__name__} {self.address}".encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    @abstractmethod
    def shown(self) -> str:
        """What may be printed of the address."""

    @abstractmethod
    def tell(self, event: Happening) -> None:
        """Tell of an event, once.

        Raises:
            NotTold: it did not work; says why.
        """


class Command(Recipient):
    """A command of the shell: the event is JSON on its stdin and, field by field, `USEG_*` in its environment.

    What it prints on stdout goes to stderr of this process.
    """

    @property
    @override
    def shown(self) -> str:
        return self.address if len(self.address) <= _SHOWN else f"{self.address[:_SHOWN]}…"

    @override
    def tell(self, event: Happening) -> None:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", self.address],
                stdin=subprocess.PIPE, stdout=_stderr(), env={**os.environ, **_environment(event)},
                start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise NotTold(f"`{self.shown}` cannot be run: {error}") from error
        try:
            process.communicate(orjson.dumps(event), self.timeout_s)
        except subprocess.TimeoutExpired:
            raise NotTold(f"`{self.shown}` took longer than {self.timeout_s:g} s, and was ended") from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            raise NotTold(f"`{self.shown}` ended with exit status {process.returncode}")


def _stderr() -> int:
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError):
        return subprocess.DEVNULL


def _environment(event: Happening) -> dict[str, str]:
    """The event's own fields as variables; `USEG_HOME` is the home, so that `useg runs show $USEG_RUN` works."""
    found = {}
    for name, value in event.items():
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        variable = "USEG_EVENT_ID" if name == "id" else f"USEG_{name.upper()}"
        found[variable] = text[:_LONGEST_VALUE].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive without its content."""

    @override
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        raise urllib.error.HTTPError(req.full_url, code, "redirected; give the address it leads to", headers, fp)


@dataclass(frozen=True)
class WebAddress(Recipient):
    """An http or https address that each event is posted to as JSON; only an answer of 2xx counts as heard.

    Raises:
        InputError: it is no such address.
    """

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.address)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_address = False
        if not is_address or not self.address.isascii() or any(sign <= " " for sign in self.address):
            raise InputError(f"--post {self.address!r}: wanted an address such as https://host/path, in ASCII")
        if parts.username is not None:
            raise InputError(f"--post https://…@{parts.hostname}: a name and password before the host cannot be sent")

    @property
    @override
    def shown(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}/…" if parts.path.strip("/") or parts.query else self.address

    @override
    def tell(self, event: Happening) -> None:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"useg/{__version__}",
            "Idempotency-Key": str(event.get("id", "")),
        }
        request = urllib.request.Request(self.address, orjson.dumps(event), headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout_s):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise NotTold(f"{self.shown} answered {error.code} {error.reason}") from error
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            raise NotTold(f"{self.shown} does not answer: {getattr(error, 'reason', None) or error}") from error


__all__ = ["Command", "Happening", "NotTold", "Recipient", "WebAddress", "pause_s"]
