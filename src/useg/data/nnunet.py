"""The raw layout of nnU-Net: dataset.json beside imagesTr, labelsTr and imagesTs, one file a channel."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from useg.data.images import is_image
from useg.data.listing import list_files
from useg.data.reading import Reading, Sample, natural_order
from useg.data.roles import split_suffix
from useg.errors import DataError, Problem

DESCRIPTION = "dataset.json"
_PARTS = (("Tr", None), ("Ts", "test"))
_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


def is_nnunet(files: tuple[str, ...]) -> bool:
    """Whether there is a dataset.json beside imagesTr."""
    return DESCRIPTION in files and any(path.startswith("imagesTr/") for path in files)


def read_nnunet(root: Path) -> Reading:
    """Read the raw layout, of version 1 (also that of the Medical Segmentation Decathlon) or 2.

    Class names, the ignore label and channel names of dataset.json become hints. Cases of imagesTs are the
    test part; without labelsTs they have no labels.

    Raises:
        DataError: dataset.json is not JSON, or lacks `labels`, or no image is there.
    """
    described = _description(root / DESCRIPTION)
    listing = list_files(root)
    wanted = len(described.get("channel_names") or described.get("modality") or {})
    samples: list[Sample] = []
    problems: list[Problem] = []
    used = {DESCRIPTION}
    for part, split in _PARTS:
        images = _images(listing.files, f"images{part}/", wanted)
        labels = {_case(path): path for path in listing.files if path.startswith(f"labels{part}/") and _readable(path)}
        for case in sorted(images, key=natural_order):
            channels, label = images[case], labels.pop(case, None)
            used |= {*channels.values(), *([label] if label else [])}
            missing = [f"{channel:04d}" for channel in range(wanted) if channel not in channels] if wanted > 1 else []
            if missing:
                what = f"channels {', '.join(missing)} of case {case} are missing; {DESCRIPTION} names {wanted}"
                problems.append(Problem(str(root / f"images{part}"), what))
            if label is None and (part == "Tr" or labels):
                where = str(root / next(iter(channels.values())))
                problems.append(
                    Problem(where, f"no file in labels{part} is called {case}", "add it, or take this away")
                )
            samples.append(
                Sample(
                    key=case if split is None else f"{split}/{case}",
                    images=tuple(str(root / channels[channel]) for channel in sorted(channels)),
                    labels=(str(root / label),) if label else (),
                    split=split,
                )
            )
        for path in labels.values():
            problems.append(Problem(str(root / path), f"no image in images{part} goes with this label"))
            used.add(path)
    if not samples:
        raise DataError(f"{root}: there is a {DESCRIPTION}, but no image in imagesTr that can be read")
    labelled = sum(bool(sample.labels) for sample in samples)
    rule = f"{DESCRIPTION} and imagesTr are the raw layout of nnU-Net: {labelled} cases with labels"
    rule += f", {len(samples) - labelled} to predict." if labelled < len(samples) else "."
    leftovers = tuple(path for path in listing.files if path not in used)
    samples.sort(key=lambda sample: natural_order(sample.key))
    return Reading(str(root), tuple(samples), rule, (), leftovers, tuple(problems), _hints(described, root))


def _description(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(described, dict) or not isinstance(described.get("labels"), dict):
        raise DataError(f"{path}: wanted an object with `labels` (class names and their values)")
    return described


def _readable(path: str) -> bool:
    return is_image(Path(path))


def _case(path: str) -> str:
    return split_suffix(path.rpartition("/")[2])[0]


def _images(files: tuple[str, ...], folder: str, wanted: int) -> dict[str, dict[int, str]]:
    """Per case its files by channel; names without a channel number are whole cases."""
    cases: dict[str, dict[int, str]] = defaultdict(dict)
    for path in files:
        if not path.startswith(folder) or not _readable(path):
            continue
        found = _CHANNEL.match(_case(path))
        if found and (not wanted or int(found["channel"]) < wanted):
            cases[found["case"]][int(found["channel"])] = path
        else:
            cases[_case(path)][0] = path
    return cases


def _hints(described: Mapping[str, Any], root: Path) -> dict[str, object]:
    names: dict[int, str] = {}
    ignore: list[int] = []
    regions: dict[str, list[int]] = {}
    for left, right in described["labels"].items():
        if isinstance(right, list):  # a region that joins several labels
            regions[left] = [int(value) for value in right]
            continue
        name, value = (right, left) if isinstance(right, str) and str(left).isdigit() else (left, right)
        if not str(value).isdigit():
            raise DataError(f"{root / DESCRIPTION}: the label {left!r} has the value {right!r}, a number was wanted")
        if str(name).casefold() == "ignore":
            ignore.append(int(value))
        else:
            names[int(value)] = str(name)
    hints: dict[str, object] = {"class_names": dict(sorted(names.items()))}
    if ignore:
        hints["ignore"] = ignore
    if regions:
        hints["class_regions"] = regions
    channels = described.get("channel_names") or described.get("modality")
    if isinstance(channels, dict):
        hints["channel_names"] = [str(channels[key]) for key in sorted(channels, key=natural_order)]
    return hints
