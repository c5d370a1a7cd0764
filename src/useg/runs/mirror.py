"""Runs sent to an MLflow server: whole, once, and on from where it was left; whoever trains knows nothing of it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from useg.errors import ResourceError, UsegError
from useg.home.store import Store
from useg.runs.facts import completed, flattened
from useg.runs.filter import moment_of
from useg.runs.index import ENDED, Index, Run, asking
from useg.runs.mirror_files import Files
from useg.runs.mirror_known import Known, Remembered
from useg.runs.mirror_names import LONGEST_TAG, name_for, params_of, tags_of, text_for
from useg.runs.mirror_points import LARGEST_STEP, Curves
from useg.runs.mirror_server import MOST_ENTRIES, Metric, Refused, Server, There, size_of
from useg.runs.record import read_record

EVERY_S = 5.0
"""Seconds between two looks at the home."""
SENT_TAG = "useg.sent"
"""Of how many events of each journal the points were sent; on the server, for when this machine's file is lost."""
_STATUSES = {"running": "RUNNING", "finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "dead": "FAILED"}
_LARGEST_REQUEST = 900_000
_AROUND_METRIC = 80
_LONGEST_PAUSE_S = 60.0


@dataclass
class _Open:
    """A run that is being mirrored by this process."""

    there: There
    known: Known
    curves: Curves
    renamed: dict[str, str] = field(default_factory=dict)
    infinite: set[str] = field(default_factory=set)


class Mirror:
    """Sends the runs of a home.

    Args:
        store: the home.
        server: where to.
        experiment: its name there.
        folder: where this machine remembers what was sent; see `mirroring`.
        note: told what people should know.

    Attributes:
        counts: how many `runs`, `metrics`, `params`, `pictures` and `files` were sent, by this process.
        problems: why a run could not be sent whole, by run.
    """

    def __init__(
        self, store: Store, server: Server, experiment: str, folder: Path, note: Callable[[str], None]
    ) -> None:
        self._store, self._server, self._note = store, server, note
        self._experiment, mark = server.experiment(experiment)
        self._remembered = Remembered(folder, mark)
        self._open: dict[str, _Open] = {}
        self._told: set[str] = set()
        self._sent_runs: set[str] = set()
        self.counts: Counter[str] = Counter(runs=0, metrics=0, params=0, pictures=0, files=0)
        self.problems: dict[str, str] = {}

    def changed(self, choose: Callable[[Index], list[Run]]) -> list[Run]:
        """Of the runs that are chosen, those of which not all was sent.

        Raises:
            ResourceError: the home does not answer. And what choosing raises.
        """
        runs = asking(self._store, choose)
        return [run for run in reversed(runs) if self._remembered.of(run.id).sign != _sign(run)]

    def send(self, run: Run) -> None:
        """Send what is new of a run; a problem of this run alone is kept in `problems`.

        Raises:
            ResourceError: server or home do not answer; what was sent is remembered.
        """
        self.problems.pop(run.id, None)
        try:
            opened = self._open.get(run.id) or self._begin(run)
            if opened.there.is_deleted:
                self._tell(f"{run.id} was deleted in MLflow, and is left alone until it is restored there")
                return
            self._open[run.id] = opened
            record = completed(self._store, run.id, read_record(self._store, run.id))
            self._send_words(opened, record, run)
            self._send_curves(opened, run.id)
            self._send_scores(opened, record)
            self._send_files(opened, record, run)
            self._send_status(opened, record, run.status)
            self._say(opened, run.id)
        except ResourceError:
            self._open.pop(run.id, None)
            raise
        except UsegError as error:
            self.problems[run.id] = str(error)
            self._open.pop(run.id, None)
            return
        if run.id not in self.problems:
            opened.known.sign = _sign(run)
            self._remembered.keep(run.id, opened.known)
            self._sent_runs.add(run.id)
            self.counts["runs"] = len(self._sent_runs)
        if run.status in ENDED:
            del self._open[run.id]

    def _begin(self, run: Run) -> _Open:
        """Find the run there, or make it."""
        known = self._remembered.of(run.id)
        there = self._server.get(known.there) if known.there else None
        if there is None:
            known = Known()
            there = self._server.find(self._experiment, run.id)
        record = read_record(self._store, run.id)
        started_ms = _moment_ms(record.get("started")) or 0
        if there is None:
            there = self._server.create(self._experiment, run.id, started_ms)
        if there.id != known.there:
            known = Known(there=there.id, sent=_sent(there))
        known.sent |= _sent(there)  # killed in between, another machine sent more, or a backup was restored
        return _Open(there, known, Curves(self._store, run.id, started_ms))

    def _send_words(self, opened: _Open, record: Mapping[str, Any], run: Run) -> None:
        """Params and tags that are not there yet; a param that changed stays, and has a tag beside it."""
        there = opened.there
        params, tags = params_of(record), tags_of(record, run.id, run.status, self._store.url)
        changed = {name: text for name, text in params.items() if there.params.get(name, text) != text}
        tags |= {f"useg.changed.{name}"[:250]: text_for(text, LONGEST_TAG) for name, text in changed.items()}
        if changed:
            self._tell(f"{run.id}: {len(changed)} params changed after they were sent; tags useg.changed.* say how")
        # what was taken away
        tags |= {f"useg.{name}": "" for name in ("tags", "note", "error") if there.tags.get(f"useg.{name}")} | tags
        if "note" in record and "mlflow.note.content" not in there.tags:
            tags["mlflow.note.content"] = text_for(record["note"] or "", LONGEST_TAG)
        new = {name: text for name, text in params.items() if name not in there.params}
        self._server.send_params(there.id, new)
        self.counts["params"] += len(new)
        there.params |= new
        self._set_tags(there, tags)

    def _set_tags(self, there: There, tags: Mapping[str, str]) -> None:
        new = {name: text for name, text in tags.items() if there.tags.get(name) != text}
        self._server.send_tags(there.id, new)
        there.tags |= new

    def _send_curves(self, opened: _Open, run: str) -> None:
        """The points that are new, by requests that say with them how far they go."""
        known, batch, size = opened.known, list[Metric](), 0
        reached = dict(known.sent)
        for told in opened.curves.more(known.sent):
            metrics = [(self._named(opened, point.name), *point[1:]) for point in told.points]
            weight = sum(size_of(metric[0]) + _AROUND_METRIC for metric in metrics)
            # an event is not cut in two, unless it is too large for one request
            if batch and (len(batch) + len(metrics) > MOST_ENTRIES - 1 or size + weight > _LARGEST_REQUEST):
                self._send_batch(opened, run, batch, reached)
                batch, size = [], 0
            for metric in metrics:
                if len(batch) == MOST_ENTRIES - 1 or size > _LARGEST_REQUEST:
                    self._send_batch(opened, run, batch, reached)
                    batch, size = [], 0
                batch.append(metric)
                size += size_of(metric[0]) + _AROUND_METRIC
            reached[told.place] = told.events
        if batch or reached != known.sent:
            self._send_batch(opened, run, batch, reached)

    def _send_batch(self, opened: _Open, run: str, batch: list[Metric], reached: dict[str, int]) -> None:
        self._server.send(opened.there.id, batch, tags={SENT_TAG: _sent_text(reached)})
        self.counts["metrics"] += len(batch)
        opened.infinite |= {name for name, value, _, _ in batch if value in (float("inf"), -float("inf"))}
        opened.known.sent = dict(reached)
        self._remembered.keep(run, opened.known)

    def _named(self, opened: _Open, name: str) -> str:
        taken = name_for(name)
        if taken != name:
            opened.renamed[taken] = name
        return taken

    def _send_scores(self, opened: _Open, record: Mapping[str, Any]) -> None:
        """The scores of the record, as metrics of the last step; anew when they have changed."""
        there, metrics = opened.there, list[Metric]()
        steps = record.get("steps")
        step = steps if isinstance(steps, int) and 0 <= steps <= LARGEST_STEP else 0
        for name, value in flattened(record.get("scores") or {}, "scores"):
            if isinstance(value, int | float):
                name = self._named(opened, name)
                before = there.metrics.get(name)
                if before is not None and (before == value or (before != before and value != value)):
                    continue
                time_ms = _moment_ms(record.get("ended")) if before is None else None
                metrics.append((name, float(value), step, time_ms or int(time.time() * 1000)))
        for start in range(0, len(metrics), MOST_ENTRIES):
            self._server.send(there.id, metrics[start : start + MOST_ENTRIES])
        there.metrics |= {name: value for name, value, _, _ in metrics}
        self.counts["metrics"] += len(metrics)

    def _send_files(self, opened: _Open, record: Mapping[str, Any], run: Run) -> None:
        """Pictures at once, the rest when the run has ended; where the server takes no files, nothing else waits."""

        def keep() -> None:
            self._remembered.keep(run.id, opened.known)

        files = Files(self._store, run.id, self._server, opened.there, opened.known, keep)
        try:
            count, gone = files.send_pictures(_moment_ms(record.get("started")) or 0)
            self.counts["pictures"] += count
            if count:
                self._set_tags(opened.there, {"mlflow.loggedImages": "True"})
            if gone:
                self._tell(f"{run.id}: {gone} pictures are not in the home any more, but still in MLflow: images/")
            if run.status != "running":
                made = {"record.json": dict(record)} | ({"names.json": opened.renamed} if opened.renamed else {})
                self.counts["files"] += files.send_rest(made)
        except Refused as error:
            self.problems[run.id] = f"pictures and files were not sent: {error}"

    def _send_status(self, opened: _Open, record: Mapping[str, Any], status: str) -> None:
        there, word = opened.there, _STATUSES[status]
        if there.status != word:
            ended_ms = None if word == "RUNNING" else _moment_ms(record.get("ended")) or int(time.time() * 1000)
            self._server.set_status(there.id, word, ended_ms)
            there.status = word

    def _say(self, opened: _Open, run: str) -> None:
        """What is not the same there as here, as tags and once to whoever runs the mirror."""
        said = {}
        if opened.curves.replaced:
            first, last = opened.curves.replaced
            said["useg.replaced"] = f"steps {first} to {last} also have values of an earlier attempt"
        if opened.infinite:
            said["useg.infinite"] = ", ".join(sorted(opened.infinite))
        if opened.renamed:
            said["useg.renamed"] = f"{len(opened.renamed)} names were changed; names.json says how"
        for name, text in said.items():
            if name == "useg.infinite":
                self._tell(f"{run}: infinite values of {text} are ±1.8e308 in MLflow")
            else:
                self._tell(f"{run}: {text}")
        self._set_tags(opened.there, {name: text_for(text, LONGEST_TAG) for name, text in said.items()})

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._note(text)

    def go_on(
        self, choose: Callable[[Index], list[Run]], *, until_ended: bool, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[Run]:
        """Send by turns what has changed; each run that was sent. A home that does not answer is asked again.

        Args:
            choose: which runs.
            until_ended: end when no run that is chosen is running.
            sleep: waits for so many seconds.
        """
        failures, running = 0, True

        def chosen(index: Index) -> list[Run]:
            nonlocal running
            runs = choose(index)
            running = any(run.status not in (*ENDED, "dead") for run in runs)
            return runs

        while True:
            try:
                for run in self.changed(chosen):
                    self.send(run)
                    if run.id in self.problems:
                        self._tell(f"{run.id}: {self.problems[run.id]}")
                    yield run
                failures = 0
            except ResourceError as error:
                failures += 1
                if failures == 1:
                    self._note(f"{error}; asking again")
            if until_ended and not running and not failures:
                return
            sleep(min(_LONGEST_PAUSE_S, EVERY_S * 2.0 ** min(failures, 10)))


def _sign(run: Run) -> str:
    """What changes whenever anything of a run does."""
    return f"{run.sign.removeprefix('~')} {run.pulse} {run.status}"


def _sent(there: There) -> dict[str, int]:
    """How far the journals were sent, as the server remembers it."""
    with suppress(ValueError, TypeError, AttributeError):
        return {str(place): int(count) for place, count in orjson.loads(there.tags.get(SENT_TAG, "{}")).items()}
    return {}


def _sent_text(sent: Mapping[str, int]) -> str:
    """As a tag; of very many attempts only the latest, as sending a point again changes nothing."""
    items = list(sent.items())
    while len(text := orjson.dumps(dict(items)).decode()) > LONGEST_TAG:
        items = items[len(items) // 2 :]
    return text


def _moment_ms(text: Any) -> int | None:
    moment = moment_of(str(text)) if text else None
    return None if moment is None or moment < 0 else int(moment * 1000)


__all__ = ["EVERY_S", "Mirror"]
