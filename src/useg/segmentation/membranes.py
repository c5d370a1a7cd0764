"""Cells between membranes: thinned regions, and V_rand and V_info of ISBI 2012, restricted to true cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from useg.arrays import IGNORE, Instances, Labels
from useg.segmentation.agglomeration import Agglomeration
from useg.segmentation.flooding import compact, components, flood
from useg.segmentation.skeletons import skeleton

Mask = Bool[np.ndarray, "*space"]
Probability = Float[np.ndarray, "*space"]


@dataclass(frozen=True)
class CellParameters:
    """What turns probabilities into cells between membranes; chosen on validation data by `tune_cells`.

    Attributes:
        cell_class: which of the classes 0 and 1 is the inside of cells; the other is the membrane.
        seed_threshold: cells start as components of pixels with at least this cell probability, 0..1. A high
            one cuts too often, which `merge_threshold` mends; a low one joins cells through a small gap.
        merge_threshold: neighbours are joined where the mean membrane probability of the line between them is
            below this, 0..1; 0 joins none.
    """

    cell_class: int = 1
    seed_threshold: float = 0.99
    merge_threshold: float = 0.6


def cell_regions(probability: Probability, parameters: CellParameters) -> Instances:
    """Return the regions of cells, grown until the membranes between them are thinned to nothing.

    Args:
        probability: of class 1, 0..1, 2D or 3D.
        parameters: see there.

    Returns:
        Regions that fill the image, ids above 0; one single region when no pixel reaches the seed threshold.
    """
    cell = probability if parameters.cell_class == 1 else 1 - probability
    regions = thin(cell, parameters.seed_threshold)
    return Agglomeration(regions, 1 - cell).below(parameters.merge_threshold)


def thin(cell_probability: Probability, threshold: float) -> Instances:
    """Return the regions that cells grow to when the membranes between them are thinned to nothing.

    Cells are the face-connected components with `cell_probability >= threshold`; a watershed grows them over
    the rest, likely cell first, until they meet. So the width of a membrane does not matter, only whether it
    is closed.

    Args:
        cell_probability: 0..1, of being inside a cell (not membrane), 2D or 3D.
        threshold: 0..1; higher separates more.

    Returns:
        Regions 1..n that fill the image; one single region when no pixel reaches the threshold.
    """
    markers = components(cell_probability >= threshold)
    if not markers.any():
        return np.ones(cell_probability.shape, dtype=np.int32)
    return flood(-cell_probability, markers, np.ones(cell_probability.shape, dtype=bool))


def thin_mask(cells: Mask) -> Instances:
    """Return the regions that the components of a mask of cells grow to, each over what is nearest to it."""
    if not cells.any():
        return np.ones(cells.shape, dtype=np.int32)
    return flood(ndimage.distance_transform_edt(~cells), components(cells), np.ones(cells.shape, dtype=bool))


def membrane_class(labels: Sequence[Labels]) -> int | None:
    """Return which of the classes 0 and 1 looks like membranes between cells, or None for other pictures.

    Membranes are a thin network, on average at most 12 pixels wide, of the rarer class, and cut the other
    class into many parts of about the same size: two pixels of that class drawn at random lie in the same
    part less often than once in 12 draws. (Vessels cut the background into parts, too, but one or two of them
    hold most of it.)

    Args:
        labels: some label maps of a task with two classes. More classes, or none, give None.
    """
    counts = np.sum([np.bincount(label.reshape(-1), minlength=256)[:IGNORE] for label in labels], axis=0)
    if not len(labels) or counts[2:].any() or not counts[:2].all():
        return None
    thin_class = int(counts[1] < counts[0])
    together, line_px = [], 0
    for label in labels:
        sizes = np.bincount(components(label == 1 - thin_class).reshape(-1))[1:].astype(np.float64)
        together.append(np.square(sizes / max(sizes.sum(), 1.0)).sum())
        line_px += int(skeleton(label == thin_class).sum())
    return thin_class if np.mean(together) < 1 / 12 and counts[thin_class] <= 12 * line_px else None


@dataclass(frozen=True)
class RegionCounts:
    """How predicted regions and true cells share the true cells' pixels, of one image or of many by adding.

    Attributes:
        pixels: n, pixels of true cells.
        shared_squares: sum over pairs of n_ij squared, n_ij pixels in predicted region i and true cell j.
        truth_squares: sum of n_j squared over true cells.
        predicted_squares: sum of n_i squared over predicted regions, counted inside true cells.
        shared_entropy: - sum of n_ij log2(n_ij / n), bits times pixels.
        truth_entropy: - sum of n_j log2(n_j / n).
        predicted_entropy: - sum of n_i log2(n_i / n).
    """

    pixels: int = 0
    shared_squares: float = 0.0
    truth_squares: float = 0.0
    predicted_squares: float = 0.0
    shared_entropy: float = 0.0
    truth_entropy: float = 0.0
    predicted_entropy: float = 0.0

    def __add__(self, other: "RegionCounts") -> "RegionCounts":
        return RegionCounts(
            self.pixels + other.pixels,
            self.shared_squares + other.shared_squares,
            self.truth_squares + other.truth_squares,
            self.predicted_squares + other.predicted_squares,
            self.shared_entropy + other.shared_entropy,
            self.truth_entropy + other.truth_entropy,
            self.predicted_entropy + other.predicted_entropy,
        )

    @property
    def v_rand(self) -> float | None:
        """Rand F-score, 0..1, 1 is perfect; None without a true cell."""
        total = self.truth_squares + self.predicted_squares
        return 2 * self.shared_squares / total if total else None

    @property
    def v_rand_split(self) -> float | None:
        """Share of pixel pairs of a true cell that stay together (low where cells are cut), or None."""
        return self.shared_squares / self.truth_squares if self.truth_squares else None

    @property
    def v_rand_merge(self) -> float | None:
        """Share of pixel pairs of one predicted region that belong together (low: cells are merged)."""
        return self.shared_squares / self.predicted_squares if self.predicted_squares else None

    @property
    def v_info(self) -> float | None:
        """Information F-score, 0..1: 2 I / (H_truth + H_predicted)."""
        if not self.pixels:
            return None
        total = self.truth_entropy + self.predicted_entropy
        return 2 * (total - self.shared_entropy) / total if total > 0 else 1.0

    @property
    def variation_of_information(self) -> float | None:
        """Bits a pixel, 0 is perfect; None without a true cell."""
        if not self.pixels:
            return None
        return (2 * self.shared_entropy - self.truth_entropy - self.predicted_entropy) / self.pixels


def count_regions(true_cells: Instances, regions: Instances) -> RegionCounts:
    """Count how regions and true cells share pixels; only pixels inside a true cell (id above 0) count.

    Args:
        true_cells: components of the true cell class, 0 on membranes and on pixels to ignore.
        regions: from `cell_regions` or `thin`; any id counts as a region, 0 too.

    Raises:
        ValueError: shapes differ.

    Source:
        Arganda-Carreras et al. 2015, section "Evaluation metrics" (alpha = 0.5): pixel pairs are drawn with
        replacement. scikit-image's `adapted_rand_error` draws without, so `1 - error` differs from V_rand by
        less than 1 over the mean pixels of a cell.
    """
    if true_cells.shape != regions.shape:
        raise ValueError(f"maps must have the same shape, got {true_cells.shape} and {regions.shape}")
    inside = true_cells > 0
    truth, true_ids = compact(true_cells[inside])
    predicted, predicted_ids = compact(regions[inside])
    columns = predicted_ids.size + 1
    code = truth.astype(np.int64) * columns + predicted
    if (true_ids.size + 1) * columns <= max(4 * code.size, 1 << 20):
        shared = np.bincount(code)
        shared = shared[shared > 0]
    else:
        shared = np.unique(code, return_counts=True)[1]
    true_sizes = np.bincount(truth)
    predicted_sizes = np.bincount(predicted)
    total = int(truth.size)
    return RegionCounts(
        pixels=total,
        shared_squares=_squares(shared),
        truth_squares=_squares(true_sizes),
        predicted_squares=_squares(predicted_sizes),
        shared_entropy=_entropy(shared, total),
        truth_entropy=_entropy(true_sizes, total),
        predicted_entropy=_entropy(predicted_sizes, total),
    )


def _squares(sizes: np.ndarray) -> float:
    return float(np.square(sizes.astype(np.float64)).sum())


def _entropy(sizes: np.ndarray, total: int) -> float:
    there = sizes[sizes > 0].astype(np.float64)
    return float(abs((there * np.log2(there / total)).sum())) if total else 0.0
