from pathlib import Path

import numpy as np
import pytest

from useg.data.images import open_image, read_header, read_image
from useg.errors import DataError

av = pytest.importorskip("av")

FRAMES, HEIGHT, WIDTH = 30, 48, 64


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of one grey each, 8 apart, with a start to decode from at every tenth only."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "10", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 1_000_000
        for number in range(FRAMES):
            pixels = np.full((HEIGHT, WIDTH, 3), number * 8, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_a_clip_is_a_stack_of_frames(clip: Path) -> None:
    header = read_header(str(clip))
    assert header.shape == (3, FRAMES, HEIGHT, WIDTH)
    assert (header.format, header.colour, header.lossy) == ("video", "rgb", True)
    np.testing.assert_allclose(read_image(str(clip)).mean(axis=(0, 2, 3)), np.arange(FRAMES) * 8, atol=3)


@pytest.mark.parametrize("number", [0, 1, 9, 10, 17, 29])
def test_a_frame_is_found_by_its_number(clip: Path, number: int) -> None:
    assert read_header(f"{clip}#{number}").shape == (3, HEIGHT, WIDTH)
    frame = read_image(f"{clip}#{number}", (slice(2, 10), slice(3, 9)))
    assert frame.shape == (3, 8, 6)
    assert frame.mean() == pytest.approx(number * 8, abs=3)


def test_a_frame_is_the_same_alone_and_in_the_stack(clip: Path) -> None:
    with open_image(str(clip)) as image:
        stack = image.read((slice(13, 16), slice(0, HEIGHT), slice(0, WIDTH)))
    np.testing.assert_array_equal(stack[:, 1], read_image(f"{clip}#14"))


def test_reading_on_back_and_forth_gives_the_same_frames(clip: Path) -> None:
    whole = read_image(str(clip))
    with open_image(str(clip)) as image:
        for start, stop in ((3, 5), (5, 6), (6, 12), (2, 4), (20, 30)):
            part = image.read((slice(start, stop), slice(0, HEIGHT), slice(0, WIDTH)))
            np.testing.assert_array_equal(part, whole[:, start:stop])


def test_a_frame_after_the_end_is_refused(clip: Path) -> None:
    with pytest.raises(DataError, match="30 planes"):
        read_header(f"{clip}#30")


def test_a_clip_that_is_cut_off_is_named(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:-600])
    with pytest.raises(DataError, match=r"cut\.mp4"):
        read_image(str(path))
    assert capfd.readouterr().err == ""
