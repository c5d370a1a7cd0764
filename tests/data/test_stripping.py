import gzip
import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from useg.data.images import read_header, read_image
from useg.data.stripping import strip_file
from useg.data.stripping_tiff import reduce_description

NAME = b"Jane Doe"
PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)


def exif(orientation=1):
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x013B] = tags[0x8298] = NAME.decode()
    tags.get_ifd(0x8825)[29] = "2020:01:01"
    return tags.tobytes()


def names_somebody(content):
    return any(NAME.decode().encode(code) in content for code in ("ascii", "utf-16-le", "utf-16-be"))


def stripped(path):
    """The file after stripping, seen to read the same and to name nobody."""
    found = strip_file(path)
    assert found.content is not None
    copy = path.with_name("copy-" + path.name)
    copy.write_bytes(found.content)
    before, after = read_header(str(path)), read_header(str(copy))
    assert (before.shape, before.spacing, before.colour) == (after.shape, after.spacing, after.colour)
    assert np.array_equal(read_image(str(path)), read_image(str(copy)))
    plain = gzip.decompress(found.content) if found.content[:2] == b"\x1f\x8b" else found.content
    assert not names_somebody(plain)
    again = strip_file(copy)
    assert again.content is None, "what was stripped needs no stripping"
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_keeps_its_pixels_its_turn_and_nothing_else(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path, exif=exif(orientation), comment=NAME, quality=80)
    assert NAME in path.read_bytes()
    assert stripped(path).left == ()


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_jpegs_of_several_scans_and_with_restarts(tmp_path, options):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path, exif=exif(), **options)
    content = path.read_bytes()
    # fill bytes before a marker, a comment between scans, and something after the end
    at = content.rindex(b"\xff\xda")
    comment = b"\xff\xff\xfe" + struct.pack(">H", 2 + len(NAME)) + NAME
    path.write_bytes(content[:at] + comment + content[at:] + NAME)
    stripped(path)


def test_cmyk_jpegs_keep_adobes_word_on_their_colours(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).convert("CMYK").save(path, exif=exif())
    stripped(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_png_loses_texts_times_and_what_is_private(tmp_path, orientation):
    path = tmp_path / "a.png"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Patient", NAME.decode())
    texts.add_itxt("Comment", NAME.decode())
    texts.add(b"tIME", b"\x07\xe4\1\1\1\1\1")
    texts.add(b"naMe", NAME)
    Image.fromarray(PIXELS).save(path, pnginfo=texts, exif=exif(orientation), dpi=(300, 300))
    stripped(path)
    with Image.open(tmp_path / "copy-a.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_gif_loses_comments(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.fromarray(PIXELS[..., i]) for i in range(3)]
    frames[0].save(path, comment=NAME, save_all=True, append_images=frames[1:])
    assert NAME in path.read_bytes()
    stripped(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
@pytest.mark.parametrize("order", "<>")
def test_a_nifti_file_loses_its_texts_and_extensions(tmp_path, suffix, kind, order):
    import nibabel

    image = getattr(nibabel, kind)(PIXELS[..., 0].astype("i2")[..., None].repeat(3, 2), np.diag([2, 3, 4, 1.0]))
    image = type(image)(image.dataobj, image.affine, type(image.header)(endianness=order))
    image.header["descrip"] = image.header["aux_file"] = NAME
    image.header["intent_name"] = NAME
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", NAME))
    path = tmp_path / f"Jane Doe{suffix}"
    nibabel.save(image, path)
    stripped(path)


def imagej(path):
    volume = PIXELS[None, ..., 0].repeat(5, 0)
    said = {"spacing": 2.0, "unit": "um", "Info": NAME.decode(), "Labels": [NAME.decode()] * 5}
    tifffile.imwrite(path, volume, imagej=True, resolution=(2, 2), metadata=said)


def ome(path):
    said = {
        "axes": "ZYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 2.0,
        "PhysicalSizeZUnit": "µm",
        "Name": NAME.decode(),
        "Description": NAME.decode(),
        "Channel": {"Name": NAME.decode()},
    }
    tifffile.imwrite(path, PIXELS[None, ..., 0].repeat(5, 0), ome=True, metadata=said)


def shaped(path):
    volume = PIXELS[None, ..., 0].repeat(5, 0)
    tifffile.imwrite(path, volume, metadata={"axes": "ZYX", "spacing": [2, 1, 1], "unit": "um", "who": NAME.decode()})


def plain(path, **options):
    extra = [(315, 2, 0, NAME, True), (0x9286, 7, len(NAME), NAME, True), (700, 1, len(NAME), NAME, True)]
    tifffile.imwrite(path, PIXELS, description=NAME.decode(), software=NAME, datetime=True, extratags=extra, **options)


WRITERS = {
    "plain": plain,
    "tiled": lambda path: plain(path, tile=(16, 16), compression="zlib"),
    "big": lambda path: plain(path, bigtiff=True),
    "other byte order": lambda path: plain(path, byteorder=">"),
    "ImageJ": imagej,
    "OME": ome,
    "shaped": shaped,
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())
def test_a_tiff_loses_its_texts_and_no_byte_moves(tmp_path, writer):
    path = tmp_path / "a.tif"
    writer(path)
    assert names_somebody(path.read_bytes())
    found = stripped(path)
    assert found.left == ()
    assert len(found.content) == path.stat().st_size
    with tifffile.TiffFile(io.BytesIO(found.content)) as before, tifffile.TiffFile(path) as after:
        assert before.pages[0].dataoffsets == after.pages[0].dataoffsets


def test_a_tiffs_exif_directory_is_cleared(tmp_path):
    path = tmp_path / "a.tif"
    offset = 0
    for _ in range(2):  # the second time it is known where the directory comes to lie
        tifffile.imwrite(path, PIXELS, metadata=None, extratags=[(34664, 4, 1, offset, True)])
        offset = path.stat().st_size
    author = struct.pack("<HHHIII", 1, 0xA430, 2, len(NAME), offset + 18, 0) + NAME
    entry = struct.pack("<HHI", 34664, 4, 1)
    assert path.read_bytes().count(entry) == 1
    path.write_bytes(path.read_bytes().replace(entry, struct.pack("<HHI", 34665, 4, 1)) + author)
    assert NAME in path.read_bytes()
    stripped(path)


def test_what_stays_is_said(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", data=PIXELS).attrs["patient"] = NAME.decode()
    assert strip_file(tmp_path / "a.h5").left == ("its attributes were kept: patient",)
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, metadata=None, extratags=[(65123, 2, 0, NAME, True)])
    assert strip_file(tmp_path / "a.tif").left == ("the tag 65123 of its maker was kept",)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    (left,) = strip_file(tmp_path / "broken.png").left
    assert left.startswith("not read as an image, so not stripped")


@pytest.mark.parametrize("suffix", [".bmp", ".npy"])
def test_files_without_room_for_texts_stay(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, PIXELS)
    else:
        Image.fromarray(PIXELS).save(path)
    assert strip_file(path).content is None
    assert strip_file(path).left == ()


def test_descriptions_are_reduced_to_axes_and_spacing():
    assert reduce_description(b"ImageJ=1.5\nimages=3\nInfo=Jane\nunit=um\n") == b"ImageJ=1.5\nimages=3\nunit=um\n"
    assert reduce_description(b'{"shape": [3, 4], "who": "Jane"}') == b'{"shape": [3, 4]}'
    assert reduce_description(b"Jane was here") == b""
