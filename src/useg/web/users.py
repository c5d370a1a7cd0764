"""Who may use a served home: names, roles, and hashes of tokens, in a file beside the server and outside the home.

The file is `users/<digest>.json` in `USEG_STATE`, else `$XDG_STATE_HOME/useg`, else `~/.local/state/useg`; the digest
is that of the home's address, so that a token opens one home only. Of a token only its SHA-256 is kept. A slow hash,
which passwords need because they can be guessed, would bring nothing here: a token is 256 random bits, and trying them
all takes longer than there is time, however fast each try is. Hashes are compared in constant time.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from useg.errors import ConfigError, DamagedFile, InputError, ResourceError
from useg.home.folder import writing
from useg.home.refs import check_name
from useg.home.store import Folder, Store

ROLES = ("reader", "writer", "admin")
_PREFIX = "useg_"


@dataclass(frozen=True)
class User:
    """Somebody who has a token.

    Attributes:
        name: unlike all others of the home.
        role: one of `ROLES`.
        hash: SHA-256 of the token.
        made: when, in UTC.
    """

    name: str
    role: str
    hash: str
    made: str


class Users:
    """The users of one home, read again whenever the file has changed.

    Args:
        store: the home.

    Raises:
        InputError: the home is served elsewhere, or the file would lie in it and be served, too.
    """

    def __init__(self, store: Store) -> None:
        if store.url.startswith(("http://", "https://")):
            raise InputError(f"{store.url} is served already; run this on the machine that serves it, with its folder")
        place = os.path.realpath(store.url) if isinstance(store, Folder) else store.url
        self.file = _state_folder() / "users" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"
        if isinstance(store, Folder) and self.file.resolve().is_relative_to(place):
            raise InputError(f"{self.file} lies in the home that is served; set USEG_STATE to a folder outside")
        self._url = store.url
        self._read: tuple[object, list[User]] | None = None

    @property
    def is_unused(self) -> bool:
        """Whether there never was a token; a home whose last one was revoked is not open again."""
        return not self.file.exists()

    def known(self) -> list[User]:
        """All of them, by name.

        Raises:
            DamagedFile: the file is not what was written. ResourceError: it cannot be read.
        """
        try:
            status = self.file.stat()
            sign = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._read is None or self._read[0] != sign:
                told = orjson.loads(self.file.read_bytes())
                self._read = sign, [User(**each) for each in told["users"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResourceError(f"{self.file}: cannot read: {error.strerror}; give the permission back") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(f"{self.file}: no list of users; remove it, and make the tokens anew") from error
        return self._read[1]

    def who(self, token: str) -> User | None:
        """Whose token this is."""
        asked = _hash(token)
        found = [user for user in self.known() if hmac.compare_digest(user.hash, asked)]
        return found[0] if found else None

    def add(self, name: str, role: str) -> str:
        """Make a token, which is told here and nowhere else.

        Raises:
            ConfigError: no such role. InputError: no name, or one that has a token.
        """
        if role not in ROLES:
            raise ConfigError(f"--role {role!r}: wanted one of {', '.join(ROLES)}")
        check_name(name)
        token = _PREFIX + secrets.token_urlsafe(32)
        with self._changing() as users:
            if any(user.name == name for user in users):
                raise InputError(f"{name} has a token already; `useg users revoke {name}` takes it away")
            users.append(User(name, role, _hash(token), datetime.now(UTC).isoformat(timespec="seconds")))
        return token

    def revoke(self, name: str) -> None:
        """Take a user's token away; a server that runs refuses it from now on.

        Raises:
            InputError: nobody of this name has one.
        """
        with self._changing() as users:
            kept = [user for user in users if user.name != name]
            if len(kept) == len(users):
                have = ", ".join(user.name for user in users) or "nobody"
                raise InputError(f"{name!r} has no token for {self._url}; these have one: {have}")
            users[:] = kept

    @contextmanager
    def _changing(self) -> Iterator[list[User]]:
        """The users, to be changed by one process at a time; the file is only for whom it belongs to."""
        new = self.file.with_suffix(".new")
        with writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            users = [*self.known()]
            yield users
            told = {"home": self._url, "users": [asdict(user) for user in sorted(users, key=lambda user: user.name)]}
            with writing(self.file):
                new.unlink(missing_ok=True)
                with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, self.file)
        finally:
            os.close(lock)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _state_folder() -> Path:
    given = os.environ.get("USEG_STATE")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(given or Path(base) / "useg").absolute()


__all__ = ["ROLES", "User", "Users"]
