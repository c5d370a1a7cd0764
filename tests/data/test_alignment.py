import numpy as np
import pytest

from useg.data.alignment import TURNS, find_misfit, turn_scores, turned


def scene(seed, shape=(90, 90)):
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for _ in range(4):
        row, column = random.integers(0, shape[0] - 20), random.integers(0, shape[1] - 20)
        labels[row : row + 18, column : column + 18] = random.integers(1, 4)
    return labels * 40.0 + random.normal(0, 15, shape), labels


@pytest.mark.parametrize("turn", range(8))
def test_turned_masks_are_suspected_and_right_ones_are_not(turn):
    scores = []
    for seed in range(6):
        image, labels = scene(seed)
        scores.append(turn_scores(image, turned(labels)[turn]))
    found = find_misfit(scores)
    if turn == 0:
        assert found is None
    else:
        # The turn that is told is the one that brings the masks back.
        back = {5: 6, 6: 5}.get(turn, turn)
        assert found.turn == TURNS[back]
        assert len(found.samples) >= 5


def test_pictures_that_are_not_square_are_only_mirrored():
    image, labels = scene(1, (60, 90))
    scores = turn_scores(image, labels[:, ::-1])
    assert np.isnan(scores[4:]).all()
    assert np.nanargmax(scores) == 1
    assert find_misfit([turn_scores(*(scene(s, (60, 90)))) for s in range(4)]) is None


def test_what_says_nothing():
    image, labels = scene(2)
    assert turn_scores(np.zeros_like(image), labels) is None
    assert turn_scores(image, np.zeros_like(labels)) is None
    assert find_misfit([]) is None
    noise = [turn_scores(np.random.default_rng(s).normal(size=(90, 90)), scene(s)[1]) for s in range(8)]
    assert find_misfit(noise) is None
