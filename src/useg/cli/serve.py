"""`useg serve`: a home offered over HTTP, to those who have a token."""

from typing import Annotated

import typer

from useg.cli.data_options import Home, Json
from useg.cli.output import emit, note, warn


def serve(
    home: Home = None,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only when there is a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    json: Json = False,
) -> None:
    """Offer a home over HTTP, until Ctrl-C.

    Other machines give the address that is printed as --home, and a token of `useg users token` as USEG_TOKEN. Tokens
    and data go over the network as they are: between networks, put a server that speaks https in front.
    """
    from useg.home.opening import open_home
    from useg.web.serving import serve as serve_home

    store, _ = open_home(home)

    def started(address: str, is_open: bool) -> None:
        emit({"home": store.url, "address": address, "open": is_open}, json=json, text=f"{store.url} is at {address}")
        if is_open:
            warn("there is no token: everybody on this machine can read, write and delete; see `useg users token`")

    serve_home(store, host, port, started)
    note("stopped")
