import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from useg.arrays import IGNORE
from useg.data.labels import LabelClass, LabelMapping, load_mapping, parse_colour
from useg.errors import DataError


def values_mapping(values, *, ignore=(), **more):
    classes = [LabelClass(name=str(v), values=(v,)) for v in values]
    return LabelMapping(kind="values", classes=tuple(classes), ignore=ignore, **more)


RED_GREEN = LabelMapping(
    kind="colours",
    classes=(
        LabelClass(name="soil", colours=((0, 0, 0),)),
        LabelClass(name="weed", colours=((255, 0, 0),)),
        LabelClass(name="crop", colours=((0, 255, 0),)),
    ),
    ignore_colours=((1, 2, 3),),
)

DTYPES = st.sampled_from(["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])


@given(
    values=st.lists(st.integers(0, 255), min_size=2, max_size=20, unique=True),
    dtype=DTYPES,
    pick=hnp.arrays(np.int64, (5, 7), elements=st.integers(0, 10_000)),
    with_ignore=st.booleans(),
)
def test_decoding_undoes_encoding_of_values(values, dtype, pick, with_ignore):
    ignore = (values[-1],) if with_ignore and len(values) > 2 else ()
    mapping = values_mapping([v for v in values if v not in ignore], ignore=ignore, dtype=dtype)
    raw = np.array(values)[pick % len(values)].astype(dtype)[None]
    classes, instances = mapping.encode(raw)
    assert instances is None
    assert classes.dtype == np.uint8
    back = mapping.decode(classes)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, raw[0])


@given(
    colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=40, unique=True),
    pick=hnp.arrays(np.int64, (2, 3, 4), elements=st.integers(0, 10_000)),
)
def test_decoding_undoes_encoding_of_colours_also_in_volumes(colours, pick):
    mapping = LabelMapping(
        kind="colours", classes=tuple(LabelClass(name=str(i), colours=(c,)) for i, c in enumerate(colours))
    )
    raw = np.moveaxis(np.array(colours, np.uint8)[pick % len(colours)], -1, 0)
    classes, _ = mapping.encode(raw)
    np.testing.assert_array_equal(classes, pick % len(colours))
    np.testing.assert_array_equal(mapping.decode(classes), raw)


def test_negative_and_large_values_keep_their_dtype():
    mapping = values_mapping([0, 70000], ignore=(-1,), dtype="int32")
    raw = np.array([[[-1, 0, 70000]]], np.int32)
    classes, _ = mapping.encode(raw)
    assert classes.tolist() == [[IGNORE, 0, 1]]
    np.testing.assert_array_equal(mapping.decode(classes), raw[0])


def test_without_a_dtype_the_smallest_that_fits_is_written():
    assert values_mapping([0, 300]).decode(np.array([[0, 1]], np.uint8)).dtype == np.uint16
    assert values_mapping([0, 5], ignore=(-2,)).decode(np.array([[0, IGNORE]], np.uint8)).tolist() == [[0, -2]]


def test_unknown_values_are_named():
    with pytest.raises(DataError, match=r"7, 9 is not in the mapping"):
        values_mapping([0, 1]).encode(np.array([[[0, 7, 9]]], np.uint8))
    with pytest.raises(DataError, match=r"-3 is not in the mapping"):
        values_mapping([0, 1]).encode(np.array([[[0, -3, 1]]], np.int16))
    with pytest.raises(DataError, match=r"\(9, 9, 9\) is not in the mapping"):
        RED_GREEN.encode(np.full((3, 2, 2), 9, np.uint8))


def test_nan_and_fractions_are_refused_and_whole_floats_are_not():
    mapping = values_mapping([0, 1])
    with pytest.raises(DataError, match="1 label pixels are NaN"):
        mapping.encode(np.array([[[0.0, np.nan]]]))
    with pytest.raises(DataError, match="1 label pixels are not whole"):
        mapping.encode(np.array([[[0.0, 0.5]]]))
    assert mapping.encode(np.array([[[0.0, 1.0]]]))[0].tolist() == [[0, 1]]


def test_nearest_takes_the_closest_value_or_colour():
    mapping = values_mapping([0, 100, 200], nearest=True)
    assert mapping.encode(np.array([[[3, 49, 51, 149, 151, 255]]], np.uint8))[0].tolist() == [[0, 0, 1, 1, 2, 2]]
    colours = RED_GREEN.model_copy(update={"nearest": True})
    raw = np.array([[250, 4, 9], [3, 230, 0], [1, 2, 4]], np.uint8).T[:, None]
    assert colours.encode(raw)[0].tolist() == [[1, 2, IGNORE]]
    with pytest.raises(DataError, match=r"\(255, 255, 255\) is not in"):
        colours.encode(np.full((3, 1, 1), 255, np.uint8))


def test_alpha_is_dropped_where_colours_have_three_numbers():
    raw = np.zeros((4, 1, 2), np.uint8)
    raw[0, 0, 1], raw[3] = 255, 77
    assert RED_GREEN.encode(raw)[0].tolist() == [[0, 1]]


def test_palette_indices_are_looked_up_for_colours():
    palette = np.array([[0, 255, 0], [0, 0, 0], [255, 0, 0]], np.uint8)
    assert RED_GREEN.encode(np.array([[[0, 1, 2]]], np.uint8), palette)[0].tolist() == [[2, 0, 1]]
    with pytest.raises(DataError, match="palette entry 3"):
        RED_GREEN.encode(np.array([[[3]]], np.uint8), palette)


def test_threshold_cuts_grey_and_writes_both_ends():
    mapping = LabelMapping(
        kind="threshold",
        threshold=127.5,
        classes=(LabelClass(name="a", values=(0,)), LabelClass(name="b", values=(255,))),
        channels=3,
    )
    raw = np.repeat(np.array([[[0, 127, 128, 250]]], np.uint8), 3, 0)
    classes, _ = mapping.encode(raw)
    assert classes.tolist() == [[0, 0, 1, 1]]
    assert mapping.decode(classes).tolist() == [[[0, 0, 255, 255]]] * 3


def instances_mapping(**more):
    return LabelMapping(
        kind="instances",
        classes=(LabelClass(name="background", values=(0,)), LabelClass(name="object")),
        **more,
    )


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int64", "float32"])
def test_instances_keep_their_ids(dtype):
    raw = np.array([[[0, 5, 5], [7, 0, 300]]]).astype(dtype)
    classes, instances = instances_mapping().encode(raw)
    assert classes.tolist() == [[0, 1, 1], [1, 0, 1]]
    assert instances.dtype == np.int32
    np.testing.assert_array_equal(instances, raw[0].astype(np.int32))


def test_instance_ids_beyond_int32_and_other_backgrounds_are_renumbered():
    huge = np.array([[[0, 4_000_000_000, 4_000_000_001]]], np.uint32)
    assert instances_mapping().encode(huge)[1].tolist() == [[0, 2, 3]]
    mapping = LabelMapping(
        kind="instances",
        classes=(LabelClass(name="background", values=(-1,)), LabelClass(name="object")),
        ignore=(9,),
    )
    classes, instances = mapping.encode(np.array([[[-1, 0, 0, 3, 9]]], np.int16))
    assert classes.tolist() == [[0, 1, 1, 1, IGNORE]]
    assert instances[0, 0] == 0
    assert instances[0, 4] == 0
    assert len(set(instances[0, 1:4].tolist())) == 2


def test_overlapping_object_masks_leave_the_pixel_to_the_smaller():
    large, small, empty = (np.zeros((4, 4), np.uint8) for _ in range(3))
    large[:3] = 255
    small[2, 1:3] = 255
    for masks in ([large, small, empty], [small, large, empty], [large[None], empty[None], small[None]]):
        classes, instances = instances_mapping().encode_objects(masks, (4, 4))
        assert len(np.unique(instances[:3])) == 2
        assert (instances[2, 1:3] == instances[2, 1]).all()
        assert instances[2, 1] != instances[2, 0]
        assert np.count_nonzero(classes) == 12


def test_object_masks_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"mask 0 is \(3, 3\)"):
        instances_mapping().encode_objects([np.zeros((3, 3), np.uint8)], (4, 4))


def test_an_unknown_class_id_is_not_written():
    with pytest.raises(DataError, match="class id 7"):
        values_mapping([0, 1]).decode(np.array([[7]], np.uint8))


MAPPINGS = [
    values_mapping([0, 128, 255], ignore=(7,), dtype="uint8", channels=3),
    values_mapping([0, 1], dtype="uint8", stored_palette=("#000000", "#ff0010")),
    values_mapping([0, 1], nearest=True),
    RED_GREEN,
    instances_mapping(dtype="uint32"),
    LabelMapping(
        kind="threshold",
        threshold=100.0,
        classes=(LabelClass(name='a "b" \\ \n', values=(0,)), LabelClass(name="é", values=(255,))),
    ),
    LabelMapping(kind="objects", classes=(LabelClass(name="a", values=(0,)), LabelClass(name="b", values=(255,)))),
]


@pytest.mark.parametrize("mapping", MAPPINGS, ids=lambda m: m.kind)
def test_the_file_says_everything(mapping, tmp_path):
    assert LabelMapping.from_toml(mapping.to_toml()) == mapping
    path = tmp_path / "classes.toml"
    path.write_text(mapping.to_toml(), encoding="utf-8")
    assert load_mapping(path) == mapping


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = ", "not a TOML file"),
        ('kind = "value"\nclasses = [{name = "a", values = [0]}]', "kind"),
        ('kind = "values"\nclases = []', "clases"),
        ('kind = "values"\nclasses = [{name = "a"}]', "lists no values"),
        ('kind = "values"\nclasses = [{name = "a", values = [0]}, {name = "a", values = [1]}]', "same name"),
        (
            'kind = "values"\nclasses = [{name = "a", values = [0]}, {name = "b", values = [0]}]',
            "more than once",
        ),
        ('kind = "values"\nignore = [0]\nclasses = [{name = "a", values = [0]}]', "more than once"),
        (
            'kind = "threshold"\nclasses = [{name="a", values=[0]}, {name="b", values=[1]}]',
            "needs a threshold",
        ),
        ('kind = "instances"\nclasses = [{name = "a", values = [0]}]', "two classes"),
        ('kind = "colours"\nclasses = [{name = "a", colours = [[1, 2]]}]', "a colour is"),
        ('kind = "values"', "classes"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text, message, tmp_path):
    path = tmp_path / "classes.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as failure:
        load_mapping(path)
    assert "classes.toml" in str(failure.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.toml"):
        load_mapping(tmp_path / "none.toml")


def test_colours_by_hand():
    assert parse_colour("#ff0080") == (255, 0, 128)
    assert parse_colour([1, 2, 3, 4]) == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="a colour is"):
        parse_colour("red")


def test_display_and_writing_palettes():
    assert RED_GREEN.palette[:3].tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    own = values_mapping([0, 2], stored_palette=("#000000", "#111111", "#0a0b0c"))
    assert own.palette[1].tolist() == [10, 11, 12]
    assert own.writing_palette.shape == (3, 3)
    plain = values_mapping(list(range(6)))
    assert plain.writing_palette is None
    assert len({tuple(c) for c in plain.palette[:6].tolist()}) == 6
