"""Layouts with a trap each: what must be taken, left over, refused."""

import json
import os
import time
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import tifffile
from PIL import Image

from useg.data.layouts import read_layout
from useg.errors import DataError, MissingExtra

SIZE = (24, 20)


def picture(seed: int, size: tuple[int, ...] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 200, size).astype(np.uint8)


def mask(seed: int, size: tuple[int, ...] = SIZE, value: int = 255) -> np.ndarray:
    found = np.zeros(size, np.uint8)
    row, column = np.random.default_rng(seed).integers(0, 12, 2)
    found[..., row : row + 8, column : column + 6] = value
    return found


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.casefold() in {".tif", ".tiff"}:
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def make(root: Path, images: list[str], labels: list[str]) -> Path:
    for seed, path in enumerate(images):
        save(root / path, picture(seed))
    for seed, path in enumerate(labels):
        save(root / path, mask(seed))
    return root


def pairs(root: Path, **more) -> dict[str, tuple[str, ...]]:
    """Image to labels, relative to the root."""

    def relative(ref: str) -> str:
        return ref.removeprefix(f"{root}/")

    samples = read_layout(root, **more).samples
    return {relative(s.images[0]): tuple(relative(label) for label in s.labels) for s in samples}


def test_the_exact_name_beats_the_number_and_strays_are_left_over(tmp_path):
    names = ["7", "149", "166", "20"]
    make(tmp_path, [f"images/{n}.tif" for n in names], [f"labels/{n}.png" for n in [*names, "149_166", "7_20"]])
    reading = read_layout(tmp_path)
    assert [sample.key for sample in reading.samples] == ["7", "20", "149", "166"]
    assert all(Path(s.images[0]).stem == Path(s.labels[0]).stem for s in reading.samples)
    assert reading.leftovers == ("labels/7_20.png", "labels/149_166.png")
    assert reading.problems == ()
    assert "2 further files are left over" in reading.rule


def test_one_mask_per_object(tmp_path):
    for case in ("0a1f", "77be", "c0de"):
        save(tmp_path / f"stage1_train/{case}/images/{case}.png", picture(1))
        for n in range(3):
            save(tmp_path / f"stage1_train/{case}/masks/{n}{case}ff.png", mask(n))
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == [f"stage1_train/{case}" for case in ("0a1f", "77be", "c0de")]
    for sample in reading.samples:
        assert sample.masks_are_objects
        assert sample.split == "train"
        assert len(sample.labels) == 3
        assert {Path(label).parent for label in sample.labels} == {Path(sample.images[0]).parents[1] / "masks"}


@pytest.mark.parametrize("label", ["masks/{}/{}.png", "masks/{}_{}.png", "masks/{}-mask-{}.png"])
def test_one_mask_per_object_in_flat_folders(tmp_path, label):
    names = ["cat", "dog", "owl"]
    make(
        tmp_path,
        [f"images/{n}.png" for n in names],
        [label.format(n, i) for n in names for i in range(2 + len(n))],
    )
    reading = read_layout(tmp_path)
    assert [len(s.labels) for s in reading.samples] == [5, 5, 5]
    assert all(s.masks_are_objects and all(s.key in label for label in s.labels) for s in reading.samples)


def test_a_fixed_mask_beside_labels_is_the_region(tmp_path):
    row, column = np.indices(SIZE)
    disc = (255 * ((row - 12) ** 2 + (column - 10) ** 2 < 70)).astype(np.uint8)
    for n in range(21, 27):
        save(tmp_path / f"training/images/{n}_training.tif", picture(n))
        save(tmp_path / f"training/1st_manual/{n}_manual1.gif", mask(n))
        save(tmp_path / f"training/mask/{n}_training_mask.gif", disc)
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == [f"training/{n}_training" for n in range(21, 27)]
    for sample, n in zip(reading.samples, range(21, 27), strict=True):
        assert sample.labels == (f"{tmp_path}/training/1st_manual/{n}_manual1.gif",)
        assert sample.region == f"{tmp_path}/training/mask/{n}_training_mask.gif"
        assert sample.split == "train"
    assert "same shape everywhere" in reading.rule
    assert reading.alternatives == ()
    assert reading.leftovers == ()


def test_a_fixed_mask_alone_is_the_label(tmp_path):
    box = mask(3)
    for n in range(4):
        save(tmp_path / f"images/{n}.png", picture(n))
        save(tmp_path / f"masks/{n}.png", box)
    reading = read_layout(tmp_path)
    assert all(s.labels and s.region is None for s in reading.samples)


def test_a_second_annotator_is_an_alternative(tmp_path):
    for n in range(5):
        save(tmp_path / f"images/{n:02d}_test.tif", picture(n))
        save(tmp_path / f"1st_manual/{n:02d}_manual1.png", mask(n))
        save(tmp_path / f"2nd_manual/{n:02d}_manual2.png", mask(n + 7))
    reading = read_layout(tmp_path)
    assert all("1st_manual" in s.labels[0] for s in reading.samples)
    assert len(reading.alternatives) == 1
    assert "2nd_manual/ as labels" in reading.alternatives[0]
    assert reading.leftovers == tuple(f"2nd_manual/{n:02d}_manual2.png" for n in range(5))


def test_of_two_kinds_of_labels_the_one_with_more_classes_is_taken(tmp_path):
    for n in range(3):
        save(tmp_path / f"images/{n:03d}_image.png", np.stack([picture(n + c) for c in range(3)], -1))
        save(tmp_path / f"masks/{n:03d}_mask.png", mask(n))
        colours = np.stack([mask(n), mask(n + 5), np.zeros(SIZE, np.uint8)], -1)
        save(tmp_path / f"annotations/{n:03d}_annotation.png", colours)
    reading = read_layout(tmp_path)
    assert all("annotations/" in s.labels[0] for s in reading.samples)
    assert "masks/ as labels, with images/ (3 pairs" in reading.alternatives[0]


def test_same_names_in_two_parts_are_different_samples(tmp_path):
    names = [f"{part}/{{}}/{n}.jpg" for part in ("train", "validation") for n in (1, 2, 10)]
    make(tmp_path, [n.format("images") for n in names], [n.format("masks") for n in names])
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == [f"{part}/{n}" for part in ("train", "validation") for n in (1, 2, 10)]
    assert [s.split for s in reading.samples] == ["train"] * 3 + ["val"] * 3


def test_stacks_and_pairs_of_single_files(tmp_path):
    for name in ("img2d", "mask2d"):
        save(tmp_path / "a" / f"{name}.tif", picture(1) if "img" in name else mask(1))
    for name in ("img3d", "mask3d"):
        save(tmp_path / "a" / f"{name}.tif", picture(1, (5, 9, 8)) if "img" in name else mask(1, (5, 20, 20)))
    assert pairs(tmp_path / "a") == {"img2d.tif": ("mask2d.tif",), "img3d.tif": ("mask3d.tif",)}
    save(tmp_path / "b/nuclei.tif", picture(0, (6, 20, 20)))
    save(tmp_path / "b/nuclei_label.tif", mask(0, (6, 20, 20)))
    assert pairs(tmp_path / "b") == {"nuclei.tif": ("nuclei_label.tif",)}
    save(tmp_path / "c/train-volume.tif", picture(0, (6, 20, 20)))
    save(tmp_path / "c/train-labels.tif", mask(0, (6, 20, 20)))
    assert pairs(tmp_path / "c") == {"train-volume.tif": ("train-labels.tif",)}


def test_numbers_pair_names_that_share_nothing_else(tmp_path):
    make(tmp_path, [f"images/Foto{n:03d}b.png" for n in (1, 2, 30)], [f"labels/L {n}.png" for n in (1, 2, 30)])
    assert pairs(tmp_path) == {f"images/Foto{n:03d}b.png": (f"labels/L {n}.png",) for n in (1, 2, 30)}


def test_accents_pair_however_they_are_written(tmp_path):
    composed, apart = (normalize(form, "Zählung") for form in ("NFC", "NFD"))
    make(tmp_path, [f"images/{composed} {n}.png" for n in "ab"], [f"masks/{apart} {n}.png" for n in "ab"])
    assert pairs(tmp_path) == {f"images/{composed} {n}.png": (f"masks/{apart} {n}.png",) for n in "ab"}


def test_channels_in_several_files(tmp_path):
    for case in ("BraTS_001", "BraTS_002", "BraTS_010"):
        for seed, channel in enumerate(("flair", "t1", "t2")):
            save(tmp_path / f"{case}/{case}_{channel}.png", picture(seed))
        save(tmp_path / f"{case}/{case}_seg.png", mask(1))
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == ["BraTS_001", "BraTS_002", "BraTS_010"]
    assert all([Path(i).stem[10:] for i in s.images] == ["flair", "t1", "t2"] for s in reading.samples)
    assert reading.hints["channel_names"] == ["flair", "t1", "t2"]


def test_channels_in_several_folders(tmp_path):
    for n in (3, 12, 20):
        for seed, channel in enumerate(("red", "nir")):
            save(tmp_path / f"train_{channel}/{channel}_patch_{n}.png", picture(seed))
        save(tmp_path / f"train_gt/gt_patch_{n}.png", mask(n))
    reading = read_layout(tmp_path)
    assert len(reading.samples) == 3
    for sample in reading.samples:
        assert len(sample.images) == 2
        assert len({Path(ref).stem.rpartition("_")[2] for ref in (*sample.images, *sample.labels)}) == 1


def test_unpaired_files_are_all_named(tmp_path):
    make(tmp_path, [f"images/cell{n}.png" for n in range(8)], [f"masks/cell{n}.png" for n in range(2, 10)])
    reading = read_layout(tmp_path)
    assert sorted(Path(problem.where).relative_to(tmp_path).as_posix() for problem in reading.problems) == [
        "images/cell0.png",
        "images/cell1.png",
        "masks/cell8.png",
        "masks/cell9.png",
    ]
    assert all("pairs.csv" in problem.remedy for problem in reading.problems)
    assert sum(bool(s.labels) for s in reading.samples) == 6
    save(tmp_path / "masks/orphan.png", mask(0))
    assert any(problem.where.endswith("orphan.png") for problem in read_layout(tmp_path).problems)


def test_two_opinions_in_one_folder_are_no_objects(tmp_path):
    for n in range(4):
        save(tmp_path / f"images/{n:02d}.png", picture(n))
        for reader in (1, 2):
            save(tmp_path / f"labels/{n:02d}_manual{reader}.png", mask(n))
    reading = read_layout(tmp_path)
    assert [len(s.labels) for s in reading.samples] == [1] * 4
    assert all(s.labels[0].endswith(f"{s.key}_manual1.png") for s in reading.samples)
    assert len(reading.alternatives) == 1
    assert len(reading.leftovers) == 4


def test_classes_are_taken_before_single_objects(tmp_path):
    for n in range(4):
        save(tmp_path / f"V/JPEGImages/{n:04d}.jpg", picture(n))
        save(tmp_path / f"V/SegmentationClass/{n:04d}.png", mask(n))
        save(tmp_path / f"V/SegmentationObject/{n:04d}.png", mask(n) // 2 + mask(n + 9) // 3)
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == [f"V/{n:04d}" for n in range(4)]
    assert all("SegmentationClass" in s.labels[0] for s in reading.samples)
    assert "SegmentationObject/ as labels" in reading.alternatives[0]


def test_numbered_folders_pair_by_their_number(tmp_path):
    for slide in (1, 2, 12):
        for n in range(3):
            save(tmp_path / f"Slide_{slide:02d}/{n}.png", picture(n))
            save(tmp_path / f"GT_{slide:02d}/{n}.png", mask(n))
    wanted = {f"Slide_{s:02d}/{n}.png": (f"GT_{s:02d}/{n}.png",) for s in (1, 2, 12) for n in range(3)}
    assert pairs(tmp_path) == wanted


def test_a_kind_of_file_that_is_never_paired_is_left_over(tmp_path):
    for p in range(4):
        for name in ("frame01", "frame12", "4d"):
            save(tmp_path / f"patient{p}/patient{p}_{name}.png", picture(p))
        for name in ("frame01_gt", "frame12_gt"):
            save(tmp_path / f"patient{p}/patient{p}_{name}.png", mask(p))
    reading = read_layout(tmp_path)
    assert reading.problems == ()
    assert reading.leftovers == tuple(f"patient{p}/patient{p}_4d.png" for p in range(4))
    assert sum(bool(s.labels) for s in reading.samples) == 8


def test_a_part_without_any_labels_is_for_predicting(tmp_path):
    make(tmp_path, [f"train/images/{n}.png" for n in range(4)], [f"train/masks/{n}.png" for n in range(4)])
    make(tmp_path, [f"test/images/{n}.png" for n in range(3)], [])
    reading = read_layout(tmp_path, labels_needed=True)
    assert reading.problems == ()
    assert [(s.split, bool(s.labels)) for s in reading.samples] == [("test", False)] * 3 + [("train", True)] * 4


def test_by_products_are_left_over(tmp_path):
    make(tmp_path, [f"images/{n}.png" for n in range(4)], [f"masks/{n}.png" for n in range(4)])
    make(tmp_path, [f"overlays/{n}.png" for n in range(4)], [f"predictions/{n}.png" for n in range(4)])
    make(tmp_path, [], ["masks/old/a.png", "masks/old/b.png"])
    reading = read_layout(tmp_path)
    assert pairs(tmp_path) == {f"images/{n}.png": (f"masks/{n}.png",) for n in range(4)}
    assert len(reading.leftovers) == 10


def test_a_folder_of_patients_is_grouped(tmp_path):
    names = [f"{{}}/patient{p:02d}/{n}.png" for p in range(6) for n in (1, 2, 3)]
    make(tmp_path, [n.format("images") for n in names], [n.format("labels") for n in names])
    reading = read_layout(tmp_path)
    assert {s.group for s in reading.samples} == {f"patient{p:02d}" for p in range(6)}
    assert "stay together" in reading.rule


def test_patients_in_names_are_grouped_unless_given_splits_tear_them(tmp_path):
    names = [f"subject_{p}_slice{n}" for p in range(3) for n in (1, 2)]
    make(tmp_path / "a", [f"images/{n}.png" for n in names], [f"labels/{n}.png" for n in names])
    assert {s.group for s in read_layout(tmp_path / "a").samples} == {"subject_0", "subject_1", "subject_2"}
    torn = [f"{part}/{{}}/{n}.png" for part, n in zip(["train", "val"] * 3, names, strict=True)]
    make(tmp_path / "b", [n.format("images") for n in torn], [n.format("labels") for n in torn])
    groups = {s.group for s in read_layout(tmp_path / "b").samples}
    assert groups == {None} or all("/" in str(group) for group in groups)


def test_hdf5_data_sets(tmp_path):
    h5py = pytest.importorskip("h5py")
    for p in (1, 30):
        for frame in (1, 12):
            with h5py.File(tmp_path / f"patient{p:03d}_frame{frame:02d}.h5", "w") as file:
                file["image"] = picture(p, (4, 16, 16)).astype(np.float32) / 255
                file["label"] = mask(p, (4, 16, 16), 1)
                file["scribble"] = mask(p, (4, 16, 16), 4).astype(np.uint16)
                file["spacing"] = np.ones(3)
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == [f"patient{p:03d}_frame{f:02d}" for p in (1, 30) for f in (1, 12)]
    first = reading.samples[0]
    assert first.images == (f"{tmp_path}/patient001_frame01.h5#image",)
    assert first.labels == (f"{tmp_path}/patient001_frame01.h5#label",)
    assert {s.group for s in reading.samples} == {"patient001", "patient030"}
    assert any("scribble" in other for other in reading.alternatives)
    assert len(reading.leftovers) == 4


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"useg\[hdf5\]"):
        read_layout(tmp_path)


def test_broken_hdf5_is_named(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        read_layout(tmp_path)


def clip(path: Path, frames: int) -> None:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for n in range(frames):
            pixels = np.stack([picture(n, (32, 32))] * 3, -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("label", "start"), [("masks/{:03d}.png", 0), ("walk_masks/{}.png", 0), ("masks/walk_{:02d}.png", 1)]
)
def test_frames_of_a_clip_by_number(tmp_path, label, start):
    clip(tmp_path / "walk.mp4", 6)
    make(tmp_path, [], [label.format(n + start) for n in range(6)])
    reading = read_layout(tmp_path)
    assert [s.images[0] for s in reading.samples] == [f"{tmp_path}/walk.mp4#{n}" for n in range(6)]
    assert [s.labels[0] for s in reading.samples] == [f"{tmp_path}/{label.format(n + start)}" for n in range(6)]
    assert {s.group for s in reading.samples} == {"walk"}


def test_a_clip_with_a_stack_of_masks_and_one_without(tmp_path):
    clip(tmp_path / "a.mp4", 5)
    clip(tmp_path / "b.mp4", 5)
    save(tmp_path / "a_mask.tif", mask(0, (5, 32, 32)))
    reading = read_layout(tmp_path)
    labelled = {s.images[0]: s.labels for s in reading.samples if s.labels}
    assert labelled == {f"{tmp_path}/a.mp4#{n}": (f"{tmp_path}/a_mask.tif#{n}",) for n in range(5)}
    assert [s.images for s in reading.samples if not s.labels] == [(f"{tmp_path}/b.mp4",)]


def nnunet(root: Path, description: dict | str) -> Path:
    for case in ("la_003", "la_010"):
        for channel in range(2):
            save(root / f"imagesTr/{case}_{channel:04d}.png", picture(channel))
        save(root / f"labelsTr/{case}.png", mask(1, value=2))
        save(root / f"imagesTs/x{case}_0000.png", picture(2))
        save(root / f"imagesTs/x{case}_0001.png", picture(2))
    text = description if isinstance(description, str) else json.dumps(description)
    (root / "dataset.json").write_text(text)
    return root


VERSION_2 = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "edema": 1, "core": 2, "whole": [1, 2], "ignore": 3},
    "file_ending": ".png",
}


def test_the_raw_layout_of_nnunet(tmp_path):
    reading = read_layout(nnunet(tmp_path, VERSION_2))
    assert [s.key for s in reading.samples] == ["la_003", "la_010", "test/xla_003", "test/xla_010"]
    assert reading.samples[0].images == tuple(f"{tmp_path}/imagesTr/la_003_000{c}.png" for c in range(2))
    assert reading.samples[0].labels == (f"{tmp_path}/labelsTr/la_003.png",)
    assert [s.split for s in reading.samples] == [None, None, "test", "test"]
    assert reading.hints["class_names"] == {0: "background", 1: "edema", 2: "core"}
    assert reading.hints["ignore"] == [3]
    assert reading.hints["channel_names"] == ["T1", "T2"]
    assert reading.problems == ()
    assert reading.leftovers == ()


def test_nnunet_version_1_and_what_is_missing(tmp_path):
    old = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "edema"}, "training": []}
    nnunet(tmp_path, old)
    (tmp_path / "imagesTr/la_003_0001.png").unlink()
    (tmp_path / "labelsTr/la_010.png").rename(tmp_path / "labelsTr/la_011.png")
    reading = read_layout(tmp_path)
    assert reading.hints["class_names"] == {0: "background", 1: "edema"}
    said = "\n".join(map(str, reading.problems))
    assert "channels 0001 of case la_003 are missing" in said
    assert "no file in labelsTr is called la_010" in said
    assert "labelsTr/la_011.png" in said


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"labels": {"a": "b"}}'])
def test_a_wrong_dataset_json_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"dataset\.json"):
        read_layout(nnunet(tmp_path, text))


def test_images_without_labels(tmp_path):
    make(tmp_path, ["b 10.png", "b 2.png", "sub/b 2.PNG"], [])
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == ["b 2", "b 10", "sub/b 2"]
    assert all(not s.labels for s in reading.samples)
    with pytest.raises(DataError, match=r"no labels were found; put images .* or write a pairs\.csv"):
        read_layout(tmp_path, labels_needed=True)
    single = read_layout(tmp_path / "b 2.png")
    assert [(s.key, s.images) for s in single.samples] == [("b 2", (f"{tmp_path}/b 2.png",))]


def test_a_folder_of_label_maps_alone_reads_as_images(tmp_path):
    make(tmp_path, [], [f"labels/{n}.png" for n in range(3)])
    reading = read_layout(tmp_path)
    assert [s.key for s in reading.samples] == ["0", "1", "2"]
    assert reading.problems == ()


def test_names_that_cannot_be_paired_are_all_named(tmp_path):
    make(tmp_path, ["images/ant.png", "images/bee.png"], ["labels/one.png", "labels/two.png", "labels/six.png"])
    with pytest.raises(DataError, match="no labels were found") as caught:
        read_layout(tmp_path, labels_needed=True)
    assert len(caught.value.problems) == 3


def test_what_is_not_there_or_empty_or_no_image(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        read_layout(tmp_path / "nowhere")
    with pytest.raises(DataError, match="the folder is empty"):
        read_layout(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="none of its 1 files is an image"):
        read_layout(tmp_path)
    with pytest.raises(DataError, match=r"a folder, a pairs\.csv or an image was wanted"):
        read_layout(tmp_path / "notes.txt")


def test_links_in_a_circle_are_refused_and_links_to_folders_are_followed(tmp_path):
    make(tmp_path / "there", ["a.png"], [])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "there")
    assert [s.key for s in read_layout(tmp_path / "data").samples] == ["a"]
    (tmp_path / "data/sub").mkdir()
    (tmp_path / "data/sub/again").symlink_to(tmp_path / "data")
    (tmp_path / "data/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="leads back") as caught:
        read_layout(tmp_path / "data")
    assert len(caught.value.problems) == 2


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    make(tmp_path, ["images/a.png", "closed/b.png"], [])
    real = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="closed: the folder cannot be read: Permission denied"):
        read_layout(tmp_path)


def test_broken_pictures_do_not_stop_the_reading(tmp_path):
    make(tmp_path, [f"{n}.bmp" for n in range(6)], [f"{n}.png" for n in range(6)])
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "5.png").write_text("not a picture")
    reading = read_layout(tmp_path)
    assert pairs(tmp_path) == {f"{n}.bmp": (f"{n}.png",) for n in range(6)}
    assert "by their pixels" in reading.rule


def test_seven_thousand_files_are_read_in_seconds(tmp_path):
    """Names only: no pixel of most files is looked at, so empty files will do."""
    for case in range(140):
        folder = tmp_path / f"train/{case:08x}{case * 77:024x}"
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        (folder / "images" / f"{folder.name}.png").touch()
        for n in range(49):
            (folder / "masks" / f"{n:04x}{case:08x}a{n * 991:020x}.png").touch()
    start = time.process_time()
    reading = read_layout(tmp_path)
    assert time.process_time() - start < 5.0  # about 0.9 s alone on a core; leaves room for a busy machine
    assert [len(s.labels) for s in reading.samples] == [49] * 140


@pytest.mark.skipif("USEG_TEST_DATA" not in os.environ, reason="USEG_TEST_DATA names no folder of real data sets")
def test_real_data_sets():
    root = Path(os.environ["USEG_TEST_DATA"])
    counts = {
        "acdc": 8, "camvid": 55, "cwfid": 8, "drive": 20, "dsb2018": 146, "hippocampus": 100, "wbc": 150,
        "isbi2012_em": 20, "isbi2012_em_jpeg": 4, "kvasir_seg": 280, "nuclei3d_napari": 1,
        "stardist_sample": 2, "water12band": 40,
    }  # fmt: skip
    for name, count in counts.items():
        if (root / name).is_dir():
            reading = read_layout(root / name, labels_needed=True)
            assert (name, len(reading.samples), reading.problems) == (name, count, ())
            assert all(s.labels for s in reading.samples)
            assert all((s.region is not None) == (name == "drive") for s in reading.samples)


def test_channels_of_one_image_never_come_from_two_splits(tmp_path):
    for name in ("mask.png", "mask/image.png", "train/imageimage.png", "val/image.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    used = [ref for sample in read_layout(tmp_path).samples for ref in (*sample.images, *sample.labels)]
    assert len(used) == len(set(used))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_masks_drawn_with_a_soft_brush_are_told_by_their_pixels(tmp_path: Path, suffix: str) -> None:
    """Photographs at the top, drawings with smooth edges in a folder whose name is in another language."""
    rows, columns = np.indices((400, 300))
    for n in range(4):
        texture = np.random.default_rng(n).integers(0, 60, (400, 300, 3)) + (rows // 4 + columns // 4)[..., None]
        save(tmp_path / f"IMG_{n}1.{suffix}", texture.astype(np.uint8))
        inside = np.clip(80 - np.hypot(rows - 150 - 9 * n, columns - 140), 0, 2)[..., None] / 2
        drawing = inside * np.array([237, 28, 36]) + (1 - inside) * 255
        save(tmp_path / "Zeichnungen" / f"IMG_{n}1 Kopie.png", drawing.astype(np.uint8))
    reading = read_layout(tmp_path)
    assert [len(sample.labels) for sample in reading.samples] == [1, 1, 1, 1]
    assert all("Zeichnungen" in sample.labels[0] for sample in reading.samples)


def test_pickled_arrays_beside_images_are_left_out_and_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "loaded",))

    for i in range(3):
        save(tmp_path / "set" / f"im{i}.tif", picture(i))
        save(tmp_path / "set" / f"im{i}_cp_masks.tif", mask(i))
        np.save(tmp_path / "set" / f"im{i}_seg.npy", np.array({"masks": Trap()}, object), allow_pickle=True)
    reading = read_layout(tmp_path / "set")
    assert pairs(tmp_path / "set") == {f"im{i}.tif": (f"im{i}_cp_masks.tif",) for i in range(3)}
    assert reading.problems == ()
    assert reading.leftovers == tuple(f"im{i}_seg.npy" for i in range(3))
    assert "3 .npy files hold pickled Python objects, which are never loaded: left out" in reading.rule
    with pytest.raises(DataError, match=r"One \.npy file holds pickled"):
        read_layout(tmp_path / "set" / "im0_seg.npy")
    assert not (tmp_path / "loaded").exists()


def test_overlays_are_neither_images_nor_labels_and_it_is_said(tmp_path):
    images, overlays = [f"p{i}.jpg" for i in range(4)], [f"p{i}_overlay.png" for i in range(4)]
    make(tmp_path, [*images, *overlays], [])
    assert pairs(tmp_path) == {name: () for name in images}
    reading = read_layout(tmp_path)
    assert "4 files are left out, by name made from others and no label maps (for instance p0_overlay" in reading.rule
    assert reading.leftovers == tuple(overlays)
    make(tmp_path, [], [f"p{i}_mask.tif" for i in range(4)])
    assert pairs(tmp_path) == {name: (name.replace(".jpg", "_mask.tif"),) for name in images}
    assert "4 files are left out" in read_layout(tmp_path).rule
