"""Plans for measured data, with a clock that needs no machine."""

import math

import pytest

from useg.config import load_config
from useg.data.fingerprint import (
    ChannelStatistics,
    ClassStatistics,
    Fingerprint,
    ObjectStatistics,
    Quantiles,
)
from useg.errors import ConfigError, DataError
from useg.train.plan import Plan
from useg.train.planning import geometries, make_plan, training_seconds


def channel(kind: str = "continuous", **changes: object) -> ChannelStatistics:
    numbers = {"minimum": 0, "maximum": 255, "mean": 90, "std": 40}
    percentiles = {"percentile_00_5": 5, "percentile_50": 80, "percentile_99_5": 240}
    return ChannelStatistics(**{"name": "", "kind": kind, **numbers, **percentiles, **changes})


def measured(space: tuple[int, ...], *, spacing=None, channels=(channel(),), classes=2, **changes) -> Fingerprint:
    pixels = math.prod(space)
    return Fingerprint(
        **{
            "samples": 10, "labelled": 10, "ndim": len(space), "channels": len(channels), "mixed_colour": False,
            "used_channels": tuple(range(len(channels))), "dtypes": {"uint8": 10}, "formats": {"png": 10}, "shapes": {},
            "smallest": space, "median_space": space, "largest": space, "pixels": 10 * pixels, "spacing": spacing,
            "spacing_unit": None, "spacing_varies": False, "lossy": 0, "intensity_scale_differs": False,
            "channel_statistics": channels, "num_classes": classes,
            "classes": tuple(
                ClassStatistics(name=str(k), pixels=pixels // 4**k, share=0.1, samples=10) for k in range(classes)
            ),
            "ignored_share": 0, "empty_samples": (), "objects": None, "sequence": False, "neighbour_correlation": None,
            "distant_correlation": None, "duplicates": (), "splits": {}, "groups": 0,
            **changes,
        }
    )  # fmt: skip


def planned(
    data: Fingerprint, *sets: str, minutes: float | None = 15, speed: float = 5e8, objects=False, **given
) -> Plan:
    """A machine that does so many pixels times squared width a second."""

    def clock(arguments, patch, micro, softmax, dtype) -> float:
        return micro * math.prod(patch) * arguments["base"] ** 2 / speed

    return make_plan(
        data,
        load_config(None, sets, **given),
        patches=lambda patch: 10 * max(1, math.prod(data.median_space) // math.prod(patch)),
        has_objects=objects,
        class_names=[str(k) for k in range(data.num_classes)],
        clock=clock,
        dtype=lambda *args: ("float32", "told so"),
        threads=2,
        device="cpu",
        seconds_left=None if minutes is None else 60 * minutes,
    )


DATA = {
    "small": measured((88, 88)),
    "odd": measured((50, 77)),
    "photo": measured((4000, 5000), channels=(channel(),) * 3),
    "volume": measured((40, 50, 35), spacing=(1.0, 1.0, 1.0)),
    "anisotropic": measured((40, 256, 256), spacing=(3.0, 1.0, 1.0)),
    "thin": measured((9, 256, 256), spacing=(1.0, 1.0, 1.0)),
    "apart": measured((40, 256, 256), spacing=(6.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("name", DATA)
def test_laws_of_every_plan(name: str) -> None:
    plan = planned(DATA[name])
    assert len(plan.patch) == plan.dims
    assert all(g.factor and n % g.factor == 0 for n, g in zip(plan.patch, geometries(plan), strict=True))
    # at the bottom at least 4 px remain along an axis that is halved
    for n, g in zip(plan.patch, geometries(plan), strict=True):
        assert g.factor == 1 or n // g.factor >= 4
    assert 0 <= plan.warmup_steps < plan.steps
    assert plan.cooldown_steps == round(0.4 * plan.steps)
    # training fits the budget
    assert plan.steps * plan.seconds_per_step <= training_seconds(plan.budget_s) < plan.budget_s
    assert math.isclose(plan.steps * plan.seconds_per_step, training_seconds(plan.budget_s), rel_tol=0.01)


def test_small_images_give_a_patch_of_their_size() -> None:
    plan = planned(DATA["small"])
    assert (plan.patch, plan.depth) == ((96, 96), 4)
    assert planned(DATA["odd"]).patch in {(56, 80), (64, 80)}
    with pytest.raises(DataError, match="images of 7 x 300 px are too small for a U-Net"):
        planned(measured((7, 300)))


def test_large_photos_give_a_bounded_patch() -> None:
    plan = planned(DATA["photo"])
    assert (plan.patch, plan.stored_channels, plan.channels) == ((256, 256), 3, 3)
    assert plan.patches_per_epoch == 10 * (4000 * 5000 // 256**2)


def test_volumes() -> None:
    assert (planned(DATA["volume"]).dims, planned(DATA["volume"]).planes) == (3, False)
    plan = planned(DATA["anisotropic"])
    assert (plan.dims, plan.strides[0], plan.anisotropy) == (3, (1, 2, 2), 3.0)
    assert all(stride == (2, 2, 2) for stride in plan.strides[2:])
    for name in ("thin", "apart"):
        assert (planned(DATA[name]).dims, planned(DATA[name]).planes) == (2, True)
    assert planned(DATA["volume"], "data.dims=2").planes
    assert planned(DATA["thin"], "data.dims=3").dims == 3
    with pytest.raises(ConfigError, match=r"data.dims is 3, but the images are 2D"):
        planned(DATA["small"], "data.dims=3")


def test_budgets() -> None:
    assert planned(DATA["small"], minutes=None, steps=77).steps == 77
    epochs = planned(DATA["small"], minutes=None, epochs=3)
    assert epochs.steps == math.ceil(3 * epochs.patches_per_epoch / epochs.micro_batch)
    with pytest.raises(ConfigError, match="a plan needs a budget"):
        planned(DATA["small"], minutes=None)
    short, long = planned(DATA["photo"], minutes=1), planned(DATA["photo"], minutes=600)
    assert short.base <= 16 < long.base
    assert short.micro_batch <= long.micro_batch
    slow = planned(DATA["photo"], minutes=1, speed=1e6)
    assert slow.base == 8
    assert slow.steps >= 1


def test_less_time_gives_smaller_steps_before_it_gives_fewer() -> None:
    plans = [planned(DATA["photo"], minutes=minutes) for minutes in (600, 60, 15, 12, 10, 8, 6, 5, 4, 3, 2, 1)]
    batches = [(plan.patch, plan.micro_batch) for plan in plans]
    assert batches[0] == ((256, 256), 4)
    assert batches[-1] == ((128, 128), 2)
    assert len(set(batches)) == 4
    pixels = [plan.micro_batch * math.prod(plan.patch) for plan in plans]
    assert pixels == sorted(pixels, reverse=True)
    for plan, batch in zip(plans, pixels, strict=True):
        assert plan.steps >= 1500 or batch == pixels[-1]
    assert "more steps fit: 128 x 128" in plans[-1].reasons["patch"]
    kept = planned(DATA["photo"], "network.patch=[256,256]", "train.micro_batch=8", minutes=1)
    assert (kept.patch, kept.micro_batch) == ((256, 256), 8)
    assert planned(DATA["small"], minutes=1).patch == (96, 96)
    assert planned(DATA["anisotropic"], minutes=1).patch == planned(DATA["anisotropic"], minutes=600).patch


def test_full_resolution_costs_little() -> None:
    assert planned(DATA["photo"]).light_top
    assert planned(DATA["anisotropic"]).light_top
    assert not planned(DATA["photo"], "network.depth=2").light_top
    assert planned(DATA["photo"], "network.depth=2", "network.light_top=true").light_top
    assert not planned(DATA["photo"], "recipe=paper").light_top
    with pytest.raises(ConfigError, match="at least 2"):
        planned(DATA["photo"], "network.depth=1", "network.light_top=true")


def test_what_is_set_wins() -> None:
    plan = planned(DATA["photo"], "network.base=12", "network.depth=3", "network.patch=[64,128]", "train.micro_batch=5",
                   "train.lr=0.5", "train.count=2", "train.dtype=bfloat16", "network.light_top=false")  # fmt: skip
    assert not plan.light_top
    assert (plan.base, plan.depth, plan.patch, plan.micro_batch, plan.count) == (12, 3, (64, 128), 5, 2)
    assert (plan.lr, plan.dtype) == (0.5, "bfloat16")
    with pytest.raises(ConfigError, match=r"must be multiples of \[16, 16\]; \(112, 64\) would do"):
        planned(DATA["photo"], "network.patch=[100,64]")
    with pytest.raises(ConfigError, match=r"network.patch has 3 numbers, wanted 2"):
        planned(DATA["photo"], "network.patch=[8,64,64]")


def test_workers_share_the_batch_of_one() -> None:
    one, two = planned(DATA["small"]), planned(DATA["small"], workers=2)
    assert one.micro_batch * one.count == two.micro_batch * two.count
    assert two.count == 2


def test_classes_and_objects() -> None:
    three = planned(measured((88, 88), classes=3))
    assert (three.num_classes, three.outputs, len(three.class_weights)) == (3, 3, 3)
    assert list(three.class_weights) == sorted(three.class_weights)
    assert (three.instance_mode, three.border) == ("none", "none")
    cells = planned(DATA["small"], objects=True)
    assert (cells.instance_mode, cells.outputs, cells.border, len(cells.class_weights)) == ("border", 3, "2015", 3)
    assert planned(DATA["small"], "instances.mode=distance", objects=True).outputs == 3
    assert set(planned(DATA["small"], "loss.class_weight=false").class_weights) == {1.0}
    with pytest.raises(ConfigError, match="labels do not tell objects apart"):
        planned(DATA["small"], "instances.mode=border")


def objects_of(smallest: float, largest: float, source: str = "instances") -> ObjectStatistics:
    sizes = {"count": 99, "minimum": 1, "p05": 1, "p25": smallest, "median": largest, "p75": largest, "p95": largest}
    sized = Quantiles(**sizes, maximum=largest)
    return ObjectStatistics(
        source=source, samples=9, per_sample=None, size_px=sized, extent_px=None, gap_px=None, touching_share=0.1
    )


@pytest.mark.parametrize(
    ("found", "space", "zoom"),
    [
        (None, (256, 256), 1.25),
        (objects_of(100, 110), (256, 256), 1.25),
        (objects_of(100, 196), (256, 256), 1.4),
        (objects_of(100, 900), (256, 256), 1.6),
        (objects_of(100, 900, "components"), (256, 256), 1.25),
        (objects_of(100, 274.4), (64, 64, 64), 1.4),
    ],
)
def test_zoom_follows_the_sizes_of_objects(found: ObjectStatistics | None, space: tuple[int, ...], zoom: float) -> None:
    plan = planned(measured(space, objects=found, spacing=(1.0,) * len(space)))
    assert plan.augmentation.scale == pytest.approx((1 / zoom, zoom))
    assert ("scale" in plan.reasons) == (zoom > 1.25)
    set_by_hand = planned(measured(space, objects=found, spacing=(1.0,) * len(space)), "augmentation.scale=1.1")
    assert set_by_hand.augmentation.scale == pytest.approx((1 / 1.1, 1.1))


def test_normalisation() -> None:
    norm = planned(DATA["small"]).normalisation[0]
    assert (norm.kind, norm.low, norm.high, norm.mean, norm.std) == ("dataset", 5, 240, 90, 40)
    assert planned(measured((88, 88), intensity_scale_differs=True)).normalisation[0].kind == "image"
    four = (channel(nodata=(-9999.0,)), channel("constant"), channel(), channel())
    plan = planned(measured((88, 88), channels=four))
    assert [n.kind for n in plan.normalisation] == ["dataset", "drop", "dataset", "dataset"]
    assert (plan.normalisation[0].nodata, plan.stored_channels, plan.channels) == (-9999, 4, 3)
    with pytest.raises(DataError, match="every channel of the images is constant"):
        planned(measured((88, 88), channels=(channel("constant"),)))


def test_the_recipe_of_2015() -> None:
    plan = planned(DATA["photo"], recipe="paper")
    assert (plan.patch, plan.base, plan.depth, plan.valid, plan.batch_norm) == ((572, 572), 64, 4, True, False)
    assert (plan.optimizer, plan.momentum, plan.micro_batch, plan.dropout) == ("sgd", 0.99, 1, 0.5)
    assert (plan.dice_share, plan.border, plan.dtype) == (0.0, "2015", "float32")
    with pytest.raises(ConfigError, match="the network of 2015 is 2D"):
        planned(DATA["volume"], recipe="paper")


def test_the_same_question_has_the_same_answer() -> None:
    assert planned(DATA["anisotropic"]) == planned(DATA["anisotropic"])
