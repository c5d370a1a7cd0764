"""From fingerprint, settings and probe to a plan: patch, depth, width, steps, normalisation, loss."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from useg.config import Config
from useg.data.fingerprint import ChannelStatistics, Fingerprint
from useg.errors import ConfigError, DataError
from useg.segmentation.augment import AugmentSettings
from useg.segmentation.geometry import Geometry
from useg.segmentation.normalise import ChannelNorm, input_channels
from useg.segmentation.weights import class_weights
from useg.train.plan import Plan
from useg.train.shape import network_for

_Batch = tuple[tuple[int, ...], int]
"""A patch, and how many of it are a micro-batch."""
# (network arguments, patch, micro-batch, softmax channels, dtype) -> seconds of a step
StepClock = Callable[[dict[str, Any], tuple[int, ...], int, int, str], float]

_BATCH_PIXELS = {"cpu": 262_144, "cuda": 1_048_576}
_REST_S, _REST_SHARE = 15.0, 0.06
"""What a run needs beside its steps: reading and scoring, and live scores and checkpoints."""
_ENOUGH_STEPS = {2: 1_500, 3: 500}
"""By dimensions. Many small steps learn faster than few large ones, so batches shrink until so many fit; in 3D, where
a batch of few patches learns worse, less far. See decision 12."""
_BASE = {2: 16, 3: 32}
"""By dimensions, of a network with a light top. See decision 14."""
_WARPED = 0.5
"""What is to be predicted lies as it lies in the images, so half of what is learned does. See decision 15."""
_MANY_STEPS = 4_000
_FEW_STEPS = 150
_SMALLER_PATCHES = {2: (192, 128), 3: ()}
_LEAST_ZOOM, _MOST_ZOOM = 1.25, 1.6
_TILT_DEG = 20.0


def make_plan(
    fingerprint: Fingerprint,
    config: Config,
    *,
    patches: Callable[[tuple[int, ...]], int],
    has_objects: bool,
    class_names: Sequence[str],
    directed: Sequence[bool] = (),
    clock: StepClock,
    dtype: Callable[[dict[str, Any], tuple[int, ...], int], tuple[str, str]],
    threads: int,
    device: str,
    seconds_left: float | None,
) -> Plan:
    """Decide everything the settings leave open.

    Args:
        fingerprint: of the data.
        config: the user's settings; what is set there wins.
        patches: how many patches of a size an epoch has.
        has_objects: labels tell objects apart.
        class_names: in id order.
        directed: whether the labels have a direction, per axis; such axes are not flipped.
        clock: seconds of a training step on this machine.
        dtype: the faster dtype on this machine, with the reason.
        threads: of torch. device: "cpu" or "cuda".
        seconds_left: of the budget in minutes, now; None when the budget is in epochs or steps.

    Raises:
        DataError: a network cannot be planned for this data.
        ConfigError: settings contradict each other or the data.
    """
    reasons: dict[str, str] = {}
    dims, planes = _dims(fingerprint, config, reasons)
    norms = normalisation(fingerprint, reasons)
    if not input_channels(norms):
        raise DataError("every channel of the images is constant: there is nothing to learn from")
    mode = _instance_mode(config, reasons, has_objects=has_objects)
    softmax = fingerprint.num_classes + (mode == "border")
    patch, arguments = network_for(fingerprint, config, dims, norms, mode, reasons)
    chosen: Any = config.train.dtype
    if chosen == "auto":
        small = {**arguments, "base": min(arguments["base"] or 16, 16)}
        chosen, reasons["dtype"] = dtype(small, patch, softmax) if not arguments["valid"] else ("float32", "as in 2015")

    def seconds_of(network: dict[str, Any], batch: _Batch) -> float:
        return clock(network, *batch, softmax, chosen)

    batches = _batches(arguments, patch, config, device)
    arguments, (patch, micro), seconds = _width_and_batch(arguments, batches, config, seconds_left, seconds_of, reasons)
    count, micro, seconds = _share_out(config, micro, seconds, reasons)
    per_epoch = patches(patch)
    steps = _steps(config, per_epoch, micro * count, seconds * count, seconds_left, reasons)
    return Plan(
        recipe=config.recipe,
        seed=config.seed,
        dims=dims,
        planes=planes,
        stored_channels=fingerprint.channels,
        num_classes=fingerprint.num_classes,
        class_names=tuple(class_names),
        instance_mode=mode,
        patch=patch,
        normalisation=norms,
        micro_batch=micro,
        count=count,
        steps=steps,
        patches_per_epoch=per_epoch,
        dtype=chosen,
        threads=threads,
        device=device,
        augmentation=_augmentation(config, fingerprint, dims, directed, reasons),
        validate_every=max(1, steps // 20),
        validation_samples=_validation_samples(fingerprint, dims, patch, micro, steps),
        checkpoint_seconds=config.train.checkpoint_seconds,
        seconds_per_step=seconds * count,
        budget_s=seconds_left,
        reasons=reasons,
        **_optimisation(config, steps),
        **_loss(fingerprint, config, mode, reasons),
        **{key: value for key, value in arguments.items() if key not in ("dims", "channels", "outputs", "depth")},
    )


def _share_out(config: Config, micro: int, seconds: float, reasons: dict[str, str]) -> tuple[int, int, float]:
    """Micro-batches of a step, their size, and seconds of one."""
    count = config.train.count
    if config.workers > 1 and count % config.workers:
        # The batch stays what it is for one worker: it is cut into a micro-batch or more for each.
        count, micro = config.workers, max(1, micro // config.workers)
        seconds /= config.workers
        reasons["count"] = f"a micro-batch for each of {config.workers} workers"
    return count, micro, seconds


def _optimisation(config: Config, steps: int) -> dict[str, Any]:
    if config.recipe == "paper":
        # Momentum and batch are those of 2015; it gives no learning rate, and knows no schedule and no averaging.
        return {
            "optimizer": "sgd",
            "lr": config.train.lr or 1e-3,
            "momentum": config.train.momentum,
            "weight_decay": 0.0,
            "clip_norm": config.train.clip_norm,
            "ema": 0.0,
        }
    optimizer = config.train.optimizer
    return {
        "optimizer": optimizer,
        "lr": config.train.lr or {"adamw": 2e-3, "sgd": 1e-2}[optimizer],
        "weight_decay": config.train.weight_decay if optimizer == "adamw" else 0.0,
        "momentum": config.train.momentum,
        "clip_norm": config.train.clip_norm,
        "ema": config.train.ema,
        "warmup_steps": round(steps * config.train.warmup),
        "cooldown_steps": round(steps * config.train.cooldown),
    }


def _dims(fingerprint: Fingerprint, config: Config, reasons: dict[str, str]) -> tuple[Literal[2, 3], bool]:
    if fingerprint.ndim == 2:
        if config.data.dims == "3":
            raise ConfigError("data.dims is 3, but the images are 2D")
        return 2, False
    if config.data.dims != "auto":
        return (2, True) if config.data.dims == "2" else (3, False)
    planes, spacing = fingerprint.median_space[0], fingerprint.spacing
    if planes < 16:
        reasons["dims"] = f"volumes of {planes} planes are too thin for 3D: trained plane by plane"
        return 2, True
    if spacing and spacing[0] / min(spacing[1:]) > 4:
        reasons["dims"] = f"planes are {spacing[0] / min(spacing[1:]):.1f} px apart: trained plane by plane"
        return 2, True
    reasons["dims"] = "volumes"
    return 3, False


def normalisation(fingerprint: Fingerprint, reasons: dict[str, str]) -> tuple[ChannelNorm, ...]:
    """How each channel becomes network input: by the data set's numbers where all images share a scale,
    by the image's own where they do not, codes as one channel each, constants left out.
    """
    return tuple(
        _channel_norm(channel, index, fingerprint, reasons)
        for index, channel in enumerate(fingerprint.channel_statistics)
    )


def _channel_norm(
    channel: ChannelStatistics, index: int, fingerprint: Fingerprint, reasons: dict[str, str]
) -> ChannelNorm:
    name = f"normalisation of channel {channel.name or index}"
    nodata = channel.nodata[0] if channel.nodata else None
    if channel.kind == "constant":
        reasons[name] = "constant: left out"
        return ChannelNorm("drop")
    values = channel.values
    if channel.kind == "categorical" and values:
        reasons[name] = f"{len(values)} codes: one channel each"
        return ChannelNorm("onehot", values=tuple(float(v) for v in values))
    if fingerprint.intensity_scale_differs:
        reasons[name] = "images differ in scale: each by its own range"
        return ChannelNorm("image", nodata=nodata)
    reasons[name] = "images share a scale: by the data set's mean and deviation"
    return ChannelNorm(
        "dataset",
        low=channel.percentile_00_5 if channel.kind == "continuous" else channel.minimum,
        high=channel.percentile_99_5 if channel.kind == "continuous" else channel.maximum,
        mean=channel.mean,
        std=max(channel.std, 1e-12),
        nodata=nodata,
    )


def _instance_mode(config: Config, reasons: dict[str, str], *, has_objects: bool) -> Any:
    mode = config.instances.mode
    if mode == "auto":
        reasons["instance_mode"] = "labels tell objects apart" if has_objects else "labels are classes, not objects"
        return "border" if has_objects else "none"
    if mode != "none" and not has_objects:
        raise ConfigError(f"instances.mode is {mode!r}, but the labels do not tell objects apart")
    return mode


def _batches(arguments: dict[str, Any], patch: tuple[int, ...], config: Config, device: str) -> list[_Batch]:
    """Micro-batches that may be taken, from the largest: fewer patches first, then smaller ones."""
    fixed = config.train.micro_batch
    if config.recipe == "paper":
        return [(patch, 1)]
    micro = fixed or max(2, min(32, round(_BATCH_PIXELS[device] / math.prod(patch))))
    found = [(patch, micro)]
    while not fixed and micro > 2:
        micro = max(2, micro // 2)
        found.append((patch, micro))
    if config.network.patch is not None:
        return found
    factors = [math.prod(stride[axis] for stride in arguments["strides"]) for axis in range(len(patch))]
    for bound in _SMALLER_PATCHES[len(patch)]:
        smaller = tuple(min(n, math.ceil(bound / f) * f) for n, f in zip(patch, factors, strict=True))
        if smaller != found[-1][0]:
            found.append((smaller, micro))
    return found


def _width_and_batch(
    arguments: dict[str, Any],
    batches: list[_Batch],
    config: Config,
    seconds_left: float | None,
    clock: Callable[[dict[str, Any], _Batch], float],
    reasons: dict[str, str],
) -> tuple[dict[str, Any], _Batch, float]:
    """Base width and micro-batch that leave enough steps within the budget, and the seconds of such a step."""
    batch = batches[0]
    if config.recipe == "paper":
        return arguments, batch, clock(arguments, batch)
    fixed_base = config.network.base
    base = fixed_base or (_BASE[len(batch[0])] if arguments["light_top"] else 16)
    seconds = clock({**arguments, "base": base}, batch)
    if seconds_left is None:
        reasons["base"] = reasons["micro_batch"] = "no time budget: the default"
        return {**arguments, "base": base}, batch, seconds
    budget = training_seconds(seconds_left) / config.train.count
    enough = _ENOUGH_STEPS[len(batch[0])]
    for smaller in batches[1:]:
        if budget / seconds >= enough:
            break
        batch, seconds = smaller, clock({**arguments, "base": base}, smaller)
    for narrower in (16, 8):
        if not fixed_base and budget / seconds < _FEW_STEPS and narrower < base:
            base, seconds = narrower, clock({**arguments, "base": narrower}, batch)
    for wider in (24, 32, 48, 64):
        if fixed_base or budget / seconds < _MANY_STEPS * 1.5:
            break
        if wider <= base:
            continue
        slower = clock({**arguments, "base": wider}, batch)
        if budget / slower < _MANY_STEPS:
            break
        base, seconds = wider, slower
    steps = int(budget / seconds)
    reasons["base"] = f"{seconds:.3f} s a step: {steps} steps fit" if not fixed_base else "as set"
    reasons["micro_batch"] = f"{enough} steps where possible" if not config.train.micro_batch else "as set"
    if batch[0] != batches[0][0]:
        reasons["patch"] += f"; smaller, so that more steps fit: {' x '.join(map(str, batch[0]))}"
    return {**arguments, "base": base}, batch, seconds


def training_seconds(budget_s: float) -> float:
    """What of a budget is for optimiser steps: all but some seconds, and never less than two thirds."""
    return max(budget_s * 2 / 3, budget_s * (1 - _REST_SHARE) - _REST_S)


def _steps(
    config: Config,
    per_epoch: int,
    batch: int,
    seconds: float,
    seconds_left: float | None,
    reasons: dict[str, str],
) -> int:
    if config.steps is not None:
        return config.steps
    if config.epochs is not None:
        return max(1, math.ceil(config.epochs * per_epoch / batch))
    if seconds_left is None:
        raise ConfigError("a plan needs a budget: minutes, epochs or steps")
    steps = max(1, int(training_seconds(seconds_left) / seconds))
    reasons["steps"] = f"{training_seconds(seconds_left):.0f} of {seconds_left:.0f} s at {seconds:.3f} s a step"
    return steps


def _loss(fingerprint: Fingerprint, config: Config, mode: str, reasons: dict[str, str]) -> dict[str, Any]:
    counts = [float(c.pixels) for c in fingerprint.classes]
    objects = fingerprint.objects
    if mode == "border":
        # A rim of 1 to 2 px: about 1.5 times the circumference of a disc of the median size, for each object.
        size = objects.size_px.median if objects and objects.size_px else 100.0
        per_sample = objects.per_sample.median if objects and objects.per_sample else 1.0
        rim = min(0.5 * sum(counts[1:]), 1.5 * math.sqrt(4 * math.pi * size) * per_sample * fingerprint.labelled)
        counts = [counts[0], *(c * (1 - rim / max(sum(counts[1:]), 1)) for c in counts[1:]), rim]
    weights = class_weights([round(c) for c in counts]) if config.loss.class_weight else [1.0] * len(counts)
    border = config.loss.border_weight
    if border == "auto":
        border = mode != "none" or config.recipe == "paper"
    sigma = config.loss.sigma_px
    if sigma is None:
        gap = objects.gap_px.p25 if objects and objects.gap_px else 5.0
        sigma = min(max(gap, 2.0), 8.0)
        reasons["sigma_px"] = f"a quarter of the gaps between objects are at most {gap:.1f} px wide"
    # The formula of 2019 was published with a factor of 50, that of 2015 with 10, which is the setting's default.
    published = config.loss.border_formula == "2019" and "w0" not in config.loss.model_fields_set
    return {
        "border": config.loss.border_formula if border else "none",
        "w0": 50.0 if published else config.loss.w0,
        "sigma_px": sigma,
        "class_weights": tuple(float(w) for w in weights),
        "dice_share": 0.0 if config.recipe == "paper" else config.loss.dice_share,
        "anisotropy": fingerprint.spacing[0] / fingerprint.spacing[-1]
        if fingerprint.spacing and fingerprint.ndim == 3
        else 1.0,
    }


def _augmentation(
    config: Config, fingerprint: Fingerprint, dims: int, directed: Sequence[bool], reasons: dict[str, str]
) -> AugmentSettings:
    asked = config.augmentation
    rotation = asked.rotation_deg
    free = [not there for there in (*(False,) * (dims - len(directed)), *directed)]
    if not all(free):
        named = ("planes", "rows", "columns")[-dims:]
        lying = ", ".join(name for name, is_free in zip(named, free, strict=True) if not is_free)
        reasons["augmentation"] = f"classes lie on one side along {lying}: no flip there"
        if not all(free[-2:]) and "rotation_deg" not in asked.model_fields_set:
            rotation = min(rotation, _TILT_DEG)
            reasons["augmentation"] += f", rotation within {rotation:g} degrees"
    scale = asked.scale or _zoom(fingerprint, dims, reasons)
    off = 1.0 if asked.intensity else 0.0
    anisotropy = fingerprint.spacing[0] / fingerprint.spacing[-1] if dims == 3 and fingerprint.spacing else 1.0
    names = ("gamma", "contrast", "brightness", "tint", "noise", "blur")
    defaults = AugmentSettings()
    warped = 1.0 if config.recipe == "paper" else _WARPED
    return AugmentSettings(
        warp_probability=warped if asked.warped is None else asked.warped,
        elastic=asked.elastic,
        elastic_std_px=asked.elastic_std_px if dims == 2 else min(asked.elastic_std_px, 2.0),
        rotation_deg=rotation,
        scale=(1 / scale, scale),
        flip=(asked.flip,) * (3 - dims) + tuple(asked.flip and is_free for is_free in free),
        anisotropy=anisotropy,
        **{f"{name}_probability": getattr(defaults, f"{name}_probability") * off for name in names},
    )


def _zoom(fingerprint: Fingerprint, dims: int, reasons: dict[str, str]) -> float:
    """As far as the middle half of the objects differs in diameter: a size rare in training is seen, too."""
    known = fingerprint.objects
    if known is None or known.source != "instances" or known.size_px is None:
        return _LEAST_ZOOM
    ratio = (known.size_px.p75 / max(known.size_px.p25, 1.0)) ** (1 / dims)
    zoom = float(round(min(max(ratio, _LEAST_ZOOM), _MOST_ZOOM), 2))
    if zoom > _LEAST_ZOOM:
        reasons["scale"] = f"half of the objects differ in diameter by a factor of {ratio:.1f}: zoom by {zoom:g}"
    return zoom


def _validation_samples(fingerprint: Fingerprint, dims: int, patch: tuple[int, ...], micro: int, steps: int) -> int:
    """So many samples that live scores take at most about a twentieth of the time."""
    per_check = 0.05 * steps / 20 * micro * math.prod(patch) * 3  # prediction is about 3 times as fast
    return max(1, min(32, int(per_check / math.prod(fingerprint.median_space[-dims:]))))


def geometries(plan: Plan) -> tuple[Geometry, ...]:
    """What the plan's network does to each axis."""
    return tuple(Geometry(tuple(s[axis] for s in plan.strides), plan.valid) for axis in range(plan.dims))
