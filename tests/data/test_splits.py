"""Laws of splits, and the golden values that pin them for ever."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.data.splits import GAP, assign_splits, blocks, fold_splits, folds, group_hash, mix, place
from useg.errors import DataError

NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40, unique=True)
SEEDS = st.integers(0, 2**32)


def draw(keys, groups=None, given=None, **more):
    groups = groups or [None] * len(keys)
    given = given or [None] * len(keys)
    return assign_splits(keys, groups, given, **more)


@st.composite
def grouped(draw_from):
    keys = draw_from(NAMES)
    groups = draw_from(
        st.lists(st.sampled_from(["g1", "g2", "g3", "g4", "g5"]), min_size=len(keys), max_size=len(keys))
    )
    return keys, groups


def test_golden():
    # first output of splitmix64 started with 0, from its authors' C program: 0xE220A8397B1DCDAF
    assert mix(0, 0) == 0xE220A8397B1DCDAF
    # first 8 bytes of b3sum of "a" and of the empty input, little-endian
    assert group_hash("") == int.from_bytes(bytes.fromhex("af1349b9f5f9a1a6"), "little")
    assert group_hash("a") == 6027058585768261143
    assert [round(place(name, 7), 12) for name in ("patient001", "train/12", "ß 7")] == GOLDEN_PLACES
    assert "".join(split[0] for split in draw([f"image_{i:02d}" for i in range(40)], seed=0)) == GOLDEN_DRAW


GOLDEN_PLACES = [0.72080301226, 0.624758802707, 0.5749308062]
GOLDEN_DRAW = "ttttttttttttttttvttvttttvttttttvtttttttt"


def test_places_are_uniform():
    places = np.array([place(f"sample {i}", 5) for i in range(4000)])
    assert 0 <= places.min() < places.max() < 1
    assert np.abs(np.histogram(places, bins=10)[0] - 400).max() < 100
    assert abs(np.corrcoef(places, [place(f"sample {i}", 6) for i in range(4000)])[0, 1]) < 0.05


@given(NAMES, SEEDS)
def test_every_sample_has_a_part_and_both_are_there(keys, seed):
    splits = draw(keys, seed=seed)
    assert set(splits) == ({"train", "val"} if len(keys) > 1 else {"train"})


@given(grouped(), SEEDS)
def test_a_group_never_straddles(data, seed):
    keys, groups = data
    splits = draw(keys, groups, seed=seed, fractions={"train": 0.6, "val": 0.2, "test": 0.2})
    for group in set(groups):
        assert len({split for split, other in zip(splits, groups, strict=True) if other == group}) == 1


@given(NAMES, NAMES, SEEDS)
def test_adding_samples_moves_none(keys, more, seed):
    notes: list[str] = []
    before = draw(keys, seed=seed, notes=notes)
    after = draw(sorted({*keys, *more}), seed=seed)
    if not notes:
        assert (
            dict(zip(keys, before, strict=True)).items()
            <= dict(zip(sorted({*keys, *more}), after, strict=True)).items()
        )


@given(NAMES, SEEDS, st.randoms(use_true_random=False))
def test_order_does_not_matter(keys, seed, random):
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert dict(zip(keys, draw(keys, seed=seed), strict=True)) == dict(
        zip(shuffled, draw(shuffled, seed=seed), strict=True)
    )


def test_the_group_nearest_to_the_threshold_moves_and_it_is_said():
    keys = [name for name in (f"s{i}" for i in range(50)) if place(name, 0) > 0.3][:5]
    notes: list[str] = []
    splits = draw(keys, notes=notes)
    assert keys[splits.index("val")] == min(keys, key=lambda key: place(key, 0))
    assert splits.count("val") == 1
    assert len(notes) == 1
    assert "nearest" in notes[0]


@given(NAMES, SEEDS, st.data())
def test_given_splits_are_kept(keys, seed, data):
    given_splits = data.draw(
        st.lists(st.sampled_from(["train", "val", "test", None]), min_size=len(keys), max_size=len(keys))
    )
    splits = draw(keys, given=given_splits, seed=seed)
    for before, after in zip(given_splits, splits, strict=True):
        if before in ("val", "test"):
            assert after == before
        elif "val" in given_splits:
            assert after == "train"
        else:
            assert after in ("train", "val")


def test_validation_is_carved_out_of_train_never_out_of_test():
    keys = [f"k{i}" for i in range(60)]
    given_splits = ["train"] * 40 + ["test"] * 20
    splits = draw(keys, given=given_splits)
    assert splits[40:] == ["test"] * 20
    assert set(splits[:40]) == {"train", "val"}


def test_a_given_split_holds_for_the_whole_group():
    splits = draw(["a", "b", "c", "d"], ["g", "g", "h", "h"], ["test", None, None, None])
    assert splits[:2] == ["test", "test"]


def test_given_splits_that_tear_a_group_are_refused():
    with pytest.raises(DataError, match="groups straddle splits") as caught:
        draw(["a", "b", "c", "d"], ["g", "g", "h", "h"], ["test", "train", "val", "train"])
    assert [problem.where for problem in caught.value.problems] == ["g", "h"]


def test_unknown_splits_and_fractions_are_refused():
    with pytest.raises(DataError, match="unknown splits hold-out"):
        draw(["a"], given=["hold-out"])
    for wrong in (
        {"train": 1.2, "val": -0.2},
        {"train": 0.5, "val": 0.2},
        {"train": 0.8, "dev": 0.2},
        {"val": 1.0},
    ):
        with pytest.raises(ValueError, match="fractions"):
            draw(["a", "b"], fractions=wrong)


@given(st.integers(1, 60), SEEDS, st.sampled_from([0.1, 0.2, 0.5]), st.booleans())
def test_a_sequence_is_cut_into_blocks_with_gaps(count, seed, share, with_test):
    fractions = {"train": 1 - share, "val": share / 2, "test": share / 2} if with_test else None
    fractions = fractions or {"train": 1 - share, "val": share}
    splits = draw([str(i) for i in range(count)], fractions=fractions, seed=seed, sequence=True)
    assert len(splits) == count
    assert "train" in splits
    for part in ("val", "test"):
        places = [i for i, split in enumerate(splits) if split == part]
        assert places == list(range(places[0], places[-1] + 1)) if places else True
    if count >= 4 * len(fractions):
        assert set(splits) >= set(fractions)
        for left, right in pairwise(splits):
            assert left == right or GAP in (left, right)
        assert splits.count(GAP) <= len(fractions)
    elif count >= 2 and not with_test:
        assert "val" in splits


def test_a_sequence_with_known_groups_is_split_by_group():
    keys, groups = [str(i) for i in range(40)], [f"stack{i // 4}" for i in range(40)]
    assert draw(keys, groups, sequence=True) == draw(keys, groups)


def test_the_seed_chooses_the_end_at_which_the_block_lies():
    starts = {draw([str(i) for i in range(30)], seed=seed, sequence=True).index("val") for seed in range(40)}
    assert starts == {0, 24}


@given(grouped(), SEEDS, st.integers(2, 5))
def test_folds_are_grouped_and_balanced(data, seed, k):
    keys, groups = data
    if len(set(groups)) < k:
        with pytest.raises(DataError, match="fewer folds"):
            folds(keys, groups, k, seed)
        return
    found = folds(keys, groups, k, seed)
    assert set(found) == set(range(k))
    loads = np.bincount(found, minlength=k)
    sizes = {group: groups.count(group) for group in set(groups)}
    fold_of = dict(zip(groups, found, strict=True))
    assert len(fold_of) == len({(group, fold) for group, fold in zip(groups, found, strict=True)})
    for group, fold in fold_of.items():
        assert loads[fold] - sizes[group] <= loads.min()


@given(NAMES, SEEDS, st.integers(2, 6), st.randoms(use_true_random=False))
def test_folds_of_single_samples_differ_by_one_and_ignore_order(keys, seed, k, random):
    if len(keys) < k:
        return
    found = folds(keys, [None] * len(keys), k, seed)
    loads = np.bincount(found, minlength=k)
    assert loads.max() - loads.min() <= 1
    shuffled = list(keys)
    random.shuffle(shuffled)
    again = folds(shuffled, [None] * len(keys), k, seed)
    assert dict(zip(keys, found, strict=True)) == dict(zip(shuffled, again, strict=True))


@given(st.integers(2, 80), st.integers(2, 6))
def test_folds_of_a_sequence_are_blocks_of_neighbours(count, k):
    keys = [str(i) for i in range(count)]
    if count < k:
        with pytest.raises(DataError, match="only"):
            folds(keys, [None] * count, k, sequence=True)
        return
    found = folds(keys, [None] * count, k, sequence=True)
    assert found == sorted(found)
    loads = np.bincount(found, minlength=k)
    assert loads.max() - loads.min() <= 1
    for fold in range(k):
        splits = fold_splits(found, fold, sequence=True)
        assert [i for i, s in enumerate(splits) if s == "val"] == [i for i, f in enumerate(found) if f == fold]
        assert all(left == right or GAP in (left, right) for left, right in pairwise(splits))
        assert fold_splits(found, fold) == ["val" if f == fold else "train" for f in found]


def test_one_fold_is_none():
    with pytest.raises(ValueError, match="at least 2 folds"):
        folds(["a"], [None], 1)


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=3),
    st.floats(0.05, 0.6),
    st.integers(0, 12),
    SEEDS,
)
def test_blocks_never_touch(space, fraction, gap_px, seed):
    try:
        cut = blocks(tuple(space), fraction, gap_px, seed)
    except DataError:
        assert max(space) - max(1, round(fraction * max(space))) - gap_px < 1
        return
    marks = np.zeros(space, int)
    marks[cut.val] += 1
    for window in cut.train:
        marks[window] += 2
    assert set(np.unique(marks)) <= {0, 1, 2}
    along = int(np.argmax([window.stop - window.start != size for window, size in zip(cut.val, space, strict=True)]))
    lines = marks.max(axis=tuple(i for i in range(len(space)) if i != along))
    assert (lines == 0).sum() == gap_px
    val, train = np.flatnonzero(lines == 1), np.flatnonzero(lines == 2)
    assert len(val) == max(1, round(fraction * space[along]))
    assert min(abs(v - t) for v in val for t in train) == gap_px + 1


def test_the_seed_chooses_the_end():
    assert {blocks((20, 100), 0.2, 4, seed).val[1].start for seed in range(20)} == {0, 80}


def test_blocks_of_a_tiny_image_are_refused():
    with pytest.raises(DataError, match="add a second image"):
        blocks((8, 8), 0.5, 6)
    with pytest.raises(ValueError, match="fraction"):
        blocks((8, 8), 1.0, 0)
