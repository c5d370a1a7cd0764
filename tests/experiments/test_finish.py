"""The end of runs: where operating points come from, folds, and kinds of data through a whole training."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from useg.experiments.finish import _warn
from useg.experiments.predict import predict
from useg.experiments.train import Listener, train
from useg.runs.record import RunFolder
from useg.train.bundle import load_bundle


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_operating_points_know_nothing_of_the_test_part(tmp_path: Path, home: Path, tiny, discs_folder) -> None:
    """Other test masks (with as many pixels of each class) change the scores and nothing else."""
    found = []
    for shift in (0, 17):
        data = discs_folder(tmp_path / str(shift), 6, "rrrvvt", roll_test=shift)
        found.append(train(data, home=home, config=tiny()))
    one, other = (load_bundle(Path(result["bundle"])) for result in found)
    assert one.weights == other.weights
    assert one.tuning == other.tuning != {}
    assert [result["scores"]["part"] for result in found] == ["test", "test"]
    assert all(list(result["scores"]["samples"]) == ["images/5"] for result in found)
    assert found[0]["scores"]["confusion"] != found[1]["scores"]["confusion"]


def test_folds(tmp_path: Path, home: Path, tiny, discs_folder) -> None:
    data = discs_folder(tmp_path / "data", 5)
    config = tiny(folds=2, steps=6)
    stop = Listener()
    stop.stop.asked = True
    stopped = train(data, home=home, config=config, listener=stop)
    result = train(None, home=home, resume=stopped["run"])
    folder = RunFolder(Path(result["folder"]))
    names = ["model-fold0.useg", "model-fold1.useg"]
    assert [Path(path).name for path in result["bundles"]] == names == folder.record()["bundles"]
    assert sorted(path.name for path in folder.path.glob("*.useg")) == names
    scores = result["scores"]
    assert (scores["part"], scores["tuned_on"]) == ("out-of-fold", "out-of-fold")
    assert sorted(scores["samples"]) == [str(number) for number in range(5)]
    assert scores["images"] == 5
    whole = train(data, home=home, config=config)
    for key, row in whole["scores"]["samples"].items():  # outlines agree to rounding, counted pixels exactly
        assert row["dice"] == scores["samples"][key]["dice"]
        assert row["assd"] == pytest.approx(scores["samples"][key]["assd"], rel=1e-6)

    image = data / "images" / "0.png"
    fields = []
    for bundles in ([result["bundles"][0]], [result["bundles"][1]], result["bundles"]):
        out = tmp_path / f"out{len(fields)}"
        predict([Path(bundle) for bundle in bundles], [image], out, probabilities=True)
        (file,) = (path for path in (out / "probabilities").rglob("*") if path.is_file())
        fields.append(tifffile.imread(file).astype(np.float64))
    first, second, both = fields
    assert np.abs(first - second).max() > 0.01
    assert np.abs((first + second) / 2 - both).max() < 0.004 * max(1.0, both.max())


def test_pixels_to_ignore_count_nowhere(tmp_path: Path, home: Path, tiny, discs_folder) -> None:
    data = discs_folder(tmp_path / "data", 4)
    for path in (data / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[:10] = 77
        Image.fromarray(mask).save(path)
    (data / "classes.toml").write_text(
        'kind = "values"\nignore = [77]\n'
        '[[classes]]\nname = "ground"\nvalues = [0]\n[[classes]]\nname = "disc"\nvalues = [255]\n'
    )
    result = train(data, home=home, config=tiny())
    rows = result["scores"]["samples"].values()
    assert [row["ignored_pixels"] for row in rows] == [480] * len(rows)
    assert np.sum(result["scores"]["confusion"]) == len(rows) * (48 * 48 - 480)
    predict([Path(result["bundle"])], [data / "images" / "0.png"], tmp_path / "out")
    (written,) = (path for path in (tmp_path / "out").rglob("0*.png"))
    assert set(np.unique(np.array(Image.open(written)))) <= {0, 255}


def test_objects_of_volumes(tmp_path: Path, home: Path, tiny) -> None:
    z, y, x = np.mgrid[:16, :32, :32]
    for number in range(4):
        random = np.random.default_rng(number)
        ids = np.zeros(z.shape, np.uint16)
        for place, (cy, cx) in enumerate([(8, 8), (8, 20), (22, 10), (21, 23)]):
            dz, dy, dx = random.uniform(-1, 1, 3)
            inside = (z - 8 - dz) ** 2 + (y - cy - dy) ** 2 + (x - cx - dx) ** 2 < random.uniform(24, 34)
            ids[inside] = 10 * number + place + 1
        image = (50 + 120 * (ids > 0) + random.normal(0, 10, ids.shape)).clip(0, 255).astype(np.uint8)
        for folder, array in (("images", image), ("labels", ids)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "data" / folder / f"{number}.tif", array, photometric="minisblack")
    result = train(tmp_path / "data", home=home, config=tiny("data.dims=3", steps=20))
    plan = load_bundle(Path(result["bundle"])).plan
    assert plan.dims == 3
    assert plan.instance_mode != "none"
    objects = result["scores"]["instances"]
    assert objects["truths"] == 4 * result["scores"]["images"]
    assert 0 <= objects["ap50"] <= 1
    assert set(load_bundle(Path(result["bundle"])).tuning["separation"]) >= {"mask_threshold", "min_size_px"}
    predict([Path(result["bundle"])], [tmp_path / "data" / "images" / "0.tif"], tmp_path / "out", instances=True)
    (written,) = (path for path in (tmp_path / "out" / "instances").rglob("0*"))
    assert tifffile.imread(written).shape == (16, 32, 32)


def test_bands_with_nodata_and_codes(tmp_path: Path, home: Path, tiny) -> None:
    """A band with gaps (-9999), one of land-use codes, one that says nothing."""
    for number in range(5):
        random = np.random.default_rng(number)
        codes = np.kron(random.integers(1, 6, (6, 6)), np.ones((8, 8), int))
        height = random.normal(300, 40, (48, 48)) + 100 * (codes == 2)
        height[random.random((48, 48)) < 0.05] = -9999
        bands = np.stack([height, codes, np.full((48, 48), 7)]).astype(np.float32)
        for folder, array in (("images", bands), ("masks", np.uint8(codes == 2))):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "data" / folder / f"{number}.tif"
            tifffile.imwrite(path, array, photometric="minisblack")
    result = train(tmp_path / "data", home=home, config=tiny(steps=30))
    folder = RunFolder(Path(result["folder"]))
    channels = json.loads((folder.path / "fingerprint.json").read_text())["channel_statistics"]
    assert [channel["kind"] for channel in channels] == ["continuous", "categorical", "constant"]
    assert channels[0]["nodata"] == [-9999.0]
    plan = load_bundle(Path(result["bundle"])).plan
    assert plan.stored_channels == 3
    assert plan.channels > 3  # one for each code
    assert result["scores"]["mean_dice"] > 0.5  # the code alone tells it


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([[0, 230, 0], [0, 770, 0]], "'cell' everywhere; this model is of no use"),
        ([[2, 228, 0], [2, 768, 0]], "'cell' nearly everywhere (99.6%)"),
        ([[200, 30, 0], [40, 730, 0]], ""),
        ([[5, 5, 0], [2, 988, 0]], ""),  # the truth is nearly all cell, too
    ],
)
def test_a_class_that_is_predicted_nearly_everywhere_is_told(table: list[list[int]], told: str) -> None:
    words: list[str] = []
    member = SimpleNamespace(mapping=SimpleNamespace(class_names=("wall", "cell")))
    _warn(member, {"confusion": table, "classes": {}}, SimpleNamespace(note=words.append))
    assert len(words) == bool(told)
    assert told in "".join(words)
