"""The machine, measured once before a run: seconds of a training step, and whether bfloat16 gains."""

import platform
import time
from collections.abc import Sequence
from typing import Any, Literal

import psutil
import torch
from blake3 import blake3

from useg.segmentation.losses import supervise
from useg.segmentation.unet import UNet

Dtype = Literal["float32", "bfloat16"]


def machine() -> dict[str, Any]:
    """What decides speed and rounding here: processor, instruction set, cores, torch, GPU."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": _has_bfloat16(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "torch": torch.__version__,
        "gpu": gpu,
    }


def torch_build() -> dict[str, Any]:
    """What torch says of itself: version, threads, libraries, what it was built with."""
    return {
        "version": torch.__version__,
        "git": torch.version.git_version,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "cuda": torch.version.cuda,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def machine_digest() -> str:
    """A short name of `machine()`."""
    return str(blake3(repr(sorted(machine().items())).encode()).hexdigest())[:16]


def cores() -> int:
    """Physical cores this process may use."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process(), "cpu_affinity") else None
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return max(1, min(physical, allowed or physical))


def _has_bfloat16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


def step_seconds(
    network_arguments: dict[str, Any],
    patch: Sequence[int],
    micro_batch: int,
    *,
    softmax_channels: int,
    dtype: Dtype,
    threads: int,
    device: str = "cpu",
    channels_last: bool = True,
    repeats: int = 3,
) -> float:
    """Seconds of one forward and backward pass and optimiser step, the least of `repeats` after one to warm up."""
    torch.set_num_threads(threads)
    layout = torch.channels_last if len(patch) == 2 else torch.channels_last_3d
    layout = layout if channels_last else torch.contiguous_format
    network = UNet(**network_arguments).to(device=device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    size = (micro_batch, network_arguments["channels"], *patch)
    image = torch.rand(size, device=device).contiguous(memory_format=layout)
    with torch.no_grad():
        logits = network.eval()(image[:1])
        space = logits.shape[2:]
    network.train()
    targets = torch.zeros((micro_batch, *space), dtype=torch.uint8, device=device)
    weights = torch.ones((micro_batch, *space), device=device)
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = network(image)
        loss = supervise(logits, targets, weights, softmax_channels=softmax_channels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def better_dtype(
    network_arguments: dict[str, Any],
    patch: Sequence[int],
    *,
    softmax_channels: int,
    threads: int,
    device: str,
) -> tuple[Dtype, str]:
    """The faster dtype for training here, measured on a small batch, with the reason in words."""
    if device == "cuda":
        return "bfloat16", "GPU: autocast"
    if not _has_bfloat16():
        return "float32", "this processor has no bfloat16 arithmetic"
    seconds = {
        dtype: step_seconds(
            network_arguments, patch, 1, softmax_channels=softmax_channels, dtype=dtype, threads=threads,
            device=device, repeats=2,
        )
        for dtype in ("float32", "bfloat16")
    }  # fmt: skip
    ratio = seconds["float32"] / seconds["bfloat16"]
    chosen: Dtype = "bfloat16" if ratio > 1.1 else "float32"
    return chosen, f"bfloat16 is {ratio:.1f} times as fast as float32 here, measured"
