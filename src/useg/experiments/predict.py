"""Files through trained networks: streamed tile by tile, within a memory limit, results named like inputs."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from useg.errors import DataError, InputError, Problem, ResourceError, UsegError, problems_of
from useg.experiments.ensemble import (
    Ensemble,
    Member,
    load_ensemble,
    most_batch_pixels,
    network_bytes_per_pixel,
    release_memory,
    resident_bytes,
)
from useg.experiments.fields import Field, open_field, open_frames
from useg.experiments.inputs import Input, find_inputs
from useg.experiments.results import Decision, Results, Wanted, plan_blocks
from useg.segmentation.instances import SeparationParameters
from useg.segmentation.membranes import CellParameters
from useg.segmentation.normalise import ChannelNorm
from useg.segmentation.tiling import (
    Band,
    TilePlan,
    averaged_over_symmetries,
    in_step,
    plan_tiles,
    predict_tiled,
)

__all__ = ["Predictor", "choose_device", "operating_threshold", "predict"]

Progress = Callable[..., None]
"""Called as progress(completed, total=..., status=...), in megapixels; `useg.cli.output.Advance` is one."""

_RESERVE_BYTES = 96 * 2**20
"""Kept back for what is not planned: decoders, encoders, the heap's holes."""

_LEAST_BYTES = 2**23
"""With less than this beside itself, nothing can be predicted."""

_USUAL_BYTES = 2**27
"""What small tiles of a usual network take."""

_THRESHOLDS = ("dice", "iou", "pixel_error")


def predict(
    bundles: Sequence[Path],
    inputs: Sequence[str | Path],
    out: Path,
    *,
    tta: bool = False,
    probabilities: bool = False,
    instances: bool = False,
    overlay: bool = False,
    memory_limit_bytes: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    problems: list[Problem] | None = None,
    notes: list[str] | None = None,
) -> list[dict[str, Any]]:
    """Predicts every image that the inputs name and writes the results into `out`.

    An input that cannot be predicted does not keep the others from it. Label maps have the user's own values
    and the input's name, size, orientation, spacing and geo-reference; what else is wanted lies in folders
    below `out`: `probabilities` (float16, a channel per class), `instances` (int32), `overlays`.

    Args:
        bundles: one model, or several that are averaged.
        inputs: files, folders, refs.
        out: made if it is not there.
        tta: average over the symmetries that training used: up to 8, of the square (2D) or all flips (3D).
        probabilities: write class probabilities.
        instances: write separate objects.
        overlay: write pictures of the result.
        memory_limit_bytes: most resident memory of this process; None takes half of what is free.
        device: "cpu", "cuda", ...
        progress: told how far the work is.
        problems: gets what is wrong with inputs; without it they are raised after the last image.
        notes: gets how folders were read and what was left out.

    Returns:
        For each image {"input", "labels", "probabilities", "instances", "overlay", "seconds"}; paths are str,
        None for what was not wanted.

    Raises:
        InputError: nothing to predict, bundles that do not belong together, results over inputs.
        DataError: `problems` was not given and some input could not be predicted; the others are written.
        ResourceError: disk or permission ran out; results finished before are complete.
    """
    found_problems: list[Problem] = [] if problems is None else problems
    found = find_inputs(inputs, out, found_problems, [] if notes is None else notes)
    done: list[dict[str, Any]] = []
    if found:
        ensemble = load_ensemble(bundles, device)
        if notes is not None:
            notes += ensemble.symmetries(wanted=tta)
        predictor = Predictor(ensemble, tta=tta, memory_limit_bytes=memory_limit_bytes)
        wanted = Wanted(probabilities=probabilities, instances=instances, overlay=overlay)
        steps = _Steps(progress, sum(one.megapixels for one in found))
        for one in found:
            started = time.monotonic()
            try:
                paths = predictor.file(one, out, wanted, steps)
            except UsegError as error:
                if isinstance(error, ResourceError) and isinstance(error.__cause__, OSError):
                    raise
                found_problems.extend(problems_of(error, one.ref))
            else:
                seconds = round(time.monotonic() - started, 3)
                places = {kind: None if path is None else str(path) for kind, path in paths.items()}
                done.append({"input": one.ref, **places, "seconds": seconds})
            steps.finished(one.megapixels)
    if problems is None and found_problems:
        count = len(found_problems)
        raise DataError(f"{count} input{'s' * (count > 1)} could not be predicted", found_problems)
    return done


class _Steps:
    """Progress over all files, in megapixels."""

    def __init__(self, progress: Progress | None, total: float) -> None:
        self._progress, self._total, self._before, self._status = progress, round(total, 2), 0.0, ""
        self._reported = 0.0

    def status(self, text: str) -> None:
        """What is being done."""
        self._status = text
        self.at(0.0)

    def at(self, megapixels: float) -> None:
        """How much of the current file is done."""
        if self._progress is not None:
            self._reported = round(self._before + megapixels, 2)
            self._progress(self._reported, total=self._total, status=self._status)

    def finished(self, megapixels: float) -> None:
        """The current file is done with, predicted or not."""
        self._before += megapixels
        if self._reported < round(self._before, 2):
            self.at(0.0)


def operating_threshold(tuning: dict[str, Any]) -> float | None:
    """The threshold that label maps of two classes are made with: the one tuned for overlap, else any other.

    None (the likelier class) where none was tuned.
    """
    thresholds = tuning.get("thresholds") or {}
    for metric in (*_THRESHOLDS, *sorted(thresholds)):
        if metric in thresholds:
            return float(thresholds[metric])
    return None


def choose_device(name: str) -> str:
    """`auto` becomes "cuda" where there is a usable GPU, else "cpu"; other names are checked.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the device {name!r} cannot be used here ({reason}); try --device cpu") from error
    return name


class Predictor:
    """An ensemble, a memory limit, and how both are used on file after file."""

    def __init__(self, ensemble: Ensemble, *, tta: bool = False, memory_limit_bytes: int | None = None) -> None:
        """Runs each network once on an empty tile to see how much memory it takes."""
        self.ensemble, self._tta = ensemble, tta
        self._bytes_per_pixel = network_bytes_per_pixel(ensemble)
        self._most_batch_pixels = most_batch_pixels(ensemble)
        release_memory()
        limit = _default_limit() if memory_limit_bytes is None else memory_limit_bytes
        # What the heap keeps after a file serves the next one, so the budget is the same for all files.
        taken = resident_bytes() + _RESERVE_BYTES
        self._budget = limit - taken
        if self._budget < _LEAST_BYTES:
            raise ResourceError(
                f"a memory limit of {limit / 1e6:.0f} MB is too low: the program and the model alone take "
                f"{taken / 1e6:.0f} MB; give {(taken + _USUAL_BYTES) / 1e6:.0f} MB or more"
            )
        plan, tuning = ensemble.plan, ensemble.tuning
        if tta:
            tuning = tuning | tuning.get("tta", {})
        self._decision = Decision(
            plan.num_classes,
            plan.instance_mode,
            operating_threshold(tuning) if plan.num_classes == 2 else None,
            SeparationParameters(**tuning.get("separation", {})),
            CellParameters(**tuning["cells"]) if "cells" in tuning else None,
        )

    def file(self, one: Input, out: Path, wanted: Wanted, steps: _Steps | None = None) -> dict[str, Path | None]:
        """Predicts one file; returns where each kind of result is.

        Raises:
            DataError: it cannot be read, or does not fit the model.
            ResourceError: the memory limit is too low for it, or the disk is full.
        """
        steps = _Steps(None, 0.0) if steps is None else steps
        steps.status(one.name.name)
        plan, header = self.ensemble.plan, one.header
        if header.ndim < plan.dims:
            what = f"it is a picture of {' x '.join(map(str, header.space))}, the model is for volumes"
            raise DataError(f"cannot predict {one.ref}", [Problem(one.ref, what, "give a stack of its planes")])
        by_plane = header.ndim > plan.dims
        results = Results(
            header,
            one.name,
            out,
            wanted=wanted,
            decision=self._decision,
            mapping=self.ensemble.mapping,
            by_plane=by_plane,
        )
        channels = self.ensemble.channels
        if by_plane:
            with open_frames(one.refs, channels, self._budget) as frames, results:
                for index, field in enumerate(frames):
                    whole = tuple(slice(0, size) for size in field.space)
                    results.see(index, field.read(whole)[:, None])
                    self._field(field, results, wanted, steps, index * float(np.prod(field.space)) / 1e6)
        else:
            with open_field(one.refs, channels, self._budget) as field, results:
                self._field(field, results, wanted, steps, 0.0, see=results.see)
        release_memory()
        return results.paths

    def _field(
        self,
        field: Field,
        results: Results,
        wanted: Wanted,
        steps: _Steps,
        before: float,
        see: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        megapixels = float(np.prod([float(size) for size in field.space])) / 1e6
        budget, blocks = self._budget - field.held_bytes, None
        if wanted.instances:
            blocks = plan_blocks(field.space, self.ensemble.outputs, int(budget * 0.6))
            budget -= blocks.peak_bytes

        def advance(share: float) -> None:
            steps.at(before + share * megapixels)

        results.write(self.outputs(field, budget, advance, see), field.space, blocks)

    def outputs(
        self,
        field: Field,
        budget_bytes: int,
        advance: Callable[[float], None] | None = None,
        see: Callable[[int, np.ndarray], None] | None = None,
    ) -> Iterator[Band]:
        """Averaged, activated outputs of one field, band by band.

        Args:
            field: what to predict.
            budget_bytes: for all that this needs.
            advance: told the share that is done, 0 to 1.
            see: shown the pixels as they are read, each row once.
        """
        groups = self.ensemble.groups
        sample = field.sample(_all_norms(self.ensemble))
        plans = [self._plan(field, group[0], budget_bytes // len(groups)) for group in groups]
        tiles, total = 0, sum(plan.count for plan in plans)

        def finished(count: int) -> None:
            nonlocal tiles
            tiles += count
            if advance is not None:
                advance(tiles / total)

        def seen(window: tuple[slice, ...]) -> np.ndarray:
            band = field.read(window)
            if see is not None:
                see(window[0].start, band)
            return band

        streams = []
        for number, (group, plan) in enumerate(zip(groups, plans, strict=True)):
            network = self.ensemble.network(group, sample)
            if self._tta:
                flips, rotations = group[0].plan.symmetries
                alike = len({one.strides for one in group[0].geometry}) == 1
                network = averaged_over_symmetries(network, rotations=rotations and alike, flips=flips)
            read = seen if number == 0 else field.read
            streams.append(predict_tiled(read, field.space, network, plan, advance=finished))
        if len(streams) == 1:
            yield from streams[0]
            return
        shares = [len(group) / len(self.ensemble.members) for group in groups]
        for first, bands in in_step(streams):
            total_band = bands[0] * np.float32(shares[0])
            for band, share in zip(bands[1:], shares[1:], strict=True):
                total_band += band * np.float32(share)
            yield first, total_band

    def _plan(self, field: Field, member: Member, budget_bytes: int) -> TilePlan:
        return plan_tiles(
            field.space,
            field.channels,
            self.ensemble.outputs,
            budget_bytes,
            patch=member.plan.patch,
            geometry=member.geometry,
            overlap=member.plan.overlap,
            item_bytes=field.dtype.itemsize,
            network_bytes_per_pixel=self._bytes_per_pixel,
            most_batch_pixels=self._most_batch_pixels,
        )


def _all_norms(ensemble: Ensemble) -> tuple[ChannelNorm, ...]:
    return tuple(norm for member in ensemble.members for norm in member.plan.normalisation)


def _default_limit() -> int:
    import psutil

    return resident_bytes() + int(psutil.virtual_memory().available) // 2
