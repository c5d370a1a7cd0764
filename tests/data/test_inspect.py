import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from useg.data.fingerprint import Fingerprint
from useg.data.inspect import examine, inspect
from useg.data.labels import LabelMapping
from useg.errors import DataError

RANDOM = np.random.default_rng(11)


def scene(seed, shape=(48, 64), classes=2):
    """A picture and a class map that belong together."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for _ in range(5):
        row, column = random.integers(0, shape[0] - 10), random.integers(0, shape[1] - 10)
        labels[row : row + 8, column : column + 8] = random.integers(1, classes)
    return np.clip(labels * 60.0 + random.normal(60, 12, shape), 0, 255).astype(np.uint8), labels


def write(path, array, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path, **more)
    return path


def folder(root, number=6, *, classes=2, scale=1, shape=(48, 64)):
    for i in range(number):
        image, labels = scene(i, shape, classes)
        write(root / "images" / f"{i}.png", image)
        write(root / "masks" / f"{i}.png", labels * np.uint8(scale))
    return root


def test_a_plain_folder(tmp_path):
    calls = []
    found = inspect(folder(tmp_path, scale=255), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)
    assert found.problems == []
    assert found.mapping.kind == "values"
    assert [c.values for c in found.mapping.classes] == [(0,), (255,)]
    print_ = found.fingerprint
    assert (print_.samples, print_.labelled, print_.ndim, print_.channels) == (6, 6, 2, 1)
    assert print_.smallest == print_.largest == (48, 64)
    truth = np.stack([scene(i)[1] for i in range(6)])
    assert [c.pixels for c in print_.classes] == [int((truth == 0).sum()), int((truth == 1).sum())]
    assert print_.classes[1].samples == 6
    pictures = np.stack([scene(i)[0] for i in range(6)])
    channel = print_.channel_statistics[0]
    assert (channel.minimum, channel.maximum) == (pictures.min(), pictures.max())
    assert channel.mean == pytest.approx(pictures.mean(), abs=0.5)
    assert channel.percentile_99_5 == pytest.approx(np.quantile(pictures, 0.995), abs=2)


def test_the_fingerprint_is_the_same_again_and_survives_json(tmp_path):
    folder(tmp_path, classes=4)
    first, second = inspect(tmp_path), inspect(tmp_path, threads=1)
    assert first.fingerprint == second.fingerprint
    assert Fingerprint.model_validate_json(first.fingerprint.model_dump_json()) == first.fingerprint
    assert json.loads(first.fingerprint.model_dump_json())["samples"] == 6


def test_the_folders_own_mapping_is_used_and_may_be_partial(tmp_path):
    folder(tmp_path, classes=4)
    assert inspect(tmp_path).mapping.num_classes == 4
    (tmp_path / "classes.toml").write_text("ignore = [3]\n")
    found = inspect(tmp_path)
    assert found.mapping.num_classes == 3
    assert found.mapping.ignore == (3,)
    assert found.fingerprint.ignored_share > 0
    assert any("classes.toml" in repair for repair in found.repairs)
    other = tmp_path.parent / "other.toml"
    other.write_text(LabelMapping.from_toml(found.mapping.to_toml()).to_toml().replace('name = "1"', 'name = "cell"'))
    assert "cell" in inspect(tmp_path, classes=other).mapping.class_names


def test_values_outside_of_a_given_mapping_are_named_with_their_files(tmp_path):
    folder(tmp_path, classes=3)
    (tmp_path / "classes.toml").write_text(
        'kind = "values"\nclasses = [{name = "a", values = [0]}, {name = "b", values = [1]}]\n'
    )
    with_two = [i for i in range(6) if (scene(i, classes=3)[1] == 2).any()]
    with pytest.raises(DataError, match="label value 2 is not in the mapping") as failure:
        inspect(tmp_path)
    assert [Path(p.where).stem for p in failure.value.problems] == [str(i) for i in with_two]
    assert len(with_two) >= 2


def test_one_mask_per_object(tmp_path):
    for i in range(3):
        image, _ = scene(i)
        write(tmp_path / f"s{i}" / "images" / f"s{i}.png", image)
        for k in range(i + 1):
            mask = np.zeros((48, 64), np.uint8)
            mask[5:15, 4 + 14 * k : 14 + 14 * k] = 255
            write(tmp_path / f"s{i}" / "masks" / f"{i}{k}.png", mask)
    found = inspect(tmp_path)
    assert found.mapping.kind == "objects"
    objects = found.fingerprint.objects
    assert objects.source == "instances"
    assert (objects.per_sample.minimum, objects.per_sample.maximum) == (1, 3)
    assert objects.gap_px.median == 4
    assert objects.size_px.median == 100
    assert found.fingerprint.classes[1].pixels == 600


def test_instance_maps(tmp_path):
    for i in range(3):
        ids = np.zeros((64, 64), np.uint16)
        for k in range(8 + 2 * i):
            size = int(RANDOM.integers(5, 12))
            ids[(k // 4) * 16 : (k // 4) * 16 + size, (k % 4) * 16 : (k % 4) * 16 + size] = 3 * k + 1
        write(
            tmp_path / "images" / f"{i}.tif",
            (ids > 0) * np.uint16(900) + RANDOM.integers(0, 99, (64, 64)).astype(np.uint16),
        )
        write(tmp_path / "masks" / f"{i}.tif", ids)
    found = inspect(tmp_path)
    assert found.mapping.kind == "instances"
    assert found.fingerprint.objects.per_sample.maximum == 12


def test_volumes_with_planes_among_them(tmp_path):
    for i in range(3):
        image = RANDOM.integers(0, 200, (20, 32, 32)).astype(np.uint8)
        write(tmp_path / "images" / f"{i}.tif", image)
        write(tmp_path / "masks" / f"{i}.tif", (image > 150).astype(np.uint8))
    assert inspect(tmp_path).fingerprint.ndim == 3
    write(tmp_path / "images" / "9.tif", RANDOM.integers(0, 200, (32, 32)).astype(np.uint8))
    write(tmp_path / "masks" / "9.tif", RANDOM.integers(0, 2, (32, 32)).astype(np.uint8))
    found = inspect(tmp_path)
    assert found.fingerprint.ndim == 3
    assert len(found.reading.samples) == 3
    assert any("planes among volumes" in warning for warning in found.warnings)


def test_grey_among_colour_pictures(tmp_path):
    folder(tmp_path, 4)
    for i in (1, 2):
        image = np.asarray(Image.open(tmp_path / "images" / f"{i}.png"))
        write(tmp_path / "images" / f"{i}.png", np.stack([image, image // 2, 255 - image], -1))
    found = inspect(tmp_path)
    assert found.fingerprint.mixed_colour
    assert found.fingerprint.channels == 3


def test_images_without_labels(tmp_path):
    for i in range(2):
        write(tmp_path / f"{i}.png", scene(i)[0])
    found = inspect(tmp_path, labels_needed=False)
    assert found.mapping is None
    assert found.fingerprint.num_classes == 0
    assert "predicting" in found.warnings[0]
    with pytest.raises(DataError, match="no labels"):
        inspect(tmp_path)


def test_duplicates_across_given_splits(tmp_path):
    for split, numbers in {"train": range(6), "val": (20, 3)}.items():
        for i in numbers:
            image, labels = scene(i)
            write(tmp_path / split / "images" / f"{split}{i}.png", image)
            write(tmp_path / split / "masks" / f"{split}{i}.png", labels)
    found = inspect(tmp_path)
    assert [(p.exact, p.across_splits) for p in found.fingerprint.duplicates] == [(True, True)]
    assert any("different splits" in warning for warning in found.warnings)


def test_mirrored_masks_are_suspected(tmp_path):
    folder(tmp_path)
    assert not any("lie on" in warning for warning in inspect(tmp_path).warnings)
    for i in range(6):
        write(tmp_path / "masks" / f"{i}.png", scene(i)[1][:, ::-1].copy())
    assert any("mirrored left to right" in warning for warning in inspect(tmp_path).warnings)


def rotated(image):
    """Stored as a camera does: pixels turned, and a tag that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return np.rot90(image), exif


def test_masks_of_rotated_photographs_are_rotated_with_them(tmp_path):
    for i in range(4):
        image, labels = scene(i)
        stored, exif = rotated(image)
        write(tmp_path / "images" / f"{i}.png", np.ascontiguousarray(stored), exif=exif)
        write(tmp_path / "masks" / f"{i}.png", np.ascontiguousarray(np.rot90(labels)))
    found = inspect(tmp_path)
    assert found.fingerprint.largest == (48, 64)
    assert any("EXIF" in repair for repair in found.repairs)
    assert not any("lie on" in warning for warning in found.warnings)


def test_square_rotated_photographs_are_doubtful(tmp_path):
    for i in range(4):
        image, labels = scene(i, (64, 64))
        stored, exif = rotated(image)
        write(tmp_path / "images" / f"{i}.png", np.ascontiguousarray(stored), exif=exif)
        write(tmp_path / "masks" / f"{i}.png", np.ascontiguousarray(np.rot90(labels)))
    warnings = inspect(tmp_path).warnings
    assert any("EXIF" in warning for warning in warnings)
    assert any("lie on their images" in warning for warning in warnings)


def test_everything_wrong_at_once_is_told_at_once(tmp_path):
    folder(tmp_path, 9)
    images, masks = tmp_path / "images", tmp_path / "masks"
    data = (images / "0.png").read_bytes()
    (images / "0.png").write_bytes(data[: len(data) // 2])
    write(masks / "1.png", np.zeros((30, 30), np.uint8))
    (images / "2.png").write_text("this is no picture")
    (masks / "3.png").write_bytes(b"")
    (masks / "4.png").unlink()
    (images / "5.png").unlink()
    found = examine(tmp_path)
    told = {str(Path(p.where).relative_to(tmp_path)) for p in found.problems}
    assert {
        "images/0.png",
        "masks/1.png",
        "images/2.png",
        "masks/3.png",
        "images/4.png",
        "masks/5.png",
    } <= told
    assert all(p.what for p in found.problems)
    assert found.fingerprint is None
    with pytest.raises(DataError, match="6 problems"):
        inspect(tmp_path)


def test_nan_and_fractions_in_labels(tmp_path):
    for i in range(3):
        image, labels = scene(i)
        wrong = labels.astype(np.float32)
        if i == 1:
            wrong[0, 0] = np.nan
        if i == 2:
            wrong[3, 3] = 0.5
        write(tmp_path / "images" / f"{i}.tif", image)
        write(tmp_path / "masks" / f"{i}.tif", wrong)
    with pytest.raises(DataError, match=r"1\.tif: 1 label pixels are NaN[\s\S]*2\.tif: 1 label pixels are not whole"):
        inspect(tmp_path)


@pytest.mark.parametrize(("value", "message"), [(0, "the mask is empty"), (1, "only one value occurs")])
def test_one_class_only(tmp_path, value, message):
    folder(tmp_path, 3)
    for i in range(3):
        write(tmp_path / "masks" / f"{i}.png", np.full((48, 64), value, np.uint8))
    with pytest.raises(DataError, match=message) as failure:
        inspect(tmp_path)
    assert len(failure.value.problems) == 3


def test_some_empty_masks_are_only_told(tmp_path):
    folder(tmp_path)
    write(tmp_path / "masks" / "2.png", np.zeros((48, 64), np.uint8))
    found = inspect(tmp_path)
    assert len(found.fingerprint.empty_samples) == 1
    assert any("1 masks are empty" in warning for warning in found.warnings)


def test_images_of_other_channels_are_named(tmp_path):
    for i in range(4):
        image, labels = scene(i)
        write(tmp_path / "images" / f"{i}.tif", np.stack([image] * (5 if i == 2 else 6), 0).astype(np.int16))
        write(tmp_path / "masks" / f"{i}.tif", labels)
    with pytest.raises(DataError, match=r"2\.tif#channels: 5 channels, most images have 6"):
        inspect(tmp_path)


def test_there_is_nothing(tmp_path):
    with pytest.raises(DataError):
        inspect(tmp_path)
    with pytest.raises(DataError):
        inspect(tmp_path / "nowhere")
    folder(tmp_path, 2)
    with pytest.raises(DataError, match=r"none\.toml"):
        inspect(tmp_path, classes=tmp_path / "none.toml")


def test_planes_under_a_flat_label_map_are_channels(tmp_path):
    for i in range(3):
        image, labels = scene(i)
        write(tmp_path / "images" / f"{i}.tif", np.stack([image + k for k in range(6)], 0).astype(np.int16))
        write(tmp_path / "masks" / f"{i}.tif", labels)
    found = inspect(tmp_path)
    assert (found.fingerprint.ndim, found.fingerprint.channels) == (2, 6)
    assert all(sample.images[0].endswith("#channels") for sample in found.reading.samples)
    assert any("planes are read as channels" in repair for repair in found.repairs)


def test_masks_whose_shape_lies_in_the_alpha_channel(tmp_path):
    for i in range(4):
        image, labels = scene(i)
        labels = labels * np.uint8(i > 0) * 255  # the first is empty: of one grey, and of one alpha
        write(tmp_path / "images" / f"{i}.png", image)
        write(tmp_path / "masks" / f"{i}.png", np.dstack([np.full_like(labels, 255)] * 3 + [labels]))
    found = inspect(tmp_path)
    assert (found.mapping.kind, found.mapping.alpha, found.mapping.channels) == ("values", True, 1)
    assert any("alpha is read" in repair for repair in found.repairs)
    assert found.fingerprint.classes[1].pixels == sum(int(scene(i)[1].sum()) for i in range(1, 4))
    again = LabelMapping.from_toml(found.mapping.to_toml())
    assert again == found.mapping
    truth = scene(1)[1]
    stored = np.stack([np.full_like(truth, 255)] * 3 + [truth * 255])
    np.testing.assert_array_equal(again.encode(stored)[0], truth)
    np.testing.assert_array_equal(again.decode(truth), truth * 255)
    np.testing.assert_array_equal(again.encode(again.decode(truth)[None])[0], truth)  # a prediction, read again
    (tmp_path / "classes.toml").write_text(again.to_toml())
    assert inspect(tmp_path).fingerprint.classes == found.fingerprint.classes
    (tmp_path / "classes.toml").write_text("alpha = false\n")
    with pytest.raises(DataError, match="only one value occurs"):
        inspect(tmp_path)


def test_masks_of_several_planes_are_refused_with_ways_that_work(tmp_path):
    truth = {}
    for i in range(3):
        image, labels = scene(i, classes=4)
        truth[i] = labels
        write(tmp_path / "images" / f"{i}.png", image)
        planes = np.stack([labels == value for value in range(4)]).astype(np.uint8)
        (tmp_path / "masks").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "masks" / f"{i}.tif", planes, photometric="minisblack")
    with pytest.raises(DataError) as failure:
        inspect(tmp_path)
    assert [Path(problem.where).name for problem in failure.value.problems] == ["0.tif", "1.tif", "2.tif"]
    remedy = failure.value.problems[0].remedy
    assert "`objects` of a pairs.csv, 0.tif#0;0.tif#1" in remedy
    assert "numpy's argmax" in remedy

    table = tmp_path / "pairs.csv"
    planes = [";".join(f"masks/{i}.tif#{value}" for value in (1, 2, 3)) for i in range(3)]
    table.write_text("image,objects\n" + "".join(f"images/{i}.png,{planes[i]}\n" for i in range(3)))
    found = inspect(tmp_path)
    assert found.mapping.kind == "objects"
    assert found.fingerprint.classes[1].pixels == sum(np.count_nonzero(labels) for labels in truth.values())
    table.write_text("image,label\n" + "".join(f"images/{i}.png,masks/{i}.tif#2\n" for i in range(3)))
    assert inspect(tmp_path).fingerprint.classes[1].pixels == sum(int((labels == 2).sum()) for labels in truth.values())
    table.unlink()
    for i in range(3):
        planes = tifffile.imread(tmp_path / "masks" / f"{i}.tif")
        write(tmp_path / "masks" / f"{i}.tif", planes.argmax(0).astype(np.uint8))
    assert inspect(tmp_path).mapping.num_classes == 4
