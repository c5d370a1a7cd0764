"""What is done on a host of a cluster: this text is sent over ssh and run by the host's own Python, with nothing else.

So it imports only what every Python has. A request is one JSON object, the answer is one, on the last line.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Request = dict[str, Any]
Answer = dict[str, Any]
_MARK = "USEG_HOST"
_END_S = 20.0


class Trouble(Exception):
    """What is wrong with this host, for people."""


def _folder(request: Request) -> Path:
    return Path(str(request["folder"])).expanduser()


def _environment(request: Request) -> Path:
    return Path(request["environments"]).expanduser() / str(request["environment"])


def _useg(request: Request) -> Path:
    return _folder(request) / "useg" / str(request["useg"])


def _variables(request: Request) -> dict[str, str]:
    """What Ray and useg run with here; the token stands in a file, not in an environment."""
    folder = _folder(request)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "USEG_CACHE": str(folder / "cache"),
           "PYTHONPATH": str(_useg(request)), "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    return kept | own | {"PATH": f"{_environment(request) / 'venv/bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"}


def _processes(folder: Path) -> dict[int, str]:
    """Command lines of what `start` began here, and of all that comes of it, by number."""
    mark, parents, lines, found = f"{_MARK}={folder}\0".encode(), dict[int, int](), dict[int, str](), set[int]()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            number = int(place.name)
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z":
                continue
            parents[number] = int(parent)
            lines[number] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if mark in (place / "environ").read_bytes():
                found.add(number)
    while more := {each for each, parent in parents.items() if parent in found} - found:  # some overwrite theirs
        found |= more
    return {number: lines[number] for number in found - {os.getpid()}}


def _runs(folder: Path, program: str) -> bool:
    return any(f"/{program} " in f"{line} ".partition(" --")[0] + " " for line in _processes(folder).values())


def look(request: Request) -> Answer:
    """What is here: room, the environment, and what runs."""
    folder, environment = _folder(request), _environment(request)
    for each in (folder, environment.parent):
        try:
            each.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Trouble(f"{each} cannot be made: {error.strerror}; name another folder in the cluster file") from None
    room = shutil.disk_usage(environment.parent).free / 1e9
    has_packages, wanted = (environment / "whole").exists(), float(request["free_gb"])
    least = min(1.0, wanted) if has_packages else wanted
    if room < least:
        raise Trouble(f"{environment.parent} has {room:.1f} GB free, wanted {least:g}: free space, or set free_gb")
    started = _started(folder)
    runs = _runs(folder, "raylet")
    if runs and started and any(started[each] != request[each] for each in ("environment", "useg")):
        raise Trouble("runs another useg, or other packages, than there are here: `useg cluster down` first")
    if runs and started and started["token"] != _told(request["token"]):
        raise Trouble(
            "runs with another token: bring the cluster down where it was brought up, or copy the token from there"
        )
    return {"is_made": has_packages and _useg(request).is_dir(), "runs": runs, "free_gb": round(room, 1)}


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _told(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _started(folder: Path) -> dict[str, str]:
    """With what Ray was started here last; empty before that."""
    return dict(json.loads(_read(folder / "started.json") or "{}"))


def make(request: Request) -> Answer:
    """Make the environment, once, also where several hosts see the same folder; and put useg beside it."""
    environment, useg = _environment(request), _useg(request)
    if not useg.is_dir():
        useg.parent.mkdir(parents=True, exist_ok=True)
        new = useg.with_name(f".{useg.name}.part")
        with zipfile.ZipFile(io.BytesIO(bytes.fromhex(request["wheel"]))) as archive:
            archive.extractall(new)
        new.rename(useg)
    environment.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{environment}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (environment / "whole").exists():
            return {"made": False}
        shutil.rmtree(environment, ignore_errors=True)
        environment.mkdir(parents=True)
        (environment / "requirements.txt").write_text(request["requirements"])
        _call([sys.executable, "-I", "-m", "venv", str(environment / "venv")], "cannot make a virtual environment")
        pip = [str(environment / "venv/bin/python"), "-I", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        more = ["--no-index", "--find-links", request["wheelhouse"]] if request["wheelhouse"] else []
        _call([*pip, "--no-input", *more, "-r", str(environment / "requirements.txt")], "pip failed")
        (environment / "whole").touch()
    return {"made": True}


def _call(command: list[str], what: str, **more: Any) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", check=False, **more,
    )  # fmt: skip
    if done.returncode:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise Trouble(f"{what}: {' / '.join(said[-3:]) or 'without a word'}")


def start(request: Request) -> Answer:
    """Start Ray, after having ended what is left of an earlier one."""
    folder = _folder(request)
    _end(folder)
    token = folder / "token"
    token.touch(mode=0o600)
    token.chmod(0o600)
    token.write_text(request["token"])
    known = {each: request[each] for each in ("environment", "useg")} | {"token": _told(request["token"])}
    (folder / "started.json").write_text(json.dumps(known))
    with open(folder / "ray.log", "w") as log:
        done = subprocess.run(
            [str(_environment(request) / "venv/bin/ray"), "start", "--disable-usage-stats", *request["options"]],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False, cwd=folder,
            env=_variables(request) | {_MARK: str(folder)},
        )  # fmt: skip
    if done.returncode or not _runs(folder, "raylet"):
        said = [line.strip() for line in _read(folder / "ray.log").splitlines() if line.strip()]
        _end(folder)
        raise Trouble(f"Ray does not start: {' / '.join(said[-3:])}; all of it is in {folder / 'ray.log'} there")
    return {"started": True}


def status(request: Request) -> Answer:
    """What runs here, how large the cache is and what came to it, and, on the head, what the cluster is."""
    folder = _folder(request)
    lines = _processes(folder).values()
    size = sum(each.stat(follow_symlinks=False).st_size for each in _files(folder / "cache"))
    work = sorted({line for line in lines if " useg " in line})
    moved = [int(word) for word in _read(folder / "cache/.moved").split()] or [0, 0]
    answer: Answer = {"runs": _runs(folder, "raylet"), "cache_bytes": size, "work": work,
                      "from_home_bytes": moved[0], "from_nodes_bytes": moved[1]}  # fmt: skip
    if request.get("address") and answer["runs"]:
        program = "import json, sys; from useg.experiments.cluster import overview as told; "
        program += "print(json.dumps(told(*sys.argv[1:])))"
        asked = [request["address"], *request.get("wanted", ())]
        done = subprocess.run(
            [str(_environment(request) / "venv/bin/python"), "-c", program, *asked],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=_variables(request), cwd=folder,
            timeout=float(request["timeout_s"]),
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise Trouble(f"the cluster does not answer: {said[-1] if said else 'without a word'}")
        answer["nodes"] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for each in entries:
            if each.is_dir(follow_symlinks=False):
                yield from _files(Path(each.path))
            else:
                yield each


def stop(request: Request) -> Answer:
    """End Ray here and what runs in it; nothing else."""
    return {"stopped": _end(_folder(request))}


def _end(folder: Path) -> bool:
    found = bool(_processes(folder))
    for number, patience in ((signal.SIGTERM, _END_S), (signal.SIGKILL, _END_S)):
        until = time.monotonic() + patience
        for each in _processes(folder):
            with suppress(OSError):
                os.kill(each, number)
        while _processes(folder) and time.monotonic() < until:
            time.sleep(0.2)
    return found


def run(request: Request) -> Answer:
    """Run a useg command here; it is interrupted when the other end goes away."""
    folder = _folder(request) / "work"
    folder.mkdir(exist_ok=True)
    for name, text in request["files"].items():
        (folder / name).write_bytes(bytes.fromhex(text))
    command = [str(_environment(request) / "venv/bin/python"), "-m", "useg", *request["command"]]
    variables = _variables(request) | request["variables"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder, env=variables) as process:

        def follow() -> None:
            while sys.stdin.buffer.read(1):
                pass
            with suppress(OSError):
                process.send_signal(signal.SIGINT)

        threading.Thread(target=follow, daemon=True).start()
        os._exit(process.wait() % 256)


def main() -> None:
    """Answer the request that stands on stdin."""
    request = json.loads(sys.stdin.buffer.readline())
    if request["do"] in ("status", "run"):  # by what runs, though there may be a newer useg at the other end
        request |= {each: name for each, name in _started(_folder(request)).items() if each != "token"}
    try:
        answer = {"look": look, "make": make, "start": start, "status": status, "stop": stop, "run": run}[
            request["do"]
        ](request)
    except Trouble as trouble:
        answer = {"problem": str(trouble)}
    except subprocess.TimeoutExpired as error:
        answer = {"problem": f"did not answer in {error.timeout:.0f} s"}
    except OSError as error:
        answer = {"problem": f"{error.filename or 'the disk'}: {error.strerror or error}"}
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
