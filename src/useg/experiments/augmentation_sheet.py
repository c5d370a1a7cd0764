"""What training would see of a data set: a contact sheet of augmented samples with their weight maps."""

from pathlib import Path

import numpy as np

from useg.arrays import Image, Raw
from useg.config import Config
from useg.data.inspect import Inspection
from useg.data.samples import Samples
from useg.errors import DataError
from useg.experiments.contact_sheet import write_contact_sheet
from useg.segmentation.normalise import normalise, statistics
from useg.train.planning import make_plan

SHOWN = 4


def write_augmentation_sheet(found: Inspection, path: Path, config: Config | None = None) -> None:
    """Write a PNG with augmented patches of a few samples, drawn as a training with the default seed draws them.

    Raises:
        DataError: there are problems, or no sample has labels.
    """
    found.usable()
    labelled = [sample for sample in found.reading.samples if sample.labels]
    if found.mapping is None or found.fingerprint is None or not labelled:
        raise DataError("no labelled sample: a contact sheet shows images with their labels")
    config = config or Config(steps=1)
    plan = make_plan(
        found.fingerprint,
        config,
        patches=lambda patch: len(labelled),
        has_objects=found.mapping.has_objects,
        class_names=found.mapping.class_names,
        clock=lambda *question: 1.0,
        dtype=lambda *question: ("float32", "not measured"),
        threads=1,
        device="cpu",
        seconds_left=None,
    )
    samples = Samples(labelled, found.mapping, plan.stored_channels, planes=plan.planes)
    indices = np.linspace(0, len(samples) - 1, min(SHOWN, len(samples))).astype(int).tolist()

    def prepared(raw: Raw) -> Image:
        return normalise(raw, plan.normalisation, statistics(raw, plan.normalisation))

    write_contact_sheet(
        [samples[index] for index in indices],
        path,
        patch=plan.patch,
        settings=plan.augmentation,
        seed=plan.seed,
        indices=indices,
        border=plan.border,
        w0=plan.w0,
        sigma_px=plan.sigma_px,
        class_weights=np.asarray(plan.class_weights[: plan.num_classes], np.float32),
        normalise=prepared,
    )
