"""Whether scores on the same samples differ: laws, small cases by hand, other people's tests, and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from useg.runs.paired import ALPHA, compare_pairs, groups_needed, holm, sign_flip_p, smallest_p

NAN = math.nan
SCORES = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=1, max_size=9)


def naive_sign_flip_p(sums):
    observed = abs(sum(sums))
    totals = [
        sum(s * v for s, v in zip(signs, sums, strict=True)) for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    return sum(abs(total) >= observed - 1e-9 for total in totals) / len(totals)


@given(SCORES)
def test_sign_flips_are_those_of_the_naive_twin(sums):
    assert sign_flip_p(sums) == pytest.approx(naive_sign_flip_p(sums))


@given(SCORES, st.randoms())
def test_neither_order_nor_direction_changes_p(sums, random):
    shuffled = sums[:]
    random.shuffle(shuffled)
    assert sign_flip_p(sums) == sign_flip_p(shuffled) == sign_flip_p([-value for value in sums])


def test_sign_flips_agree_with_those_of_scipy():
    drawn = np.random.default_rng(0).normal(0.3, 1, 12)
    theirs = stats.permutation_test(
        (drawn,), lambda values, axis: np.mean(values, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(drawn) == pytest.approx(theirs.pvalue)


def test_random_flips_are_near_the_exact_answer():
    drawn = np.random.default_rng(1).normal(0.5, 1, 18)
    signs = 1 - 2 * ((np.arange(2**17)[:, None] >> np.arange(17)) & 1)
    exact = np.mean(np.abs(signs @ drawn[:-1] + drawn[-1]) >= abs(drawn.sum()) - 1e-9)
    assert sign_flip_p(drawn) == pytest.approx(exact, abs=4 * math.sqrt(exact / 19_999))
    assert sign_flip_p(drawn) == sign_flip_p(drawn)


def test_random_flips_never_say_that_something_is_impossible():
    assert sign_flip_p(np.ones(300)) == pytest.approx(1 / 20_000)
    assert smallest_p(300) == pytest.approx(1 / 20_000)


@pytest.mark.parametrize(("groups", "least"), [(1, 1.0), (2, 0.5), (4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_the_smallest_p_is_what_samples_that_agree_give(groups, least):
    assert smallest_p(groups) == sign_flip_p([0.1] * groups) == least


def test_so_many_groups_are_needed():
    assert groups_needed() == 6
    for comparisons in (1, 2, 3, 6, 10, 45):
        needed = groups_needed(comparisons)
        assert smallest_p(needed) * comparisons <= ALPHA < smallest_p(needed - 1) * comparisons


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_between_no_correction_and_that_of_bonferroni(ps):
    for p, corrected in zip(ps, holm(ps), strict=True):
        assert p <= corrected <= min(1.0, len(ps) * p)
    assert [p for _, p in sorted(zip(ps, holm(ps), strict=True))] == sorted(holm(ps))


def test_one_run_of_each_by_hand():
    found = compare_pairs([[0.5, 0.6, 0.7, NAN]], [[0.6, 0.8, 0.7, 0.9]])
    assert (found.samples, found.left_out, found.groups) == (3, 1, 3)
    assert found.difference == pytest.approx(0.1)
    assert (found.first, found.second) == (pytest.approx(0.6), pytest.approx(0.7))
    assert found.p_samples == 0.5
    assert found.low < 0.1 < found.high
    assert found.p_seeds is None
    assert found.spreads == (None, None)


def test_the_other_way_round_is_the_mirror_image():
    draw = np.random.default_rng(3)
    first, second = draw.random((2, 1, 30))
    one, other = compare_pairs(first, second), compare_pairs(second, first)
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert (one.p, one.difference) == (other.p, pytest.approx(-other.difference))


def test_the_interval_is_near_that_of_student_where_that_holds():
    for count in (4, 10, 50):
        drawn = np.random.default_rng(count).normal(0.2, 0.1, count)
        found = compare_pairs([np.zeros(count)], [drawn])
        theirs = stats.ttest_1samp(drawn, 0).confidence_interval()
        width = theirs.high - theirs.low
        assert found.low == pytest.approx(theirs.low, abs=0.12 * width)
        assert found.high == pytest.approx(theirs.high, abs=0.12 * width)


def test_samples_of_a_group_stand_or_fall_together():
    draw = np.random.default_rng(5)
    by_patient = np.repeat(draw.normal(0.02, 0.05, 8), 10)
    names = [f"patient {number // 10}" for number in range(80)]
    alone, grouped = compare_pairs([np.zeros(80)], [by_patient]), compare_pairs([np.zeros(80)], [by_patient], names)
    assert grouped.groups == 8
    assert grouped.samples == 80
    assert grouped.difference == pytest.approx(alone.difference)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert grouped.p > alone.p
    once = compare_pairs([np.zeros(8)], [by_patient[::10]])
    assert (grouped.low, grouped.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert grouped.p == once.p


def test_a_sample_without_a_group_is_not_of_the_group_of_another_one():
    assert compare_pairs([[0.0, 0, 0]], [[1.0, 2, 3]], [None, None, "x"]).groups == 3


@pytest.mark.parametrize("second", [[[0.5, 0.5]], [[0.5, NAN]]])
def test_all_equal_is_no_difference(second):
    found = compare_pairs([[0.5, 0.5]], second)
    assert (found.difference, found.p) == (0.0, 1.0)


def test_the_same_difference_everywhere_has_no_width():
    found = compare_pairs([[0.25] * 10], [[0.5] * 10])
    assert (found.low, found.difference, found.high) == (0.25, 0.25, 0.25)
    assert found.p == 2**-9


@pytest.mark.parametrize(("first", "second"), [([[NAN]], [[1.0]]), ([[]], [[]]), ([[NAN, 1]], [[1, NAN]])])
def test_without_a_pair_nothing_is_said(first, second):
    found = compare_pairs(first, second)
    assert (found.samples, found.p) == (0, 1.0)
    assert math.isnan(found.difference)
    assert math.isnan(found.low)


def test_a_single_sample_has_no_interval():
    found = compare_pairs([[0.1]], [[0.9]])
    assert (found.difference, found.p, found.smallest_p) == (pytest.approx(0.8), 1.0, 1.0)
    assert math.isnan(found.low)


def test_infinite_values_count_by_their_sign():
    first, second = [[math.inf, 3, 4, 5, 6, 7]], [[math.inf, 2, 3, 4, 5, math.inf]]
    found = compare_pairs(first, second)
    assert found.samples == 6
    assert found.difference == -1
    assert found.p_samples == naive_sign_flip_p([0, -1, -1, -1, -1, 1])
    assert math.isnan(found.low)
    assert compare_pairs([[math.inf] * 6], [[1.0] * 6]).difference == -math.inf
    assert compare_pairs([[math.inf] * 3, [1.0] * 3], [[1.0] * 3]).p_seeds is None


def test_runs_with_several_seeds_by_hand():
    first = [[0.5, 0.6], [0.7, 0.6]]
    second = [[0.8, 0.9], [0.8, 0.7], [0.9, 1.0]]
    found = compare_pairs(first, second)
    assert found.difference == pytest.approx(0.85 - 0.6)
    assert found.spreads == (pytest.approx(np.std([0.55, 0.65], ddof=1)), pytest.approx(0.1))
    assert found.p_seeds == pytest.approx(stats.ttest_ind([0.55, 0.65], [0.85, 0.75, 0.95]).pvalue)
    assert found.p == max(found.p_seeds, found.p_samples)


def test_a_single_run_is_taken_to_be_as_noisy_as_the_other_side():
    first = np.array([[0.50], [0.52], [0.54]]) + np.zeros((3, 20))
    found = compare_pairs(first, np.full((1, 20), 0.53))
    assert found.spreads == (pytest.approx(0.02), None)
    by_hand = 0.01 / (0.02 * math.sqrt(1 + 1 / 3))
    assert found.p_seeds == pytest.approx(2 * stats.t.sf(by_hand, 2))
    assert found.p_many_seeds == pytest.approx(2 * stats.norm.sf(by_hand))
    assert found.low < -0.05
    assert found.high > 0.07


def test_seeds_without_spread_are_no_noise():
    assert compare_pairs([[0.5] * 8] * 2, [[0.6] * 8] * 2).p_seeds == 0
    assert compare_pairs([[0.5] * 8] * 2, [[0.5] * 8] * 2).p_seeds == 1


def test_a_value_that_one_seed_lacks_is_that_of_the_others():
    found = compare_pairs([[0.2, NAN], [0.4, 0.6]], [[0.5, 0.5], [0.5, 0.5]])
    assert found.samples == 2
    assert found.first == pytest.approx((0.3 + 0.6) / 2)


def test_unequal_numbers_of_samples_are_refused():
    with pytest.raises(ValueError, match="one value for each sample"):
        compare_pairs([[1.0, 2]], [[1.0]])


def _trials(make, count=400):
    """Shares of intervals that hold the truth 0, and of differences that are believed."""
    draw = np.random.default_rng(9)
    found = [compare_pairs(*make(draw)) for _ in range(count)]
    holds = np.mean([each.low <= 0 <= each.high for each in found])
    return holds, np.mean([each.p <= ALPHA for each in found])


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 6, 10, 30])
def test_chance_alone_is_believed_as_often_as_it_should_be(count):
    holds, believed = _trials(lambda draw: (draw.normal(0, 1, (1, count)), draw.normal(0, 1, (1, count))))
    assert 0.92 <= holds <= 0.98
    assert believed <= 0.075  # 400 trials of 5 % give more than that in 1 of 50 cases


@pytest.mark.slow
def test_skewed_differences_cost_some_coverage_and_no_more():
    holds, _ = _trials(lambda draw: (np.zeros((1, 10)), draw.exponential(1, (1, 10)) - 1))
    assert 0.86 <= holds <= 0.96


@pytest.mark.slow
def test_groups_keep_the_coverage_where_samples_alone_would_not():
    names = [number // 8 for number in range(96)]

    def make(draw):
        return np.zeros((1, 96)), (draw.normal(0, 1, (12, 1)) + draw.normal(0, 0.5, (12, 8))).reshape(1, -1)

    holds, believed = _trials(lambda draw: (*make(draw), names))
    assert holds >= 0.92
    assert believed <= 0.075
    assert _trials(make)[0] < 0.7


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "others"), [(3, 3), (5, 5), (3, 1), (2, 2)])
def test_the_noise_between_seeds_is_not_taken_for_a_difference(runs, others):
    def make(draw):
        difficulty = draw.normal(0, 1, 30)
        return [difficulty + draw.normal(0, 0.1, (n, 1)) + draw.normal(0, 0.1, (n, 30)) for n in (runs, others)]

    holds, believed = _trials(make)
    assert holds >= 0.92
    assert believed <= 0.075


@pytest.mark.slow
def test_one_run_of_each_cannot_tell_seeds_from_a_difference():
    """Why a sentence about single runs says that the noise between seeds is not known."""

    def make(draw):
        return [draw.normal(0, 0.1, (1, 1)) + draw.normal(0, 0.1, (1, 30)) for _ in range(2)]

    assert _trials(make)[1] > 0.5
