"""Users: who may use a home that is served, and what they may do there.

A token is shown once. What is kept of it, a hash, lies beside the server (USEG_STATE, else ~/.local/state/useg) and
never in the home: run these commands on the machine, and as the user, that runs `useg serve`.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from useg.cli.data_options import Home, Json
from useg.cli.output import emit, note

if TYPE_CHECKING:
    from useg.web.users import Users

Name = Annotated[str, typer.Argument(metavar="NAME", help="A person or a machine.")]


def _users(home: str | None) -> "tuple[str, Users]":
    from useg.home.opening import open_home
    from useg.web.users import Users

    store, _ = open_home(home)
    return store.url, Users(store)


def token(
    name: Name,
    role: Annotated[str, typer.Option(help="reader: looks; writer: adds, too; admin: takes away, too.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a token, which is shown once."""
    url, users = _users(home)
    made = users.add(name, role)
    emit({"name": name, "role": role, "token": made, "home": url}, json=json, text=made)
    note(f"{name} is a {role} of {url}. This is not shown again; on {name}'s machine: export USEG_TOKEN={made[:8]}...")


def list_users(home: Home = None, json: Json = False) -> None:
    """List who has a token."""
    url, users = _users(home)
    found = [{"name": user.name, "role": user.role, "made": user.made} for user in users.known()]
    width = max((len(each["name"]) for each in found), default=0)
    lines = [f"{each['name']:{width}}  {each['role']:6}  {each['made']}" for each in found]
    emit({"home": url, "users": found}, json=json, text="\n".join(lines) or f"{url}: nobody has a token")


def revoke(name: Name, home: Home = None, json: Json = False) -> None:
    """Take a token away, also from a server that runs."""
    url, users = _users(home)
    users.revoke(name)
    emit({"home": url, "revoked": name}, json=json, text=f"{name} has no token for {url} any more")


COMMANDS = {"token": token, "list": list_users, "revoke": revoke}
