"""Files in, files out: the same as the network by hand, in the user's own values, and nothing half-written."""

from pathlib import Path, PurePosixPath

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from useg.data.images import read_header, read_image
from useg.data.labels import LabelClass, LabelMapping
from useg.errors import DataError, InputError, Problem, ResourceError
from useg.experiments.ensemble import Ensemble, Member, resident_bytes
from useg.experiments.fields import open_field
from useg.experiments.inputs import Input
from useg.experiments.predict import Predictor, choose_device, operating_threshold, predict
from useg.experiments.results import Blocks, Decision, Results, Wanted
from useg.segmentation.geometry import mirror_index
from useg.segmentation.instances import SeparationParameters
from useg.segmentation.normalise import ChannelNorm, normalise, statistics
from useg.segmentation.unet import UNet
from useg.train.bundle import Bundle, save_bundle
from useg.train.plan import Plan

VALUES = LabelMapping(
    kind="values",
    classes=(LabelClass(name="ground", values=(7,)), LabelClass(name="cell", values=(200,))),
)


def plan_of(**changes) -> Plan:
    dims = changes.get("dims", 2)
    channels = changes.get("stored_channels", 1)
    settings = {
        "stored_channels": channels,
        "num_classes": 2,
        "patch": (32,) * dims,
        "strides": ((2,) * dims,) * 2,
        "base": 2,
        "steps": 1,
        "batch_norm": not changes.get("valid", False),
        "normalisation": (ChannelNorm("image"),) * channels,
    }
    return Plan(**{**settings, **changes})


def bundle_file(path: Path, *, seed=0, mapping=VALUES, tuning=None, **changes) -> Path:
    torch.manual_seed(seed)
    plan = plan_of(**changes)
    save_bundle(path, plan, mapping, UNet(**plan.network_arguments()).state_dict(), tuning=tuning)
    return path


def picture(path: Path, *shape: int, seed=0) -> Path:
    values = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def by_hand(bundle: Path, image: np.ndarray) -> np.ndarray:
    """Probabilities of the whole mirrored image at once, for a valid network."""
    from useg.train.bundle import load_bundle

    member = Member(load_bundle(bundle), "cpu")
    normed = normalise(image, member.plan.normalisation, statistics(image, member.plan.normalisation))
    for axis, (one, size) in enumerate(zip(member.geometry, image.shape[1:], strict=True), start=1):
        index = mirror_index(-one.margin_px, one.input_size(size) - one.margin_px, size)
        normed = normed.take(index, axis=axis)
    with torch.inference_mode():
        logits = member.module(torch.from_numpy(normed)[None])[0]
    crop = (slice(None), *(slice(0, size) for size in image.shape[1:]))
    return torch.softmax(logits, 0).numpy()[crop]


class Pixelwise(nn.Module):
    """Foreground where a pixel is above the mean, without looking at any other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-4 * x[:, :1], 4 * x[:, :1]], dim=1)


class Interrupted(nn.Module):
    """A user who loses patience at the third tile."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 3:
            raise KeyboardInterrupt
        return torch.cat([x, -x], dim=1)


def predictor_of(module: nn.Module, **changes) -> Predictor:
    class Fake(Bundle):
        def network(self, device: str = "cpu") -> nn.Module:
            return module

    fake = Fake(plan_of(**changes), VALUES, {}, "", {})
    return Predictor(Ensemble([Member(fake, "cpu")], ["fake"]))


def input_of(path: Path) -> Input:
    return Input((str(path),), PurePosixPath(path.name.split(".")[0]), read_header(str(path)))


def picture_size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_labels_are_those_of_the_network_in_the_users_values(tmp_path):
    bundle = bundle_file(tmp_path / "valid.useg", valid=True, patch=(60, 60))
    image = picture(tmp_path / "cells.png", 117, 83)
    [done] = predict([bundle], [image], tmp_path / "out", probabilities=True)
    expected = by_hand(bundle, read_image(str(image)))
    assert done["input"] == str(image)
    assert done["instances"] is done["overlay"] is None
    probabilities = read_image(done["probabilities"])
    assert probabilities.dtype == np.float16
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    labels = read_image(done["labels"])[0]
    clear = np.abs(expected[1] - 0.5) > 1e-5
    assert set(np.unique(labels)) <= {7, 200}
    assert np.array_equal(labels[clear], np.where(expected.argmax(0) == 1, 200, 7)[clear])
    assert files_of(tmp_path / "out") == {"cells.png", "probabilities/cells.tif"}


def test_a_field_that_is_streamed_gives_what_a_held_one_gives(tmp_path):
    values = np.random.default_rng(1).integers(0, 4000, (300, 200), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "large.tif", values, tile=(64, 64), compression="zlib")
    norms = (ChannelNorm("image"),)
    window = (slice(13, 200), slice(0, 150))
    with (
        open_field([str(tmp_path / "large.tif")], 1, 10**9) as held,
        open_field([str(tmp_path / "large.tif")], 1, 10**6) as streamed,
    ):
        assert held.held_bytes == values.nbytes
        assert streamed.held_bytes == 0
        assert np.array_equal(held.read(window), streamed.read(window))
        assert np.array_equal(held.sample(norms), streamed.sample(norms))
        assert streamed.sample((ChannelNorm("dataset"),)).size == 0


def test_the_strided_sample_is_the_one_training_takes(tmp_path):
    from useg.segmentation.normalise import sample_strides

    values = np.random.default_rng(1).integers(0, 200, (1900, 1700), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "large.tif", values)
    step = sample_strides(values.shape)
    assert step[0] > 1
    with open_field([str(tmp_path / "large.tif")], 1, 5 * 10**6) as field:
        assert field.held_bytes == 0
        assert np.array_equal(field.sample((ChannelNorm("image"),))[0], values[:: step[0], :: step[1]])


def test_several_bundles_are_averaged_also_of_different_shape(tmp_path):
    image = picture(tmp_path / "a.png", 90, 70)
    bundles = [
        bundle_file(tmp_path / "one.useg", seed=1),
        bundle_file(tmp_path / "two.useg", seed=2),
        bundle_file(tmp_path / "valid.useg", seed=3, valid=True, patch=(60, 60)),
    ]
    singles = [
        read_image(predict([one], [image], tmp_path / one.stem, probabilities=True)[0]["probabilities"])
        for one in bundles
    ]
    [done] = predict(bundles, [image], tmp_path / "all", probabilities=True)
    mean = np.mean([single.astype(np.float64) for single in singles], axis=0)
    np.testing.assert_allclose(read_image(done["probabilities"]), mean, atol=2e-3)


def test_bundles_of_different_tasks_are_refused_with_the_difference(tmp_path):
    other = VALUES.model_copy(
        update={"classes": (LabelClass(name="ground", values=(0,)), LabelClass(name="road", values=(1,)))}
    )
    bundles = [
        bundle_file(tmp_path / "a.useg"),
        bundle_file(tmp_path / "b.useg", mapping=other, instance_mode="border"),
    ]
    image = picture(tmp_path / "a.png", 40, 40)
    with pytest.raises(InputError, match=r"(?s)list of classes is \['ground', 'road'\].*instance mode is border"):
        predict(bundles, [image], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stack_goes_plane_by_plane_through_a_2d_model(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg")
    stack = np.random.default_rng(0).integers(0, 255, (5, 40, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    for number, plane in enumerate(stack):
        Image.fromarray(plane).save(tmp_path / f"plane{number}.png")
    [done] = predict([bundle], [tmp_path / "stack.tif"], tmp_path / "out", instances=True, overlay=True)
    planes = predict([bundle], sorted(tmp_path.glob("plane*.png")), tmp_path / "planes", instances=True)
    for kind in ("labels", "instances"):
        whole = read_image(done[kind])[0]
        assert whole.shape == stack.shape
        for plane, single in zip(whole, planes, strict=True):
            assert np.array_equal(plane > 7, read_image(single[kind])[0] > 7) or kind == "instances"
            assert np.array_equal(plane > 0, read_image(single[kind])[0] > 0)
    ids = read_image(done["instances"])[0]
    seen = [set(np.unique(plane)) - {0} for plane in ids]
    assert sum(map(len, seen)) == len(set().union(*seen)) == ids.max() > 5
    assert picture_size(done["overlay"])[0] > 100


def test_a_volume_keeps_its_affine_and_gets_overlays_of_three_planes(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg", dims=3, patch=(16, 16, 16))
    affine = np.diag([0.5, 0.7, 2.0, 1.0])
    volume = np.random.default_rng(0).normal(size=(30, 20, 12)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "scan.nii.gz")
    wanted = {"probabilities": True, "instances": True, "overlay": True}
    [done] = predict([bundle], [tmp_path / "scan.nii.gz"], tmp_path / "out", tta=True, **wanted)
    for kind in ("labels", "probabilities", "instances"):
        written = nibabel.load(done[kind])
        assert written.shape[:3] == volume.shape
        np.testing.assert_allclose(written.affine, affine)
    assert done["labels"].endswith("out/scan.nii.gz")
    # NIfTI stores x first: our volume has 12 planes of 20 rows and 30 columns. Two views stand right of the first.
    assert picture_size(done["overlay"]) == (30 + 4 + 30, 12 + 4 + 12)


def test_a_picture_for_a_model_of_volumes_is_a_problem_of_that_file(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg", dims=3, patch=(16, 16, 16))
    image = picture(tmp_path / "a.png", 20, 20)
    with pytest.raises(DataError, match=r"a picture of 20 x 20, the model is for volumes"):
        predict([bundle], [image], tmp_path / "out")
    assert files_of(tmp_path / "out") == set()


def test_what_cannot_be_read_is_reported_and_the_rest_is_predicted(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg")
    folder = tmp_path / "images"
    folder.mkdir()
    picture(folder / "good.png", 40, 30)
    picture(folder / "colour.png", 40, 30, 3)
    whole = picture(folder / "cut.png", 64, 64).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.tif").write_bytes(b"")
    problems: list[Problem] = []
    notes: list[str] = []
    inputs = [folder, tmp_path / "nothing.png"]
    done = predict([bundle], inputs, tmp_path / "out", problems=problems, notes=notes, overlay=True)
    assert [Path(one["labels"]).name for one in done] == ["good.png"]
    named = {Path(problem.where).name for problem in problems}
    assert named == {"colour.png", "cut.png", "text.png", "empty.tif", "nothing.png"}
    assert files_of(tmp_path / "out") == {"good.png", "overlays/good.png"}
    with pytest.raises(DataError, match=r"(?s)5 inputs could not be predicted.*cut\.png"):
        predict([bundle], inputs, tmp_path / "out")


def test_grey_saved_as_rgb_fits_a_grey_model(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg")
    grey = read_image(str(picture(tmp_path / "grey.png", 40, 30)))[0]
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "rgb.png")
    one, other = predict([bundle], [tmp_path / "grey.png", tmp_path / "rgb.png"], tmp_path / "out")
    assert np.array_equal(read_image(one["labels"]), read_image(other["labels"]))


def test_channels_in_several_files_are_put_together(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg", stored_channels=2)
    picture(tmp_path / "a.png", 40, 30, seed=1)
    picture(tmp_path / "b.png", 40, 30, seed=2)
    both = np.concatenate([read_image(str(tmp_path / name)) for name in ("a.png", "b.png")])
    tifffile.imwrite(tmp_path / "both.tif", both, planarconfig="separate", photometric="minisblack")
    refs = (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    from useg.experiments.ensemble import load_ensemble

    predictor = Predictor(load_ensemble([bundle], "cpu"))
    apart = Input(refs, PurePosixPath("apart"), read_header(refs[0]))
    one = predictor.file(apart, tmp_path / "out", Wanted())["labels"]
    together = Input((str(tmp_path / "both.tif#channels"),), PurePosixPath("both"), read_header(refs[0]))
    header = read_header(str(tmp_path / "both.tif"))
    if header.channels == 2:
        together = Input((str(tmp_path / "both.tif"),), PurePosixPath("both"), header)
    other = predictor.file(together, tmp_path / "out", Wanted())["labels"]
    assert np.array_equal(read_image(str(one)), read_image(str(other)))
    with pytest.raises(DataError, match="has 1 channels"):
        predictor.file(input_of(tmp_path / "a.png"), tmp_path / "out", Wanted())


def blobs(*shape: int) -> np.ndarray:
    """Discs of radius 9 on a grid, touching none, some across any seam."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.where((rows % 26 - 13) ** 2 + (columns % 26 - 13) ** 2 < 81, 220, 20).astype(np.uint8)


def test_objects_cut_by_the_edge_of_a_block_come_out_as_one(tmp_path):
    tifffile.imwrite(tmp_path / "blobs.tif", blobs(260, 208))
    source = read_header(str(tmp_path / "blobs.tif"))
    image = read_image(str(tmp_path / "blobs.tif"))
    outputs = np.stack([image[0] < 100, image[0] > 100]).astype(np.float32)
    for mode, channels in (("none", outputs), ("distance", np.concatenate([outputs, outputs[1:]]))):
        results = Results(
            source,
            PurePosixPath(f"blobs_{mode}"),
            tmp_path / "out",
            wanted=Wanted(instances=True),
            decision=Decision(2, mode, None, SeparationParameters(min_size_px=40)),
            mapping=VALUES,
            by_plane=False,
        )
        with results:
            bands = ((row, channels[:, row : row + 20]) for row in range(0, 260, 20))
            results.write(bands, source.space, Blocks(48, 30, 0))
        ids = read_image(str(results.paths["instances"]))[0]
        assert ids.dtype == np.int32
        assert sorted(np.unique(ids)) == list(range(81))
        assert np.array_equal(ids > 0, image[0] > 100)
        sizes = np.bincount(ids.ravel())[1:]
        assert sizes.min() == sizes.max()


def test_a_threshold_tuned_for_the_model_is_used():
    assert operating_threshold({}) is None
    assert operating_threshold({"thresholds": {"v_rand": 0.9, "dice": 0.3}}) == 0.3
    assert operating_threshold({"thresholds": {"v_rand": 0.9}}) == 0.9


def test_a_lower_threshold_gives_more_foreground(tmp_path):
    image = picture(tmp_path / "a.png", 64, 64)
    shares = []
    for threshold in (0.2, 0.8):
        bundle = bundle_file(tmp_path / "m.useg", tuning={"thresholds": {"dice": threshold}})
        [done] = predict([bundle], [image], tmp_path / "out", probabilities=True)
        expected = read_image(done["probabilities"])[1].astype(np.float32)
        labels = read_image(done["labels"])[0] == 200
        clear = np.abs(expected - threshold) > 1e-3
        assert np.array_equal(labels[clear], (expected >= threshold)[clear])
        shares.append(labels.mean())
    assert shares[0] > shares[1]


def test_symmetric_networks_are_left_alone_by_averaging(tmp_path):
    path = tmp_path / "blobs.tif"
    tifffile.imwrite(path, blobs(90, 70))
    predictor = predictor_of(Pixelwise())
    predictor._tta = True
    paths = predictor.file(input_of(path), tmp_path / "out", Wanted())
    assert np.array_equal(read_image(str(paths["labels"]))[0] == 200, blobs(90, 70) > 100)


def test_an_interruption_leaves_nothing_half_written(tmp_path):
    tifffile.imwrite(tmp_path / "large.tif", blobs(400, 300))
    wanted = Wanted(probabilities=True, instances=True, overlay=True)
    predictor = predictor_of(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        predictor.file(input_of(tmp_path / "large.tif"), tmp_path / "out", wanted)
    assert files_of(tmp_path / "out") == set()


def test_a_limit_that_cannot_be_met_says_how_much_more_is_needed(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg")
    image = picture(tmp_path / "a.png", 200, 200)
    with pytest.raises(ResourceError, match=r"too low: the program and the model alone take \d+ MB; give \d+ MB"):
        predict([bundle], [image], tmp_path / "out", memory_limit_bytes=resident_bytes() // 2)
    assert files_of(tmp_path / "out") == set()


def test_progress_reaches_the_whole(tmp_path):
    bundle = bundle_file(tmp_path / "m.useg")
    images = [picture(tmp_path / f"{name}.png", 300, 200) for name in "ab"]
    seen = []
    predict([bundle], images, tmp_path / "out", progress=lambda done, *, total, status: seen.append((done, total)))
    done = [at for at, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (0.12, 0.12)


def test_devices(tmp_path):
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda")
    with pytest.raises(InputError, match="device 'quantum' cannot be used here"):
        choose_device("quantum")


def test_a_clip_gives_a_stack_and_an_overlay_clip(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            frame = np.full((48, 64, 3), 30, np.uint8)
            frame[10:30, 5 + 6 * number : 25 + 6 * number] = 220
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    bundle = bundle_file(tmp_path / "m.useg", stored_channels=3)
    [done] = predict([bundle], [tmp_path / "clip.mp4"], tmp_path / "out", overlay=True)
    assert tifffile.imread(done["labels"]).shape == (6, 48, 64)
    assert done["overlay"].endswith("overlays/clip.mp4")
    with av.open(done["overlay"]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape == (48, 64, 3)
    assert files_of(tmp_path / "out") == {"clip.tif", "overlays/clip.mp4"}
