"""What a data folder was read as: samples, and the words about how they were found."""

import os
import re
from dataclasses import dataclass, field, replace

from useg.errors import Problem


@dataclass(frozen=True)
class Sample:
    """One image with what is known about it; refs are paths, `file.h5#dataset` or `clip.mp4#frame`.

    Attributes:
        key: unique in its reading and stable: made of the image's own folder and file name.
        images: refs; several are channels in several files.
        labels: refs; none, one label map, or (with `masks_are_objects`) one mask per object.
        masks_are_objects: each label file marks one object.
        region: mask of where labels count (field of view); outside it pixels are ignored.
        group: samples of one group never straddle splits.
        split: "train", "val" or "test" as given by the folder or by pairs.csv; None when not given.
        metadata: further columns or facts, as text.
    """

    key: str
    images: tuple[str, ...]
    labels: tuple[str, ...] = ()
    masks_are_objects: bool = False
    region: str | None = None
    group: str | None = None
    split: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """A folder as samples, and what else it could have been.

    Attributes:
        root: the folder or file that was read.
        samples: in natural order of their keys (0, 1, 2, 10). A sample without labels is one to predict.
        rule: the reading taken, in one or a few sentences.
        alternatives: other readings that were possible, one sentence each.
        leftovers: files that belong to no sample, relative to `root`.
        problems: what is wrong, file by file, e.g. an image without a label.
        hints: facts found on the way: "class_names" ({value: name}), "ignore" ([value]),
            "channel_names" ([name]), "mapping" (text of a classes.toml).
    """

    root: str
    samples: tuple[Sample, ...]
    rule: str
    alternatives: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    hints: dict[str, object] = field(default_factory=dict)


def absolute(sample: Sample) -> Sample:
    """The sample with refs that do not depend on the working directory."""
    return replace(
        sample,
        images=tuple(map(os.path.abspath, sample.images)),
        labels=tuple(map(os.path.abspath, sample.labels)),
        region=None if sample.region is None else os.path.abspath(sample.region),
    )


_NUMBER = re.compile(r"(\d+)")


def natural_order(text: str) -> tuple[list[str | int], str]:
    """Sort key in which numbers count as numbers: 0, 1, 2, 10; ties (`01` and `1`) are broken by the text.

    >>> sorted(["10", "2", "1"], key=natural_order)
    ['1', '2', '10']
    """
    parts: list[str | int] = list(_NUMBER.split(text.casefold()))
    parts[1::2] = map(int, parts[1::2])
    return parts, text
