import numpy as np
import pytest
from PIL import Image

from useg.arrays import IGNORE
from useg.data.annotations import read_annotation, read_stored
from useg.data.images import read_header
from useg.data.labels import LabelClass, LabelMapping
from useg.data.measure import OBJECT_MASKS
from useg.data.reading import Sample
from useg.errors import DataError

BINARY = LabelMapping(kind="values", classes=(LabelClass(name="a", values=(0,)), LabelClass(name="b", values=(255,))))


@pytest.fixture
def files(tmp_path):
    def write(name, array):
        Image.fromarray(array).save(tmp_path / name)
        return str(tmp_path / name)

    return write


def test_a_label_map_with_a_region_and_a_window(files):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:25] = 255
    field = np.zeros((20, 30), np.uint8)
    field[:, 10:] = 255
    sample = Sample("s", (files("i.png", mask),), (files("m.png", mask),), region=files("f.png", field))
    header = read_header(sample.images[0])
    classes, instances = read_annotation(sample, BINARY, header)
    assert instances is None
    assert (classes[:, :10] == IGNORE).all()
    np.testing.assert_array_equal(classes[:, 10:], mask[:, 10:] // 255)
    window = (slice(3, 12), slice(8, 20))
    np.testing.assert_array_equal(read_annotation(sample, BINARY, header, window)[0], classes[window])


def test_object_masks_and_windows(files):
    first, second = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    first[2:8, 2:8], second[10:18, 12:28] = 255, 255
    labels = (files("a.png", first), files("b.png", second))
    sample = Sample("s", (files("i.png", first),), labels, masks_are_objects=True)
    header = read_header(sample.images[0])
    classes, instances = read_annotation(sample, OBJECT_MASKS, header)
    np.testing.assert_array_equal(instances, (first > 0) + 2 * (second > 0))
    np.testing.assert_array_equal(classes, instances > 0)
    window = (slice(5, 15), slice(5, 20))
    part, _ = read_annotation(sample, OBJECT_MASKS, header, window)
    np.testing.assert_array_equal(part, classes[window])


def test_every_object_mask_that_does_not_fit_is_named(files):
    good, small = np.zeros((20, 30), np.uint8), np.zeros((5, 5), np.uint8)
    labels = (files("a.png", good), files("b.png", small), files("c.png", small))
    sample = Sample("s", (files("i.png", good),), labels, masks_are_objects=True)
    with pytest.raises(DataError, match=r"b\.png[\s\S]*c\.png"):
        read_annotation(sample, OBJECT_MASKS, read_header(sample.images[0]))


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [((10, 15), "resize the label map"), ((30, 20), "turned"), ((7, 30), "belong together")],
)
def test_sizes_that_differ_come_with_a_way_out(files, shape, remedy):
    sample = Sample("s", (files("i.png", np.zeros((20, 30), np.uint8)),), (files("m.png", np.zeros(shape, np.uint8)),))
    with pytest.raises(DataError, match=remedy) as failure:
        read_annotation(sample, BINARY, read_header(sample.images[0]))
    assert "20 x 30" in str(failure.value)
    assert "m.png" in failure.value.problems[0].where


def test_without_labels_and_with_too_many(files):
    image = files("i.png", np.zeros((4, 4), np.uint8))
    header = read_header(image)
    assert read_annotation(Sample("s", (image,)), BINARY, header) == (None, None)
    with pytest.raises(DataError, match="2 label maps"):
        read_annotation(Sample("s", (image,), (image, image)), BINARY, header)
    wrong = files("w.png", np.full((4, 4), 9, np.uint8))
    with pytest.raises(DataError, match=r"w\.png: label value 9"):
        read_annotation(Sample("s", (image,), (wrong,)), BINARY, header)


def test_a_mask_turned_with_its_image_has_its_windows_turned_too(files, tmp_path):
    labels = np.zeros((20, 30), np.uint8)
    labels[2:9, 20:28] = 255
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.ascontiguousarray(np.rot90(labels, -1))).save(tmp_path / "i.png", exif=exif)
    mask = files("m.png", np.ascontiguousarray(np.rot90(labels, -1)))
    header = read_header(str(tmp_path / "i.png"))
    assert header.space == (20, 30)
    stored = read_stored(mask, header, (slice(1, 10), slice(15, 30)))
    assert stored.turned
    np.testing.assert_array_equal(stored.raw[0], labels[1:10, 15:30])
