"""Tests of declared transforms: one canonical text each, and what is out of range refused."""

import pytest

from useg.data.transforms import Crop, Merge, Resize, Rotate, Scale, Weight, parse_transform, parse_transforms
from useg.errors import InputError


@pytest.mark.parametrize(
    ("text", "found", "canonical"),
    [
        ("resize=256", Resize(256), "resize=256"),
        (" resize=0256x384 ", Resize(size_px=(256, 384)), "resize=256x384"),
        ("resize=8x256x384", Resize(size_px=(8, 256, 384)), "resize=8x256x384"),
        ("scale=0.50", Scale(0.5), "scale=0.5"),
        ("scale=2", Scale(2.0), "scale=2"),
        ("rotate=-90", Rotate(270.0), "rotate=270"),
        ("rotate=12.5", Rotate(12.5), "rotate=12.5"),
        ("crop=64x32", Crop((64, 32)), "crop=64x32"),
        ("crop=64x32+0+8", Crop((64, 32), (0, 8)), "crop=64x32+0+8"),
        ("crop=4x64x32+1+0+8", Crop((4, 64, 32), (1, 0, 8)), "crop=4x64x32+1+0+8"),
        ("merge=3+2:1", Merge((2, 3), 1), "merge=2+3:1"),
        ("merge=3+3+1:1", Merge((3,), 1), "merge=3:1"),
        ("merge=debris+dead cell+4:background", Merge((4, "dead cell", "debris"), "background"), None),
        ("weight=2:5.0", Weight(2, 5.0), "weight=2:5"),
        ("weight=cell:0.25", Weight("cell", 0.25), "weight=cell:0.25"),
    ],
)
def test_read_and_written(text, found, canonical):
    assert parse_transform(text) == found
    assert str(found) == (canonical or str(found))
    assert parse_transform(str(found)) == found


WRONG = """
resize= resize=0 resize=-3 resize=2097152 resize=3x resize=1x2x3x4 resize=0x3 scale=0 scale=1e3 scale=nan scale=5000
rotate=0 rotate=360 rotate=x rotate=99999 crop=64 crop=64x64+1 crop=64x64+1+2+3 crop=64x64-1-1
merge=2 merge=:1 merge=1:1 merge=2+:1 merge=2:3:1 weight=2 weight=2:-1 weight=:3 weight=2:inf weight=2:9999999
"""


@pytest.mark.parametrize("text", WRONG.split())
def test_out_of_range_is_refused(text):
    with pytest.raises(InputError, match="wanted"):
        parse_transform(text)


def test_unknown_ones_and_lists():
    with pytest.raises(InputError, match="'flip=1' is no transform; wanted resize=…"):
        parse_transform("flip=1")
    with pytest.raises(InputError, match="is no transform"):
        parse_transform("resize")
    with pytest.raises(InputError, match="at most 50"):
        parse_transforms(["rotate=90"] * 51)
    with pytest.raises(InputError, match="class 2 is given two weights"):
        parse_transforms(["weight=2:1", "weight=2:3"])
    assert parse_transforms(["crop=8x8", "resize=4"]) == (Crop((8, 8)), Resize(4))
