"""The sentence: which run is better, by how much, or why that cannot be said."""

import math

import numpy as np
import pytest

from useg.errors import InputError
from useg.runs.verdict import Scored, judge, less_is_better, metric_name, sample_rows


def scored(label, values, metric="mean_dice", **more):
    samples = {f"s{place:03d}": {metric: value} for place, value in enumerate(values) if not math.isnan(value)}
    return Scored(label, **{"part": "test", "samples": samples, "over": ("cell",), **more})


def noisy(mean, count=40, seed=0, spread=0.02):
    return [float(value) for value in np.random.default_rng(seed).normal(mean, spread, count)]


def test_the_better_one_is_named_with_how_much_and_how_sure():
    first = noisy(0.80, seed=1)
    second = [value + extra for value, extra in zip(first, noisy(0.02, seed=2, spread=0.03), strict=True)]
    found = judge([scored("A", first), scored("B", second)])
    (one,) = found["comparisons"]
    assert one["better"] == "B"
    assert found["sentence"] == (
        f"B is better than A on mean Dice by {one['difference']:.3f} (95 % interval {one['low']:.3f} to "
        f"{one['high']:.3f}, p < 0.001, 40 samples); one run of each, so the noise between seeds is not known."
    )
    mirrored = judge([scored("A", second), scored("B", first)])
    assert mirrored["sentence"].startswith(f"A is better than B on mean Dice by {one['difference']:.3f} (95 % interval")
    assert f"{one['low']:.3f} to {one['high']:.3f}" in mirrored["sentence"]


def test_of_errors_the_smaller_one_is_better():
    found = judge([scored("A", [0.1] * 9, "pixel_error"), scored("B", [0.2] * 9, "pixel_error")], "pixel_error")
    assert found["sentence"].startswith(
        "A is better than B on pixel error by 0.100 (95 % interval 0.100 to 0.100, p = 0.004"
    )
    assert found["less_is_better"]


@pytest.mark.parametrize("name", ["pixel_error", "hd95.cell", "assd.cell", "loss", "validation_loss"])
def test_what_is_better_when_it_is_less(name):
    assert less_is_better(name)
    assert not less_is_better("dice." + name)


def test_too_few_samples_are_told():
    found = judge([scored("A", [0.1, 0.2, 0.3, 0.4]), scored("B", [0.2, 0.3, 0.4, 0.5])])
    assert found["sentence"].startswith("No difference that 4 samples could show: B scores 0.100 better than A")
    assert "the smallest p that 4 samples can give is 0.125, and 6 are needed" in found["sentence"]
    assert found["comparisons"][0]["better"] is None


def test_groups_are_counted_not_samples():
    names = {f"s{place:03d}": f"patient {place // 10}" for place in range(30)}
    found = judge([scored("A", [0.1] * 30, groups=names), scored("B", [0.2] * 30, groups=names)])
    assert "3 groups could show" in found["sentence"]
    assert "30 samples in 3 groups" in found["sentence"]


def test_chance_is_called_chance():
    found = judge([scored("A", noisy(0.8, seed=1)), scored("B", noisy(0.8, seed=2))])
    assert found["sentence"].startswith("No difference that is more than chance: ")
    assert found["comparisons"][0]["p"] > 0.05


def test_equal_scores_are_no_difference():
    found = judge([scored("A", [0.5] * 8), scored("B", [0.5] * 8)])
    assert found["sentence"].startswith("No difference: A and B have the same mean Dice on every sample")


def test_the_spread_between_seeds_is_told():
    runs = [
        scored(f"{'ABC'[seed]}", [value + seed / 1000 for value in noisy(0.8)], configuration="one", seed=seed)
        for seed in range(3)
    ]
    found = judge([*runs, scored("D", [value + 0.05 for value in noisy(0.8)], configuration="two")])
    assert found["spreads"] == {"A+B+C": {"spread": pytest.approx(0.001), "runs": 3}}
    assert found["sentence"].startswith("D is better than A+B+C on mean Dice by 0.049")
    assert found["sentence"].endswith("; the spread between seeds of A+B+C is 0.001 (3 runs).")


def test_what_seeds_do_is_no_difference_between_configurations():
    offsets = {"A": 0.0, "B": 0.03, "C": -0.03, "D": 0.02, "E": 0.05, "F": -0.01}
    runs = [
        scored(label, [v + extra for v in noisy(0.8)], configuration=str(label > "C"), seed=label)
        for label, extra in offsets.items()
    ]
    found = judge(runs)
    assert found["comparisons"][0]["p_samples"] < 0.001
    assert found["comparisons"][0]["better"] is None
    assert found["sentence"].startswith("No difference that is more than the noise between seeds: D+E+F scores 0.020")
    assert "p < 0.001 over samples, p = 0.4" in found["sentence"]


def test_too_few_seeds_are_told():
    runs = [
        scored(label, [v + extra for v in noisy(0.8)], configuration=str(label > "B"), seed=label)
        for label, extra in {"A": 0.0, "B": 0.03, "C": 0.2}.items()
    ]
    found = judge(runs)
    assert found["sentence"].startswith(
        "2 and 1 runs are too few to tell this from the noise between seeds: C scores 0.185 better than A+B"
    )
    assert found["comparisons"][0]["better"] is None


def test_two_seeds_of_one_configuration_say_nothing_of_it():
    runs = [scored(label, noisy(0.8, seed=1), configuration="one", seed=label) for label in "AB"]
    assert any("one configuration" in note for note in judge(runs)["notes"])


def test_a_run_of_the_same_settings_and_seed_is_no_further_seed():
    runs = [scored(label, noisy(0.8, seed=place), configuration="one", seed=0) for place, label in enumerate("AB")]
    found = judge(runs)
    assert found["notes"] == ["B has the settings and the seed of A, but not its weights"]
    assert found["comparisons"][0]["runs"] == [1, 1]


def test_the_same_weights_count_once():
    runs = [scored(label, [0.5] * 6, weights="w") for label in "AB"]
    found = judge(runs)
    assert found["sentence"] == "No difference: all these runs have the same weights."
    relabelled = judge(runs, others={("A", "B"): ["s000"]})
    assert relabelled["notes"] == ["1 samples are not the same in A and B"]
    three = judge([*runs, scored("C", [0.7] * 6)])
    assert [each["second"] for each in three["comparisons"]] == ["C"]
    assert three["notes"] == ["B has the same weights as A, and is counted once"]


def test_several_runs_are_corrected_for_all_pairs():
    runs = [scored("A", noisy(0.80, seed=1)), scored("B", noisy(0.84, seed=2)), scored("C", noisy(0.8395, seed=3))]
    found = judge(runs)
    assert len(found["comparisons"]) == 3
    assert all(each["p"] <= each["p_corrected"] for each in found["comparisons"])
    assert "corrected for 3 comparisons" in found["comparisons"][0]["sentence"]
    assert found["sentence"] in (
        "B has the best mean Dice: better than A, and not more than by chance better than C.",
        "C has the best mean Dice: better than A, and not more than by chance better than B.",
    )


def test_of_many_runs_the_best_is_compared_with_each():
    runs = [scored(label, noisy(0.8 + place / 50, seed=place)) for place, label in enumerate("ABCDE")]
    found = judge(runs)
    assert [(each["first"], each["second"]) for each in found["comparisons"]] == [(label, "E") for label in "ABCD"]
    assert "corrected for 10 comparisons" in found["comparisons"][0]["sentence"]
    assert judge([scored(label, noisy(0.8)) for label in "ABC"])["sentence"].endswith("noise between seeds.")


def test_six_samples_are_too_few_for_many_comparisons():
    runs = [scored(label, [0.5 + place / 10] * 6) for place, label in enumerate("ABC")]
    assert "No difference that 6 samples could show" in judge(runs)["comparisons"][0]["sentence"]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            {"part": "validation"},
            "the runs were scored on different parts of the data, A on the test part and B on the validation part",
        ),
        ({"samples": {}}, "B has no scores of single samples"),
        ({"over": ("cell", "wall")}, "their means are over different classes: A over cell; B over cell, wall"),
        ({"samples": {"s000": {"pixel_error": 0.1}}}, "B has no mean Dice of any sample"),
        ({"samples": {"x": {"mean_dice": 0.1}}}, "A and B share no sample that has a value of mean Dice in both"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, reason):
    found = judge([scored("A", [0.5] * 8), scored("B", [0.9] * 8, **other)], "dice")
    assert found["sentence"] == f"No verdict: {reason}."
    assert not any(each["better"] for each in found["comparisons"])


def test_scores_on_validation_are_told():
    found = judge([scored("A", [0.5] * 8, part="validation"), scored("B", [0.6] * 8, part="validation")])
    assert "operating points were tuned" in found["notes"][0]


def test_samples_that_are_not_the_same_are_not_paired():
    found = judge([scored("A", [0.5] * 8), scored("B", [0.9] * 8)], others={("A", "B"): ["s003", "gone"]})
    (one,) = found["comparisons"]
    assert one["samples"] == 7
    assert one["not_the_same"] == ["s003"]
    assert one["not_shared"] == 0


def test_samples_scored_in_one_run_only_are_counted():
    (one,) = judge([scored("A", [0.5] * 8), scored("B", [0.9] * 6)])["comparisons"]
    assert (one["samples"], one["not_shared"], one["left_out"]) == (6, 2, 0)


def test_the_task_decides_what_is_judged():
    rows = {"s": {"mean_dice": 0.5, "instances.ap50": 0.4, "membranes.v_rand": 0.9}}
    one, other = (Scored(label, "test", rows) for label in "AB")
    assert judge([one, other])["metric"] == "instances.ap50"
    bare = Scored("C", "test", {"s": {"mean_dice": 0.5, "membranes.v_rand": 0.9}})
    assert judge([one, bare])["metric"] == "membranes.v_rand"
    assert judge([one, other], "dice")["metric"] == "mean_dice"
    assert judge([one, other], "v_rand")["metric"] == "membranes.v_rand"
    with pytest.raises(InputError, match=r"--metric beauty: wanted one of instances.ap50, mean_dice"):
        judge([one, other], "beauty")


def test_other_metrics_are_shown_without_a_verdict():
    rows = [
        {f"s{n}": {"mean_dice": 0.5 + extra, "hd95.cell": 3.0, "iou.cell": 0.2} for n in range(8)} for extra in (0, 0.1)
    ]
    found = judge([Scored(label, "test", row) for label, row in zip("AB", rows, strict=True)])
    assert [(row["metric"], row["name"], row["difference"]) for row in found["shown"]] == [
        ("hd95.cell", "HD95 of cell", 0.0)
    ]
    assert metric_name("iou.a.b") == "IoU of a.b"


def test_rows_are_the_numbers_of_each_sample():
    row = {"dice": {"a.b": 0.5, "c": None}, "mean_dice": 1, "missed": ["c"], "ok": True, "instances": {"ap50": 0.25}}
    assert sample_rows({"samples": {"k": row}}) == {"k": {"dice.a.b": 0.5, "mean_dice": 1.0, "instances.ap50": 0.25}}
    assert sample_rows({}) == {}
