import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
from PIL import Image, ImageOps

from useg.data.array_files import list_datasets
from useg.data.images import SUFFIXES, is_image, open_image, read_header, read_image
from useg.errors import DataError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (37, 53), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (37, 53, 3), dtype=np.uint8)
RGBA = RANDOM.integers(0, 256, (37, 53, 4), dtype=np.uint8)
WINDOW = (slice(5, 20), slice(11, 50))


def save(path: Path, picture: Image.Image, **options: object) -> str:
    picture.save(path, **options)
    return str(path)


def channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def check(ref: str, expected: np.ndarray, colour: str, format_name: str) -> None:
    header, pixels = read_header(ref), read_image(ref)
    assert (header.shape, header.dtype) == (pixels.shape, pixels.dtype)
    assert (header.colour, header.format) == (colour, format_name)
    assert header.file_bytes == header.path.stat().st_size
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == expected.dtype
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    window = tuple(slice(n // 5, n - n // 7) for n in header.space)
    np.testing.assert_array_equal(read_image(ref, window), expected[:, *window])


@pytest.mark.parametrize(("pixels", "colour"), [(GREY, "grey"), (RGB, "rgb"), (RGBA, "rgba"), (RGBA[..., :2], "rgba")])
def test_png_of_8_bits(tmp_path: Path, pixels: np.ndarray, colour: str) -> None:
    check(save(tmp_path / "a.png", Image.fromarray(pixels)), channels_first(pixels), colour, "png")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_all_of_them(tmp_path: Path, channels: int) -> None:
    pixels = RANDOM.integers(0, 2**16, (37, 53, channels), dtype=np.uint16).squeeze()
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    colour = {1: "grey", 2: "rgba", 3: "rgb", 4: "rgba"}[channels]
    check(str(tmp_path / "a.png"), channels_first(pixels), colour, "png")


def test_png_of_1_bit_is_0_and_1(tmp_path: Path) -> None:
    ref = save(tmp_path / "a.png", Image.fromarray(GREY > 99))
    check(ref, (GREY > 99).astype(np.uint8)[None], "binary", "png")


def test_png_with_transparent_colour_keeps_its_channels(tmp_path: Path) -> None:
    check(
        save(tmp_path / "a.png", Image.fromarray(RGB), transparency=(1, 2, 3)),
        channels_first(RGB),
        "rgb",
        "png",
    )
    check(save(tmp_path / "b.png", Image.fromarray(GREY), transparency=7), GREY[None], "grey", "png")


@pytest.mark.parametrize(("suffix", "bits"), [("png", 8), ("png", 4), ("gif", 8), ("bmp", 8)])
def test_palettes_give_indices_and_colours(tmp_path: Path, suffix: str, bits: int) -> None:
    indices = GREY % 11
    colours = RANDOM.integers(0, 256, (11, 3), dtype=np.uint8)
    picture = Image.fromarray(indices).convert("L").convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    ref = save(tmp_path / f"a.{suffix}", picture, **({"bits": bits} if suffix == "png" else {}))
    header = read_header(ref)
    assert header.palette is not None
    shown = header.palette[read_image(ref)[0]]
    np.testing.assert_array_equal(shown, colours[indices])
    check(ref, read_image(ref), "palette", suffix)
    if suffix != "gif":  # Pillow may sort a GIF's palette
        np.testing.assert_array_equal(read_image(ref)[0], indices)


def test_grey_bmp_and_gif_are_grey(tmp_path: Path) -> None:
    check(save(tmp_path / "a.bmp", Image.fromarray(GREY)), GREY[None], "grey", "bmp")
    check(save(tmp_path / "a.gif", Image.fromarray(GREY)), GREY[None], "grey", "gif")
    check(save(tmp_path / "b.bmp", Image.fromarray(RGB)), channels_first(RGB), "rgb", "bmp")


def test_frames_of_a_gif_are_a_stack(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(GREY, shift, 1)) for shift in range(4)]
    ref = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    stack = np.stack([np.asarray(frame) for frame in frames])
    check(ref, stack[None], "grey", "gif")
    check(f"{ref}#2", stack[None, 2], "grey", "gif")


def test_jpeg_is_lossy_and_cmyk_becomes_rgb(tmp_path: Path) -> None:
    for name, mode in (("grey", "L"), ("rgb", "RGB"), ("cmyk", "CMYK")):
        ref = save(tmp_path / f"{name}.jpg", Image.fromarray(RGB).convert(mode), quality=95)
        assert read_header(ref).lossy
        with Image.open(ref) as picture:
            expected = np.asarray(picture.convert("RGB") if mode == "CMYK" else picture)
        check(ref, channels_first(expected), "grey" if mode == "L" else "rgb", "jpeg")


@pytest.mark.parametrize("pixels", [RGB, RGBA])
def test_webp_without_loss_is_exact_and_with_loss_is_said(tmp_path: Path, pixels: np.ndarray) -> None:
    colour = "rgba" if pixels.shape[-1] == 4 else "rgb"
    exact = save(tmp_path / "a.webp", Image.fromarray(pixels), lossless=True, exact=True)
    check(exact, channels_first(pixels), colour, "webp")
    assert not read_header(exact).lossy
    near = save(tmp_path / "b.webp", Image.fromarray(pixels), quality=90)
    assert read_header(near).lossy
    assert read_header(near).shape == read_header(exact).shape


@pytest.mark.parametrize("lossless", [True, False])
def test_frames_of_a_webp_are_a_stack(tmp_path: Path, *, lossless: bool) -> None:
    frames = [Image.fromarray(np.roll(RGB, shift, 0)) for shift in range(3)]
    ref = save(tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:], lossless=lossless)
    header = read_header(ref)
    assert (header.shape, header.lossy) == ((3, 3, *GREY.shape), not lossless)
    if lossless:
        np.testing.assert_array_equal(read_image(ref)[:, 2], channels_first(np.roll(RGB, 2, 0)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if suffix == "tif" else {"exif": tags}
    ref = save(tmp_path / f"a.{suffix}", Image.fromarray(RGB), **options)
    with Image.open(ref) as picture:
        expected = channels_first(np.asarray(ImageOps.exif_transpose(picture)))
    assert read_header(ref).orientation == orientation
    assert read_header(ref).shape == expected.shape
    check(ref, expected, "rgb", {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))


def test_content_counts_more_than_the_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert read_header(str(tmp_path / "a.png")).format == "jpeg"


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", ">i4", "f2", "f4", "f8", "?"])
def test_npy(tmp_path: Path, dtype: str) -> None:
    volume = RANDOM.integers(0, 2, (20, 30, 40)).astype(dtype)
    np.save(tmp_path / "a.npy", volume)
    expected = volume.astype(np.uint8 if dtype == "?" else volume.dtype.newbyteorder("="))[None]
    check(str(tmp_path / "a.npy"), expected, "binary" if dtype == "?" else "grey", "npy")
    check(f"{tmp_path / 'a.npy'}#3", expected[:, 3], "binary" if dtype == "?" else "grey", "npy")


def test_npy_with_channels_first_and_last_and_fortran_order(tmp_path: Path) -> None:
    np.save(tmp_path / "last.npy", RGB)
    np.save(tmp_path / "first.npy", np.ascontiguousarray(channels_first(RGB)))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(GREY))
    check(str(tmp_path / "last.npy"), channels_first(RGB), "rgb", "npy")
    check(str(tmp_path / "first.npy"), channels_first(RGB), "bands", "npy")
    check(str(tmp_path / "fortran.npy"), GREY[None], "grey", "npy")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_axes_are_reversed_and_spacing_with_them(tmp_path: Path, suffix: str, kind: type) -> None:
    voxels = RANDOM.integers(0, 1000, (7, 8, 9), dtype=np.int16)  # x, y, z
    affine = np.diag([0.5, 0.75, 3.0, 1.0])
    image = kind(voxels, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / f"a{suffix}")
    ref = str(tmp_path / f"a{suffix}")
    check(ref, voxels.T[None], "grey", "nifti")
    header = read_header(ref)
    assert header.spacing == (3.0, 0.75, 0.5)
    assert header.spacing_unit == "mm"
    np.testing.assert_array_equal(header.affine, affine)
    check(f"{ref}#4", voxels.T[None, 4], "grey", "nifti")


def test_nifti_modalities_are_channels_and_one_slice_is_a_picture(tmp_path: Path) -> None:
    voxels = RANDOM.random((7, 8, 9, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    check(str(tmp_path / "a.nii"), voxels.T, "bands", "nifti")
    nibabel.save(nibabel.Nifti1Image(voxels[:, :, :1, 0], np.eye(4)), tmp_path / "b.nii")
    check(str(tmp_path / "b.nii"), voxels[:, :, 0, 0].T[None], "grey", "nifti")
    nibabel.save(nibabel.Nifti1Image(voxels[:, :, 0, 0], np.eye(4)), tmp_path / "c.nii")
    check(str(tmp_path / "c.nii"), voxels[:, :, 0, 0].T[None], "grey", "nifti")


def test_nifti_colours_are_channels(tmp_path: Path) -> None:
    voxels = RANDOM.integers(0, 256, (7, 8, 9, 3), dtype=np.uint8)
    records = voxels.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(records, np.eye(4)), tmp_path / "a.nii.gz")
    check(str(tmp_path / "a.nii.gz"), voxels.T, "rgb", "nifti")


def test_nifti_scaling_gives_values_not_stored_numbers(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RANDOM.random((7, 8, 9)) * 100, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    pixels = read_image(str(tmp_path / "a.nii"))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0].T, image.get_fdata(), atol=0.01)


def test_hdf5_datasets(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    volume = RANDOM.random((6, 30, 40)).astype(np.float32)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw/image", data=volume, chunks=(1, 10, 10), compression="gzip")
        file["raw/image"].attrs["element_size_um"] = (2.0, 0.5, 0.25)
        file["label"] = (volume > 0.5).astype(np.uint8)
        file["name"] = "not an image"
    assert list_datasets(path) == ["label", "raw/image"]
    check(f"{path}#raw/image", volume[None], "grey", "hdf5")
    check(f"{path}#label#2", (volume[None, 2] > 0.5).astype(np.uint8), "grey", "hdf5")
    assert read_header(f"{path}#raw/image").spacing == (2.0, 0.5, 0.25)
    assert read_header(f"{path}#raw/image#1").spacing == (0.5, 0.25)
    with pytest.raises(DataError, match=r"several datasets .*label, raw/image"):
        read_header(str(path))
    with pytest.raises(DataError, match="no dataset of numbers 'image'"):
        read_header(f"{path}#image")


def test_an_only_dataset_needs_no_name(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = GREY
    check(str(tmp_path / "a.h5"), GREY[None], "grey", "hdf5")


def test_names_with_a_hash_are_files_first(tmp_path: Path) -> None:
    check(save(tmp_path / "slide #3.png", Image.fromarray(GREY)), GREY[None], "grey", "png")
    np.save(tmp_path / "run #7.npy", np.stack([GREY] * 5))
    check(f"{tmp_path / 'run #7.npy'}#4", GREY[None], "grey", "npy")


def test_planes_may_be_taken_as_channels(tmp_path: Path) -> None:
    stack = RANDOM.integers(0, 256, (12, 37, 53), dtype=np.uint8)
    np.save(tmp_path / "a.npy", stack)
    check(f"{tmp_path / 'a.npy'}#channels", stack, "bands", "npy")


def test_several_reads_of_one_open_image(tmp_path: Path) -> None:
    with open_image(save(tmp_path / "a.png", Image.fromarray(RGB))) as image:
        assert not image.streamable
        np.testing.assert_array_equal(image.read(WINDOW), channels_first(RGB)[:, *WINDOW])
        np.testing.assert_array_equal(image.read(), channels_first(RGB))
        image.read(WINDOW)[:] = 0  # what was given away may be changed
        np.testing.assert_array_equal(image.read(WINDOW), channels_first(RGB)[:, *WINDOW])


@pytest.mark.parametrize("window", [(slice(0, 5),), (slice(0, 5, 2), slice(0, 5)), (slice(5, 5), slice(0, 5))])
def test_a_wrong_window_is_a_mistake_of_the_caller(tmp_path: Path, window: tuple[slice, ...]) -> None:
    with pytest.raises(ValueError, match="window"):
        read_image(save(tmp_path / "a.png", Image.fromarray(GREY)), window)


def test_images_are_known_by_suffix() -> None:
    assert is_image(Path("a/B.PNG"))
    assert is_image(Path("a.b.nii.gz"))
    assert not is_image(Path("a.gz"))
    assert not is_image(Path("notes.txt"))
    assert not is_image(Path("png"))
    assert {".png", ".tif", ".nii.gz", ".h5", ".mp4"} <= SUFFIXES


def png_claiming(height: int, width: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(name: str, pixels: np.ndarray = RGB) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)
    return buffer.getvalue()


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def npy_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def gzipped_nifti() -> bytes:
    import gzip

    return gzip.compress(nibabel.Nifti1Image(RANDOM.random((20, 20, 20)), np.eye(4)).to_bytes())


BAD = {
    "truncated.png": (cut(encoded("PNG")), "cut off"),
    "damaged.png": (encoded("PNG")[:200] + b"\0" * 50 + encoded("PNG")[250:], "cannot be decoded"),
    "text.png": (b"this is text\n", "holds something else"),
    "empty.tif": (b"", "0 bytes"),
    "short.png": (b"\x89PNG\r\n\x1a\n", "cut off"),
    "bomb.png": (png_claiming(100_000, 100_000), "30,000,000,000 bytes of memory"),
    "truncated.jpg": (cut(encoded("JPEG")), "cannot be decoded"),
    "truncated.bmp": (cut(encoded("BMP")), "cannot be decoded"),
    "truncated.gif": (cut(encoded("GIF", GREY)), "cannot be decoded"),
    "truncated.tif": (cut(encoded("TIFF")), "cut off|cannot be decoded|no image"),
    "start.tif": (encoded("TIFF")[:20], "no image|cannot be decoded"),
    "text.tif": (b"II*\0 this goes on as text", "no image|cannot be decoded"),
    "objects.npy": (npy_of_objects(), "pickled objects"),
    "truncated.npy": (cut(b"\x93NUMPY" + bytes(100)), "cannot be decoded"),
    "text.nii": (b"text" * 200, "cannot be decoded"),
    "text.nii.gz": (b"text" * 200, "cannot be decoded"),
    "truncated.nii.gz": (cut(gzipped_nifti()), "cannot be decoded"),
    "text.h5": (b"text" * 200, "cannot be decoded"),
    "text.mp4": (b"text" * 200, "cannot be decoded"),
    "notes.txt": (b"text", "not known"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_error_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    data, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_image(str(path))
    assert caught.value.problems[0].where == str(path)
    assert capfd.readouterr() == ("", "")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.png: there is no such file"):
        read_header(str(tmp_path / "nowhere.png"))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"folder\.png: this is a folder"):
        read_header(str(tmp_path / "folder.png"))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_refused_permission_is_said(tmp_path: Path) -> None:
    ref = save(tmp_path / "a.png", Image.fromarray(GREY))
    Path(ref).chmod(0)
    with pytest.raises(DataError, match="permission"):
        read_header(ref)


def test_the_limit_holds_for_whole_images_and_for_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USEG_DECODE_LIMIT_BYTES", "4000")
    png = save(tmp_path / "a.png", Image.fromarray(RGB))
    with pytest.raises(DataError, match="USEG_DECODE_LIMIT_BYTES to 5883"):
        read_header(png)
    np.save(tmp_path / "a.npy", RGB)
    npy = str(tmp_path / "a.npy")
    assert read_header(npy).nbytes == 5883
    assert read_image(npy, WINDOW).shape == (3, 15, 39)
    with pytest.raises(DataError, match="the image as a whole"):
        read_image(npy)


def test_planes_that_do_not_exist(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 40), np.uint8))
    with pytest.raises(DataError, match="20 planes"):
        read_header(f"{tmp_path / 'a.npy'}#20")
    with pytest.raises(DataError, match="neither the number of a plane"):
        read_header(f"{tmp_path / 'a.npy'}#image")
    with pytest.raises(DataError, match="no stack"):
        read_header(save(tmp_path / "a.png", Image.fromarray(GREY)) + "#0")


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    np.save(tmp_path / "complex.npy", GREY.astype(complex))
    with pytest.raises(DataError, match="real numbers"):
        read_header(str(tmp_path / "complex.npy"))
    np.save(tmp_path / "line.npy", np.zeros(7))
    with pytest.raises(DataError, match="neither"):
        read_header(str(tmp_path / "line.npy"))


def test_reading_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, warnings.filters[:]
    ref = save(tmp_path / "a.jpg", Image.fromarray(RGB))
    with open_image(ref):
        read_image(ref)
    assert (Image.MAX_IMAGE_PIXELS, warnings.filters[:]) == before


def test_nan_is_read_as_it_is(tmp_path: Path) -> None:
    values = np.array([[0.0, np.nan], [1.0, 2.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.tif"))[0], values)
