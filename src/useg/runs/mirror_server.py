"""An MLflow server: one that is down is waited for, what it refuses is told; the only module that knows mlflow."""

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from useg.errors import InputError, MissingExtra, ResourceError, UsegError

MOST_ENTRIES = 1000
"""Metrics, params and tags of one request."""
MOST_PARAMS = 100
"""Params, and tags, of one request."""
_LARGEST_REQUEST = 900_000
_REQUEST_S = 60
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_PERMANENT = {
    "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND", "NOT_FOUND",
    "PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "RESOURCE_ALREADY_EXISTS", "NOT_IMPLEMENTED",
}  # fmt: skip
_OF_THE_NETWORK = re.compile(
    r"(?:Errno -?\d+\] |\b)(Connection \w+|Name or service not known|[Rr]ead timed out|No route to host)"
)
_LOCAL = {"localhost", "127.0.0.1", "::1"}
RUN_TAG = "useg.run"

T = TypeVar("T")
Metric = tuple[str, float, int, int]
"""Name, value, step, milliseconds since the epoch."""


class Refused(UsegError):
    """The server will not take this, however often it is asked.

    Attributes:
        code: MLflow's word for why.
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class There:
    """A run as the server has it.

    Attributes:
        id: MLflow's.
        status: MLflow's word.
        params, tags: by name.
        metrics: the latest value of each.
        files_at: the address of its files.
        is_deleted: whether somebody took it away there.
    """

    id: str
    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    files_at: str = ""
    is_deleted: bool = False


class Server:
    """The experiment of an MLflow server that runs are mirrored to.

    Args:
        address: http:// or https://, or what else the installed mlflow takes.
        patience_s: for how long it is waited for when it does not answer.
        note: told when it does not answer, and when it answers again.
        sleep, clock: seconds.

    Raises:
        MissingExtra: mlflow is not installed. InputError: no such address.
    """

    def __init__(
        self, address: str, patience_s: float, note: Callable[[str], None], *,
        sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.address, self._patience_s, self._note, self._sleep, self._clock = address, patience_s, note, sleep, clock
        # pauses are ours; nobody is told of what useg does; and nothing is printed between our lines
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_REQUEST_S))
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        try:
            from mlflow import MlflowClient, set_tracking_uri
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise MissingExtra("mlflow", "sending runs to MLflow") from error
        if "://" not in address and address != "databricks":
            raise InputError(f"--to {address!r}: wanted the address of an MLflow server, such as http://host:5000")
        self._refusal: type[Exception] = MlflowException
        try:
            set_tracking_uri(address)  # older clients send files to this one, whatever the client was made for
            self._client = MlflowClient(address, registry_uri=address)
        except (ImportError, MlflowException) as error:
            raise InputError(f"--to {self.shown}: {_first_line(error)}; wanted a server, http://host:5000") from error

    @property
    def shown(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.address)
        return self.address.replace(f"{parts.username}:{parts.password}@", "", 1) if parts.password else self.address

    def _ask(self, action: Callable[[], T]) -> T:
        """What the server answers, waiting for it while it does not.

        Raises:
            Refused: it will not. ResourceError: it did not answer in the time that there is.
        """
        begun, pause = self._clock(), _FIRST_PAUSE_S
        is_told = False
        while True:
            try:
                answer = action()
                if is_told:
                    self._note(f"{self.shown} answers again")
                return answer
            except self._refusal as error:
                code = str(getattr(error, "error_code", ""))
                if code in _PERMANENT:
                    raise Refused(_first_line(error), code) from error
                problem = _first_line(error)
            except OSError as error:
                problem = _first_line(error)
            except ImportError as error:
                raise Refused(f"its files cannot be reached from here: {error}", "MISSING") from error
            if self._clock() - begun + pause > self._patience_s:
                raise ResourceError(
                    f"{self.shown} does not answer: {problem}. What was sent is kept; "
                    "run the same command again when it is back"
                )
            if not is_told:
                self._note(f"{self.shown} does not answer ({problem}); trying again")
                is_told = True
            self._sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 2)

    def experiment(self, name: str) -> tuple[str, str]:
        """The id of the experiment of this name, made when there is none; and what tells it from another of that id.

        Raises:
            InputError: it was deleted there, or the name is refused. ResourceError: the server does not answer.
        """
        try:
            found = self._ask(lambda: self._client.get_experiment_by_name(name))
            if found is None:
                with suppress(Refused):  # somebody made it just now; or says next why not
                    self._ask(lambda: self._client.create_experiment(name))
                found = self._ask(lambda: self._client.get_experiment_by_name(name))
            if found is None:
                self._ask(lambda: self._client.create_experiment(name))
                raise InputError(f"{self.shown} has no experiment {name!r}, and makes none")
        except Refused as error:
            raise InputError(f"{self.shown}, experiment {name!r}: {error}") from error
        if found.lifecycle_stage != "active":
            raise InputError(f"{self.shown}: experiment {name!r} was deleted there; restore it, or give --experiment")
        return str(found.experiment_id), f"{found.experiment_id}:{found.creation_time}"

    def find(self, experiment: str, run: str) -> There | None:
        """The run with this id of useg's, the first one if there are several; also one that was deleted there."""
        from mlflow.entities import ViewType

        where = f"tags.`{RUN_TAG}` = '{run}'" if "'" not in run else f'tags.`{RUN_TAG}` = "{run}"'
        found = self._ask(
            lambda: self._client.search_runs([experiment], where, ViewType.ALL, 50, ["attributes.start_time ASC"])
        )
        runs = sorted((_there(each) for each in found), key=lambda each: (each.is_deleted, each.id))
        return runs[0] if runs else None

    def get(self, there: str) -> There | None:
        """The run with this id of MLflow's; None when there is none any more."""
        try:
            return _there(self._ask(lambda: self._client.get_run(there)))
        except Refused as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def create(self, experiment: str, run: str, started_ms: int) -> There:
        """A new run; of two that make one at once, both use the same."""
        tags = {RUN_TAG: run}
        made = _there(self._ask(lambda: self._client.create_run(experiment, started_ms, tags, run)))
        first = self.find(experiment, run) or made
        if first.id != made.id:
            self._ask(lambda: self._client.delete_run(made.id))
        return first

    def send(
        self, there: str, metrics: Sequence[Metric] = (), params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """One request: at most 1000 entries, of which 100 are params and 100 tags."""
        from mlflow.entities import Metric as Value
        from mlflow.entities import Param, RunTag

        values = [Value(name, value, time_ms, step) for name, value, step, time_ms in metrics]
        said = [Param(*each) for each in (params or {}).items()]
        marks = [RunTag(*each) for each in (tags or {}).items()]
        self._ask(lambda: self._client.log_batch(there, values, said, marks, synchronous=True))

    def send_params(self, there: str, params: Mapping[str, str]) -> None:
        """Params in as many requests as it takes."""
        for part in _parts(params):
            self.send(there, params=part)

    def send_tags(self, there: str, tags: Mapping[str, str]) -> None:
        """Tags in as many requests as it takes."""
        for part in _parts(tags):
            self.send(there, tags=part)

    def set_status(self, there: str, status: str, ended_ms: int | None) -> None:
        """Say what became of the run, in MLflow's words; with the time of its end unless it is running."""
        if ended_ms is None:
            self._ask(lambda: self._client.update_run(there, status=status))
        else:
            self._ask(lambda: self._client.set_terminated(there, status, ended_ms))

    def send_file(self, there: There, file: Path, folder: str = "") -> None:
        """Put a file among the run's, in the place of one of that name.

        Raises:
            Refused: the server keeps files where they cannot be reached from here.
        """
        parts = urlsplit(there.files_at)
        is_here = urlsplit(self.address).hostname in (*_LOCAL, None)
        if parts.scheme in ("", "file") and not is_here:
            raise Refused(
                f"it keeps files in a folder of its own machine ({there.files_at}); "
                "start it with --serve-artifacts, or give the experiment another place",
                "NO_FILES",
            )
        self._ask(lambda: self._client.log_artifact(there.id, str(file), folder or None))


def _there(run: Any) -> There:
    return There(
        run.info.run_id, run.info.status, dict(run.data.params), dict(run.data.tags), dict(run.data.metrics),
        run.info.artifact_uri or "", run.info.lifecycle_stage != "active",
    )  # fmt: skip


def _parts(values: Mapping[str, str]) -> "list[dict[str, str]]":
    """The values, a part for each request: by count and by size."""
    parts: list[dict[str, str]] = []
    size = 0
    for name, value in values.items():
        weight = size_of(name) + size_of(value)
        if not parts or len(parts[-1]) == MOST_PARAMS or size + weight > _LARGEST_REQUEST:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += weight
    return parts


def size_of(text: str) -> int:
    """How many bytes a text takes in a request, with what is around it."""
    return len(json.dumps(text)) + 20


def _first_line(error: Exception) -> str:
    """What an error says; of one of the network only what the system said of it."""
    text = str(error).strip() or type(error).__name__
    found = _OF_THE_NETWORK.search(text)
    return found[1] if found else text.splitlines()[0][:500]


__all__ = ["MOST_ENTRIES", "Metric", "Refused", "Server", "There", "size_of"]
