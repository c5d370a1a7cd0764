"""Patches as a pure function of plan, samples, epoch and position."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import tifffile

from useg.arrays import IGNORE
from useg.data import samples as samples_module
from useg.data.reading import Sample
from useg.data.samples import Samples
from useg.segmentation.augment import AugmentSettings
from useg.segmentation.normalise import ChannelNorm
from useg.train.batches import Batches, MicroBatch, class_histogram, epoch_entries


def equal(one: MicroBatch, other: MicroBatch) -> bool:
    pairs = [(one.image, other.image), (one.targets, other.targets), (one.weights, other.weights)]
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def fingerprint(patch: tuple) -> bytes:
    return b"".join(np.ascontiguousarray(part).tobytes() for part in patch if part is not None)


def test_the_number_of_threads_changes_nothing(plan, discs) -> None:
    made = [
        list(Batches(plan(count=2), discs, range(5), workers=workers, keep=keep).ahead(3, 9, [0, 1]))
        for workers, keep in [(1, 1), (1, 3), (4, 5)]
    ]
    assert [len(step) for step in made[0]] == [2] * 6
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            assert all(equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_order_of_access_changes_nothing(plan, discs) -> None:
    places = [(epoch, position) for epoch in range(6) for position in range(0, 60, 7)]
    forward = Batches(plan(), discs, range(5))
    wanted = {place: fingerprint(forward.patch(*place)) for place in places}
    assert len(set(wanted.values())) == len(wanted)
    random.Random(0).shuffle(places)
    other = Batches(plan(), discs, range(5))
    assert {place: fingerprint(other.patch(*place)) for place in places} == wanted


def test_another_seed_is_another_patch(plan, discs) -> None:
    one, other = (fingerprint(Batches(plan(seed=seed), discs, range(5)).patch(0, 0)) for seed in (0, 1))
    assert one != other


def test_every_sample_is_seen_in_every_epoch(plan, discs, monkeypatch) -> None:
    batches = Batches(plan(patch=(64, 48)), discs, [4, 0, 2])
    seen: list[int] = []
    real = discs.__class__.read
    monkeypatch.setattr(discs.__class__, "read", lambda self, i, window: (seen.append(i), real(self, i, window))[1])
    orders = []
    for epoch in range(4):
        seen.clear()
        for position in range(3):
            batches.patch(epoch, position)
        assert sorted(seen) == [0, 2, 4]
        orders.append(tuple(seen))
    assert len(set(orders)) > 1


def test_large_samples_come_more_often() -> None:
    entries = Counter(epoch_entries([(16, 16), (8, 8), (64, 48), (10_000, 10_000)], (16, 16)))
    assert entries == {0: 1, 1: 1, 2: 12, 3: 64}


def test_steps_go_through_an_epoch_without_gap_or_repetition(plan, discs) -> None:
    batches = Batches(plan(count=2, micro_batch=3), discs, range(5))
    flat = [image for step in range(12) for number in range(2) for image in batches.micro_batch(step, number).image]
    wanted = [batches.patch(*divmod(place, 60))[0] for place in range(72)]
    assert all(np.array_equal(a, b) for a, b in zip(flat, wanted, strict=True))


def test_shapes_and_types(plan, discs) -> None:
    micro = Batches(plan(), discs, range(5)).micro_batch(0, 0)
    assert (micro.image.shape, micro.image.dtype) == ((2, 1, 16, 16), np.float32)
    assert (micro.targets.shape, micro.targets.dtype) == ((2, 16, 16), np.uint8)
    assert (micro.weights.shape, micro.weights.dtype) == ((2, 16, 16), np.float32)
    assert micro.distance is None
    assert set(np.unique(micro.targets)) <= {0, 1, IGNORE}


def test_targets_of_valid_convolutions_are_the_middle(plan, discs) -> None:
    whole = plan(patch=(28, 28), strides=((2, 2),), seed=2)
    cut = plan(patch=(28, 28), strides=((2, 2),), seed=2, valid=True)
    for position in range(5):
        _, all_of_it, _, _ = Batches(whole, discs, range(5)).patch(0, position)
        image, middle, weights, _ = Batches(cut, discs, range(5)).patch(0, position)
        assert image.shape == (1, 28, 28)
        assert np.array_equal(middle, all_of_it[8:-8, 8:-8])
        assert weights.shape == middle.shape


def test_image_and_labels_stay_together(plan, discs) -> None:
    """Discs are brighter than the ground by ten deviations of the noise, whatever the warp."""
    settings = AugmentSettings(gamma_probability=0.0, contrast_probability=0.0, brightness_probability=0.0,
                               tint_probability=0.0, noise_probability=0.0, blur_probability=0.0)  # fmt: skip
    batches = Batches(plan(augmentation=settings, patch=(32, 32)), discs, range(5))
    agreements = []
    for position in range(12):
        image, targets, _, _ = batches.patch(0, position)
        bright = image[0] > (110 - 80) / 50
        agreements.append((bright == (targets == 1))[targets != IGNORE].mean())
    assert np.mean(agreements) > 0.97


def test_rare_classes_are_met(plan, discs) -> None:
    batches = Batches(plan(patch=(8, 8)), discs, range(5))
    share = np.mean([(batches.patch(0, position)[1] == 1).any() for position in range(60)])
    truth = np.mean([(discs[i].classes == 1).mean() for i in range(5)])
    assert truth < 0.15
    assert share > 0.4


def test_instance_modes(plan, discs) -> None:
    border = Batches(plan(instance_mode="border", border="2015", class_weights=(1, 1, 1), patch=(32, 32)), discs, [0])
    assert {2} <= set(np.unique(border.micro_batch(0, 0).targets)) <= {0, 1, 2, IGNORE}
    distance = Batches(plan(instance_mode="distance", patch=(32, 32)), discs, [0]).micro_batch(0, 0)
    assert distance.distance.shape == (2, 32, 32)
    assert 0 == distance.distance.min() < distance.distance.max() <= 1


def test_normalisation_is_that_of_the_whole_image(plan, discs) -> None:
    """Not of the window that was read: the same pixel has the same value in any patch."""
    calm = AugmentSettings.none()
    for norm in (ChannelNorm("image"), ChannelNorm("dataset", low=0.0, high=255.0, mean=80.0, std=50.0)):
        one = plan(normalisation=(norm,), augmentation=calm, patch=(64, 48))
        small = plan(normalisation=(norm,), augmentation=calm, patch=(16, 16))
        whole = Batches(one, discs, [0]).patch(0, 0)[0][0].round(4)
        values = set(whole.ravel().tolist())
        part = Batches(small, discs, [0]).patch(0, 0)[0][0].round(4)
        assert set(part.ravel().tolist()) <= values


def test_large_images_give_the_same_patches_and_are_never_read_whole(plan, tmp_path, mapping, monkeypatch) -> None:
    random = np.random.default_rng(3)
    paths = tmp_path / "slide.tif", tmp_path / "slide-label.tif"
    values = random.integers(0, 255, (300, 200, 3), np.uint8)
    label = np.where(values[..., 0] > 250, 200, 0).astype(np.uint8)
    tifffile.imwrite(paths[0], values, tile=(32, 32), compression="deflate", photometric="rgb")
    tifffile.imwrite(paths[1], label, tile=(32, 32), compression="deflate")
    sample = Sample("slide", (str(paths[0]),), (str(paths[1]),))

    def read(*, cut: bool) -> list[MicroBatch]:
        samples = Samples([sample], mapping, 3)
        if cut:
            samples.cut({0: [(slice(20, 290), slice(10, 180)), (slice(0, 20), slice(0, 200))]})
        settings = plan(stored_channels=3, normalisation=(ChannelNorm("image"),) * 3, patch=(32, 32))
        batches = Batches(settings, samples, [0])
        assert class_histogram(samples, [0], 2).sum() == math.prod(samples.space(0))
        return [batches.micro_batch(step, 0) for step in range(6)]

    whole = [read(cut=cut) for cut in (False, True)]
    monkeypatch.setattr(samples_module, "LARGE_BYTES", 10_000)
    monkeypatch.setattr(samples_module, "_BAND_BYTES", 16_000)
    monkeypatch.setattr(Samples, "__getitem__", lambda *_: pytest.fail("read whole"))
    for before, cut in zip(whole, (False, True), strict=True):
        assert all(equal(*pair) for pair in zip(before, read(cut=cut), strict=True))


def test_the_class_histogram(plan, discs) -> None:
    counts = class_histogram(discs, [0, 3], 2)
    wanted = [sum(int((discs[i].classes == k).sum()) for i in (0, 3)) for k in (0, 1, IGNORE)]
    assert counts.tolist() == wanted


def test_a_sample_without_labels_is_no_training_sample(plan, discs) -> None:
    discs.mapping = None
    with pytest.raises(ValueError, match="0 has no labels to train on"):
        Batches(plan(), discs, [0]).patch(0, 0)


def test_an_error_while_preparing_is_raised_where_it_is_waited_for(plan, discs, tmp_path) -> None:
    (tmp_path / "3.png").write_bytes(b"")
    with pytest.raises(Exception, match=r"3\.png"):
        list(Batches(plan(), discs, range(5), workers=2).ahead(0, 30, [0]))
