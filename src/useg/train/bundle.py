"""The bundle: one file with weights, plan, label mapping and operating points: all that prediction needs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from useg.data.labels import LabelMapping
from useg.errors import DamagedFile, UsegError
from useg.segmentation.instances import SeparationParameters
from useg.segmentation.unet import UNet
from useg.train.checkpoint import read_tensors, write_tensors
from useg.train.plan import Plan, plan_from

FORMAT = 1
SUFFIX = ".useg"


@dataclass(frozen=True)
class Bundle:
    """A trained model.

    Attributes:
        plan: how it was trained and how it predicts.
        mapping: the user's label values.
        tensors: parameters and buffers by name, float32.
        weights: their digest.
        tuning: operating points chosen on validation samples: "thresholds" {metric: threshold} and
            "separation" {parameter: value}.
        about: run id, scores, versions.
    """

    plan: Plan
    mapping: LabelMapping
    tensors: dict[str, Tensor]
    weights: str
    tuning: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def network(self, device: str = "cpu") -> UNet:
        """The network, ready to predict: BatchNorm folded, channels last."""
        network = UNet(**self.plan.network_arguments())
        network.load_state_dict(self.tensors)
        layout = torch.channels_last if self.plan.dims == 2 else torch.channels_last_3d
        return network.fold().to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    @property
    def separation(self) -> SeparationParameters:
        """Tuned parameters of the separation of objects, or the defaults."""
        return SeparationParameters(**self.tuning.get("separation", {}))


def save_bundle(
    path: Path,
    plan: Plan,
    mapping: LabelMapping,
    tensors: dict[str, Tensor],
    *,
    tuning: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> str:
    """Write a bundle, whole or not at all; returns the weights digest."""
    header = {
        "format": FORMAT,
        "kind": "bundle",
        "plan": plan.model_dump(mode="json"),
        "mapping": mapping.model_dump(mode="json"),
        "tuning": tuning or {},
        "about": about or {},
    }
    return write_tensors(path, tensors, header)


def load_bundle(path: Path) -> Bundle:
    """Read a bundle; nothing in it is executed.

    Raises:
        DamagedFile: missing, not a bundle, newer than this program, or its bytes are not what was written.
    """
    tensors, header = read_tensors(path)
    if header.get("kind") != "bundle":
        raise DamagedFile(f"{path}: a checkpoint, not a model; the model of a run is its model{SUFFIX}")
    number = header.get("format")
    if not isinstance(number, int):
        raise DamagedFile(f"{path}: its description cannot be read: no format number")
    if number > FORMAT:
        raise DamagedFile(f"{path}: format {number} is newer than this useg knows; update useg")
    try:
        plan = plan_from(header["plan"], str(path))
        mapping = LabelMapping.model_validate(header["mapping"])
        bundle = Bundle(plan, mapping, tensors, header["weights"], header["tuning"], header["about"])
        with torch.device("meta"):
            expected = UNet(**plan.network_arguments()).state_dict()
    except (KeyError, ValueError, TypeError, RuntimeError, UsegError) as error:
        raise DamagedFile(f"{path}: its description cannot be read: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in expected.items()}:
        raise DamagedFile(f"{path}: the weights do not fit the plan in the same file")
    return bundle
