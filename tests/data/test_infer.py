import numpy as np
import pytest

from useg.arrays import IGNORE
from useg.data.census import take_census
from useg.data.infer import infer_mapping
from useg.errors import DataError

RANDOM = np.random.default_rng(7)


def census(plane, name="a.png", **more):
    raw = np.asarray(plane)
    return take_census(raw if raw.ndim == 3 else raw[None], name, **more)


def blobs(values, shape=(64, 64), dtype=np.uint8):
    """Squares of the given values on 0, a few of each."""
    plane = np.zeros(shape, dtype)
    for position, value in enumerate(values):
        for again in range(3):
            row, column = (
                (position * 8) % (shape[0] - 6),
                (again * 20 + 10 * (position // 8)) % (shape[1] - 6),
            )
            plane[row : row + 5, column : column + 5] = value
    return plane


def encoded(files_planes, **more):
    found = infer_mapping([census(p, f"{i}.png") for i, p in enumerate(files_planes)], **more)
    return found, [found.mapping.encode(p[None] if p.ndim == 2 else p)[0] for p in files_planes]


@pytest.mark.parametrize(
    "values", [(1,), (255,), (128, 255), (85, 170, 255), (1, 2, 3), (3, 7, 40), (1000, 2000), (2, 4, 6, 8)]
)
def test_values_become_ids_without_gaps(values):
    plane = blobs(values, dtype=np.uint16)
    found, (classes,) = encoded([plane])
    assert found.mapping.kind == "values"
    np.testing.assert_array_equal(classes, np.searchsorted((0, *values), plane))
    np.testing.assert_array_equal(found.mapping.decode(classes), plane)
    assert found.mapping.class_names[0] == "background"
    assert found.mapping.dtype == "uint16"
    assert bool(found.repairs) == (values not in ((1,), (1, 2, 3)))


def test_classes_come_from_all_files():
    found, _ = encoded([blobs([1]), blobs([4]), blobs([])])
    assert [c.values for c in found.mapping.classes] == [(0,), (1,), (4,)]


def test_zero_is_not_called_background_where_it_is_no_majority():
    plane = blobs([1, 2])
    plane[20:] = 2
    assert encoded([plane])[0].mapping.class_names == ("0", "1", "2")
    assert encoded([blobs([1, 2])])[0].mapping.class_names == ("background", "1", "2")


def test_255_after_small_ids_is_not_annotated():
    found, (classes,) = encoded([blobs([1, 2, 255])])
    assert found.mapping.ignore == (255,)
    assert found.mapping.num_classes == 3
    assert (classes == IGNORE).sum() == (blobs([1, 2, 255]) == 255).sum()
    assert "255" in found.warnings[0]
    # two classes and their edge, as in 0, 1, 255
    assert encoded([blobs([1, 255])])[0].mapping.ignore == (255,)
    assert encoded([blobs([128, 255])])[0].mapping.ignore == ()


def test_a_lone_negative_is_not_annotated():
    found, _ = encoded([blobs([-1, 1], dtype=np.int16)])
    assert found.mapping.ignore == (-1,)


def test_some_masks_0_1_and_others_0_255_are_one_thing():
    found, (first, second) = encoded([blobs([1]), blobs([255])])
    np.testing.assert_array_equal(first, second)
    assert found.mapping.num_classes == 2
    assert "0/255" in found.warnings[0]


def test_hints_name_and_ignore():
    hints = {"class_names": {"background": 0, "cell": 1, "edge": "2", "ignore": 3}}
    found, _ = encoded([blobs([1, 3])], hints=hints)
    assert found.mapping.class_names == ("background", "cell", "edge")
    assert found.mapping.ignore == (3,)
    assert "edge" in found.warnings[0]
    swapped = {"class_names": {"0": "soil", "1": "plant"}, "ignore": [9]}
    found, _ = encoded([blobs([1, 9])], hints=swapped)
    assert found.mapping.class_names == ("soil", "plant")
    assert found.mapping.ignore == (9,)


def test_keys_of_the_user_go_before_what_is_inferred():
    planes = [blobs(range(1, 12))]
    found, (classes,) = encoded(planes, keys={"ignore": [11]})
    assert found.mapping.num_classes == 11
    assert (classes == IGNORE).sum() == (planes[0] == 11).sum()
    found, _ = encoded(planes, keys={"kind": "instances"})
    assert found.mapping.kind == "instances"
    found, _ = encoded([blobs([50, 100, 200])], keys={"threshold": 90.0})
    assert found.mapping.kind == "threshold"


def test_a_complete_mapping_of_the_user_is_taken_and_completed():
    keys = {"classes": [{"name": "rest", "values": [0, 1]}, {"name": "it", "values": [2]}]}
    found, (classes,) = encoded([blobs([1, 2]).astype(np.uint16)], keys=keys)
    assert found.mapping.dtype == "uint16"
    assert found.mapping.class_names == ("rest", "it")
    assert classes.max() == 1
    keys = {"classes": [{"name": "a", "colours": ["#000000"]}, {"name": "b", "colours": [[255, 0, 0]]}]}
    assert infer_mapping([census(np.zeros((3, 4, 4), np.uint8))], keys=keys).mapping.kind == "colours"


def jpeg_of(plane):
    import cv2

    coded = cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    return cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)


def disc(shape=(96, 96), radius=30, value=255):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.where((rows - 48) ** 2 + (columns - 48) ** 2 < radius**2, value, 0).astype(np.uint8)


@pytest.mark.parametrize("lossy", [True, False], ids=["jpeg", "png made from jpeg"])
def test_jpeg_masks_are_cut_in_the_middle(lossy):
    clean = disc()
    smeared = jpeg_of(clean)
    assert len(np.unique(smeared)) > 8
    found = infer_mapping([census(smeared, lossy=lossy)])
    assert found.mapping.kind == "threshold"
    assert found.mapping.threshold == 127.5
    classes, _ = found.mapping.encode(smeared[None])
    assert (classes != (clean > 0)).mean() < 0.002
    assert set(np.unique(found.mapping.decode(classes))) == {0, 255}


def test_anti_aliased_masks_are_cut_in_the_middle():
    import cv2

    smooth = cv2.resize(disc((288, 288), 30)[:96, :96], (48, 48), interpolation=cv2.INTER_AREA)
    found = infer_mapping([census(smooth)])
    assert found.mapping.kind == "threshold"
    strays = disc()
    strays[0, :5], strays[48, 40:45] = 1, 254
    assert infer_mapping([census(strays)]).mapping.kind == "threshold"


def test_jpeg_of_more_than_two_classes_is_refused_with_the_file():
    plane = disc() // 2
    plane[40:60, 40:60] = 255
    with pytest.raises(DataError, match="JPEG changed") as failure:
        infer_mapping([census(jpeg_of(plane), "one.jpg", lossy=True)])
    assert failure.value.problems[0].where == "one.jpg"
    with pytest.raises(DataError, match=r"mixtures[\s\S]*two\.png"):
        infer_mapping([census(jpeg_of(plane), "two.png")])


def test_grey_saved_as_rgb_is_written_as_rgb():
    raw = np.repeat(blobs([255])[None], 3, 0)
    mapping = infer_mapping([census(raw)]).mapping
    assert mapping.kind == "values"
    np.testing.assert_array_equal(mapping.decode(mapping.encode(raw)[0]), raw)


def test_equal_palettes_are_kept_and_different_ones_go_by_colour():
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    other = palette[[0, 2, 1]]
    plane = blobs([1, 2])
    same = infer_mapping([census(plane, palette=palette), census(plane, palette=palette)]).mapping
    assert same.kind == "values"
    assert same.stored_palette == ("#000000", "#ff0000", "#00ff00")
    mixed = infer_mapping([census(plane, palette=palette), census(plane, palette=other)]).mapping
    assert mixed.kind == "colours"
    swapped = np.array([0, 2, 1], np.uint8)[plane]
    np.testing.assert_array_equal(mixed.encode(plane[None], palette)[0], mixed.encode(swapped[None], other)[0])


def test_a_grey_ramp_is_no_palette():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    mapping = infer_mapping([census(blobs([255]), palette=ramp), census(blobs([255]))]).mapping
    assert mapping.kind == "values"
    assert mapping.stored_palette is None


def test_pictures_are_no_label_maps():
    noise = RANDOM.integers(0, 60_000, (200, 200)).astype(np.uint16)
    with pytest.raises(DataError, match="different label values"):
        infer_mapping([census(noise)])
    with pytest.raises(DataError, match="no label files"):
        infer_mapping([])


def test_an_empty_set_of_masks_still_has_a_mapping():
    assert infer_mapping([census(blobs([]))]).mapping.num_classes == 1
