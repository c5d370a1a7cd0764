"""A home that `useg serve` offers, over HTTP: what fails is sent again, and what breaks off goes on where it was."""

import os
import ssl
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NoReturn
from urllib.parse import quote, urlsplit
from weakref import finalize

import httpx
import orjson
from typing_extensions import override

from useg.errors import ConfigError, DamagedFile, InputError, ResourceError
from useg.home.address import is_loopback
from useg.home.keys import check_key, check_prefix, check_range, merged
from useg.home.store import Content, Entry, Missing, Store

PATIENCE_S = 60.0
"""For how long a request that fails is sent again."""
_REQUEST_S = 60.0
_CONNECT_S = 5.0
_PIECE = 2**20
_ASKED_FIRST = 2**20
_AT_ONCE = 8
_CONNECTIONS = 32
_PASSING = {408, 425, 429, 502, 503, 504}
_LONGEST_PAUSE_S = 5.0


class Served(Store):
    """A home at `http://host:port` or `https://host`, perhaps with a path.

    The token is `USEG_TOKEN`, else what `tokens.toml` in `$XDG_CONFIG_HOME/useg` (else `~/.config/useg`) has for the
    address: `"http://host:port" = "useg_..."`. It is never a part of the address, and goes nowhere with this object.

    Args:
        url: the address.
        patience_s: for how long a request that fails is sent again.

    Raises:
        InputError: it is no such address, or has a name, password or query. ConfigError: the file cannot be used.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self.url, self._patience_s = url.rstrip("/"), patience_s
        _check_address(self.url)
        self._token = token_for(self.url)
        self._lock = Lock()
        self._clients: dict[int, httpx.Client] = {}
        finalize(self, _close, self._clients)

    def __reduce__(self) -> tuple[Callable[..., "Served"], tuple[str, float]]:
        return _reopened, (self.url, self._patience_s)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_key(key)
        check_range(start, end)
        if start == end:
            self._ask("HEAD", key)
            return b""
        reading = _Reading(start, end)
        self._ask("GET", key, reading=reading)
        return reading.content()

    @override
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        requests = merged(ranges)
        if len(requests) <= 1:
            return super().get_ranges(key, ranges)
        found = [b""] * len(ranges)
        with ThreadPoolExecutor(min(_AT_ONCE, len(requests))) as pool:
            contents = pool.map(lambda request: self.get(key, request[0], request[1]), requests)
            for (start, _, members), content in zip(requests, contents, strict=True):
                for member in members:
                    found[member] = content[ranges[member][0] - start : ranges[member][1] - start]
        return found

    @override
    def put(self, key: str, content: Content) -> bool:
        check_key(key)
        sending = _Sending(content)
        if sending.size > _ASKED_FIRST and self._has(key):
            return False
        answer, is_repeated = self._ask("PUT", key, sending=sending)
        try:
            is_new = orjson.loads(answer)["created"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ResourceError(f"{self.url}/{key}: an answer that is none: {answer[:100]!r}") from error
        # an answer may have been lost on its way to us after the content was stored
        return bool(is_new) or (is_repeated and self._holds(key, sending))

    @override
    def list(self, prefix: str = "") -> Iterator[Entry]:
        check_prefix(prefix)
        return self._list(prefix)

    @override
    def delete(self, key: str) -> None:
        check_key(key)
        self._ask("DELETE", key)

    @override
    def time(self) -> float:
        return float(orjson.loads(self._ask("GET", "", page="time")[0])["time"])

    def _list(self, prefix: str) -> Iterator[Entry]:
        entries: list[Entry] = []
        asked = {"prefix": prefix}
        while True:
            reading = _Reading(0, None)
            # what was cut off is still a beginning, from which the next request goes on
            is_cut = self._ask("GET", "", page="keys", query=asked, reading=reading, is_listing=True)[1]
            *lines, last = reading.content().split(b"\n")[:-1] or [b""]
            whole = last.startswith(b"{")
            entries += [Entry(*orjson.loads(line)) for line in (lines if whole else [*lines, last]) if line]
            if whole and b'"end"' in last:
                break
            if not whole and not is_cut:
                raise ResourceError(f"{self.url}: a listing without an end")
            if entries:
                asked["after"] = entries[-1].key
        yield from entries

    def _has(self, key: str) -> bool:
        with suppress(Missing):
            self._ask("HEAD", key)
            return True
        return False

    def _holds(self, key: str, sending: "_Sending") -> bool:
        """Whether these bytes are what lies under a key."""
        start = 0
        for piece in sending.pieces():
            if self.get(key, start, start + len(piece)) != piece:
                return False
            start += len(piece)
        return not self.get(key, start, start + 1)

    def _ask(
        self,
        verb: str,
        key: str,
        *,
        page: str = "",
        query: Mapping[str, str] | None = None,
        sending: "_Sending | None" = None,
        reading: "_Reading | None" = None,
        is_listing: bool = False,
    ) -> tuple[bytes, bool]:
        """Send a request until it is answered: the answer, if it is not for `reading`; and whether it was repeated."""
        url = f"{self.url}/v1/{page or 'keys/' + quote(key)}"
        end = time.monotonic() + self._patience_s
        wait_s, is_repeated = 0.1, False
        while True:
            pieces = sending.pieces() if sending else None
            headers = {**(sending.headers if sending else {}), **(reading.headers if reading else {})}
            try:
                with self._client.stream(verb, url, params=query, content=pieces, headers=headers) as answer:
                    what = f"it answers {answer.status_code}"
                    if answer.status_code not in _PASSING:
                        self._check(answer, key)
                        if reading is None:
                            return answer.read(), is_repeated
                        if reading.take(answer):
                            return b"", is_repeated
            except httpx.TransportError as error:
                if _is_refused_for_good(error):
                    raise InputError(f"{self.url}: {error}; correct the address, or trust its certificate") from error
                what = str(error) or type(error).__name__
                if is_listing and reading is not None and reading.has_lines():
                    return b"", True
            if reading is not None and reading.has_grown():
                wait_s, end = 0.1, time.monotonic() + self._patience_s
            if time.monotonic() + wait_s > end:
                raise ResourceError(
                    f"{self.url}: no answer within {self._patience_s:g} s ({what[:200]}). Is `useg serve` running "
                    "there? What was finished before is intact; repeat the command when it answers again"
                )
            time.sleep(wait_s)
            wait_s, is_repeated = min(2 * wait_s, _LONGEST_PAUSE_S), True

    def _check(self, answer: httpx.Response, key: str) -> None:
        """Raise what an answer says is wrong."""
        status = answer.status_code
        if "useg-home" not in answer.headers:
            kind = answer.headers.get("content-type", "no content type")
            raise InputError(
                f"{self.url}: something else than `useg serve` answers there (status {status}, {kind}); "
                "correct the address"
            )
        if status < 300 or status in (412, 416):
            return
        if status == 404 and (answer.request.method == "HEAD" or _told(answer)[0] == "missing"):
            raise Missing(self.url, key)
        self._refuse(status, key, _told(answer)[1])

    def _refuse(self, status: int, key: str, message: str) -> NoReturn:
        place = f"{self.url}/{key}"
        if status == 401:
            had = "the token given is none of its tokens" if self._token else "it wants a token, and none was given"
            raise ResourceError(
                f"{self.url}: {had}; whoever runs it makes one with `useg users token NAME --role writer`: "
                "put it into USEG_TOKEN"
            )
        if status == 403:
            raise ResourceError(f"{place}: {message or 'not allowed'}; use a token of another role")
        if status == 400:
            raise InputError(f"{self.url}: {message}")
        if status == 422:
            raise DamagedFile(f"{self.url}: {message}")
        raise ResourceError(f"{place}: the server answers {status}: {message[:300]}")

    @property
    def _client(self) -> httpx.Client:
        """The connections of this process; a forked one must not use its parent's."""
        with self._lock:
            client = self._clients.get(os.getpid())
            if client is None:
                host = urlsplit(self.url).hostname or ""
                client = httpx.Client(
                    headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
                    timeout=httpx.Timeout(_REQUEST_S, connect=_CONNECT_S),
                    limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
                    trust_env=not is_loopback(host),  # no proxy leads back to this machine
                )
                self._clients[os.getpid()] = client
            return client


class _Reading:
    """A content as it comes; what broke off goes on where it was, unless it has changed meanwhile."""

    def __init__(self, start: int, end: int | None) -> None:
        self._start, self._end = start, end
        self._pieces: list[bytes] = []
        self._size = self._before = 0
        self._tag = ""

    @property
    def headers(self) -> dict[str, str]:
        at = self._start + self._size
        headers = {"Accept-Encoding": "identity"}
        if at or self._end is not None:
            headers["Range"] = f"bytes={at}-{'' if self._end is None else self._end - 1}"
        if self._size and self._tag:
            headers["If-Match"] = self._tag
        return headers

    def take(self, answer: httpx.Response) -> bool:
        """Read an answer to its end; False when the content has to be asked for anew."""
        if answer.status_code == 412 or (self._size and answer.status_code == 200):
            self._pieces, self._size, self._tag = [], 0, ""
            return False
        if answer.status_code == 416:
            return True
        if answer.status_code == 200 and "range" in answer.request.headers:  # a proxy that knows no ranges
            self._pieces = [answer.read()[self._start : self._end]]
            return True
        self._tag = answer.headers.get("etag", "")
        for piece in answer.iter_raw():
            self._pieces.append(piece)
            self._size += len(piece)
        return True

    def has_grown(self) -> bool:
        """Whether something came since this was last asked."""
        before, self._before = self._before, self._size
        return self._size > before

    def has_lines(self) -> bool:
        """Whether a whole line has come."""
        return any(b"\n" in piece for piece in self._pieces)

    def content(self) -> bytes:
        return b"".join(self._pieces)


class _Sending:
    """A content that may be sent several times."""

    def __init__(self, content: Content) -> None:
        self._content = content
        if isinstance(content, Path):
            with _opened(content) as file:
                self.size = os.fstat(file.fileno()).st_size
        else:
            self.size = len(content) if isinstance(content, bytes) else sum(map(len, content))
        self.headers = {"Content-Length": str(self.size), "Content-Type": "application/octet-stream"}

    def pieces(self) -> Iterator[bytes]:
        if isinstance(self._content, Path):
            with _opened(self._content) as file:
                left = self.size
                while left and (piece := file.read(min(_PIECE, left))):
                    left -= len(piece)
                    yield piece
            if left:
                raise InputError(f"{self._content} became shorter while it was read; run the same command again")
        elif isinstance(self._content, bytes):
            for start in range(0, self.size, _PIECE):
                yield self._content[start : start + _PIECE]
        else:
            lot, held = [], 0
            for piece in self._content:
                lot.append(piece)
                held += len(piece)
                if held >= _PIECE:
                    yield b"".join(lot)
                    lot, held = [], 0
            yield b"".join(lot)


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise InputError(f"{file}: cannot read: {error.strerror or error}") from error


def _told(answer: httpx.Response) -> tuple[str, str]:
    """Kind and message of a refusal."""
    try:
        told: dict[str, Any] = orjson.loads(answer.read())
        return str(told.get("error")), str(told.get("message", ""))
    except (orjson.JSONDecodeError, AttributeError):
        return "", answer.text[:200]


def _is_refused_for_good(error: httpx.TransportError) -> bool:
    """Whether no later request will fare better: a certificate that is not trusted, or no such kind of address."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return isinstance(error, httpx.UnsupportedProtocol) or "WRONG_VERSION_NUMBER" in str(error)


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_right = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or not all(sign.isascii() and sign.isprintable() and sign != " " for sign in url):
        raise InputError(f"{url}: wanted http://host:port or https://host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"{parts.scheme}://{parts.hostname}: a home's address has no name, password or query, since addresses are "
            "written into records; put the token into USEG_TOKEN"
        )


def token_for(url: str) -> str:
    """The token that this process has for an address; empty where it has none."""
    file = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "useg/tokens.toml"
    token = os.environ.get("USEG_TOKEN", "").strip()
    if not token and file.exists():
        if file.stat().st_mode & 0o077:
            raise ConfigError(f"{file}: others can read it; chmod 600 {file}")
        try:
            tokens = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f'{file}: {error}; wanted lines such as "http://host:8765" = "useg_..."') from error
        token = str({address.rstrip("/"): each for address, each in tokens.items()}.get(url, "")).strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError("USEG_TOKEN (or tokens.toml): no token; wanted what `useg users token` printed")
    return token


def _close(clients: dict[int, httpx.Client]) -> None:
    if (client := clients.get(os.getpid())) is not None:
        client.close()


def _reopened(url: str, patience_s: float) -> Served:
    return Served(url, patience_s=patience_s)


__all__ = ["Served", "token_for"]
