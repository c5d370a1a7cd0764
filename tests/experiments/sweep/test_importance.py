"""What a setting explains: right on average, honest about how sure that is, silent where there is too little."""

import numpy as np
import pytest

from useg.experiments.sweep.importance import explained, importances, normal_scores


def layout(random: np.random.Generator, count: int, share: float) -> tuple[list[float], list[int]]:
    """Scores of which three levels explain this share."""
    levels = np.arange(count) % 3
    effect = np.array([-1.0, 0.0, 1.0]) * np.sqrt(1.5 * share / (1 - share)) if share else np.zeros(3)
    return list(effect[levels] + random.normal(size=count)), list(levels)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("count", [12, 48])
def test_the_interval_holds_the_true_share_in_about_95_of_100_sweeps(share: float, count: int) -> None:
    random = np.random.default_rng(1)
    found = [explained(*layout(random, count, share)) for _ in range(300)]
    assert all(low <= high for _, low, high in found)
    assert np.mean([low <= share <= high for _, low, high in found]) > 0.92
    # ranks instead of values: nearly as good
    ranked = [
        explained(normal_scores(scores), levels)
        for scores, levels in (layout(random, count, share) for _ in range(300))
    ]
    assert np.mean([low <= share <= high for _, low, high in ranked]) > 0.9
    assert abs(np.mean([each for each, _, _ in found]) - share) < 0.08


def test_many_sweeps_narrow_the_interval_and_nothing_explains_nothing() -> None:
    random = np.random.default_rng(2)
    widths = [np.subtract(*explained(*layout(random, count, 0.3))[:0:-1]) for count in (12, 48, 480)]
    assert widths[0] > widths[1] > widths[2]
    assert explained([1.0] * 9, [0, 1, 2] * 3) == (0.0, 0.0, 0.0)
    assert explained([0.0, 1.0] * 9, [0, 1] * 9) == (1.0, 1.0, 1.0)


def test_a_setting_that_changes_together_with_another_is_not_taken_for_a_cause() -> None:
    random = np.random.default_rng(5)
    ends = []
    for _ in range(300):
        cause = random.integers(0, 3, 40)
        shadow = np.where(random.uniform(size=40) < 0.6, cause, random.integers(0, 3, 40))
        scores = 1.5 * cause + random.normal(size=40)
        alone, beside = explained(scores, shadow), explained(scores, shadow, [cause])
        share, low, _ = explained(scores, cause, [shadow])
        ends.append((alone[1] > 0, beside[1] > 0, low > 0, share))
    fooled_alone, fooled, found, share = np.mean(ends, axis=0)
    assert fooled_alone > 0.5
    assert fooled < 0.05
    assert found > 0.95
    assert 0.4 < share < 0.7


def test_the_intervals_of_several_settings_hold_their_shares() -> None:
    random = np.random.default_rng(6)
    effects = np.array([0.5 * 2 / 3, 1.5 * 2 / 3, 0.0])  # variance of the levels' effects, beside a noise of 1
    truth = effects / (effects + 1)
    holds = []
    for _ in range(300):
        a, b, c = random.integers(0, 3, (3, 60))
        scores = np.sqrt(0.5) * (a - 1) + np.sqrt(1.5) * (b - 1) + random.normal(size=60)
        found = [explained(scores, *each) for each in ((a, [b, c]), (b, [a, c]), (c, [a, b]))]
        holds.append([low <= true <= high for (_, low, high), true in zip(found, truth, strict=True)])
    # levels are drawn, too, which the interval does not know
    assert (np.mean(holds, axis=0) > 0.88).all(), np.mean(holds, axis=0)


def test_nothing_is_said_where_there_is_nothing_to_compare() -> None:
    assert explained([1.0, 2.0, 3.0], [0, 0, 0]) is None
    assert explained([1.0, 2.0, 3.0], [0, 1, 2]) is None
    assert explained([1.0, 2.0, 3.0, 5.0], [0, 0, 1, 1], [[0, 0, 1, 1]]) is None


def test_settings_in_the_order_of_what_they_explain() -> None:
    random = np.random.default_rng(3)
    points = []
    for _ in range(60):
        lr, base, dead = 10 ** random.uniform(-4, -1), int(random.choice([8, 16])), float(random.uniform())
        settings = {"train.lr": lr, "network.base": base, "train.ema": dead}
        score = -((np.log10(lr) + 2.5) ** 2) + 0.3 * (base == 16) + random.normal(0, 0.1)
        points.append((settings, score, score))
    found = importances(points, ["train.ema", "network.base", "train.lr", "loss.w0"])
    assert [each.key for each in found] == ["train.lr", "network.base", "train.ema", "loss.w0"]
    assert found[0].share > 0.4
    assert found[0].low > 0.2
    assert found[2].low == 0.0
    assert found[3].share is None
    assert len(found[0].levels) == 3
    assert sum(count for _, count, _ in found[0].levels) == 60


def test_too_few_configurations_say_nothing() -> None:
    points = [({"network.base": base}, float(base), float(base)) for base in (4, 8)] * 2
    (found,) = importances(points, ["network.base"])
    assert (found.share, found.low, found.configurations) == (None, None, 4)
    assert found.levels == (("4", 2, 4.0), ("8", 2, 8.0))
