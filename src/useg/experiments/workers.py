"""Several processes that train one network together, by torch.distributed and nothing else."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from useg.config import Config
from useg.errors import ConfigError, ResourceError
from useg.experiments.prepare import MEETING
from useg.train.batches import Batches
from useg.train.loop import Trainer
from useg.train.plan import Plan


def world_of(config: Config) -> int:
    """How many processes train together: as asked, or as many as were found on other machines."""
    return int(os.environ[MEETING].split()[1]) if MEETING in os.environ else config.workers


def check_workers(plan: Plan, world: int) -> None:
    """Whether `world` processes can share the plan's micro-batches evenly.

    Raises:
        ConfigError: they cannot, or there are fewer GPUs.
    """
    if plan.count % world:
        raise ConfigError(
            f"a step has {plan.count} micro-batches, which {world} workers cannot share evenly; "
            f"set train.count to a multiple of {world}"
        )
    if plan.device == "cuda" and torch.cuda.device_count() < world and MEETING not in os.environ:
        raise ConfigError(f"{world} workers want {world} GPUs, there are {torch.cuda.device_count()}")


@contextmanager
def together(run: Path, fold: int, plan: Plan, world: int) -> Iterator[None]:
    """Start `world - 1` companions, if they are not started elsewhere, and join a group with them as its first member.

    Raises:
        ResourceError: a companion died.
    """
    if world == 1:
        yield
        return
    if MEETING in os.environ:
        try:
            _join(plan, 0, world, os.environ[MEETING].split()[0])
            yield
        except RuntimeError as error:
            raise ResourceError(f"another worker ended early: {error}") from error
        finally:
            _leave()
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="useg-workers-") as place:
        meeting = f"file://{place}/meeting"
        processes = [
            context.Process(target=_companion, args=(rank, world, meeting, str(run), fold), daemon=True)
            for rank in range(1, world)
        ]
        for process in processes:
            process.start()
        try:
            _join(plan, 0, world, meeting)
            yield
        except RuntimeError as error:
            dead = [p.pid for p in processes if p.exitcode not in (None, 0)]
            raise ResourceError(
                f"a worker process ended early ({dead or error}); go on with: useg train --resume {run.name}"
            ) from error
        finally:
            _leave()
            for process in processes:
                process.join(timeout=30)
                if process.is_alive():
                    process.kill()


def _join(plan: Plan, rank: int, world: int, meeting: str) -> None:
    backend = "nccl" if plan.device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=world)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _companion(rank: int, world: int, meeting: str, run: str, fold: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first member says when to stop
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    accompany(Path(run), rank, world, meeting, fold)


def accompany(run: Path, rank: int, world: int, meeting: str, fold: int = 0) -> None:
    """Be another member: the same steps on its own share of each batch; writes nothing.

    Args:
        run: its folder, of which what it was begun with is read. rank: from 1. meeting: address of the first member.
    """
    from useg.experiments.recalling import recall_run
    from useg.runs.record import RunFolder

    prepared, _ = recall_run(RunFolder(run), None)
    plan = prepared.plan
    try:
        _join(plan, rank, world, meeting)
        train_on = [i for i, split in enumerate(prepared.fold_splits[fold]) if "train" in split]
        trainer = Trainer(plan, rank=rank, world=world)
        trainer.share_state()
        for _ in trainer.steps(Batches(plan, prepared.samples, train_on)):
            pass
    finally:
        _leave()
