"""What a user should know about a data set before training on it, in sentences."""

from collections.abc import Sequence

from useg.data.alignment import find_misfit
from useg.data.fingerprint import DuplicatePair, Fingerprint
from useg.data.labels import LabelMapping
from useg.data.measure import SampleRecord

FEW_LABELLED = 5
"""Fewer labelled samples than this leave little to measure a result on."""

RARE_SHARE = 0.001
"""A class with a smaller share of pixels is rare."""


def warnings_about(
    fingerprint: Fingerprint, mapping: LabelMapping | None, records: Sequence[SampleRecord]
) -> list[str]:
    """Everything worth a second look, the gravest first.

    Args:
        fingerprint: of the records.
        mapping: of the labels, or None.
        records: all readable samples.
    """
    return [
        *about_duplicates(fingerprint.duplicates),
        *_orientation(records),
        *_classes(fingerprint, mapping),
        *_channels(fingerprint, records),
        *_series(fingerprint),
    ]


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def about_duplicates(duplicates: Sequence[DuplicatePair]) -> list[str]:
    """What to know of samples that show the same picture."""
    found = []
    across = [p for p in duplicates if p.across_splits]
    within = [p for p in duplicates if not p.across_splits]
    for pairs, where in (
        (across, "lie in different splits, so scores will look better than they are"),
        (within, ""),
    ):
        for exact in (True, False):
            some = [f"{p.first} = {p.second}" for p in pairs if p.exact is exact]
            if some:
                what = "show exactly the same picture" if exact else "show nearly the same picture"
                advice = where or "they are kept in one split"
                found.append(f"{len(some)} pairs {what}; {advice}: {_some(some)}")
    return found


def _orientation(records: Sequence[SampleRecord]) -> list[str]:
    doubtful = [
        r.sample.key
        for r in records
        if r.headers and r.census is not None and r.header.orientation != 1 and not r.turned and not r.label_upright
    ]
    found = _misfit(records)
    if not doubtful:
        return found
    return [
        *found,
        f"{len(doubtful)} images carry an EXIF rotation and their masks none; sizes fit either way, so check "
        f"that they lie on each other: {_some(doubtful)}",
    ]


def _misfit(records: Sequence[SampleRecord]) -> list[str]:
    scored = [(r.sample.key, r.turn_scores) for r in records if r.turn_scores is not None]
    misfit = find_misfit([scores for _, scores in scored])
    if misfit is None:
        return []
    keys = [scored[i][0] for i in misfit.samples]
    return [
        f"masks seem not to lie on their images: {misfit.turn}, they would fit better in {len(keys)} of "
        f"{len(scored)} samples: {_some(keys)}"
    ]


def _classes(fingerprint: Fingerprint, mapping: LabelMapping | None) -> list[str]:
    if mapping is None:
        return ["there are no labels: this folder is for predicting, not for training"]
    found = []
    if fingerprint.labelled < FEW_LABELLED:
        found.append(f"only {fingerprint.labelled} labelled samples: scores will say little about other images")
    absent = [c.name for c in fingerprint.classes if not c.pixels]
    if absent:
        found.append(f"classes that occur nowhere: {_some(absent)}")
    rare = [f"{c.name} ({100 * c.share:.2g} %)" for c in fingerprint.classes if 0 < c.share < RARE_SHARE]
    if rare:
        found.append(f"rare classes: {_some(rare)}")
    few = [f"{c.name} ({c.samples})" for c in fingerprint.classes if 0 < c.samples < min(3, fingerprint.labelled)]
    if few:
        found.append(f"classes in one or two samples only, hard to both learn and measure: {_some(few)}")
    if fingerprint.empty_samples:
        found.append(f"{len(fingerprint.empty_samples)} masks are empty: {_some(fingerprint.empty_samples)}")
    if _maybe_inverted(fingerprint, mapping):
        share = 100 * fingerprint.classes[1].share
        found.append(
            f"the foreground covers {share:.0f} % of the pixels; if the masks are inverted (the smaller part "
            "is what you look for), exchange the values of the two classes in classes.toml"
        )
    return found


def _maybe_inverted(fingerprint: Fingerprint, mapping: LabelMapping) -> bool:
    two = mapping.num_classes == 2 and mapping.kind in ("values", "threshold")
    return two and mapping.class_names[0] == "background" and fingerprint.classes[1].share > 0.6


def _channels(fingerprint: Fingerprint, records: Sequence[SampleRecord]) -> list[str]:
    found = []
    statistics = fingerprint.channel_statistics
    coded = [c.name for c in statistics if c.kind == "categorical"]
    if coded:
        found.append(f"channels that hold codes or flags, not amounts: {_some(coded)}")
    for channel in statistics:
        if channel.nodata:
            values = ", ".join(f"{v:g}" for v in channel.nodata)
            found.append(
                f"channel {channel.name}: {values} means nothing measured "
                f"({100 * channel.nodata_share:.2g} % of pixels)"
            )
        if channel.nonfinite:
            found.append(f"channel {channel.name} holds NaN or infinite values")
    if fingerprint.mixed_colour:
        found.append("grey and colour pictures are mixed; grey ones are repeated to three channels")
    if len(fingerprint.used_channels) < len(statistics):
        constant = [c.name for c in statistics if c.kind == "constant"]
        found.append(f"channels with one value only, left out: {_some(constant)}")
    flat = [r.sample.key for r in records if r.channels and all(c.minimum == c.maximum for c in r.channels)]
    if flat:
        found.append(f"{len(flat)} images have one value only: {_some(flat)}")
    alpha = [r.sample.key for r in records if not r.alpha_says_nothing]
    if alpha:
        found.append(f"{len(alpha)} images have an alpha channel that varies: {_some(alpha)}")
    return found


def _series(fingerprint: Fingerprint) -> list[str]:
    if not fingerprint.sequence:
        return []
    return [
        f"neighbouring images look alike (correlation {fingerprint.neighbour_correlation:.2f}, distant ones "
        f"{fingerprint.distant_correlation:.2f}), like slices of a stack: split them in blocks, not at random"
    ]
