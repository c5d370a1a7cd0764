"""A home's server from start to end: where it may listen, and how it stops."""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from useg.errors import InputError, MissingExtra
from useg.home.address import is_loopback
from useg.home.store import Store
from useg.web.users import Users

if TYPE_CHECKING:
    from types import FrameType

_AT_ONCE = 900
_LAST_REQUESTS_S = 10


def serve(
    store: Store, host: str, port: int, started: Callable[[str, bool], None], *, users: Users | None = None
) -> None:
    """Offer a home until SIGTERM or SIGINT comes; what is being answered then is finished, for at most 10 s.

    Args:
        store: the home.
        host: a name or an address of this machine.
        port: 0 for any that is free.
        started: told the address, and whether the home is open to everybody on this machine.
        users: who has a token.

    Raises:
        MissingExtra: the server is not installed.
        InputError: others could reach it and there is no token, the port is taken, or the host is not this machine's.
        KeyboardInterrupt: SIGINT has ended it.
    """
    try:
        import uvicorn

        from useg.web.app import application
    except ImportError as error:
        raise MissingExtra("serve", "serving a home") from error
    users = users or Users(store)
    has_token, is_local = bool(users.known()), is_loopback(host)
    if not has_token and not is_local:
        raise InputError(
            f"--host {host}: others could reach this home, and it has no token; make one first: "
            "useg users token NAME --role admin"
        )
    app = application(store, users, is_open=is_local)
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", ws="none", server_header=False,
            limit_concurrency=_AT_ONCE, timeout_graceful_shutdown=_LAST_REQUESTS_S, timeout_keep_alive=75,
        )  # fmt: skip
        server = uvicorn.Server(config)
        signals: list[int] = []

        def end(number: int, frame: "FrameType | None") -> None:
            signals.append(number)
            server.should_exit = True

        # uvicorn sends itself the signal again when it has stopped
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            started(f"http://{shown}:{listening.getsockname()[1]}", is_local and users.is_unused)
            server.run(sockets=[listening])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if signal.SIGINT in signals:
        raise KeyboardInterrupt


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        InputError: the port is taken, or the host is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=2048)
        # connections inherit it; else each small answer waits 40 ms for an acknowledgement
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        where = f"{host}, port {port}"
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            raise InputError(f"{where}: something listens there already; stop it, or give another --port") from error
        what = error.strerror or error
        raise InputError(f"{where}: cannot listen there: {what}; give another --host or --port") from error


__all__ = ["listen", "serve"]
