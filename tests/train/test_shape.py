"""Which network fits which data."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from useg.config import load_config
from useg.errors import ConfigError, DataError
from useg.segmentation.geometry import Geometry
from useg.segmentation.normalise import ChannelNorm
from useg.train.shape import network_for

from .test_planning import measured


def shaped(space: tuple[int, ...], *sets: str, spacing=None, mode: str = "none", norms=None, **changes):
    reasons: dict[str, str] = {}
    norms = norms or [ChannelNorm("image")]
    found = measured(space, spacing=spacing, **changes)
    patch, arguments = network_for(found, load_config(None, sets), len(space), norms, mode, reasons)
    assert reasons.keys() <= {"patch", "light_top"}
    return patch, arguments


@given(st.lists(st.integers(8, 6000), min_size=2, max_size=3), st.integers(1, 7))
def test_laws_of_every_shape(sides: list[int], depth: int) -> None:
    patch, arguments = shaped(tuple(sides), f"network.depth={depth}")
    strides = arguments["strides"]
    assert 1 <= arguments["depth"] == len(strides) <= depth
    for axis, (side, length) in enumerate(zip(sides, patch, strict=True)):
        factor = math.prod(stride[axis] for stride in strides)
        bound = min(side, {2: 256, 3: 64}[len(sides)])
        assert length % factor == 0
        assert bound <= length < bound + factor
        assert factor == 1 or length // factor >= 4
        assert Geometry(tuple(stride[axis] for stride in strides), False).factor == factor


@pytest.mark.parametrize("space", [(3, 200), (7, 7), (7, 7, 7), (8, 7), (1, 1)])
def test_too_small(space: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="too small for a U-Net; at least 8 px along two axes"):
        shaped(space)


def test_two_axes_are_enough_in_3d() -> None:
    patch, arguments = shaped((3, 64, 64))
    assert patch == (3, 64, 64)
    assert all(stride == (1, 2, 2) for stride in arguments["strides"])


def test_long_pixels_are_halved_later() -> None:
    _, arguments = shaped((40, 256, 256), spacing=(4.0, 1.0, 1.0))
    assert [stride[0] for stride in arguments["strides"]] == [1, 1, 2]
    _, arguments = shaped((40, 256, 256), spacing=(1.0, 1.0, 1.0))
    assert [stride[0] for stride in arguments["strides"]] == [2, 2, 2]


def test_channels_in_and_out() -> None:
    norms = [ChannelNorm("image"), ChannelNorm("onehot", values=(1.0, 2.0, 5.0)), ChannelNorm("drop")]
    assert shaped((64, 64), norms=norms)[1]["channels"] == 4
    outputs = {mode: shaped((64, 64), mode=mode)[1]["outputs"] for mode in ("none", "weights", "border", "distance")}
    assert outputs == {"none": 2, "weights": 2, "border": 3, "distance": 3}
    assert shaped((64, 64), classes=5)[1]["outputs"] == 5


def test_a_wanted_patch() -> None:
    assert shaped((300, 300), "network.patch=[64,96]", "network.depth=3")[0] == (64, 96)
    with pytest.raises(ConfigError, match=r"must be multiples of \[8, 8\]; \(64, 104\) would do"):
        shaped((300, 300), "network.patch=[64,100]", "network.depth=3")
    for small in ("[0,0]", "[-4,-4]", "[4,64]"):
        with pytest.raises(ConfigError, match=r"network.patch .* is too small for a U-Net"):
            shaped((300, 300), f"network.patch={small}")
    with pytest.raises(ConfigError, match="has 3 numbers, wanted 2"):
        shaped((300, 300), "network.patch=[8,8,8]")


def test_the_network_of_2015() -> None:
    patch, arguments = shaped((512, 512), "recipe=paper")
    assert patch == (572, 572)
    assert (arguments["base"], arguments["valid"], arguments["depth"]) == (64, True, 4)
    with pytest.raises(ConfigError, match="the network of 2015 is 2D"):
        shaped((64, 64, 64), "recipe=paper")
