"""A home over HTTP: the five verbs as requests, each checked against who asks.

    GET, HEAD  /v1/keys/<key>   the content, or a part of it (`Range`, `If-Match`); 404 where there is none
    PUT        /v1/keys/<key>   {"created": whether it was not there before}; 201 or 200
    DELETE     /v1/keys/<key>   204
    GET        /v1/keys?prefix=&after=&limit=   [key, bytes, modified], a line each; then {"end": true} or {"next": key}
    GET        /v1/time         {"time": seconds by the home's clock}

A token comes as `Authorization: Bearer ...`. Refusals are JSON: {"error": kind, "message": text}. All answers have the
header `useg-home`. Contents are never whole in memory, unless they are small.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from useg import __version__
from useg.errors import DamagedFile, InputError, ResourceError, UsegError
from useg.home.address import is_loopback
from useg.home.keys import check_key
from useg.home.store import Entry, Missing, Store
from useg.web.access import Forbidden, check_delete, check_put, check_ref, is_ref, named_digest
from useg.web.arriving import Arriving
from useg.web.reading import PIECE, Content, parse_range, read
from useg.web.users import Users

STALLED_S = 60.0
"""For how long a client may take or give nothing before it is given up."""
_ENTRIES_AT_ONCE = 1000
_DRAINED = 2**20
_DRAINED_OF_USERS = 128 * 2**20
_KINDS: dict[type[Exception], tuple[int, str]] = {
    Missing: (404, "missing"),
    Forbidden: (403, "forbidden"),
    DamagedFile: (422, "damaged"),
    InputError: (400, "input"),
    ResourceError: (507, "resource"),
    ClientDisconnect: (408, "gone"),
    TimeoutError: (408, "stalled"),
}
P = ParamSpec("P")
T = TypeVar("T")


def application(store: Store, users: Users, *, is_open: bool) -> ASGIApp:
    """The server of one home.

    Args:
        store: the home.
        users: who has a token.
        is_open: whether everybody may do everything for as long as there never was a token; for loopback only.
    """
    verbs = _Verbs(store, users, is_open=is_open)
    routes = Starlette(
        routes=[
            Route("/v1/keys/{key:path}", verbs.get, methods=["GET", "HEAD"]),
            Route("/v1/keys/{key:path}", verbs.put, methods=["PUT"]),
            Route("/v1/keys/{key:path}", verbs.delete, methods=["DELETE"]),
            Route("/v1/keys", verbs.list, methods=["GET"]),
            Route("/v1/time", verbs.time, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _no_such_page, **{kind: _refusal for kind in _KINDS}},
    )
    routes.router.redirect_slashes = False

    async def entrance(scope: Scope, receive: Receive, send: Send) -> None:
        async def hear() -> Message:
            async with asyncio.timeout(STALLED_S):
                return await receive()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"useg-home", __version__.encode())]
            async with asyncio.timeout(STALLED_S):
                await send(message)

        if scope["type"] == "http":
            await routes(scope, hear, answer)

    return entrance


class _Verbs:
    """What each request does."""

    def __init__(self, store: Store, users: Users, *, is_open: bool) -> None:
        self._store, self._users, self._is_open = store, users, is_open

    async def get(self, request: Request) -> Response:
        key: str = request.path_params["key"]
        await self._role(request)
        is_asked_only = request.method == "HEAD"
        wanted = None if is_asked_only else parse_range(request.headers.get("range", ""))
        found: Content = await _aside(read, self._store, key, *(wanted or (0, 0 if is_asked_only else None)))
        if is_asked_only:
            found.close()
            size = {} if found.total is None else {"content-length": str(found.total)}
            return Response(None, 200, size, "application/octet-stream")
        if request.headers.get("if-match") not in (None, found.tag):
            found.close()
            return _told(412, {"error": "changed", "message": f"{key} is not what it was"})
        return _Reading(found, is_part=wanted is not None)

    async def put(self, request: Request) -> Response:
        key: str = request.path_params["key"]
        role = await self._role(request)
        try:
            check_key(key)
            check_put(role, key)
            digest = named_digest(key)
        except UsegError:
            await _drain(request, _DRAINED_OF_USERS)
            raise
        with Arriving(self._store) as arriving:
            await _take(request, arriving)
            if digest is not None and arriving.digest() != digest:
                raise DamagedFile(f"{key}: what came is {arriving.digest()}; nothing was stored")
            content = arriving.content()
            if is_ref(key):
                await _aside(check_ref, role, self._store, key, content)
            is_new = await _aside(self._store.put, key, content)
        return _told(201 if is_new else 200, {"created": is_new})

    async def delete(self, request: Request) -> Response:
        key: str = request.path_params["key"]
        check_key(key)
        await _aside(check_delete, await self._role(request), self._store, key)
        await _aside(self._store.delete, key)
        return Response(status_code=204)

    async def list(self, request: Request) -> Response:
        await self._role(request)
        asked = request.query_params
        after, limit = asked.get("after", ""), asked.get("limit", "")
        if limit and not (limit.isdecimal() and 0 < int(limit) < 10**12):
            raise InputError(f"limit={limit!r}: wanted a number above 0")
        entries = (each for each in self._store.list(asked.get("prefix", "")) if each.key > after)
        return _Listing(entries, await _aside(_lot, entries), int(limit) if limit else None)

    async def time(self, request: Request) -> Response:
        await self._role(request)
        return _told(200, {"time": await _aside(self._store.time)})

    async def _role(self, request: Request) -> str:
        """What whoever asks may do."""
        if self._is_open and self._users.is_unused:
            # else a page of the web could ask by a name that it makes lead to this machine
            if not is_loopback(request.url.hostname or ""):
                raise Forbidden(f"without tokens this home is for this machine only, not for {request.url.hostname}")
            return "admin"
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        user = self._users.who(token.strip()) if kind.lower() == "bearer" else None
        if user is None:
            await _drain(request, _DRAINED)
            raise HTTPException(401)
        return user.role


class _Reading(Response):
    """A content on its way to the client."""

    def __init__(self, content: Content, *, is_part: bool) -> None:
        self._found = content
        total = "*" if content.total is None else content.total
        headers = {"content-length": str(content.end - content.start), "accept-ranges": "bytes"}
        if content.tag:
            headers["etag"] = content.tag
        is_beyond = is_part and content.end == content.start
        if is_part:
            headers["content-range"] = f"bytes */{total}" if is_beyond else (
                f"bytes {content.start}-{content.end - 1}/{total}"
            )  # fmt: skip
        status = 416 if is_beyond else 206 if is_part else 200
        super().__init__(None, status, headers, "application/octet-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._found
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            at, piece = found.start + len(found.first), found.first
            while piece:
                # in small parts, so that a slow client is not taken for one that stands still
                for start in range(0, len(piece), PIECE):
                    await send({"type": "http.response.body", "body": piece[start : start + PIECE], "more_body": True})
                piece = await _aside(found.piece, at) if at < found.end else b""
                at += len(piece)
            await send({"type": "http.response.body", "body": b""})
        finally:
            found.close()


class _Listing(Response):
    """A listing on its way to the client, whose first entries are known."""

    def __init__(self, entries: Iterator[Entry], first: list[Entry], limit: int | None) -> None:
        self._entries, self._first, self._limit = entries, first, limit
        super().__init__(None, 200, media_type="application/x-ndjson")
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        lot, left = self._first, self._limit
        while lot and (left is None or left >= len(lot)):
            await send({"type": "http.response.body", "body": _lines(lot), "more_body": True})
            left = None if left is None else left - len(lot)
            last, lot = lot[-1].key, await _aside(_lot, self._entries)
        if lot and left is not None:
            last = lot[left - 1].key if left else last
        end = {"next": last} if lot else {"end": True}
        await send({"type": "http.response.body", "body": _lines(lot[: left or 0]) + orjson.dumps(end) + b"\n"})


def _lot(entries: Iterator[Entry]) -> list[Entry]:
    return list(islice(entries, _ENTRIES_AT_ONCE))


def _lines(entries: list[Entry]) -> bytes:
    return b"".join(orjson.dumps([each.key, each.size, each.modified]) + b"\n" for each in entries)


async def _aside(work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    """Do what waits for a disk or a network in a thread."""
    return await anyio.to_thread.run_sync(lambda: work(*args, **more))


async def _take(request: Request, arriving: Arriving) -> None:
    """Take a whole content; one for which there is no room is heard out, too."""
    full: UsegError | None = None
    async for piece in request.stream():
        try:
            if full is None and arriving.add(piece):
                await _aside(arriving.write)
        except UsegError as error:
            full = error
    if full is not None:
        raise full
    await _aside(arriving.write)


async def _drain(request: Request, most: int) -> None:
    """Take what a refused client still sends, or it would see a broken connection instead of the refusal."""
    with suppress(ClientDisconnect):
        async for piece in request.stream():
            most -= len(piece)
            if most < 0:
                return


def _told(status: int, what: dict[str, Any]) -> Response:
    return Response(orjson.dumps(what), status, media_type="application/json")


async def _refusal(request: Request, error: Exception) -> Response:
    kind = next(kind for kind in type(error).__mro__ if kind in _KINDS)
    status, word = _KINDS[kind]
    return _told(status, {"error": word, "message": str(error)})


async def _no_such_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 401:
        answer = _told(401, {"error": "unknown", "message": "this home wants a token that it knows"})
        answer.headers["www-authenticate"] = "Bearer"
        return answer
    return _told(status, {"error": "page", "message": f"{request.method} {request.url.path}: no such thing here"})


__all__ = ["STALLED_S", "application"]
