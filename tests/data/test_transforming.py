"""Changed files: labels keep their values and palettes, what is turned four times is what it was."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from useg.data.images import read_header, read_image
from useg.data.labels import LabelClass, LabelMapping
from useg.data.reading import Sample
from useg.data.transforming import change_files, class_factors, geometric, merge_classes, space_after
from useg.data.transforms import parse_transforms
from useg.errors import DataError, InputError
from useg.home.cache import Cache


def sample(place: Path) -> Sample:
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(place / "a.png")
    mask = Image.fromarray(np.kron(draw.integers(0, 3, (3, 4)), np.ones((10, 10))).astype(np.uint8), mode="P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    mask.save(place / "m.png")
    return Sample("a", (str(place / "a.png"),), (str(place / "m.png"),))


def changed(place: Path, *texts: str) -> tuple[np.ndarray, np.ndarray, Sample]:
    found = change_files(sample(place), geometric(parse_transforms(texts)), Cache(place / "cache"))
    return read_image(found.images[0]), read_image(found.labels[0]), found


def test_sizes_and_values(tmp_path: Path) -> None:
    original = read_image(str(sample(tmp_path).labels[0]))
    image, label, found = changed(tmp_path, "resize=20")
    assert (image.shape, label.shape) == ((3, 15, 20), (1, 15, 20))
    assert (image.dtype, label.dtype) == (np.uint8, np.uint8)
    assert np.array_equal(label, original[:, ::2, ::2]), "blocks of equal labels stay blocks"
    header = read_header(found.labels[0])
    assert header.palette is not None
    assert header.palette[:3].tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    assert changed(tmp_path, "scale=2")[1].shape == (1, 60, 80)
    assert np.array_equal(changed(tmp_path, "scale=2", "scale=0.5")[1], original)
    assert changed(tmp_path, "resize=64x32")[0].shape == (3, 64, 32)
    with pytest.raises(DataError, match=r"resize=8x8x8 has 3 sides, its image 30x40"):
        changed(tmp_path, "resize=8x8x8")


@pytest.mark.parametrize(
    "texts",
    [
        ["resize=20"],
        ["resize=64x32"],
        ["scale=0.33"],
        ["scale=2", "crop=31x50+3+4", "rotate=270"],
        ["rotate=180", "resize=7"],
        ["rotate=90", "scale=0.01"],
    ],
)
def test_the_size_is_known_before(texts: list[str], tmp_path: Path) -> None:
    assert space_after(geometric(parse_transforms(texts)), (30, 40)) == changed(tmp_path, *texts)[0].shape[1:]


@pytest.mark.parametrize("text", ["rotate=30", "resize=8x8x8", "crop=31x5", "crop=8x8+0+33", "crop=5x5x5"])
def test_a_size_that_cannot_be_told_is_none(text: str) -> None:
    assert space_after(geometric(parse_transforms([text])), (30, 40)) is None


def test_turns_and_crops(tmp_path: Path) -> None:
    before = sample(tmp_path)
    image, label = read_image(before.images[0]), read_image(before.labels[0])
    turned = changed(tmp_path, "rotate=90")
    assert np.array_equal(turned[0], np.rot90(image, axes=(1, 2)))
    assert np.array_equal(changed(tmp_path, *["rotate=90"] * 4)[0], image)
    oblique = changed(tmp_path, "rotate=30")[1]
    assert set(np.unique(oblique)) <= set(np.unique(label))
    assert oblique.shape[1] > 40
    part = changed(tmp_path, "crop=10x12+5+6")
    assert np.array_equal(part[0], image[:, 5:15, 6:18])
    assert np.array_equal(changed(tmp_path, "crop=10x12")[1], label[:, 10:20, 14:26])
    with pytest.raises(DataError, match=r"crop=31x5 does not lie within its 30x40 pixels"):
        changed(tmp_path, "crop=31x5")


def test_volumes_keep_their_size_in_space(tmp_path: Path) -> None:
    import nibabel

    volume = np.arange(4 * 6 * 8, dtype=np.int16).reshape(8, 6, 4)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 2.0, 3.0, 1])), tmp_path / "v.nii.gz")
    given = Sample("v", (str(tmp_path / "v.nii.gz"),))
    header = read_header(given.images[0])
    found = change_files(given, geometric(parse_transforms(["scale=0.5"])), Cache(tmp_path / "cache"))
    smaller = read_header(found.images[0])
    assert smaller.space == tuple(side // 2 for side in header.space)
    assert smaller.spacing == pytest.approx([2 * step for step in header.spacing])
    assert read_image(found.images[0]).dtype == np.int16


CLASSES = LabelMapping(
    kind="values",
    classes=tuple(LabelClass(name=name, values=(value,)) for value, name in enumerate(["ground", "crop", "weed"])),
)


def test_classes_merge_and_count() -> None:
    merged = merge_classes(CLASSES, parse_transforms(["merge=2:crop"]))
    assert [(each.name, each.values) for each in merged.classes] == [("ground", (0,)), ("crop", (1, 2))]
    assert merge_classes(CLASSES, ()) == CLASSES
    assert class_factors(CLASSES, parse_transforms(["weight=weed:5"])) == (1.0, 1.0, 5.0)
    with pytest.raises(InputError, match=r"no class 'tree'; there are ground \(0\), crop \(1\), weed \(2\)"):
        merge_classes(CLASSES, parse_transforms(["merge=tree:1"]))
    with pytest.raises(InputError, match="fewer than two classes"):
        merge_classes(CLASSES, parse_transforms(["merge=1+2:0"]))
