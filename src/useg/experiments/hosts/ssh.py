"""The system's ssh: one request to a host, one answer from it, never a wait without an end."""

import inspect
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from useg.errors import InputError
from useg.experiments.hosts import there

_CONNECT_S = 10
_REFUSED = 255
_NO_COMMAND = 127
_BEGIN = (
    "import json, sys; v = '%d.%d' % sys.version_info[:2]\n"
    "if v != sys.argv[1]: print(json.dumps({'problem': 'has Python ' + v + ', here it is ' + sys.argv[1] + "
    "': set python to one of the same version'})); sys.exit()\n"
    "exec(compile(sys.stdin.buffer.read(int(sys.argv[2])), 'useg', 'exec'), {'__name__': '__main__'})"
)


@dataclass(frozen=True)
class Host:
    """Where a host is, and how it is entered.

    Attributes:
        address: by which the others reach it, and ssh does. user, key, config: for ssh, where they are not its
            defaults. port: of ssh. python: the interpreter there.
    """

    address: str
    user: str | None
    key: str | None
    port: int
    python: str
    config: str | None

    def command(self, size: int) -> list[str]:
        """What runs `there` on it, which is the first `size` bytes of its stdin."""
        known = [(("-i", self.key) if self.key else ()), (("-F", self.config) if self.config else ())]
        given = [str(Path(part).expanduser()) for pair in known for part in pair]
        options = ["BatchMode=yes", f"ConnectTimeout={_CONNECT_S}", "ServerAliveInterval=5", "ServerAliveCountMax=3"]
        version = "{}.{}".format(*sys.version_info)
        program = [self.python, "-c", _BEGIN, version, str(size)]
        where = f"{self.user}@{self.address}" if self.user else self.address
        return ["ssh", "-T", "-p", str(self.port), *given, *(part for each in options for part in ("-o", each)),
                "--", where, " ".join(map(shlex.quote, program))]  # fmt: skip


def _text(request: dict[str, Any]) -> tuple[list[bytes], int]:
    program = inspect.getsource(there).encode()
    return [program, json.dumps(request).encode() + b"\n"], len(program)


def ask(host: Host, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Have a request done on a host.

    Returns:
        its answer; `problem` in it says what is wrong with the host, also where it cannot be reached.
    """
    parts, size = _text(request)
    try:
        done = subprocess.run(
            host.command(size), input=b"".join(parts), capture_output=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError:
        raise InputError("there is no ssh on this machine: install the OpenSSH client") from None
    except subprocess.TimeoutExpired:
        return {"problem": f"did not answer in {timeout_s:.0f} s"}
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    last = said[-1].strip() if said else "without a word"
    if done.returncode == _REFUSED:
        hint = "; enter it once by hand" if "Host key" in last else ""
        return {"problem": f"ssh does not let us in: {last}{hint}"}
    if done.returncode == _NO_COMMAND:
        return {"problem": f"has no {host.python}: set python to an interpreter of it"}
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return {"problem": f"failed: {last}"}


def stream(host: Host, request: dict[str, Any]) -> int:
    """Have a command run on a host, its output here; Ctrl-C interrupts it there and waits for its end.

    Returns:
        its exit status.
    """
    parts, size = _text(request)
    with subprocess.Popen(host.command(size), stdin=subprocess.PIPE, start_new_session=True) as process:
        assert_open = process.stdin
        if assert_open is None:
            raise InputError("ssh has no stdin")
        try:
            assert_open.write(b"".join(parts))
            assert_open.flush()
            return process.wait()
        except KeyboardInterrupt:
            assert_open.close()
            return process.wait()


__all__ = ["Host", "ask", "stream"]
