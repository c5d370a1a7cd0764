"""A data set, measured: the numbers from which a training is planned; models only, JSON in and out."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

SCHEMA = 1
"""Number of this model's form; readers of old forms stay."""


class _Measured(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantiles(_Measured):
    """How some number is spread: how many there were, smallest, 5, 25, 50, 75, 95 %, greatest."""

    count: int
    minimum: float
    p05: float
    p25: float
    median: float
    p75: float
    p95: float
    maximum: float

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Quantiles | None":
        """Quantiles of a list of numbers (linear interpolation); None of an empty one."""
        if not numbers.size:
            return None
        q = np.quantile(numbers.astype(np.float64), [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
        low, p05, p25, median, p75, p95, high = (round(float(v), 6) for v in q)
        return cls(
            count=int(numbers.size),
            minimum=low,
            p05=p05,
            p25=p25,
            median=median,
            p75=p75,
            p95=p95,
            maximum=high,
        )


class ChannelStatistics(_Measured):
    """Intensities of one channel, over all samples; each sample weighs the same; nodata values are left out.

    Attributes:
        name: where the data names its channels.
        kind: "constant" channels say nothing; "categorical" ones hold codes or bit flags, not amounts.
        minimum, maximum, mean, std: of the values.
        percentile_00_5, percentile_50, percentile_99_5: of the values.
        nodata: values that mean "nothing measured here", as -9999.
        nodata_share: share of sampled pixels with such a value, or NaN or infinite.
        nonfinite: whether NaN or infinite values occur.
        distinct: how many different values there are, for categorical channels.
        values: these values, where there are at most 16.
        scale_ratio: 95 % over 5 % quantile, over samples, of each one's range (0.5 to 99.5 %); 1: all alike.
    """

    name: str
    kind: Literal["continuous", "categorical", "constant"]
    minimum: float
    maximum: float
    mean: float
    std: float
    percentile_00_5: float
    percentile_50: float
    percentile_99_5: float
    nodata: tuple[float, ...] = ()
    nodata_share: float = 0.0
    nonfinite: bool = False
    distinct: int | None = None
    values: tuple[float, ...] = ()
    scale_ratio: float = 1.0


class ClassStatistics(_Measured):
    """One class: its pixels, their share of all annotated pixels, and in how many samples it occurs."""

    name: str
    pixels: int
    share: float
    samples: int


class ObjectStatistics(_Measured):
    """Objects: those that labels tell apart, else connected pieces of one class (background left out).

    Attributes:
        source: "instances" (labels tell them apart) or "components".
        samples: samples measured (a spread of all, within a bound of pixels).
        per_sample: objects of a sample.
        size_px: pixels of an object.
        extent_px: longest edge of an object's box.
        gap_px: background pixels between neighbouring objects of one class; 0 where they touch.
        touching_share: share of neighbouring pairs that touch.
    """

    source: Literal["instances", "components"]
    samples: int
    per_sample: Quantiles | None
    size_px: Quantiles | None
    extent_px: Quantiles | None
    gap_px: Quantiles | None
    touching_share: float


class DuplicatePair(_Measured):
    """Two samples that show the same picture.

    Attributes:
        exact: the pixels are equal; else nearly so (perceptual hash, checked by correlation).
        across_splits: the two are in different given splits.
    """

    first: str
    second: str
    exact: bool
    correlation: float
    across_splits: bool


class Fingerprint(_Measured):
    """All that was measured on a data set; the same files give the same fingerprint.

    Attributes:
        samples, labelled: how many, and how many have labels.
        ndim: axes of space, 2 or 3.
        channels: of an image as the network gets it (palette looked up; grey among colour pictures repeated).
        mixed_colour: grey and colour pictures occur together.
        used_channels: channels that are not constant.
        dtypes, formats, shapes: how many samples have which; shapes as "H x W" or "D x H x W".
        smallest, median_space, largest: per axis of space.
        pixels: pixels (voxels) of all samples.
        spacing: median per axis in `spacing_unit`; None where files do not say.
        spacing_varies: samples differ in spacing.
        lossy: samples whose image went through a lossy codec.
        intensity_scale_differs: samples differ so much in dtype or range that each needs its own scaling.
        channel_statistics: by channel.
        num_classes, classes: by class id; empty without labels.
        ignored_share: share of pixels without annotation.
        empty_samples: keys of labelled samples without any foreground.
        objects: None without labels.
        sequence: neighbours in natural order look alike (a stack cut in slices, frames): split in blocks.
        neighbour_correlation, distant_correlation: medians on which `sequence` was decided; None if too few.
        duplicates: pairs that show the same picture.
        splits, groups: samples by given split; number of given groups.
    """

    schema_number: int = SCHEMA
    samples: int
    labelled: int
    ndim: int
    channels: int
    mixed_colour: bool
    used_channels: tuple[int, ...]
    dtypes: dict[str, int]
    formats: dict[str, int]
    shapes: dict[str, int]
    smallest: tuple[int, ...]
    median_space: tuple[int, ...]
    largest: tuple[int, ...]
    pixels: int
    spacing: tuple[float, ...] | None
    spacing_unit: str | None
    spacing_varies: bool
    lossy: int
    intensity_scale_differs: bool
    channel_statistics: tuple[ChannelStatistics, ...]
    num_classes: int
    classes: tuple[ClassStatistics, ...]
    ignored_share: float
    empty_samples: tuple[str, ...]
    objects: ObjectStatistics | None
    sequence: bool
    neighbour_correlation: float | None
    distant_correlation: float | None
    duplicates: tuple[DuplicatePair, ...]
    splits: dict[str, int]
    groups: int
