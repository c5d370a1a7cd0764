"""Layouts that no rule was written for: names are drawn, pairs must come out as they were made."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from useg.data.layouts import read_layout
from useg.errors import DataError

SIZE = (24, 20)


def picture(seed: int, size: tuple[int, ...] = SIZE) -> np.ndarray:
    """Noise over a ramp: never looks like a label map."""
    random = np.random.default_rng(seed)
    ramp = np.indices(size).sum(axis=0) * 2
    return (ramp + random.integers(0, 120, size)).astype(np.uint8)


def label_map(seed: int, size: tuple[int, ...] = SIZE, values: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """A box of each further value on the first one, at a place that depends on the seed."""
    random = np.random.default_rng(1000 + seed)
    found = np.full(size, values[0], np.uint8)
    for value in values[1:]:
        corner = [int(random.integers(0, side - 6)) for side in size[-2:]]
        found[..., corner[0] : corner[0] + 6, corner[1] : corner[1] + 6] = value
    return found


def field_of_view(size: tuple[int, ...] = SIZE) -> np.ndarray:
    """A disc in the middle."""
    row, column = np.indices(size)
    return (255 * ((row - size[0] / 2) ** 2 + (column - size[1] / 2) ** 2 < (min(size) / 2.5) ** 2)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write by suffix; folders above are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.casefold() in {".tif", ".tiff"}:
        tifffile.imwrite(path, pixels)
    elif path.suffix == ".npy":
        np.save(path, pixels)
    elif path.name.endswith(".nii.gz"):
        import nibabel

        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    else:
        Image.fromarray(pixels).save(path)
    return path


def make(root: Path, images: dict[str, str | None], *, values: tuple[int, ...] = (0, 255)) -> None:
    """Write pairs: image path to label path (None: no label)."""
    for seed, (image, label) in enumerate(images.items()):
        save(root / image, picture(seed))
        if label is not None:
            save(root / label, label_map(seed, values=values))


def clutter(root: Path) -> None:
    """What lies around in folders of real people."""
    for path, text in {
        "README.md": "hello",
        ".DS_Store": "x",
        "Thumbs.db": "x",
        "__MACOSX/._a.png": "x",
        ".thumbs/a.png": "x",
        "notes/licence.txt": "free",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


IMAGE_FOLDERS = [
    "images",
    "image",
    "imgs",
    "Img",
    "raw",
    "input",
    "JPEGImages",
    "my photos",
    "Bilder",
    "data",
    "x 1",
]
LABEL_FOLDERS = [
    "masks",
    "label",
    "Labels",
    "annotations",
    "gt",
    "GroundTruth",
    "segmentation",
    "manual_2",
    "targets",
]
SPLITS = [None, ("train", "val"), ("Training", "validation", "TEST"), ("train_set", "test_set")]
STEMS = st.one_of(
    st.lists(st.integers(0, 3000).map(str), min_size=3, max_size=8, unique=True),
    st.lists(st.integers(0, 3000).map("{:05d}".format), min_size=3, max_size=8, unique=True),
    st.lists(st.integers(0, 999).map("Zelle {:03d} é".format), min_size=3, max_size=8, unique=True),
    st.lists(st.from_regex(r"[a-h]{4}\d{2}x", fullmatch=True), min_size=3, max_size=8, unique_by=str.casefold),
    st.lists(st.uuids().map(str), min_size=3, max_size=8, unique=True),
)
SUFFIXES = st.sampled_from([".png", ".PNG", ".tif", ".bmp", ".TIFF"])


@dataclass
class Made:
    """A layout as drawn: image path to label path, all relative."""

    pairs: dict[str, str]
    splits: dict[str, str | None]


def check(made: Made, *, with_clutter: bool = True) -> None:
    with tempfile.TemporaryDirectory(prefix="a b ") as folder:
        root = Path(folder)
        make(root, made.pairs)
        if with_clutter:
            clutter(root)
        reading = read_layout(root, labels_needed=True)
        found = {sample.images[0]: sample.labels for sample in reading.samples}
        wanted = {str(root / image): (str(root / label),) for image, label in made.pairs.items()}
        assert found == wanted, reading.rule
        assert not reading.problems
        assert len({sample.key for sample in reading.samples}) == len(wanted)
        for sample in reading.samples:
            image = str(Path(sample.images[0]).relative_to(root))
            assert sample.split == made.splits[image], image
        if with_clutter:
            assert reading.leftovers == ("notes/licence.txt", "README.md")
        assert read_layout(root) == read_layout(root)


def split_name(folder: str | None) -> str | None:
    if folder is None:
        return None
    return {"tra": "train", "val": "val", "tes": "test"}[folder.casefold()[:3]]


@st.composite
def two_folders(draw) -> Made:
    image_folder, label_folder = draw(st.sampled_from(IMAGE_FOLDERS)), draw(st.sampled_from(LABEL_FOLDERS))
    parts = draw(st.sampled_from(SPLITS))
    split_above = draw(st.booleans())
    above = draw(st.sampled_from(["", "export 2024/", "ds/v1/"]))
    prefix, suffix = draw(st.sampled_from([("", ""), ("lab_", ""), ("", "_mask"), ("", "-seg"), ("gt", "")]))
    image_suffix, label_suffix = draw(SUFFIXES), draw(SUFFIXES)
    made = Made({}, {})
    for part in parts or (None,):
        for stem in draw(STEMS):
            folders = [
                "/".join(filter(None, (part, name) if split_above else (name, part)))
                for name in (image_folder, label_folder)
            ]
            image = f"{above}{folders[0]}/{stem}{image_suffix}"
            made.pairs[image] = f"{above}{folders[1]}/{prefix}{stem}{suffix}{label_suffix}"
            made.splits[image] = split_name(part)
    return made


@st.composite
def split_with_role(draw) -> Made:
    """train/ and trainannot/, train_images/ and train_masks/, images_train/ and labels_train/."""
    image, label = draw(
        st.sampled_from(
            [
                ("{}", "{}annot"),
                ("{}_images", "{}_masks"),
                ("images-{}", "labels-{}"),
                ("{} raw", "{} gt"),
                ("{}", "{}_gt"),
            ]
        )
    )
    made = Made({}, {})
    suffixes = draw(SUFFIXES), draw(SUFFIXES)
    for part in draw(st.sampled_from([("train", "val"), ("train", "val", "test"), ("training",)])):
        for stem in draw(STEMS):
            path = f"{image.format(part)}/{stem}{suffixes[0]}"
            made.pairs[path] = f"{label.format(part)}/{stem}{suffixes[1]}"
            made.splits[path] = split_name(part)
    return made


@st.composite
def one_folder(draw) -> Made:
    """Image and label side by side, told apart by a word at either end."""
    folder = draw(st.sampled_from(["", "my data/", "train/"]))
    image, label = draw(
        st.sampled_from(
            [
                ("{}", "{}_mask"),
                ("{}", "mask_{}"),
                ("{}_img", "{}_label"),
                ("img{}", "mask{}"),
                ("image_{}", "annotation_{}"),
                ("{}", "{}-GT"),
                ("{}_raw_v2", "{}_seg_v2"),
            ]
        )
    )
    suffixes = draw(SUFFIXES), draw(SUFFIXES)
    made = Made({}, {})
    for stem in draw(STEMS.filter(lambda stems: image != "img{}" or all(stem[0].isdigit() for stem in stems))):
        path = f"{folder}{image.format(stem)}{suffixes[0]}"
        made.pairs[path] = f"{folder}{label.format(stem)}{suffixes[1]}"
        made.splits[path] = "train" if folder == "train/" else None
    return made


@st.composite
def without_words(draw) -> Made:
    """No word says what is what: folders, suffixes or ends of names of any kind; only pixels tell."""
    kind = draw(st.sampled_from(["folders", "suffixes", "ends"]))
    word = st.from_regex(r"[jkqwyz]{2,5}", fullmatch=True)
    a, b = draw(st.lists(word, min_size=2, max_size=2, unique=True))
    made = Made({}, {})
    for stem in draw(STEMS):
        if kind == "folders":
            image, label = f"{a}/{stem}.png", f"{b}/{stem}.png"
        elif kind == "suffixes":
            image, label = f"{a} 1/{stem}.bmp", f"{a} 1/{stem}.png"
        else:
            image, label = f"{stem}_{a}.png", f"{stem}_{b}.png"
        made.pairs[image], made.splits[image] = label, None
    return made


@st.composite
def folder_per_sample(draw) -> Made:
    """case 7/image.png beside case 7/mask.png, or case 7/7_x.png beside case 7/7_gt.png."""
    image, label = draw(
        st.sampled_from(
            [
                ("image", "mask"),
                ("imaging", "segmentation"),
                ("{}", "{}_gt"),
                ("{}_img", "{}_seg"),
                ("a", "gt"),
            ]
        )
    )
    above, below = draw(st.sampled_from(["", "cases/", "train/"])), draw(st.sampled_from(["", "v1/"]))
    made = Made({}, {})
    for stem in draw(STEMS):
        path = f"{above}{stem}/{below}{image.format(stem)}.png"
        made.pairs[path] = f"{above}{stem}/{below}{label.format(stem)}.tif"
        made.splits[path] = "train" if above == "train/" else None
    return made


@pytest.mark.parametrize("layouts", [two_folders, split_with_role, one_folder, without_words, folder_per_sample])
def test_pairs_come_out_as_they_were_made(layouts):
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(layouts(), st.booleans())
    def law(made, with_clutter):
        check(made, with_clutter=with_clutter)

    law()


WORD_TEXT = """
    image mask label train val test 1 02 a B_ _x seg img gt cell cat-3 3d case 0001 fov overlay é masks raw
"""
WORDS = st.sampled_from(WORD_TEXT.split())
ANY_NAME = st.lists(WORDS, min_size=1, max_size=3).map("".join)
ANY_SUFFIX = st.sampled_from([".png", ".tif", ".PNG", ".txt"])
ANY_TREE = st.dictionaries(
    st.tuples(st.lists(ANY_NAME, max_size=3).map(tuple), ANY_NAME, st.sampled_from([".png", ".tif", ".PNG", ".txt"])),
    st.sampled_from(["picture", "labels", "binary", "broken"]),
    min_size=1,
    max_size=14,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANY_TREE)
def test_any_tree_gives_every_file_one_place(tree):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for seed, ((folders, name, suffix), content) in enumerate(tree.items()):
            path = root.joinpath(*folders, name + suffix)
            if content == "broken" or suffix == ".txt":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"not a picture")
            else:
                values = (0, 1, 2) if content == "labels" else (0, 255)
                save(path, picture(seed) if content == "picture" else label_map(seed, values=values))
        if all(suffix == ".txt" for _, _, suffix in tree):
            with pytest.raises(DataError, match="is an image"):
                read_layout(root)
            return
        reading = read_layout(root)
        images = [ref for sample in reading.samples for ref in sample.images]
        labels = [ref for sample in reading.samples for ref in sample.labels]
        regions = [sample.region for sample in reading.samples if sample.region]
        left = [str(root / path) for path in reading.leftovers]
        wrong = [problem.where for problem in reading.problems]
        everything = {str(path) for path in root.rglob("*") if path.is_file()}
        assert {*images, *labels, *regions, *left, *wrong} == everything
        assert len({*images, *labels, *regions}) == len(images) + len(labels) + len(regions)
        assert not {*images, *labels, *regions} & {*left}
        assert len({sample.key for sample in reading.samples}) == len(reading.samples)
        assert reading.rule
        assert reading == read_layout(root)
