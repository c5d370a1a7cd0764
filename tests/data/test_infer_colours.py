import cv2
import numpy as np
import pytest

from useg.data.census import take_census
from useg.data.infer import infer_mapping
from useg.errors import DataError

BLACK, RED, GREEN, BLUE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(*colours, shape=(96, 96)):
    """Discs of the given colours, apart from each other, on black."""
    classes = np.zeros(shape, np.uint8)
    for position, centre in zip(range(len(colours)), [(24, 24), (24, 70), (70, 24), (70, 70)], strict=False):
        cv2.circle(classes, centre, 14, position + 1, -1)
    return classes, np.array([BLACK, *colours], np.uint8)[classes].transpose(2, 0, 1)


def census(raw, name="a.png", **more):
    return take_census(np.ascontiguousarray(raw), name, **more)


def test_colours_of_all_files_become_classes_black_first():
    first, raw = picture(RED, GREEN)
    _, other = picture(BLUE)
    found = infer_mapping([census(raw), census(other)])
    assert found.mapping.kind == "colours"
    assert found.mapping.class_names == ("background", "blue", "green", "red")
    assert not found.mapping.nearest
    classes, _ = found.mapping.encode(raw)
    np.testing.assert_array_equal(classes, np.array([0, 3, 2])[first])
    np.testing.assert_array_equal(found.mapping.decode(classes), raw)


def test_without_black_the_most_common_is_the_background():
    _, raw = picture(RED)
    raw[2] = 200
    mapping = infer_mapping([census(raw)]).mapping
    assert mapping.classes[0].colours == ((0, 0, 200),)


def test_grey_files_among_coloured_ones_are_grey_colours():
    _, raw = picture(RED)
    grey = np.zeros((1, 20, 20), np.uint8)
    grey[0, 5:9] = 255
    mapping = infer_mapping([census(raw), census(grey)]).mapping
    assert mapping.class_names == ("background", "red", "white")
    assert mapping.encode(grey)[0].max() == 2


def test_many_close_colours_without_loss_are_classes():
    colours = [(0, 0, 142), (0, 0, 110), (0, 0, 90), (0, 0, 70)]
    _, raw = picture(*colours)
    raw[:, 0, 0] = (0, 0, 80)  # a rare class, close to two others
    assert infer_mapping([census(raw)]).mapping.num_classes == 6


def test_ignored_colours():
    _, raw = picture(RED, GREEN)
    found = infer_mapping([census(raw)], keys={"ignore": ["#00ff00"]})
    assert found.mapping.ignore_colours == (GREEN,)
    assert found.mapping.num_classes == 2


def smooth(raw, times=2):
    large = raw.transpose(1, 2, 0)
    return cv2.resize(large, None, fx=1 / times, fy=1 / times, interpolation=cv2.INTER_AREA).transpose(2, 0, 1)


def through_jpeg(raw):
    coded = cv2.imencode(".jpg", raw.transpose(1, 2, 0), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR).transpose(2, 0, 1)


def test_smeared_colours_take_the_nearest():
    classes, raw = picture(RED, GREEN, BLUE)
    classes, raw = np.tile(classes, (3, 3)), np.tile(raw, (1, 3, 3))
    found = infer_mapping([census(smooth(raw))])
    assert found.mapping.nearest
    assert found.mapping.num_classes == 4
    got, _ = found.mapping.encode(smooth(raw))
    assert (got != np.array([0, 3, 2, 1])[classes][::2, ::2]).mean() < 0.02
    assert any("smeared" in warning for warning in found.warnings)


def test_colours_after_jpeg_need_the_users_word():
    classes, raw = picture(RED, GREEN)
    smeared = census(through_jpeg(raw), "c.jpg", lossy=True)
    with pytest.raises(DataError, match=r"cannot be told apart[\s\S]*c\.jpg[\s\S]*nearest = true"):
        infer_mapping([smeared])
    listed = [{"name": name, "colours": [colour]} for name, colour in [("0", BLACK), ("1", RED), ("2", GREEN)]]
    mapping = infer_mapping([smeared], keys={"nearest": True, "classes": listed}).mapping
    assert (mapping.encode(through_jpeg(raw))[0] != classes).mean() < 0.01


def test_blends_that_look_like_a_third_class_are_refused():
    # Between blue and white lies light blue, which is a class, too.
    classes = np.zeros((720, 720), np.uint8)
    for column, colour in ((150, 1), (500, 2)):
        for row in (130, 370, 600):
            cv2.circle(classes, (column, row), 110, colour, -1)
    raw = np.array([(255, 255, 255), BLUE, (128, 128, 255)], np.uint8)[classes].transpose(2, 0, 1)
    with pytest.raises(DataError, match=r"cannot be told apart[\s\S]*b\.png"):
        infer_mapping([census(smooth(raw, 4), "b.png")])


def test_a_photograph_is_refused():
    noise = np.random.default_rng(1).integers(0, 255, (3, 50, 50)).astype(np.uint8)
    with pytest.raises(DataError, match="cannot be told apart"):
        infer_mapping([census(noise)])


def test_alpha_that_says_nothing_is_dropped_and_alpha_that_varies_counts():
    _, raw = picture(RED)
    with_alpha = np.concatenate([raw, np.full((1, 96, 96), 255, np.uint8)])
    mapping = infer_mapping([census(with_alpha)]).mapping
    assert mapping.classes[0].colours == (BLACK,)
    with_alpha[3] = raw[0]
    mapping = infer_mapping([census(with_alpha)]).mapping
    assert len(mapping.classes[0].colours[0]) == 4
    np.testing.assert_array_equal(mapping.decode(mapping.encode(with_alpha)[0]), with_alpha)
    with pytest.raises(DataError, match=r"1 have no alpha\n  - plain\.png: no alpha channel"):
        infer_mapping([census(with_alpha), census(with_alpha, "b.png"), census(raw, "plain.png")])
    with pytest.raises(DataError, match=r"2 have no alpha\n  - odd\.png: an alpha channel that varies[^\n]*$"):
        infer_mapping([census(with_alpha, "odd.png"), census(raw, "a.png"), census(raw, "b.png")])
