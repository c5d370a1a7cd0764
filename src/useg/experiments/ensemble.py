"""Several trained networks as one: checked to agree, fed with stored pixels, averaged."""

import contextlib
import ctypes
import gc
import os
import threading
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from useg.errors import InputError, ResourceError
from useg.segmentation.geometry import Geometry
from useg.segmentation.normalise import Statistics, normalise, statistics
from useg.segmentation.tiling import Network

if TYPE_CHECKING:
    from useg.train.bundle import Bundle

__all__ = [
    "Ensemble",
    "Member",
    "load_ensemble",
    "most_batch_pixels",
    "network_bytes_per_pixel",
    "release_memory",
    "resident_bytes",
]

_GPU_SHARE = 0.7
"""Of a GPU's free memory; the rest is for what its libraries take by themselves."""

_SPREAD = 1.25
"""Larger tiles leave more holes in the heap than the tile that is measured."""


class Member:
    """One network and what prediction must know of it."""

    def __init__(self, bundle: "Bundle", device: str) -> None:
        """Puts the network on `device`, ready to predict."""
        import torch

        self.plan, self.mapping, self.tuning = bundle.plan, bundle.mapping, bundle.tuning
        self.device = torch.device(device)
        self.module = bundle.network(device).eval()
        self._layout = torch.channels_last if self.plan.dims == 2 else torch.channels_last_3d

    @property
    def geometry(self) -> tuple[Geometry, ...]:
        """What the network does to each axis."""
        return tuple(
            Geometry(tuple(level[axis] for level in self.plan.strides), self.plan.valid)
            for axis in range(self.plan.dims)
        )

    @property
    def patch(self) -> tuple[int, ...]:
        """The tile it was trained on, raised to lengths that it accepts."""
        return tuple(
            one.input_size(max(length - 2 * one.margin_px, 1))
            for length, one in zip(self.plan.patch, self.geometry, strict=True)
        )

    def run_empty_tile(self) -> int:
        """Runs the network once on a tile of its patch's size; returns the pixels of it."""
        channels = self.plan.stored_channels
        statistics_of_none = Statistics((0.0,) * channels, *((1.0,) * channels,) * 3)
        self.network(statistics_of_none)(np.zeros((1, channels, *self.patch), np.float32))
        return prod(self.patch)

    @property
    def cut(self) -> tuple[Any, ...]:
        """Members with the same cut share one pass over the image."""
        return self.geometry, self.plan.patch, self.plan.overlap, self.plan.symmetries

    def network(self, stats: Statistics) -> Network:
        """Stored pixels of tiles to activated outputs, with the normalisation of one image."""
        import torch

        from useg.segmentation.losses import activate
        from useg.train.probe import machine

        # A model made on another machine: without bfloat16 arithmetic float32 is as exact and 4 times as fast.
        half = self.plan.dtype == "bfloat16" and (self.device.type != "cpu" or machine()["bfloat16"])

        def network(batch: np.ndarray) -> np.ndarray:
            images = np.stack([normalise(tile, self.plan.normalisation, stats) for tile in batch])
            try:
                with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                    inputs = torch.from_numpy(images).to(self.device, memory_format=self._layout)
                    logits = self.module(inputs)
                    outputs = activate(logits, self.plan.softmax_channels).contiguous()
                    result: np.ndarray = outputs.cpu().numpy()
            except torch.OutOfMemoryError as error:
                shape = " x ".join(map(str, images.shape))
                raise ResourceError(
                    f"the memory of {self.device} does not hold a batch of {shape}: close what else uses it, "
                    "or predict with --device cpu"
                ) from error
            return result

        return network


class Ensemble:
    """One or more members that give the same outputs."""

    def __init__(self, members: Sequence[Member], names: Sequence[str]) -> None:
        """Members of the same task.

        Raises:
            InputError: they differ in what they were trained to do; each difference is named.
        """
        self.members = tuple(members)
        first = members[0]
        wanted = _task(first)
        wrong = [
            f"{names[index]}: {what} is {_task(member)[what]}, in {names[0]} it is {wanted[what]}"
            for index, member in enumerate(members)
            for what in wanted
            if _task(member)[what] != wanted[what]
        ]
        if wrong:
            raise InputError(
                "these bundles were trained for different tasks and cannot be averaged:\n  " + "\n  ".join(wrong)
            )
        self.plan, self.mapping = first.plan, first.mapping

    @property
    def channels(self) -> int:
        """Stored channels of an image, those that are dropped included."""
        return self.plan.stored_channels

    @property
    def outputs(self) -> int:
        """Channels of the averaged outputs."""
        return self.plan.outputs

    @property
    def groups(self) -> list[list[Member]]:
        """Members that share one pass over an image, together."""
        groups: dict[tuple[Any, ...], list[Member]] = {}
        for member in self.members:
            groups.setdefault(member.cut, []).append(member)
        return list(groups.values())

    def symmetries(self, *, wanted: bool) -> list[str]:
        """What to say where averaging over symmetries is wanted and there is none that training used."""
        if not wanted or any(any(member.plan.symmetries[0]) for member in self.members):
            return []
        return ["training flipped and turned nothing, since classes lie on one side: --tta changes nothing"]

    @property
    def tuning(self) -> dict[str, Any]:
        """Operating points, numbers averaged over the members."""
        averaged: dict[str, Any] = _average([member.tuning for member in self.members])
        return averaged

    def network(self, group: Sequence[Member], sample: np.ndarray) -> Network:
        """The mean of a group's outputs for one image, whose statistics come from `sample`."""
        networks = [member.network(statistics(sample, member.plan.normalisation)) for member in group]

        def averaged(batch: np.ndarray) -> np.ndarray:
            total = networks[0](batch)
            for network in networks[1:]:
                total = total + network(batch)
            return total / len(networks) if len(networks) > 1 else total

        return averaged


def load_ensemble(paths: Sequence[Path], device: str) -> Ensemble:
    """Loads bundles and checks that they belong together.

    Raises:
        InputError: no bundle was named, or they differ in their task.
        DamagedFile: a bundle is not what was written.
    """
    import torch

    from useg.train.bundle import load_bundle

    if not paths:
        raise InputError("no bundle was named: give one or more files ending in .useg")
    members = [Member(load_bundle(path), device) for path in paths]
    threads = max(member.plan.threads for member in members)
    torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
    return Ensemble(members, [str(path) for path in paths])


def _task(member: Member) -> dict[str, Any]:
    return {
        "the number of axes": member.plan.dims,
        "the list of classes": list(member.mapping.class_names),
        "the instance mode": member.plan.instance_mode,
        "the number of channels": member.plan.stored_channels,
    }


def _average(values: list[Any]) -> Any:
    """Numbers become their mean (whole ones stay whole), mappings are averaged key by key, else the first."""
    first = values[0]
    if isinstance(first, dict):
        return {
            key: _average([value[key] for value in values if isinstance(value, dict) and key in value]) for key in first
        }
    if isinstance(first, bool) or not all(isinstance(value, int | float) for value in values):
        return first
    return round(fmean(values)) if all(isinstance(value, int) for value in values) else fmean(values)


def most_batch_pixels(ensemble: Ensemble) -> int | None:
    """Pixels of a batch that fit into the memory of the GPUs, measured on one tile; None for the CPU."""
    import torch

    most: list[int] = []
    for member in ensemble.members:
        if member.device.type != "cuda":
            continue
        torch.cuda.reset_peak_memory_stats(member.device)
        before = torch.cuda.memory_allocated(member.device)
        pixels = member.run_empty_tile()
        grown = torch.cuda.max_memory_allocated(member.device) - before
        free, _ = torch.cuda.mem_get_info(member.device)
        most.append(int(_GPU_SHARE * free * pixels / max(grown, 1)))
    return min(most, default=None)


def network_bytes_per_pixel(ensemble: Ensemble, *, measure: Callable[[], int] | None = None) -> float:
    """Peak memory of the hungriest member per pixel of its input, measured on one tile of its patch's size.

    Args:
        ensemble: its networks are run once.
        measure: gives the bytes that the process holds now; by default its resident memory.
    """
    per_pixel = [0.0]
    for member in ensemble.members:
        grown = _peak_growth(member.run_empty_tile, measure or resident_bytes)
        pixels = prod(member.patch)
        least = 4 * (member.plan.channels + 3 * member.plan.outputs)
        per_pixel.append(max(_SPREAD * grown / pixels, float(least)))
    return max(per_pixel)


def resident_bytes() -> int:
    """Memory of this process that lies in RAM now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def release_memory() -> None:
    """Gives memory that is no longer used back to the system, where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _peak_growth(work: Callable[[], object], measure: Callable[[], int]) -> int:
    """By how many bytes memory grows while `work` runs, at most, as a thread beside it sees."""
    before = measure()
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, measure())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(peak, measure()) - before
