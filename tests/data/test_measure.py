import numpy as np
import pytest
import tifffile

from useg.data import measure
from useg.data.images import open_image
from useg.data.measure import image_channels, measure_sample, read_parts
from useg.data.reading import Sample


def measured(sample, **more):
    keys = {"values_kept": 1000, "objects_wanted": True, "with_pieces": True, "given": None, **more}
    return measure_sample(sample, **keys)


@pytest.mark.parametrize("shape", [(3000, 3000), (40, 600, 600), (10, 2500, 2500)])
def test_large_images_are_measured_on_a_bounded_spread(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(measure, "IMAGE_PIXELS", 400_000)
    whole = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    np.save(tmp_path / "a.npy", whole)
    with open_image(str(tmp_path / "a.npy")) as image:
        parts = read_parts(image)
    pixels = sum(part[0].size for part in parts)
    assert pixels <= max(400_000, whole[0].size)
    assert pixels >= 100_000
    assert parts[0].min() == whole.min()
    assert parts[-1].max() == whole.max() or len(parts) == 1


def test_channels_in_several_files(tmp_path):
    refs = []
    for name, value in (("dapi", 5), ("gfp", 9)):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.full((30, 40), value, np.uint16))
        refs.append(str(tmp_path / f"{name}.tif"))
    record = measured(Sample("s", tuple(refs)))
    assert [c.maximum for c in record.channels] == [5, 9]
    tifffile.imwrite(refs[1], np.full((30, 41), 1, np.uint16))
    problems = measured(Sample("s", tuple(refs))).problems
    assert "gfp" in problems[0].where


def test_all_that_is_wrong_with_one_sample_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_text("no picture")
    record = measured(Sample("s", (str(tmp_path / "a.png"),), (str(tmp_path / "b.png"),)))
    assert len(record.problems) == 2
    assert record.channels == ()


def test_palette_pictures_have_the_colours_as_channels(tmp_path):
    from PIL import Image

    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None).convert("P")
    picture.putpalette([10, 0, 0, 0, 20, 0, 0, 0, 30] + [0] * (253 * 3))
    picture.save(tmp_path / "a.png")
    with open_image(str(tmp_path / "a.png")) as image:
        raw = image_channels(image.read(), image.header)
    assert raw[:, 0, 0].tolist() == [10, 0, 0]
    assert raw.shape == (3, 2, 2)


def test_the_same_pixels_have_the_same_digest_in_any_format(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (50, 60)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", pixels)
    first, second = (measured(Sample("s", (str(tmp_path / name),))).look for name in ("a.png", "b.tif"))
    assert first.digest == second.digest
