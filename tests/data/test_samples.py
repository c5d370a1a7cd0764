"""Samples as arrays: read once, kept within a bound, brought to one number of channels."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from useg.data import samples as module
from useg.data import tiff
from useg.data.images import read_header
from useg.data.labels import LabelClass, LabelMapping
from useg.data.reading import Sample
from useg.data.samples import Samples, match_channels, only_images
from useg.errors import DataError

MAPPING = LabelMapping(kind="values", classes=(LabelClass(name="a", values=(0,)), LabelClass(name="b", values=(255,))))


@pytest.fixture
def folder(tmp_path: Path) -> list[Sample]:
    """Four grey images of 10x12 and a volume of 20x10x12, all with labels."""
    found = []
    for number in range(4):
        random = np.random.default_rng(number)
        image = random.integers(0, 255, (10, 12), np.uint8)
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}_l.png"
        Image.fromarray(image).save(paths[0])
        Image.fromarray(np.where(image > 99, 255, 0).astype(np.uint8)).save(paths[1])
        found.append(Sample(str(number), (str(paths[0]),), (str(paths[1]),), group="g" if number < 2 else None))
    volume = np.random.default_rng(9).integers(0, 255, (20, 10, 12)).astype(np.uint8)
    np.save(tmp_path / "v.npy", volume)
    np.save(tmp_path / "v_l.npy", np.where(volume > 99, 255, 0).astype(np.uint8))
    found.append(Sample("v", (str(tmp_path / "v.npy"),), (str(tmp_path / "v_l.npy"),)))
    return found


def test_image_and_labels(folder: list[Sample]) -> None:
    samples = Samples(folder[:4], MAPPING, 1)
    assert (len(samples), samples.keys) == (4, ["0", "1", "2", "3"])
    assert samples.groups == ["g", "g", None, None]
    for index in range(4):
        loaded = samples[index]
        assert (loaded.key, loaded.space, samples.space(index)) == (str(index), (10, 12), (10, 12))
        assert np.array_equal(loaded.classes, loaded.image[0] > 99)
        assert loaded.nbytes == 240
    assert Samples(only_images(folder), None, 1)[0].classes is None


def test_planes_of_volumes(folder: list[Sample]) -> None:
    whole = Samples(folder[4:], MAPPING, 1)[0]
    planes = Samples(folder, MAPPING, 1, planes=True)
    assert planes.keys == ["0", "1", "2", "3", *(f"v#{z}" for z in range(20))]
    assert planes.groups[4:] == ["v"] * 20
    for z in range(20):
        plane = planes[4 + z]
        assert planes.space(4 + z) == plane.space == (10, 12)
        assert np.array_equal(plane.image, whole.image[:, z])
        assert np.array_equal(plane.classes, whole.classes[z])


def test_cut_into_windows(folder: list[Sample]) -> None:
    samples = Samples(folder[:2], MAPPING, 1)
    whole = samples[0]
    windows = [(slice(0, 4), slice(0, 12)), (slice(6, 10), slice(2, 12))]
    assert samples.cut({0: windows}) == [0, 0, 1]
    assert samples.keys == ["0[0:4,0:12]", "0[6:10,2:12]", "1"]
    assert samples.groups == ["g"] * 3
    assert samples.space(1) == (4, 10)
    assert np.array_equal(samples[1].image, whole.image[:, 6:, 2:])
    assert np.array_equal(samples[1].classes, whole.classes[6:, 2:])


def test_which_items_are_read_in_parts(folder: list[Sample], tmp_path: Path, monkeypatch) -> None:
    picture = np.random.default_rng(5).integers(0, 255, (64, 48), np.uint8)
    found = []
    for name, write in {
        "tiles": lambda path: tifffile.imwrite(path, picture, tile=(16, 16), compression="zlib"),
        "strip": lambda path: tifffile.imwrite(path, picture, rowsperstrip=64, compression="zlib"),
        "plain": lambda path: tifffile.imwrite(path, picture, rowsperstrip=64),
    }.items():
        write(tmp_path / f"{name}.tif")
        found.append(Sample(name, (str(tmp_path / f"{name}.tif"),)))
    samples = Samples([*folder, *found], None, 1)
    assert not any(samples.is_large(index) for index in range(len(samples)))
    monkeypatch.setattr(module, "LARGE_BYTES", 1000)
    monkeypatch.setattr(tiff, "_LARGEST_PIECE_BYTES", 1000)
    samples = Samples([*folder, *found], None, 1)
    large = {key for index, key in enumerate(samples.keys) if samples.is_large(index)}
    assert large == {"v", "tiles", "plain"}  # PNG and one long compressed strip have to be decoded whole
    window = (slice(5, 33), slice(7, 9))
    assert all(np.array_equal(samples.read(i, window).image[0], picture[window]) for i in (5, 6, 7))
    monkeypatch.setattr(module, "_BAND_BYTES", 48 * 6 * 7)
    bands = [band.image for start, band in samples.bands(5)]
    assert len(bands) > 5
    assert np.array_equal(np.concatenate(bands, axis=1)[0], picture)
    monkeypatch.setattr(module, "_GLIMPSE_PIXELS", 100)
    assert np.array_equal(samples.glimpse(5).image[0], picture[27:37, 19:29])
    assert samples.glimpse(0).space == (10, 12)


def test_decoded_once_within_the_bound(folder: list[Sample], monkeypatch) -> None:
    reads: list[str] = []
    real = module.read_image
    monkeypatch.setattr(module, "read_image", lambda ref, window=None: (reads.append(ref), real(ref, window))[1])
    samples = Samples(folder[:4], MAPPING, 1, cache_bytes=2 * 240)
    for index in (0, 1, 0, 1, 0):
        samples[index]
    assert len(reads) == 2
    for index in (2, 0, 1):  # 1 was used longest ago when 2 came
        samples[index]
    assert [Path(r).stem for r in reads] == ["0", "1", "2", "1"]
    assert samples._bytes == sum(loaded.nbytes for loaded in samples._cache.values()) <= 2 * 240
    tiny = Samples(folder[:4], MAPPING, 1, cache_bytes=1)
    assert tiny[0] is tiny[0]


def test_from_many_threads(folder: list[Sample]) -> None:
    samples = Samples(folder[:4], MAPPING, 1, cache_bytes=500)
    wanted = [samples[i].image.copy() for i in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: np.array_equal(samples[n % 4].image, wanted[n % 4]), range(400)))
    assert all(found)
    assert samples._bytes == sum(loaded.nbytes for loaded in samples._cache.values())


def test_channels_in_several_files(folder: list[Sample], tmp_path: Path) -> None:
    both = replace(folder[0], images=(folder[0].images[0], folder[1].images[0]))
    loaded = Samples([both], MAPPING, 2)[0]
    assert np.array_equal(loaded.image[1:], Samples(folder, MAPPING, 1)[1].image)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"its channels differ in size(.*\n)+.*small\.png: size \(5, 5\)"):
        Samples([replace(both, images=(folder[0].images[0], str(tmp_path / "small.png")))], MAPPING, 2)[0]


def saved(path: Path, picture: Image.Image) -> tuple[np.ndarray, object]:
    picture.save(path)
    from useg.data.images import read_image

    return read_image(str(path)), read_header(str(path))


def test_channels_are_matched_where_nothing_is_lost(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    raw, header = saved(tmp_path / "g.png", Image.fromarray(grey))
    assert np.array_equal(match_channels(raw, header, 3), np.stack([grey] * 3))
    four = match_channels(raw, header, 4)
    assert np.array_equal(four[:3], np.stack([grey] * 3))
    assert (four[3] == 255).all()

    raw, header = saved(tmp_path / "c.png", Image.fromarray(np.stack([grey, grey, grey + 1], -1)))
    assert np.array_equal(match_channels(raw, header, 4)[:3], raw)
    with pytest.raises(DataError, match=r"c\.png: 3 channels, wanted 1"):
        match_channels(raw, header, 1)

    raw, header = saved(tmp_path / "gc.png", Image.fromarray(np.stack([grey] * 3, -1)))
    assert np.array_equal(match_channels(raw, header, 1), grey[None])

    raw, header = saved(tmp_path / "a.png", Image.fromarray(np.stack([grey, grey, grey + 1, grey], -1)))
    assert np.array_equal(match_channels(raw, header, 3), raw[:3])

    indexed = Image.fromarray(grey % 2, mode=None).convert("P")
    indexed.putpalette([9, 8, 7, 1, 2, 3] + [0] * 762)
    raw, header = saved(tmp_path / "p.png", indexed)
    looked_up = match_channels(raw, header, 3)
    assert looked_up[:, 0, :2].tolist() == [[9, 1], [8, 2], [7, 3]]
