"""A home in a bucket of S3 or what speaks like it, of Google or of Azure; found and opened by the usual environment."""

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store
from typing_extensions import override

from useg.errors import InputError, ResourceError, UsegError
from useg.home.address import is_loopback
from useg.home.keys import check_key, check_prefix, check_range, is_key, merged
from useg.home.store import ABANDONED_S, Content, Entry, Missing, Store, whole

PATIENCE_S = 60.0
"""For how long a request that fails is sent again."""
_REQUEST_S = 60
_METADATA_S = 3
_PART = 8 * 2**20
_LARGEST_PUT = 16 * 2**20
_LARGEST = 5 * 2**30
_PARTS = ".parts/"
_CLOCK = ".clock"
_AT_ONCE = 8
_BROKEN = re.compile("error sending request|error decoding response|connection|timed out|timeout", re.I)
_T = TypeVar("_T")


class Bucket(Store):
    """A home in a bucket, or below a prefix in one.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
        patience_s: for how long a request that fails is sent again.

    Raises:
        InputError: the address is none, or the environment has settings that cannot be used.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self.url, self._patience_s = url.rstrip("/"), patience_s
        self._client = _connect(self.url, patience_s)
        # an upload that is sent twice by the client would take its own first success for another's
        self._once = _connect(self.url, 0)
        self._swept = False

    def __reduce__(self) -> tuple[Callable[..., "Bucket"], tuple[str, float]]:
        return _reopened, (self.url, self._patience_s)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_key(key)
        check_range(start, end)
        if start == end:
            self._ask(key, lambda: obstore.head(self._client, key))
            return b""
        wanted: Any = {"offset": start} if end is None else (start, end)
        options: Any = {"range": wanted} if start or end is not None else {}
        try:
            return self._ask(key, lambda: bytes(obstore.get(self._client, key, options=options).bytes()))
        except _BeyondEndError:
            return b""

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
        content = content if isinstance(content, Path) else whole(content)
        size = len(content) if isinstance(content, bytes) else _size(content)
        if size > _LARGEST:
            raise InputError(f"{key}: {size} bytes; a bucket takes at most {_LARGEST} in one object")
        if size > _LARGEST_PUT:
            return self._put_in_parts(key, content, size)
        held = content if isinstance(content, bytes) else content.read_bytes()
        return self._create(key, held, lambda: obstore.put(self._once, key, held, mode="create", use_multipart=False))

    @override
    def list(self, prefix: str = "") -> Iterator[Entry]:
        check_prefix(prefix)
        return self._list(prefix)

    @override
    def delete(self, key: str) -> None:
        check_key(key)
        with suppress(Missing):
            self._ask(key, lambda: obstore.delete(self._client, key))

    @override
    def time(self) -> float:
        # somebody else may write it in between, but no earlier than now
        self._ask(_CLOCK, lambda: obstore.put(self._client, _CLOCK, b"", use_multipart=False))
        return self._ask(_CLOCK, lambda: obstore.head(self._client, _CLOCK))["last_modified"].timestamp()

    def _list(self, prefix: str) -> Iterator[Entry]:
        # the client knows prefixes of whole parts only, and not every server sorts by key
        folder = prefix.rpartition("/")[0]
        pages = iter(self._ask(prefix, lambda: obstore.list(self._client, folder or None, chunk_size=1000)))
        found = []
        while page := self._ask(prefix, lambda: next(pages, None)):
            found += [
                Entry(each["path"], each["size"], each["last_modified"].timestamp())
                for each in page
                if each["path"].startswith(prefix) and is_key(each["path"])
            ]
        yield from sorted(found, key=attrgetter("key"))

    def _put_in_parts(self, key: str, content: bytes | Path, size: int) -> bool:
        """Upload in parts to a place of its own, then let the bucket copy it, if nothing is there yet."""
        if self._has(key):
            return False
        self._sweep()
        part = f"{_PARTS}{secrets.token_hex(16)}"
        try:
            self._ask(key, lambda: obstore.put(self._client, part, content, chunk_size=_PART, max_concurrency=4))
            return self._create(key, content, lambda: obstore.copy(self._once, part, key, overwrite=False))
        finally:
            with suppress(UsegError):
                self._ask(part, lambda: obstore.delete(self._client, part))

    def _create(self, key: str, content: bytes | Path, send: Callable[[], object]) -> bool:
        """Send a conditional upload until it is known whether it has been the first."""
        end = time.monotonic() + self._patience_s
        wait_s, is_repeated = 0.1, False
        while True:
            try:
                _check_process()
                send()
                return True
            except AlreadyExistsError as error:
                # some say so of a conflict, too, after which nobody may have won
                if _status(error) != 409 or self._has(key):
                    return is_repeated and self._holds(key, content)
                failed: Exception = error
            except (BaseError, OSError) as error:
                failed = error
            if not _is_passing(failed) or time.monotonic() + wait_s > end:
                raise self._translated(failed, key) from failed
            time.sleep(wait_s)
            wait_s, is_repeated = min(2 * wait_s, 5.0), True

    def _has(self, key: str) -> bool:
        with suppress(Missing):
            self._ask(key, lambda: obstore.head(self._client, key))
            return True
        return False

    def _holds(self, key: str, content: bytes | Path) -> bool:
        """Whether these bytes are what lies under a key."""
        if isinstance(content, bytes):
            return self.get(key) == content
        with content.open("rb") as file:
            start = 0
            while piece := file.read(_PART):
                if self.get(key, start, start + len(piece)) != piece:
                    return False
                start += len(piece)
        return not self.get(key, start, start + 1)

    def _sweep(self) -> None:
        """Remove what crashed uploads have left, once for each store that uploads in parts."""
        if self._swept:
            return
        self._swept = True
        left = self._ask(_PARTS, lambda: obstore.list(self._client, _PARTS.rstrip("/")).collect())
        now = self.time() if left else 0.0
        old = [each["path"] for each in left if each["last_modified"].timestamp() < now - ABANDONED_S]
        if old:
            self._ask(_PARTS, lambda: obstore.delete(self._client, old))

    def _ask(self, key: str, request: Callable[[], _T]) -> _T:
        _check_process()
        try:
            return request()
        except (BaseError, OSError) as error:
            raise self._translated(error, key) from error

    def _translated(self, error: Exception, key: str) -> UsegError:
        text = str(error)
        status = _status(error)
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return InputError(f"{self.url}: there is no such bucket; make it first, or correct its name")
        if isinstance(error, FileNotFoundError):
            return Missing(self.url, key)
        if status == 416 or "Wanted range starting at" in text:
            return _BeyondEndError()
        if "169.254.169.254" in text or "metadata.google" in text:
            return ResourceError(f"{self.url}: no credentials in the environment; {_CREDENTIALS[self.url[:2]]}")
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403):
            code = re.search(r"<Code>(\w+)</Code>", text)
            return ResourceError(
                f"{self.url}/{key}: the bucket refuses this ({code[1] if code else 'permission denied'}); "
                "check the credentials in the environment and what they may do"
            )
        what = text.partition("\n")[0]
        what = what.rpartition(" - ")[2] if " - " in what else what
        if _is_passing(error):
            return ResourceError(
                f"{self.url}/{key}: no answer within {self._patience_s:g} s ({what[:200]}). "
                "What was finished before is intact; repeat the command when the bucket answers again"
            )
        return ResourceError(f"{self.url}/{key}: the bucket answers: {what[:300]}")


class _BeyondEndError(UsegError):
    """A range begins where the content has ended."""


_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for another server than Amazon's)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def _check_process() -> None:
    """Refuse to wait for ever: a process forked from one that used the client lacks the threads of it."""
    if _used_by.setdefault("process", os.getpid()) != os.getpid():
        raise RuntimeError("a bucket cannot be used in a forked process; start processes by `spawn` or `forkserver`")


_used_by: dict[str, int] = {}


def _reopened(url: str, patience_s: float) -> Bucket:
    return Bucket(url, patience_s=patience_s)


def _connect(url: str, patience_s: float) -> ObjectStore:
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    if not re.fullmatch(r"[\w][\w.-]{1,62}", parts.netloc) or parts.query or parts.fragment:
        raise InputError(f"{url}: wanted {parts.scheme}://bucket or {parts.scheme}://bucket/prefix")
    if prefix:
        check_key(prefix)
    common: dict[str, Any] = {
        "prefix": prefix or None,
        "client_options": {"timeout": timedelta(seconds=_REQUEST_S), "connect_timeout": timedelta(seconds=5)},
        "retry_config": {
            "max_retries": 100 if patience_s else 0,
            "retry_timeout": timedelta(seconds=patience_s),
            "backoff": {"max_backoff": timedelta(seconds=5)},
        },
    }
    try:
        if parts.scheme == "gs":
            _look_for_google(url)
            return GCSStore(parts.netloc, **common)
        if parts.scheme == "az":
            return AzureStore(parts.netloc, **common)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        if is_loopback(urlsplit(endpoint).hostname or ""):
            common["client_options"]["allow_http"] = True
        elif endpoint.startswith("http:") and os.environ.get("AWS_ALLOW_HTTP", "").lower() not in ("true", "1"):
            raise InputError(
                f"AWS_ENDPOINT_URL is {endpoint}: data would go over the network unprotected; "
                "use https, or set AWS_ALLOW_HTTP=true if you mean it"
            )
        settings: Any = {"disable_bulk_delete": True}
        if "AWS_COPY_IF_NOT_EXISTS" not in os.environ:
            settings["copy_if_not_exists"] = "multipart"
        return S3Store(parts.netloc, **settings, **common)
    except (BaseError, ValueError) as error:
        raise InputError(
            f"{url}: cannot be used as the environment is set: {str(error).partition(chr(10))[0]}"
        ) from error


def _look_for_google(url: str) -> None:
    """Say at once that there are no credentials: the client asks a machine of Google's for them, and waits."""
    kept = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
    if any(name.startswith("GOOGLE_") for name in os.environ) or kept.is_file():
        return
    try:
        socket.create_connection(("metadata.google.internal", 80), timeout=_METADATA_S).close()
    except OSError as error:
        raise ResourceError(f"{url}: no credentials in the environment; {_CREDENTIALS['gs']}") from error


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise InputError(f"{file}: cannot read: {error.strerror or error}") from error


def _status(error: Exception) -> int | None:
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def _is_passing(error: Exception) -> bool:
    """Whether the same request may succeed later: the bucket did not answer, or said that it cannot now."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | FileNotFoundError | FileExistsError):
        return False
    status = _status(error)
    if status is None:
        return _BROKEN.search(str(error)) is not None
    return status >= 500 or status in (408, 409, 429)


__all__ = ["Bucket"]
