"""Early stopping against obvious twins."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from useg.experiments.sweep.stopping import EarlyStopping, is_hopeless

CURVE = st.lists(st.integers(0, 20), max_size=10).map(
    lambda values: [((place + 1) / 10, float(value)) for place, value in enumerate(values)]
)
CURVES = st.lists(CURVE, max_size=12)


@given(CURVE, CURVES, st.sampled_from([2, 3, 4]), st.sampled_from([0.1, 0.2, 0.25]))
def test_asha_keeps_the_best_share_of_each_rung(own, others, reduction, first) -> None:
    rule = EarlyStopping(method="asha", reduction=reduction, first_share=first)

    def naive() -> bool:
        if not own or own[-1][0] >= 1:
            return False
        rung = first
        while rung < 1:
            reached = [[value for share, value in curve if share >= rung - 1e-9][:1] for curve in [own, *others]]
            if not reached[0]:
                return False
            board = sorted((each[0] for each in reached if each), reverse=True)
            if len(board) >= reduction:
                worst_kept = board[len(board) // reduction - 1]
                if reached[0][0] < worst_kept:
                    return True
            rung *= reduction
        return False

    assert is_hopeless(rule, own, others) == naive()


@given(CURVE, CURVES, st.integers(1, 4))
def test_the_median_of_what_others_had_on_average(own, others, fewest) -> None:
    rule = EarlyStopping(method="median", fewest=fewest, first_share=0.3)
    expected = False
    if own and 0.3 <= own[-1][0] < 1:
        length = len(own)
        means = [sum(v for _, v in curve[:length]) / length for curve in others if len(curve) >= length]
        expected = len(means) >= fewest and max(v for _, v in own) < statistics.median(means) - 1e-12
    assert is_hopeless(rule, own, others) == expected


def test_few_trials_are_never_stopped() -> None:
    bad, good = [(0.1, 0.0), (0.2, 0.0)], [(0.1, 1.0), (0.2, 1.0)]
    assert not is_hopeless(EarlyStopping(), bad, [good])
    assert is_hopeless(EarlyStopping(), bad, [good, good])
    assert not is_hopeless(EarlyStopping(method="median"), bad, [good] * 4)
    assert is_hopeless(EarlyStopping(method="median"), bad, [good] * 5)
