"""Jobs of the queue: what waits, runs and has ended; without a command: list them.

`useg submit` puts a training into the queue of a home, `useg jobs dispatch` runs what is there.
"""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from useg.cli.data_options import Home, Json
from useg.cli.output import emit, note
from useg.cli.tables import laid_out, terminal_width

if TYPE_CHECKING:
    from useg.runs.queue import Job
    from useg.runs.queue_log import QueueLog

_ENDED_SHOWN = 20
_POLL_S = 0.5
Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="Its number, as `useg jobs` lists it.")]


def list_jobs(
    context: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Also all that ended longer ago.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the jobs of the queue: those that run and wait, and the last that ended."""
    if context.invoked_subcommand is not None:
        return
    from useg.runs.queue import OVER

    log = _log(home)
    jobs = [*log.queue.jobs.values()]
    ended = [job for job in jobs if job.state in OVER]
    left_out = set() if all_ or json else {job.number for job in ended[:-_ENDED_SHOWN]}
    shown = [job for job in jobs if job.number not in left_out]
    found = {"home": log.store.url, "jobs": [_row(job) for job in shown]}
    emit(found, json=json, text=lambda: _table(shown) if shown else f"{log.store.url}: no jobs")
    if left_out:
        note(f"{len(left_out)} more have ended; see them with --all")


def logs(
    job: Number,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job has ended.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what a job has printed: the log of its run, and why it failed; with --json a JSON object each line."""
    from useg.runs.following import Follower
    from useg.runs.queue import OVER

    log, followers = _log(home), dict[str, Follower]()
    while True:
        found = _job(log, job)
        is_over = found.state in OVER
        if found.run is not None:
            follower = followers.setdefault(found.run, Follower(log.store, found.run))
            for line in (each for each in follower.more() if isinstance(each, str)):
                emit({"log": line}, json=json, text=line)
        if is_over or not follow:
            break
        time.sleep(_POLL_S)
        log.catch_up()
    for line in found.lines:
        emit({"log": line}, json=json, text=line)
    note(f"job {job}: {found.state}" + (f", run {found.run}" if found.run else ""))


def stop(
    jobs: Annotated[list[int], typer.Argument(metavar="ID...", min=1, help="Their numbers.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Stop jobs: one that waits is taken out of the queue, one that runs saves and stops."""
    from useg.errors import InputError
    from useg.runs.queue import OVER
    from useg.runs.surroundings import user

    log = _log(home)
    found = [_job(log, number) for number in jobs]
    over = [job for job in found if job.state in OVER]
    who = user()
    log.add(
        lambda queue: [
            {"event": "stop", "job": number, "user": who}
            for number in jobs
            if queue.jobs[number].state not in OVER and not queue.jobs[number].is_stopping
        ]
    )
    states = {number: log.queue.jobs[number] for number in jobs if number not in {job.number for job in over}}
    text = "\n".join(f"job {n}: {'stops' if job.state == 'running' else job.state}" for n, job in states.items())
    emit({"jobs": {str(n): job.state for n, job in states.items()}}, json=json, text=text or "none was stopped")
    if over:
        raise InputError("\n".join(f"job {job.number} is {job.state} already" for job in over))


def dispatch(
    on: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Head of a Ray cluster; else here.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs at the same time, at most.")] = None,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when nothing is left to run here.")] = False,
    home: Home = None,
) -> None:
    """Run the jobs of the queue, here or on a cluster, until Ctrl-C; what runs then saves, and waits again."""
    from useg.cli.train import say
    from useg.experiments.dispatch import Dispatcher
    from useg.experiments.listening import Listener, Stop
    from useg.experiments.places import place_at

    listener = Listener(note=say, stop=Stop())
    log = _log(home)
    with place_at(on, log.store.url, listener.note) as (place, environment):
        listener.stop.install()
        nodes = place.nodes()
        counts = f"{sum(node.cpus for node in nodes)} cores, {sum(node.gpus for node in nodes)} GPUs"
        note(f"dispatching jobs of {log.store.url} to {on or 'this machine'} ({counts}); Ctrl-C ends it")
        Dispatcher(log.store.url, log, place, environment, listener, slots).run(until_empty=until_empty)
    if listener.stop.asked:
        raise typer.Exit(130)


def _log(home: str | None) -> "QueueLog":
    from useg.home.opening import open_home
    from useg.runs.queue_log import QueueLog

    log = QueueLog(open_home(home)[0])
    log.catch_up()
    return log


def _job(log: "QueueLog", number: int) -> "Job":
    from useg.errors import InputError

    if number not in log.queue.jobs:
        raise InputError(f"no job {number} in {log.store.url}; there are {len(log.queue.jobs)}: useg jobs lists them")
    return log.queue.jobs[number]


def _row(job: "Job") -> dict[str, Any]:
    names = ("number", "state", "priority", "user", "cpus", "gpus", "what", "run", "attempt", "is_stopping", "by",
             "submitted", "started", "ended", "lines")  # fmt: skip
    return {name: getattr(job, name) for name in names}


def _table(jobs: "list[Job]") -> str:
    rows = [["", "state", "prio", "user", "since", "run", "what"]]
    for job in jobs:
        since = job.ended or (job.started if job.state == "running" else job.submitted) or job.submitted
        state = "stopping" if job.is_stopping and job.state == "running" else job.state
        shown = time.strftime("%m-%d %H:%M", time.localtime(since))
        rows.append([str(job.number), state, str(job.priority), job.user, shown, job.run or "", job.what])
        rows[-1][-1] += f": {job.lines[0]}" if job.lines else ""
    return "\n".join(laid_out(rows, right=(0, 2), width=terminal_width()))


COMMANDS = {"logs": logs, "stop": stop, "dispatch": dispatch}
DEFAULT = list_jobs
