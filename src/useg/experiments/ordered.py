"""A training that was ordered from elsewhere: words, files and the address of a home become a `useg train` here."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import tomli_w

from useg.config import Config
from useg.data.views import View
from useg.errors import InputError, UsegError
from useg.experiments.on_node import folder_for_runs, is_free
from useg.home.opening import is_folder, open_home
from useg.runs.bringing import bring

_WAIT_S = 0.5
_TO_END_S = 15.0
_RUN = re.compile(r"run (\S+): ")


@dataclass(frozen=True)
class Order:
    """What is told to whoever carries it out.

    Attributes:
        address: of the home. words: what follows `useg train`. files: what options name, by option.
        run: to go on with. environment: what is needed to open the home.
    """

    address: str
    words: tuple[str, ...]
    files: Mapping[str, bytes]
    run: str | None
    environment: Mapping[str, str]


def words_and_files(
    data: Path | View | None, config: Config, options: Mapping[str, Sequence[str | None] | None],
    files: Mapping[str, Path | None],
) -> tuple[list[str], dict[str, bytes]]:  # fmt: skip
    """What `useg train` is told elsewhere: the data pinned to a commit, the settings whole.

    Args:
        data: a data set of a home; None for a run that is gone on with. config: settings.
        options: further ones of `useg train`. files: those that name a file.

    Raises:
        InputError: the data is a folder of this machine.
    """
    words = [word for option, given in options.items() for each in given or () if each for word in (option, each)]
    if isinstance(data, View):
        words.insert(0, f"{data.origin.dataset}@{data.origin.commit}")
    elif data is not None:
        raise InputError(
            f"{data}: other machines do not have this folder; make it a data set of a home that they reach: "
            f"useg data add {data} --name NAME, then train on NAME@main"
        )
    settings = tomli_w.dumps(config.model_dump(mode="json", exclude_defaults=True)).encode()
    return words, {option: file.read_bytes() for option, file in files.items() if file} | {"--config": settings}


def threads_of(config: Config, files: Mapping[str, bytes]) -> int | None:
    """Of each worker, as the plan or the settings have them; None leaves it to the place."""
    if "--plan" in files:
        return int(tomllib.loads(files["--plan"].decode())["threads"])
    return config.train.threads


def carry_out(order: Order, also: Mapping[str, str] | None = None) -> Iterator[tuple[str, Any]]:
    """Train, on this machine, until it has ended or this is interrupted; then it saves and stops.

    Args:
        order: what. also: more of its environment.

    Yields:
        ("run", its id), ("said", a line for the user), and in the end ("end", (exit status, result as JSON or nothing,
        last words)).
    """
    os.environ.update(order.environment)
    store = open_home(order.address)[0]
    run = order.run if order.run and is_free(store, order.run) else None
    with folder_for_runs(order.address, store, "training") as home, tempfile.TemporaryDirectory() as place:
        if run is not None and not is_folder(order.address):
            bring(store, run, home)
        words = [*order.words]
        for option, content in order.files.items():
            file = Path(place, option.strip("-"))
            file.write_bytes(content)
            words += [option, str(file)]
        out, err = Path(place, "out"), Path(place, "err")
        with out.open("wb") as results, err.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "useg", "train", *(["--resume", run] if run else words), "--home", order.address,
                 "--json"], stdin=subprocess.DEVNULL, stdout=results, stderr=said,
                env={**os.environ, **(also or {})}, start_new_session=True,
            )  # fmt: skip
        try:
            yield from _follow(process, err, home, run)
            why = err.read_text(errors="replace").rpartition("error: ")
            result = out.read_text(errors="replace").strip().rpartition("\n")[2]
            shown = result.replace(str(home), order.address.rstrip("/"))
            yield "end", (process.returncode, shown, why[2].strip() if why[1] else "")
        finally:
            for again in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
                with suppress(subprocess.TimeoutExpired):
                    process.send_signal(again)
                    process.wait(_TO_END_S / 3)


def _follow(process: "subprocess.Popen[bytes]", err: Path, home: Path, run: str | None) -> Iterator[tuple[str, Any]]:
    """What a training says, until it ends; its run when that can be gone on with."""
    told, is_known, has_ended, has_failed = 0, False, False, False
    while not has_ended:
        has_ended = process.poll() is not None
        lines = err.read_text(errors="replace").splitlines(keepends=True)
        for line in lines[told:]:
            if line.endswith("\n"):
                told += 1
                found = _RUN.match(line)
                run = found[1] if found else run
                has_failed = has_failed or line.startswith("error: ")
                if not has_failed:
                    yield "said", line.rstrip()
        if run and not is_known and (home / "runs" / run / "plan.toml").exists():
            is_known = True
            yield "run", run
        if not has_ended:
            time.sleep(_WAIT_S)


def as_line(order: Order) -> bytes:
    """An order for the process that this module is, as a line of its stdin."""
    files = {option: content.decode() for option, content in order.files.items()}
    told = {"address": order.address, "words": order.words, "files": files, "run": order.run}
    return orjson.dumps({**told, "environment": dict(order.environment)}) + b"\n"


def main() -> None:
    """Carry out the order that is the first line of stdin, each thing told as a line of JSON on stdout; the end of
    stdin interrupts it, so that it does not outlive whoever gave it."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 65536)):
        line += more
    if not line.endswith(b"\n"):
        return
    fields = orjson.loads(line)
    fields["files"] = {option: text.encode() for option, text in fields["files"].items()}
    Thread(target=_interrupt, daemon=True).start()
    with suppress(KeyboardInterrupt):
        try:
            for told in carry_out(Order(**fields)):
                _tell(told)
        except UsegError as error:
            _tell(("end", (1, "", str(error))))


def _tell(told: tuple[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    sys.stdout.buffer.flush()


def _interrupt() -> None:
    while os.read(0, 65536):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()

__all__ = ["Order", "as_line", "carry_out", "main", "threads_of", "words_and_files"]
