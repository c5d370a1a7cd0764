"""Everything derived from fingerprint, budget and probe: a readable file, frozen once a run starts."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from useg.errors import ConfigError
from useg.home.folder import write_atomically
from useg.segmentation.augment import AugmentSettings
from useg.segmentation.instances import output_channels
from useg.segmentation.normalise import ChannelNorm, input_channels

FORMAT = 1


class Plan(BaseModel):
    """How one training runs and how its network predicts; the same plan gives the same training.

    Attributes:
        dims: 2 or 3 axes; `planes` when volumes are cut into planes.
        stored_channels: channels of the images; the network sees `input_channels`, after `normalisation`.
        num_classes: classes including background; `instance_mode` may add an output channel.
        patch, strides, base, max_width, light_top: of the network, see `UNet`; patch in px.
        micro_batch, count: a step is `count` micro-batches of `micro_batch` patches.
        steps, warmup_steps, cooldown_steps: in optimiser steps; the learning rate rises, stays, falls.
        patches_per_epoch: an epoch shows each sample at least once, large ones more often.
        ema: decay of the averaged weights.
        dtype: of autocast. threads: of torch.
        border, w0, sigma_px, class_weights, dice_share, anisotropy: of the loss.
        augmentation: ranges of the random changes.
        overlap: share of a tile that overlaps its neighbour in prediction (padded networks).
        validate_every, validation_samples: live scores after so many steps, on so many samples.
        seconds_per_step: as probed; budget_s: what was given; both say where `steps` came from.
        reasons: why, by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    recipe: Literal["modern", "paper"] = "modern"
    seed: int = 0
    dims: Literal[2, 3] = 2
    planes: bool = False
    stored_channels: int = Field(ge=1)
    num_classes: int = Field(ge=2, le=254)
    class_names: tuple[str, ...] = ()
    instance_mode: Literal["none", "border", "weights", "distance"] = "none"
    patch: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    base: int = Field(default=16, ge=1)
    max_width: int = 512
    valid: bool = False
    batch_norm: bool = True
    light_top: bool = False
    residual: bool = False
    deep_supervision: bool = False
    dropout: float = 0.0
    normalisation: tuple[ChannelNorm, ...]
    micro_batch: int = Field(default=4, ge=1)
    count: int = Field(default=1, ge=1)
    steps: int = Field(ge=1)
    warmup_steps: int = 0
    cooldown_steps: int = 0
    patches_per_epoch: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = 1e-2
    momentum: float = 0.99
    clip_norm: float = 5.0
    ema: float = 0.995
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(default=1, ge=1)
    device: str = "cpu"
    border: Literal["none", "2015", "2019"] = "none"
    w0: float = 10.0
    sigma_px: float = 5.0
    class_weights: tuple[float, ...] = ()
    dice_share: float = 1.0
    anisotropy: float = 1.0
    augmentation: AugmentSettings = AugmentSettings()
    overlap: float = 0.25
    validate_every: int = Field(default=100, ge=1)
    validation_samples: int = Field(default=8, ge=1)
    checkpoint_seconds: float = 30.0
    seconds_per_step: float | None = None
    budget_s: float | None = None
    reasons: dict[str, str] = {}

    @property
    def channels(self) -> int:
        """Channels the network sees."""
        return input_channels(self.normalisation)

    @property
    def outputs(self) -> int:
        """Channels the network gives."""
        return output_channels(self.num_classes, self.instance_mode)

    @property
    def softmax_channels(self) -> int:
        """Of these, the classes (and the border class); a distance cue comes after them."""
        return self.num_classes + (self.instance_mode == "border")

    @property
    def symmetries(self) -> tuple[tuple[bool, ...], bool]:
        """Per axis whether training flipped it, and whether it rotated freely: what prediction may average over."""
        flips = self.augmentation.flip[-self.dims :]
        return flips, self.dims == 2 and all(flips) and self.augmentation.rotation_deg >= 90

    @property
    def depth(self) -> int:
        """How many times the resolution is reduced."""
        return len(self.strides)

    def network_arguments(self) -> dict[str, Any]:
        """Arguments of `UNet` for this plan."""
        return {
            "dims": self.dims,
            "channels": self.channels,
            "outputs": self.outputs,
            "base": self.base,
            "depth": self.depth,
            "max_width": self.max_width,
            "strides": self.strides,
            "valid": self.valid,
            "batch_norm": self.batch_norm,
            "light_top": self.light_top,
            "residual": self.residual,
            "deep_supervision": self.deep_supervision,
            "dropout": self.dropout,
        }

    def to_toml(self) -> str:
        """The plan as text, reasons as comments' equals in their own table."""
        import tomli_w

        return tomli_w.dumps(_without_none(self.model_dump(mode="json")))

    def save(self, path: Path) -> None:
        """Write the plan, whole or not at all."""
        write_atomically(path, self.to_toml().encode())


def load_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        ConfigError: not TOML, an unknown key, a missing key or a value out of range; all of them named.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a plan: {error}") from error
    return plan_from(tree, str(path))


def plan_from(tree: dict[str, Any], where: str) -> Plan:
    """A plan from plain values; `where` names them in errors."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: not a plan")
    number = tree.get("format", FORMAT)
    if isinstance(number, int) and number > FORMAT:
        raise ConfigError(f"{where}: format {number} is newer than this useg knows ({FORMAT}); update useg")
    try:
        return Plan.model_validate(tree)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join([f"{where}: not a usable plan", *(f"  - {line}" for line in lines)])) from None


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
