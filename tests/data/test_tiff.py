import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from useg.data.images import open_image, read_header, read_image
from useg.data.tiff import open_tiff
from useg.errors import DataError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (70, 90), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (70, 90, 3), dtype=np.uint8)
STACK = RANDOM.integers(0, 256, (7, 70, 90), dtype=np.uint8)
WINDOW = (slice(11, 50), slice(40, 77))
PARTS: tuple[dict[str, Any], ...] = ({}, {"tile": (32, 48)}, {"rowsperstrip": 16})


def write(path: Path, pixels: np.ndarray, **options: Any) -> str:
    tifffile.imwrite(path, pixels, **options)
    return str(path)


def check(ref: str, expected: np.ndarray) -> None:
    header = read_header(ref)
    assert (header.shape, header.dtype) == (expected.shape, expected.dtype.newbyteorder("="))
    np.testing.assert_array_equal(read_image(ref), expected)
    window = WINDOW if header.ndim == 2 else (slice(1, header.space[0] - 1), *WINDOW)
    np.testing.assert_array_equal(read_image(ref, window), expected[:, *window])


@pytest.mark.parametrize("part", PARTS, ids=("whole", "tiles", "strips"))
@pytest.mark.parametrize(
    "compression",
    [None, "lzw", "deflate", "packbits", "zstd", "lzma", "jpeg", "jpeg2000", "lerc", "jpegxl", "png"],
)
def test_compressions(tmp_path: Path, compression: str | None, part: dict[str, Any]) -> None:
    for pixels, photometric in ((GREY, "minisblack"), (RGB, "rgb")):
        ref = write(tmp_path / "a.tif", pixels, compression=compression, photometric=photometric, **part)
        expected = tifffile.imread(ref)
        check(ref, expected[None] if expected.ndim == 2 else np.moveaxis(expected, -1, 0))
        header = read_header(ref)
        assert header.lossy == (compression == "jpeg")
        assert header.colour == ("grey" if pixels is GREY else "rgb")


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", None])
def test_1_bit_is_0_and_1_whatever_is_white(tmp_path: Path, compression: str | None) -> None:
    Image.fromarray(GREY > 99).save(tmp_path / "a.tif", compression=compression)
    check(str(tmp_path / "a.tif"), (GREY > 99).astype(np.uint8)[None])
    assert read_header(str(tmp_path / "a.tif")).colour == "binary"
    ref = write(tmp_path / "b.tif", GREY, photometric="miniswhite")
    check(ref, 255 - GREY[None])


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_dtypes_and_predictors(tmp_path: Path, dtype: str, byteorder: str) -> None:
    pixels = (RANDOM.random((70, 90)) * 100).astype(dtype)
    for options in ({}, {"compression": "deflate"}, {"compression": "lzw", "predictor": dtype != "u8"}):
        ref = write(tmp_path / "a.tif", pixels, byteorder=byteorder, **options)
        check(ref, pixels[None])


def test_palettes(tmp_path: Path) -> None:
    colours = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)
    table = (colours.T.astype(np.uint16)) * 257
    ref = write(tmp_path / "a.tif", GREY, photometric="palette", colormap=table)
    header = read_header(ref)
    assert header.colour == "palette"
    np.testing.assert_array_equal(header.palette, colours)
    check(ref, GREY[None])


@pytest.mark.parametrize(
    ("pixels", "options", "shape"),
    [
        (STACK, {}, (1, 7, 70, 90)),
        (STACK, {"metadata": None}, (1, 7, 70, 90)),
        (STACK[:2], {"metadata": None}, (2, 70, 90)),
        (STACK, {"planarconfig": "separate"}, (7, 70, 90)),
        (np.moveaxis(STACK, 0, -1), {"planarconfig": "contig"}, (7, 70, 90)),
        (np.moveaxis(STACK, 0, -1), {}, (7, 70, 90)),
        (STACK, {"planarconfig": "contig"}, (7, 70, 90)),
        (STACK, {"imagej": True, "metadata": {"axes": "CYX"}}, (7, 70, 90)),
        (STACK, {"ome": True, "metadata": {"axes": "ZYX"}}, (1, 7, 70, 90)),
        (STACK, {"volumetric": True, "tile": (16, 32, 32), "compression": "deflate"}, (1, 7, 70, 90)),
    ],
)
def test_stacks_and_bands(tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    ref = write(tmp_path / "a.tif", pixels, photometric="minisblack", **options)
    check(ref, (STACK if shape[0] != 2 else STACK[:2]).reshape(shape))


@pytest.mark.parametrize("tiles", [{}, {"tile": (32, 32), "compression": "deflate"}])
def test_stacks_of_several_channels(tmp_path: Path, tiles: dict[str, Any]) -> None:
    stack = RANDOM.integers(0, 256, (5, 3, 70, 90), dtype=np.uint8)
    expected = np.moveaxis(stack, 1, 0)
    for options in (
        {"ome": True, "metadata": {"axes": "ZCYX"}},
        {"imagej": True, "metadata": {"axes": "ZCYX"}},
    ):
        ref = write(
            tmp_path / "a.tif",
            stack,
            photometric="minisblack",
            **options,
            **(tiles if "ome" in options else {}),
        )
        check(ref, expected)
        check(f"{ref}#3", expected[:, 3])
    check(write(tmp_path / "b.tif", np.moveaxis(stack, 1, -1), photometric="rgb", **tiles), expected)


def test_spacing_of_imagej_ome_geo_and_centimetres(tmp_path: Path) -> None:
    said = {"axes": "ZYX", "spacing": 3.0, "unit": "micron"}
    ref = write(tmp_path / "a.tif", STACK, imagej=True, resolution=(2.0, 4.0), metadata=said)
    assert (read_header(ref).spacing, read_header(ref).spacing_unit) == ((3.0, 0.25, 0.5), "um")
    assert read_header(f"{ref}#1").spacing == (0.25, 0.5)
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", (0.2, 0.3, 0.5), strict=True)}
    units = {f"PhysicalSize{axis}Unit": "\u00b5m" for axis in "XYZ"}
    ref = write(tmp_path / "b.tif", STACK, ome=True, metadata={"axes": "ZYX", **sizes, **units})
    assert (read_header(ref).spacing, read_header(ref).spacing_unit) == ((0.5, 0.3, 0.2), "um")
    keys = (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 2), True)
    ref = write(tmp_path / "c.tif", GREY, extratags=[(33550, "d", 3, (0.5, 0.25, 0.0), True), keys])
    assert (read_header(ref).spacing, read_header(ref).spacing_unit) == ((0.25, 0.5), "degree")
    ref = write(tmp_path / "d.tif", GREY, resolution=(20000, 10000), resolutionunit="centimeter")
    assert read_header(ref).spacing == pytest.approx((1.0, 0.5))


@pytest.mark.parametrize("unit", ["inch", "centimeter"])
def test_printing_resolutions_are_no_spacing(tmp_path: Path, unit: str) -> None:
    ref = write(tmp_path / "a.tif", GREY, resolution=(300, 300), resolutionunit=unit)
    assert read_header(ref).spacing is None


def test_the_largest_image_of_a_pyramid_is_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(GREY[::4, ::4], metadata=None)
        tif.write(GREY, subifds=1, metadata=None)
        tif.write(GREY[::2, ::2], subfiletype=1, metadata=None)
    check(str(tmp_path / "a.tif"), GREY[None])


def test_axes_of_time_and_depth_together_are_refused(tmp_path: Path) -> None:
    ref = write(tmp_path / "a.tif", np.zeros((3, 4, 20, 20), np.uint8), ome=True, metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match="T=3, Z=4"):
        read_header(ref)


@pytest.mark.parametrize("part", [{"tile": (16, 32)}, {"rowsperstrip": 10}])
def test_a_window_decodes_only_what_it_touches(tmp_path: Path, part: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    write(path, GREY, compression="deflate", **part)
    with open_tiff(path) as opened:
        opened.read((slice(20, 29), slice(0, 32)))
        assert opened.read.segments.decoded == 1  # type: ignore[attr-defined]
        opened.read((slice(20, 29), slice(0, 90)))
        once = opened.read.segments.decoded  # type: ignore[attr-defined]
        assert once == (3 if "tile" in part else 1)
        opened.read((slice(24, 29), slice(0, 90)))
        assert opened.read.segments.decoded == once  # type: ignore[attr-defined]


def test_reading_in_bands_is_reading_at_once(tmp_path: Path) -> None:
    for part in PARTS:
        ref = write(tmp_path / "a.tif", RGB, compression="deflate", photometric="rgb", **part)
        with open_image(ref) as image:
            assert image.streamable
            bands = [image.read((slice(row, row + 9), slice(0, 90))) for row in range(0, 70, 9)]
        np.testing.assert_array_equal(np.concatenate(bands, axis=1), np.moveaxis(RGB, -1, 0))


def test_one_enormous_strip_is_refused_by_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = write(tmp_path / "a.tif", GREY, compression="lzw", rowsperstrip=70)
    monkeypatch.setenv("USEG_DECODE_LIMIT_BYTES", "5000")
    with pytest.raises(DataError, match="one strip or tile"):
        read_image(ref, (slice(0, 5), slice(0, 5)))


def test_pixels_beyond_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for compression in (None, "deflate"):
        write(path, GREY, compression=compression)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DataError, match="beyond its end"):
            read_image(str(path))


def test_files_named_by_metadata_are_not_followed(tmp_path: Path) -> None:
    first, second = tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"
    write(first, GREY, ome=True)
    write(second, 255 - GREY, ome=True)
    text = tifffile.tiffcomment(first).replace('SizeZ="1"', 'SizeZ="2"')
    for plane, name in enumerate(("a.ome.tif", "b.ome.tif")):
        owner = f'<UUID FileName="{name}">urn:uuid:{plane}</UUID>'
        place = f'<TiffData FirstZ="{plane}" IFD="0" PlaneCount="1">{owner}</TiffData>'
        text = text.replace("</Pixels>", f"{place}</Pixels>")
    tifffile.tiffcomment(first, text.encode())
    assert tifffile.imread(first).shape == (2, *GREY.shape)  # what following them would give
    assert 2 not in read_header(str(first)).space


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("options", [{}, {"predictor": True}, {"byteorder": ">"}, {"rowsperstrip": 40}])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_enormous_strips_are_decoded_in_passing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, options: dict[str, Any], planar: str
) -> None:
    if dtype == "f4" and "predictor" in options:
        pytest.skip("floats have a predictor of their own, which is not streamed")
    pixels = RGB.astype(dtype) if planar == "contig" else np.moveaxis(RGB, -1, 0).astype(dtype)
    options = {"rowsperstrip": 70, "compression": "deflate", **options}
    ref = write(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar, **options)
    expected = np.moveaxis(RGB, -1, 0).astype(dtype)
    monkeypatch.setattr("useg.data.tiff_rows.STREAMED_FROM_BYTES", 1000)
    monkeypatch.setattr("useg.data.tiff_rows._SKIP_BYTES", 2000)
    monkeypatch.setattr("useg.data.tiff_rows._INPUT_BYTES", 100)
    with open_image(ref) as image:
        for start, stop in ((0, 10), (6, 16), (30, 50), (3, 5), (44, 70), (0, 70)):
            part = image.read((slice(start, stop), slice(7, 80)))
            np.testing.assert_array_equal(part, expected[:, start:stop, 7:80])


def test_an_enormous_strip_that_ends_too_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    write(path, GREY, rowsperstrip=70, compression="deflate")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    data[offset : offset + count] = zlib.compress(GREY[:30].tobytes()).ljust(count, b"\0")
    path.write_bytes(data)
    monkeypatch.setattr("useg.data.tiff_rows.STREAMED_FROM_BYTES", 1000)
    assert read_image(str(path), (slice(0, 30), slice(0, 90))).shape == (1, 30, 90)
    with pytest.raises(DataError, match="ends too early"):
        read_image(str(path))
