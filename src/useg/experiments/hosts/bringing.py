"""Listed machines brought up as a Ray cluster, looked at, brought down: all hosts at once, each with its own answer."""

import os
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from useg.errors import InputError
from useg.experiments.hosts.listed import Listed
from useg.experiments.hosts.parcel import Parcel, pack
from useg.experiments.hosts.ssh import ask, stream
from useg.home.folder import writing
from useg.home.served import token_for

_SHORT_S, _START_S, _MAKE_S = 60.0, 180.0, 3600.0
_JOIN_S = 60.0
_AT_ONCE = 32
_MOST_SENT = 1 << 20

Answers = dict[str, dict[str, Any]]
Note = Callable[[str], None]


class Machines:
    """The machines of a list.

    Args:
        listed: them. note: told what is done.
    """

    def __init__(self, listed: Listed, note: Note) -> None:
        self.listed, self._note = listed, note
        self._parcel: Parcel = pack()

    def up(self) -> dict[str, Any]:
        """Bring up what is not up; whoever cannot be brought up is left out, and said why.

        Raises:
            InputError: the head cannot be brought up.
        """
        listed = self.listed
        answers = self._ask("look", listed.addresses, _SHORT_S)
        lacking = [each for each, found in answers.items() if not found.get("is_made") and "problem" not in found]
        if lacking:
            self._note(f"making the environment on {', '.join(lacking)}; the first time this takes minutes")
            self._join(answers, self._ask("make", lacking, _MAKE_S, wheel=True))
        fine = [each for each, found in answers.items() if "problem" not in found]
        if listed.head not in fine:
            raise InputError("\n".join(["the cluster is not up, as its head is not", *_problems(answers)]))
        if not answers[listed.head]["runs"]:
            self._note(f"starting the head, {listed.head}")
            self._join(answers, self._ask("start", [listed.head], _START_S))
            if "problem" in answers[listed.head]:
                raise InputError("\n".join(["the cluster is not up, as its head is not", *_problems(answers)]))
        known = self._nodes()
        absent = [each for each in fine if each not in known]
        if absent:
            self._note(f"starting {', '.join(absent)}")
            self._join(answers, self._ask("start", absent, _START_S))
            known = self._nodes(each for each in absent if "problem" not in answers[each])
        for each in fine:
            if each not in known:
                answers[each].setdefault("problem", f"Ray runs there, but it has not joined {listed.ray}")
        return {"name": listed.name, "address": listed.ray, "environment": self._parcel.environment, "hosts": answers}

    def _nodes(self, wanted: Iterable[str] = ()) -> Answers:
        """The nodes of the cluster as the head knows them, by address, when so many are there or a minute is over."""
        asked: dict[str, Any] = {"address": self.listed.ray, "wanted": [*wanted]}
        said = self._ask("status", [self.listed.head], _SHORT_S + _JOIN_S, **asked)[self.listed.head]
        if "problem" in said:
            raise InputError(f"{self.listed.head}, the head: {said['problem']}")
        return {each["address"]: each for each in said.get("nodes", ())}

    def status(self) -> dict[str, Any]:
        """What there is, host by host."""
        listed = self.listed
        answers = self._ask("status", listed.addresses, _SHORT_S + _JOIN_S, address=listed.ray)
        nodes = {each["address"]: each for each in answers[listed.head].pop("nodes", ())}
        for each, found in answers.items():
            found["node"] = nodes.get(each)
            if found.get("runs") and found["node"] is None and nodes:
                found["problem"] = "Ray runs there, but it is no part of the cluster: `useg cluster up` takes it in"
        return {"name": listed.name, "address": listed.ray, "hosts": answers}

    def down(self) -> dict[str, Any]:
        """End Ray on all hosts, the head last."""
        answers = self._ask("stop", self.listed.workers, _SHORT_S) | self._ask("stop", [self.listed.head], _SHORT_S)
        return {"name": self.listed.name, "hosts": answers}

    def run(self, command: list[str]) -> int:
        """Run a useg command on the head; files that its arguments name are sent along.

        Returns:
            its exit status.
        """
        if "--on" not in command and (command[:1] in (["sweep"], ["train"]) or command[:2] == ["jobs", "dispatch"]):
            command = [*command, "--on", self.listed.ray]
        paths = [Path(each) for each in command if Path(each).is_file()]
        if large := [path for path in paths if path.stat().st_size > _MOST_SENT]:
            raise InputError(f"{large[0]} has more than 1 MiB: data go to the nodes by a home, see docs/cluster.md")
        named = {str(path): path.name for path in paths}
        home = next((after for each, after in pairwise(command) if each == "--home"), "")
        token = token_for(home.rstrip("/")) if home.startswith("http") else ""
        request = self._request(self.listed.head) | {
            "do": "run", "command": [named.get(each, each) for each in command],
            "files": {path.name: path.read_bytes().hex() for path in paths},
            "variables": {"USEG_TOKEN": token} if token else {},
        }  # fmt: skip
        return stream(self.listed.host(self.listed.head), request)

    def _request(self, address: str) -> dict[str, Any]:
        folder, environments = self.listed.folders(address)
        return {"folder": folder, "environments": environments, "useg": self._parcel.useg,
                "environment": self._parcel.environment, "free_gb": self.listed.free_gb}  # fmt: skip

    def _ask(
        self, what: str, addresses: Iterable[str], timeout_s: float, *, wheel: bool = False, **more: Any
    ) -> Answers:
        """Ask hosts, all at once."""
        token = token_of(self.listed.name) if what in ("look", "start") else ""
        parcel = {"wheel": self._parcel.wheel.hex(), "requirements": self._parcel.requirements,
                  "wheelhouse": self.listed.wheelhouse}  # fmt: skip

        def one(address: str) -> dict[str, Any]:
            request = self._request(address) | {"do": what, "timeout_s": timeout_s - 5, "token": token}
            request |= more if address == self.listed.head else {}
            request |= {"options": self.listed.options(address)} | (parcel if wheel else {})
            return ask(self.listed.host(address), request, timeout_s)

        hosts = list(addresses)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(hosts, pool.map(one, hosts), strict=True))

    @staticmethod
    def _join(answers: Answers, later: Answers) -> None:
        for each, found in later.items():
            answers[each] = answers[each] | found


def _problems(answers: Answers) -> list[str]:
    return [f"  - {each}: {found['problem']}" for each, found in answers.items() if "problem" in found]


def token_of(name: str) -> str:
    """The token of a cluster, made when it is first asked for, and readable by its user alone."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "useg" / "clusters"
    path = folder / f"{name}.token"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        except FileExistsError:
            pass
        return path.read_text()


__all__ = ["Machines", "token_of"]
