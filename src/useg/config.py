"""One experiment's settings: TOML and `--set` in, checked models, canonical bytes and digest out.

Whatever is `None` or "auto" is decided by the plan, from the data and the machine.
"""

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from useg.errors import ConfigError

SCHEMA = 1
_LATER = {"fold", "least_workers", "split_seed", "warped"}
"""Left out where they are not given, so that settings of before they were known keep their digest."""


class Checked(BaseModel):
    """Read from a file that people write: nothing unknown is let through."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None or key not in _LATER}


class DataSettings(Checked):
    """How samples are read and split."""

    dims: Annotated[
        Literal["auto", "2", "3"], BeforeValidator(lambda given: str(given) if isinstance(given, int) else given)
    ] = "auto"
    """Train on planes (2) or volumes (3)."""
    validation: float = Field(default=0.2, gt=0, lt=0.9)
    """Share of the samples that is kept for tuning and live scores, where no split is given."""
    test: float = Field(default=0.0, ge=0, lt=0.9)
    """Share that is touched only once, at the end."""
    split_seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Of the split; by default the run's. With it, runs of several seeds are scored on the same samples."""

    @model_validator(mode="after")
    def _leave_some_to_train_on(self) -> "DataSettings":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self


class NetworkSettings(Checked):
    """The shape of the U-Net."""

    base: int | None = Field(default=None, ge=2, le=256)
    """Channels at full resolution."""
    depth: int | None = Field(default=None, ge=1, le=7)
    """How many times the resolution is halved."""
    patch: tuple[int, ...] | None = None
    """Training patch in px, per axis."""
    light_top: bool | None = None
    """One convolution each way at full resolution; by default where it gives more for the time."""
    residual: bool = False
    deep_supervision: bool = False


class TrainSettings(Checked):
    """The optimisation."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; by default 2e-3 for AdamW, 1e-2 for SGD."""
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """SGD only."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Patches that pass the network together."""
    count: int = Field(default=1, ge=1)
    """Micro-batches whose gradients are averaged for a step."""
    clip_norm: float = Field(default=5.0, gt=0)
    """Bound of the gradient's norm."""
    ema: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the weight average that predicts; shorter at the start."""
    warmup: float = Field(default=0.03, ge=0, lt=0.5)
    """Share of the steps with a rising learning rate."""
    cooldown: float = Field(default=0.4, ge=0, lt=1)
    """Share of the steps at the end with a falling one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    checkpoint_seconds: float = Field(default=30.0, gt=0)
    """Time between checkpoints."""


class AugmentationSettings(Checked):
    """Random changes of the training patches."""

    warped: float | None = Field(default=None, ge=0, le=1)
    """Share of the patches that are flipped, rotated, zoomed and deformed; the others lie as in the image."""
    elastic: bool = True
    elastic_std_px: float = Field(default=10.0, ge=0, le=100)
    """Standard deviation of the displacements on the 3x3 grid."""
    rotation_deg: float = Field(default=180.0, ge=0, le=180)
    scale: float | None = Field(default=None, ge=1, le=4)
    """Largest zoom in; the largest zoom out is its inverse. By default 1.25, and more where sizes of objects vary."""
    flip: bool = True
    intensity: bool = True
    """Gamma, brightness, contrast, noise, blur."""


class LossSettings(Checked):
    """What counts how much."""

    border_weight: bool | Literal["auto"] = "auto"
    """Extra weight for the gaps between touching objects; auto: where instances are known."""
    border_formula: Literal["2015", "2019"] = "2015"
    w0: float = Field(default=10.0, ge=0)
    sigma_px: float | None = Field(default=None, gt=0)
    """Width of the border weight; by default from the measured gaps."""
    class_weight: bool = True
    """Balance the classes' frequencies."""
    dice_share: float = Field(default=1.0, ge=0)
    """Weight of the soft Dice term beside the cross-entropy."""


class InstanceSettings(Checked):
    """How objects are told apart."""

    mode: Literal["auto", "none", "border", "weights", "distance"] = "auto"


class Config(Checked):
    """Everything a user can decide about a run."""

    schema_number: int = SCHEMA
    recipe: Literal["modern", "paper"] = "modern"
    seed: int = Field(default=0, ge=0, lt=2**63)
    minutes: float | None = Field(default=None, gt=0)
    """Budget of the whole run."""
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    folds: int = Field(default=0, ge=0, le=20)
    """Cross-validation with so many folds; 0 and 1 mean one training."""
    fold: int | None = Field(default=None, ge=0)
    """Of the folds train this one alone; they count from 0."""
    workers: int = Field(default=1, ge=1, le=64)
    least_workers: int | None = Field(default=None, ge=1, le=64)
    """On a cluster: so few will do while there is no room for all `workers`; None: all are waited for."""
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    train: TrainSettings = TrainSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    loss: LossSettings = LossSettings()
    instances: InstanceSettings = InstanceSettings()

    @model_validator(mode="after")
    def _have_the_fold(self) -> "Config":
        if self.fold is not None and self.fold >= max(1, self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds} folds: they count from 0")
        if self.least_workers is not None and self.least_workers > self.workers:
            raise ValueError(f"at least {self.least_workers} of {self.workers} workers: the lesser number comes first")
        return self

    @property
    def split_seed(self) -> int:
        """The seed by which samples are split."""
        return self.seed if self.data.split_seed is None else self.data.split_seed

    def digest(self) -> str:
        """BLAKE3 of the canonical bytes, as hex."""
        from blake3 import blake3

        return str(blake3(self.canonical()).hexdigest())

    def canonical(self) -> bytes:
        """The fully resolved settings as JSON with sorted keys."""
        import orjson

        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)


def load_config(
    path: Path | None = None, sets: Sequence[str] = (), *, base: Config | None = None, **given: Any
) -> Config:
    """Settings from a TOML file or from `base`, then `KEY=VALUE` pairs, then named arguments that are not None.

    Raises:
        ConfigError: the file is not TOML, a key is unknown (with a suggestion), a value is out of range.
    """
    tree: dict[str, Any] = {} if base is None else base.model_dump(mode="json", exclude_defaults=True)
    if path is not None:
        tree = read_toml(path)
    for pair in sets:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set wants KEY=VALUE, not {pair!r} (for example --set train.lr=0.001)")
        put_setting(tree, key.strip(), _value(text.strip()))
    tree.update({key: value for key, value in given.items() if value is not None})
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        ConfigError: it is none.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error


def near(name: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of a sentence."""
    names = list(known)
    ends = {each.rpartition(".")[2]: each for each in names}
    close = difflib.get_close_matches(name, names, 1, 0.4)
    close += [ends[each] for each in difflib.get_close_matches(name.rpartition(".")[2], ends, 1, 0.6)]
    return f"; did you mean {' or '.join(repr(each) for each in dict.fromkeys(close))}?" if close else ""


def setting_names(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key that `--set` and a config file know."""
    names = []
    for key, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += setting_names(kind, f"{prefix}{key}.")
        else:
            names.append(prefix + key)
    return names


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word: a string without its quotes


def put_setting(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put a value where its dotted name says.

    Raises:
        ConfigError: there is a value where a group should be.
    """
    *path, last = key.split(".")
    for part in path:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {key}: {part!r} is a value, not a group of settings")
        tree = below
    tree[last] = value


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {key!r}{near(key, setting_names())}"
    if not key:
        return f"settings: {problem['msg'].removeprefix('Value error, ')}"
    return f"setting {key}: {problem['msg'].removeprefix('Value error, ')}, not {problem['input']!r}"
