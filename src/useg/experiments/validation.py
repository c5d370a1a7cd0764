"""Samples with known labels through a network, in memory: live scores, and outputs to tune and score on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from useg.arrays import Labels
from useg.data.labels import LabelMapping
from useg.data.samples import Loaded, Samples
from useg.experiments.ensemble import Member
from useg.segmentation.instances import class_probabilities
from useg.segmentation.metrics import class_counts, confusion, dice, mean, pixel_error
from useg.segmentation.normalise import sample_strides, statistics
from useg.segmentation.tiling import averaged_over_symmetries, plan_tiles, predict_tiled
from useg.train.bundle import Bundle
from useg.train.loop import Trainer
from useg.train.plan import Plan

_MEMORY_BYTES = 2 * 1024**3


def member_of(trainer: Trainer, plan: Plan, mapping: LabelMapping) -> Member:
    """The averaged network of a training that goes on, ready to predict."""
    tensors = {name: tensor.clone() for name, tensor in trainer.average.items()}
    return Member(Bundle(plan, mapping, tensors, weights=""), str(trainer.device))


def outputs_of(member: Member, loaded: Loaded, *, with_symmetries: bool = False) -> np.ndarray:
    """Activated outputs (outputs, *space), float32, of one sample.

    Args:
        member: the network. loaded: the sample.
        with_symmetries: average over flips (and 90 degree rotations in 2D).
    """
    strides = tuple(slice(None, None, step) for step in sample_strides(loaded.space))
    network = member.network(statistics(loaded.image[(slice(None), *strides)], member.plan.normalisation))
    if with_symmetries:
        flips, rotations = member.plan.symmetries
        network = averaged_over_symmetries(network, rotations=rotations, flips=flips)
    tiles = plan_tiles(
        loaded.space,
        loaded.image.shape[0],
        member.plan.outputs,
        _MEMORY_BYTES,
        patch=member.plan.patch,
        geometry=member.geometry,
        overlap=member.plan.overlap,
    )

    def read(window: tuple[slice, ...]) -> np.ndarray:
        return loaded.image[(slice(None), *window)]

    bands = [band for _, band in predict_tiled(read, loaded.space, network, tiles)]
    return np.concatenate(bands, axis=1)


@dataclass(frozen=True)
class LiveScores:
    """A quick look at validation samples.

    Attributes:
        scores: "mean_dice" (over the classes that occur; without background where there are others),
            "pixel_error", and "dice" by class name.
        constant: the one class that is predicted everywhere, None if there are several.
    """

    scores: dict[str, object]
    constant: str | None


def live_scores(
    member: Member,
    samples: Samples,
    indices: Sequence[int],
    show: Callable[[Loaded, Labels], None] = lambda loaded, predicted: None,
) -> LiveScores:
    """Dice and pixel error by arg-max over some samples, pooled.

    Args:
        member: the network. samples: the data. indices: of the items to predict.
        show: given each item and its predicted label map.
    """
    num_classes = member.plan.num_classes
    table = np.zeros((num_classes, num_classes + 1), np.int64)
    predicted_ids: set[int] = set()
    for loaded in samples.each(indices):
        if loaded.classes is None:
            continue
        probabilities = class_probabilities(outputs_of(member, loaded), num_classes, member.plan.instance_mode)
        predicted = probabilities.argmax(axis=0).astype(np.uint8)
        show(loaded, predicted)
        predicted_ids |= set(np.unique(predicted).tolist())
        table += confusion(loaded.classes, predicted, num_classes)
    names = member.mapping.class_names
    by_class = {name: dice(**counts) for name, counts in zip(names, class_counts(table), strict=True)}
    scored = [value for name, value in by_class.items() if name != names[0] or num_classes == 1]
    only = next(iter(predicted_ids)) if len(predicted_ids) == 1 else None
    return LiveScores(
        {"mean_dice": mean(scored), "pixel_error": pixel_error(table), "dice": by_class},
        constant=None if only is None else names[only],
    )
