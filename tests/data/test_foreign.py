from pathlib import Path

import pytest

from useg.data.foreign import ways_out
from useg.data.images import SUFFIXES, is_image, read_header
from useg.data.layouts import read_layout
from useg.errors import DataError


def test_each_kind_of_format_is_told_once() -> None:
    found = ways_out(["a.hdr", "a.img", "b.HDR", "c.heic", "d.nd2", "notes.txt", "no_suffix", ".hdr/x"])
    assert len(found) == 3
    assert "nib-convert" in found[0]
    assert "JPEG or PNG" in found[1]
    assert "TIFF" in found[2]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_nothing_is_said_of_what_can_be_read(suffix: str) -> None:
    assert is_image(Path(f"a{suffix}"))
    assert ways_out([f"a{suffix}"]) == []


def test_the_way_out_stands_in_the_errors(tmp_path: Path) -> None:
    (tmp_path / "h.img").write_bytes(b"12")
    (tmp_path / "h.hdr").write_bytes(b"12")
    with pytest.raises(DataError, match=r"none of its 2 files.*nib-convert"):
        read_layout(tmp_path)
    with pytest.raises(DataError, match=r"not known as images \(pairs of .hdr and .img.*nib-convert"):
        read_header(str(tmp_path / "h.img"))
