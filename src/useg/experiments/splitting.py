"""Which samples are for training, for validation and for testing."""

from collections import Counter

from useg.config import Config
from useg.data.fingerprint import Fingerprint
from useg.data.samples import Samples
from useg.data.splits import GAP, assign_splits, blocks, fold_splits, folds
from useg.errors import DataError

FEW_SLICES = 32
"""Of a stack of at most so many slices a band of each is held out, of a longer one a block of slices."""

SMALLEST_BAND_PX = 48
"""A narrower band says too little of what lies next to its edges."""


def split_samples(
    samples: Samples, config: Config, fingerprint: Fingerprint, notes: list[str]
) -> tuple[tuple[str, ...], ...]:
    """The splits of each fold; of one without folds. Images may be cut into parts for it.

    Args:
        samples: to be split. config: shares, folds, seed.
        fingerprint: says whether they are a sequence, and which show the same.
        notes: gets what the user should know.

    Raises:
        DataError: nothing is left to train on.
    """
    keys, given, groups = samples.keys, samples.splits, samples.groups
    if len(samples) == 0:
        raise DataError("no sample has labels, so there is nothing to train on")
    if len(samples) == 1 and config.folds <= 1 and given[0] in (None, "train"):
        return (_split_one(samples, config, notes),)
    alone = len({*groups}) == 1
    sequence = fingerprint.sequence or (samples.planes and alone)
    # blocks of a sequence need samples without groups: there, twins of held-out samples are left out afterwards
    in_blocks = sequence and alone
    if in_blocks and config.folds <= 1 and (bands := _split_bands(samples, config, notes)) is not None:
        return (bands,)
    if not in_blocks:
        groups = _with_duplicates(samples, fingerprint)
    if config.folds > 1:
        found = _split_folds(keys, groups, given, config, notes, sequence=sequence)
        found = found if config.fold is None else (found[config.fold],)
    else:
        found = (_split_once(keys, groups, given, config, notes, sequence=sequence),)
    return tuple(_without_twins(splits, keys, fingerprint) for splits in found) if in_blocks else found


def _split_folds(
    keys: list[str],
    groups: list[str | None],
    given: list[str | None],
    config: Config,
    notes: list[str],
    *,
    sequence: bool,
) -> tuple[tuple[str, ...], ...]:
    """The splits of each fold; the test part is the same in all of them and belongs to none."""
    if config.data.test > 0:
        shares = {"train": 1 - config.data.test, "test": config.data.test}
        apart = assign_splits(
            keys, groups, given, fractions=shares, seed=config.split_seed, sequence=sequence, notes=notes
        )
        given = [*apart]
    trainable = [i for i, split in enumerate(given) if split in (None, "train", "val")]
    fold_of = folds(
        [keys[i] for i in trainable], [groups[i] for i in trainable], config.folds, config.split_seed, sequence=sequence
    )
    result = []
    for fold in range(config.folds):
        splits = [split or "train" for split in given]
        for index, split in zip(trainable, fold_splits(fold_of, fold, sequence=sequence), strict=True):
            splits[index] = split
        result.append(tuple(splits))
    return tuple(result)


def _split_once(
    keys: list[str],
    groups: list[str | None],
    given: list[str | None],
    config: Config,
    notes: list[str],
    *,
    sequence: bool,
) -> tuple[str, ...]:
    validation, test = config.data.validation, config.data.test
    splits = assign_splits(
        keys,
        groups,
        given,
        fractions={"train": 1 - validation - test, "val": validation, "test": test},
        seed=config.split_seed,
        sequence=sequence,
        notes=notes,
    )
    counts = Counter(splits)
    if counts["train"] == 0:
        raise DataError("no sample is left for training: every one is given as val or test")
    if counts["val"] == 0:
        notes.append(
            "there is a single sample (or group): it is trained on and scored on alike, so the scores are "
            "optimistic; annotate a second image for honest ones"
        )
        splits = ["val+train" if split == "train" else split for split in splits]
    if sequence:
        notes.append("neighbouring samples look alike: validation is one block of them, with a gap")
    return tuple(splits)


def _with_duplicates(samples: Samples, fingerprint: Fingerprint) -> list[str | None]:
    """Groups, joined where samples of two of them show the same picture; planes follow their volume."""
    keys, groups = samples.keys, samples.groups
    whole = [samples.sample(index).key for index in range(len(samples))]
    names = [key if group is None else group for key, group in zip(keys, groups, strict=True)]
    joined = dict(zip(whole, names, strict=True))
    for pair in fingerprint.duplicates:
        old, new = joined.get(pair.second), joined.get(pair.first)
        if old is not None and new is not None and not pair.across_splits:
            joined = {key: new if name == old else name for key, name in joined.items()}
    counts = Counter(joined[key] for key in whole)
    return [
        joined[key] if group is not None or counts[joined[key]] > 1 else None
        for key, group in zip(whole, groups, strict=True)
    ]


def _without_twins(splits: tuple[str, ...], keys: list[str], fingerprint: Fingerprint) -> tuple[str, ...]:
    """Leaves out training samples that show the same picture as a held-out one, unless none would remain."""
    split_of = dict(zip(keys, splits, strict=True))
    held_out = {"val", "test"}
    twins = {
        one
        for pair in fingerprint.duplicates
        for one, other in ((pair.first, pair.second), (pair.second, pair.first))
        if split_of.get(one) == "train" and split_of.get(other) in held_out and not pair.across_splits
    }
    fewer = tuple(GAP if key in twins else split for key, split in zip(keys, splits, strict=True))
    return fewer if "train" in fewer else splits


def _split_one(samples: Samples, config: Config, notes: list[str]) -> tuple[str, ...]:
    """A single image is cut into a part to learn from and a part held out, with a gap between them."""
    space = samples.space(0)
    cut = blocks(space, config.data.validation, gap_px=max(1, min(16, max(space) // 20)), seed=config.split_seed)
    samples.cut({0: [*cut.train, cut.val]})
    notes.append(
        "there is a single image: a block of it is held out for validation, with a gap. Neighbouring parts of one "
        "image are alike, so its scores are optimistic; annotate a second image for honest ones"
    )
    return ("train",) * len(cut.train) + ("val",)


def _split_bands(samples: Samples, config: Config, notes: list[str]) -> tuple[str, ...] | None:
    """The same band of every slice of a short stack is held out, with a gap; None where whole slices are.

    Where slices are few, a block of them that is left out takes along what no other slice shows.
    """
    given = samples.splits
    learned = [index for index, split in enumerate(given) if split in (None, "train")]
    spaces = {samples.space(index) for index in learned}
    held_out = min(max(space) for space in spaces) * config.data.validation if spaces else 0
    plain = config.data.test == 0 and "val" not in given and len(spaces) == 1 and {len(s) for s in spaces} == {2}
    if not plain or not 1 < len(learned) <= FEW_SLICES or held_out < SMALLEST_BAND_PX:
        return None
    (space,) = spaces
    cut = blocks(space, config.data.validation, gap_px=max(1, min(16, max(space) // 20)), seed=config.split_seed)
    origins = samples.cut({index: [*cut.train, cut.val] for index in learned})
    parts = iter((*("train",) * len(cut.train), "val") * len(learned))
    notes.append(
        "neighbouring samples look alike, and they are few: the same band of each is held out for validation, with a "
        "gap. Slices that were never seen may come out less well; give a column split to hold out whole ones"
    )
    cut_up = set(learned)
    return tuple(next(parts) if origin in cut_up else given[origin] or "train" for origin in origins)
