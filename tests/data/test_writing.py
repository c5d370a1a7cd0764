import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from useg.data.headers import Header
from useg.data.images import read_header, read_image
from useg.data.writing import map_suffix, open_map
from useg.errors import ConfigError, ResourceError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (70, 90, 3), dtype=np.uint8)
LABELS = RANDOM.integers(0, 12, (1, 70, 90), dtype=np.uint8)
COLOURS = RANDOM.integers(0, 256, (12, 3), dtype=np.uint8)


def source_of(shape: tuple[int, ...], format_name: str = "png", ref: str = "a.png", **more: object) -> Header:
    return replace(Header(ref, format_name, shape, np.dtype(np.uint8), "grey"), **more)


def blocks(values: np.ndarray, step: int) -> Iterator[np.ndarray]:
    for start in range(0, values.shape[1], step):
        yield values[:, start : start + step]


def write(path: Path, source: Header, values: np.ndarray, step: int = 13, **options: object) -> Path:
    with open_map(path, source=source, dtype=values.dtype, channels=len(values), **options) as writer:
        for block in blocks(values, step):
            writer.write(block)
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    return writer.path


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f2", "f4"])
@pytest.mark.parametrize("suffix", ["", ".tif", ".npy", ".nii", ".nii.gz"])
@pytest.mark.parametrize("space", [(70, 90), (6, 20, 30)])
def test_what_is_written_in_blocks_is_read_back(
    tmp_path: Path, channels: int, dtype: str, suffix: str, space: tuple[int, ...]
) -> None:
    values = (RANDOM.random((channels, *space)) * 250).astype(dtype)
    path = write(tmp_path / f"map{suffix}", source_of((3, *space)), values, step=4)
    expected = values.astype(np.float32) if dtype == "f2" and ".nii" in suffix else values
    pixels = read_image(
        f"{path}#channels" if len(space) == 2 and values.ndim < read_image(str(path)).ndim else str(path)
    )
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == expected.dtype


@pytest.mark.parametrize("step", [1, 7, 70])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_size_of_the_blocks_changes_nothing(tmp_path: Path, step: int, suffix: str) -> None:
    whole = write(tmp_path / f"a{suffix}", source_of((1, 70, 90)), LABELS, step=70)
    parts = write(tmp_path / f"b{suffix}", source_of((1, 70, 90)), LABELS, step=step)
    np.testing.assert_array_equal(read_image(str(whole)), read_image(str(parts)))


def test_tiles_strips_and_the_format_above_4_gb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("useg.data.tiff_encoder._STRIP_BYTES", 1000)
    for tiled_from, big_from in ((0, 0), (0, 10**10), (10**10, 0), (10**10, 10**10)):
        monkeypatch.setattr("useg.data.tiff_encoder._TILED_FROM_PX", tiled_from)
        monkeypatch.setattr("useg.data.tiff_encoder._BIG_FROM_BYTES", big_from)
        for channels, dtype in ((1, np.uint8), (3, np.uint8), (3, np.float16)):
            values = (RANDOM.random((channels, 300, 530)) * 250).astype(dtype)
            path = write(tmp_path / "a.tif", source_of((1, 300, 530)), values, step=101)
            np.testing.assert_array_equal(read_image(str(path)), values)
            with tifffile.TiffFile(path) as tif:
                assert tif.is_bigtiff == (big_from == 0)
                assert tif.pages[0].is_tiled == (tiled_from == 0)
                assert len(tif.pages[0].dataoffsets) > channels


def test_other_readers_agree(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        path = write(tmp_path / f"a{suffix}", source_of((1, 70, 90)), LABELS)
        with Image.open(path) as picture:
            picture.load()
            np.testing.assert_array_equal(np.asarray(picture), LABELS[0])
    stack = RANDOM.integers(0, 9, (1, 6, 20, 30), dtype=np.uint16)
    source = source_of((1, 6, 20, 30), spacing=(3.0, 0.5, 0.25), spacing_unit="um")
    np.testing.assert_array_equal(tifffile.imread(write(tmp_path / "s.tif", source, stack)), stack[0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palettes(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", source_of((1, 70, 90)), LABELS, palette=COLOURS)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), COLOURS[LABELS[0]])
    header = read_header(str(path))
    assert header.palette is not None
    np.testing.assert_array_equal(header.palette[:12], COLOURS)
    np.testing.assert_array_equal(read_image(str(path)), LABELS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "suffix"), [("jpg", ".png"), ("jpg", ".tif"), ("png", ".png"), ("tif", ".tif"), ("webp", ".png")]
)
def test_a_map_lies_on_its_picture_with_and_without_the_tag(
    tmp_path: Path, orientation: int, kind: str, suffix: str
) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "tif" else {"exif": tags}
    options |= {"lossless": True} if kind == "webp" else {}
    stored = np.zeros((40, 60), np.uint8)
    stored[5:17, 30:55] = 255
    Image.fromarray(stored).save(tmp_path / f"a.{kind}", **options)
    source = read_header(str(tmp_path / f"a.{kind}"))
    values = (read_image(source.ref)[:1] > 127).astype(np.uint8)
    path = write(tmp_path / f"map{suffix}", source, values)
    assert read_header(str(path)).orientation == orientation
    np.testing.assert_array_equal(read_image(str(path)), values)
    if suffix == ".png":
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), stored > 127)
            np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(picture)), values[0])
    else:
        np.testing.assert_array_equal(tifffile.imread(path), stored > 127)


def test_spacing_is_turned_with_the_map(tmp_path: Path) -> None:
    tag = [(274, "H", 1, 6, True)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        RGB[..., 0],
        imagej=True,
        resolution=(2, 4),
        metadata={"unit": "um"},
        extratags=tag,
    )
    source = read_header(str(tmp_path / "a.tif"))
    assert source.spacing == (0.5, 0.25)
    path = write(tmp_path / "b.tif", source, np.zeros((1, *source.space), np.uint8))
    assert read_header(str(path)).spacing == pytest.approx((0.5, 0.25))


def test_formats_without_the_tag_are_upright(tmp_path: Path) -> None:
    source = source_of((1, 70, 90), orientation=6)
    path = write(tmp_path / "a.npy", source, LABELS)
    np.testing.assert_array_equal(np.load(path), LABELS[0])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nifti_keeps_its_header(tmp_path: Path, suffix: str, channels: int) -> None:
    affine = np.array([[0, 0.5, 0, 9], [-0.75, 0, 0, 8], [0, 0, 3, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(RANDOM.integers(0, 9, (7, 8, 9), dtype=np.int16), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 4)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / f"a{suffix}")
    source = read_header(str(tmp_path / f"a{suffix}"))
    values = RANDOM.random((channels, *source.space)).astype(np.float32)
    path = write(tmp_path / "map", source, values, step=2)
    assert path.name == f"map{suffix}"
    written = nibabel.load(path)
    np.testing.assert_array_equal(written.affine, affine)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 1)
    np.testing.assert_allclose(written.header.get_zooms()[:3], image.header.get_zooms()[:3])
    voxels = np.asarray(written.dataobj).reshape(7, 8, 9, channels)
    np.testing.assert_array_equal(voxels, values.transpose(3, 2, 1, 0))
    assert read_header(str(path)).spacing == source.spacing


def test_a_gzipped_map_is_the_same_file_twice(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint8).reshape(1, 3, 4, 5)
    first = write(tmp_path / "a.nii.gz", source_of((1, 3, 4, 5)), values).read_bytes()
    assert write(tmp_path / "b.nii.gz", source_of((1, 3, 4, 5)), values).read_bytes() == first


@pytest.mark.parametrize("gone", [False, True])
def test_nifti_of_a_source_that_is_gone_keeps_affine_and_spacing(tmp_path: Path, gone: bool) -> None:
    affine = np.diag([0.5, 0.75, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.zeros((7, 8, 9), np.uint8), affine), tmp_path / "a.nii")
    source = read_header(str(tmp_path / "a.nii"))
    if gone:
        (tmp_path / "a.nii").unlink()
    path = write(tmp_path / "b.nii", source, np.zeros((1, *source.space), np.uint8))
    header = read_header(str(path))
    assert header.spacing == source.spacing
    np.testing.assert_allclose(header.affine, affine)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f2", "f4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_stacks_keep_their_spacing_in_tiff(tmp_path: Path, dtype: str, channels: int) -> None:
    source = source_of((1, 6, 20, 30), spacing=(3.0, 0.5, 0.25), spacing_unit="um")
    path = write(tmp_path / "a.tif", source, np.zeros((channels, 6, 20, 30), dtype))
    header = read_header(str(path))
    assert header.shape == (channels, 6, 20, 30)
    assert header.spacing == pytest.approx(source.spacing)
    assert header.spacing_unit == "um"


def test_the_geo_reference_is_copied(tmp_path: Path) -> None:
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0, 0, 0, 440720.0, 3751320.0, 0), True),
        (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 1026, 34737, 7, 0), True),
        (34737, "s", 0, "WGS 84|", True),
        (274, "H", 1, 3, True),
    ]
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", extratags=tags)
    source = read_header(str(tmp_path / "a.tif"))
    path = write(tmp_path / "map.tif", source, LABELS, palette=COLOURS)
    with tifffile.TiffFile(tmp_path / "a.tif") as one, tifffile.TiffFile(path) as other:
        for code in (33550, 33922, 34735, 34737):
            assert other.pages[0].tags[code].value == one.pages[0].tags[code].value
    # what follows the geo-reference ignores the tag, so both are as stored
    np.testing.assert_array_equal(tifffile.imread(path), LABELS[0])
    assert (read_header(str(path)).spacing, read_header(str(path)).spacing_unit) == ((0.5, 0.5), "m")


@pytest.mark.parametrize(
    ("source", "dtype", "channels", "suffix"),
    [
        (source_of((3, 70, 90), "jpeg", "a.jpg"), "u1", 1, ".png"),
        (source_of((3, 70, 90), "bmp", "a.bmp"), "u2", 1, ".png"),
        (source_of((3, 70, 90), "png", "a.png"), "f2", 4, ".tif"),
        (source_of((3, 70, 90), "png", "a.png"), "i4", 1, ".tif"),
        (source_of((1, 9000, 9000), "png", "a.png"), "u1", 1, ".tif"),
        (source_of((1, 70, 90), "tiff", "a.tiff"), "u1", 1, ".tiff"),
        (source_of((1, 70, 90), "tiff", "a.btf"), "u1", 1, ".tif"),
        (source_of((1, 70, 90), "npy", "a.npy"), "f2", 4, ".npy"),
        (source_of((1, 7, 70, 90), "nifti", "a.nii.gz"), "u1", 1, ".nii.gz"),
        (source_of((1, 7, 70, 90), "hdf5", "a.h5#x"), "u1", 1, ".tif"),
        (source_of((3, 70, 90), "video", "a.mp4#3"), "u1", 1, ".png"),
    ],
)
def test_the_format_follows_source_and_values(source: Header, dtype: str, channels: int, suffix: str) -> None:
    assert map_suffix(source, dtype, channels) == suffix


def test_names_keep_what_is_no_image_suffix(tmp_path: Path) -> None:
    source = source_of((1, 70, 90))
    assert open_map(tmp_path / "cell.v2", source=source, dtype=np.uint8).path.name == "cell.v2.png"
    assert open_map(tmp_path / "cell.jpg", source=source, dtype=np.uint8).path.name == "cell.png"
    assert open_map(tmp_path / "cell.tif", source=source, dtype=np.uint8).path.name == "cell.tif"


@pytest.mark.parametrize(
    ("name", "dtype", "channels", "space"),
    [
        ("a.png", "f2", 1, (7, 9)),
        ("a.png", "u1", 2, (7, 9)),
        ("a.png", "u1", 1, (5, 7, 9)),
        ("a.nii", "c8", 1, (7, 9)),
    ],
)
def test_what_a_format_cannot_hold_is_said(
    tmp_path: Path, name: str, dtype: str, channels: int, space: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match="cannot hold"):
        open_map(tmp_path / name, source=source_of((1, *space)), dtype=dtype, channels=channels)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".nii.gz"])
def test_nothing_half_written_is_left(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"an older map")
    source = source_of((1, 70, 90), orientation=6)

    def fail() -> None:
        with open_map(path, source=source, dtype=np.uint8) as writer:
            writer.write(LABELS[:, :30])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with (
        pytest.raises(ValueError, match="30 of 70 rows"),
        open_map(path, source=source, dtype=np.uint8) as writer,
    ):
        writer.write(LABELS[:, :30])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"an older map"


@pytest.mark.parametrize(
    "block", [LABELS[:, :, :50], LABELS[0], np.zeros((2, 10, 90), np.uint8), np.zeros((1, 71, 90), "u1")]
)
def test_a_block_that_does_not_continue_the_map(tmp_path: Path, block: np.ndarray) -> None:
    writer = open_map(tmp_path / "a.png", source=source_of((1, 70, 90)), dtype=np.uint8)
    with pytest.raises(ValueError, match="does not continue"), writer:
        writer.write(block)


@pytest.mark.parametrize("block", [np.full((1, 70, 90), 256), np.full((1, 70, 90), -1), np.zeros((1, 70, 90))])
def test_values_that_do_not_fit(tmp_path: Path, block: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"do not fit|cannot be written"):
        write_as_bytes(tmp_path / "a.png", block)


def write_as_bytes(path: Path, block: np.ndarray) -> None:
    with open_map(path, source=source_of((1, 70, 90)), dtype=np.uint8) as writer:
        writer.write(block)


def test_wider_integers_that_fit_are_taken(tmp_path: Path) -> None:
    write_as_bytes(tmp_path / "a.png", LABELS.astype(np.int64))
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), LABELS)


def test_a_block_may_be_used_again_by_its_owner(tmp_path: Path) -> None:
    block = np.empty((1, 10, 90), np.uint8)
    with open_map(tmp_path / "a.tif", source=source_of((1, 70, 90)), dtype=np.uint8) as writer:
        for part in blocks(LABELS, 10):
            block[:] = part
            writer.write(block)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.tif")), LABELS)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(ResourceError, match="cannot write"):
        write(tmp_path / "closed" / "a.png", source_of((1, 70, 90)), LABELS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def open_full(path: Path, mode: str = "r", *more: object) -> object:
        return opened(Path("/dev/full"), "r+b") if path.suffix == ".part" else opened(path, mode, *more)

    monkeypatch.setattr(Path, "open", open_full)
    noise = RANDOM.integers(0, 256, (1, 700, 900), dtype=np.uint8)
    with pytest.raises(ResourceError, match="No space left"):
        write(tmp_path / "a.png", source_of((1, 700, 900)), noise)
    assert list(tmp_path.iterdir()) == []
