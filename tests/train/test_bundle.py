"""One file that predicts: it comes back as it was, and whatever is not such a file is refused in one message."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from useg.errors import DamagedFile
from useg.segmentation.instances import SeparationParameters
from useg.segmentation.unet import UNet
from useg.train.bundle import load_bundle, save_bundle
from useg.train.checkpoint import read_tensors, write_tensors


@pytest.fixture
def made(tmp_path: Path, plan, mapping) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.useg"
    tuning = {"thresholds": {"dice": 0.4}, "separation": {"min_size_px": 9}}
    tensors = UNet(**plan().network_arguments()).state_dict()
    save_bundle(path, plan(), mapping, tensors, tuning=tuning, about={"run": "r"})
    return path


def rewrite(path: Path, **changes: object) -> None:
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {k: v for k, v in {**header, **changes}.items() if v is not None})


def test_it_comes_back_and_predicts_the_same(made: Path, plan, mapping) -> None:
    bundle = load_bundle(made)
    assert (bundle.plan, bundle.mapping, bundle.about) == (plan(), mapping, {"run": "r"})
    assert bundle.separation == SeparationParameters(min_size_px=9)
    torch.manual_seed(0)
    network = UNet(**plan().network_arguments()).eval()
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(bundle.network()(image), network(image), rtol=1e-4, atol=1e-4)
    assert not bundle.network().training


def test_the_same_model_has_the_same_bytes(made: Path, tmp_path: Path, plan, mapping) -> None:
    bundle = load_bundle(made)
    again = tmp_path / "again.useg"
    digest = save_bundle(again, plan(), mapping, bundle.tensors, tuning=bundle.tuning, about=bundle.about)
    assert digest == bundle.weights
    assert again.read_bytes() == made.read_bytes()


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_bundle_can_execute_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.useg").write_bytes(pickle.dumps(Evil()))
    with zipfile.ZipFile("zip.useg", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil()))
    torch.save({"weights": torch.ones(2)}, "torch.useg")
    for name in ("model.useg", "zip.useg", "torch.useg"):
        with pytest.raises(DamagedFile, match=f"{name}: not a readable model"):
            load_bundle(Path(name))
    assert not Path("executed").exists()


def test_damage_is_told(made: Path) -> None:
    good = made.read_bytes()
    made.write_bytes(good[:-3])
    with pytest.raises(DamagedFile, match=r"model\.useg: not a readable model"):
        load_bundle(made)
    made.write_bytes(good[:-3] + bytes([good[-3] ^ 1]) + good[-2:])
    with pytest.raises(DamagedFile, match="not those that were written; fetch the file again"):
        load_bundle(made)
    with pytest.raises(DamagedFile, match="there is no such file"):
        load_bundle(made.with_name("other"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 99}, "format 99 is newer than this useg knows; update useg"),
        ({"kind": "checkpoint"}, r"a checkpoint, not a model; the model of a run is its model\.useg"),
        ({"kind": None}, "not a model"),
        ({"plan": {}}, "its description cannot be read"),
        ({"plan": None}, "its description cannot be read"),
        ({"plan": [1]}, "its description cannot be read"),
        ({"plan": {"format": 99}}, "format 99 is newer"),
        ({"mapping": {"kind": "values", "classes": []}}, "its description cannot be read"),
        ({"tuning": None}, "its description cannot be read"),
        ({"format": None}, "its description cannot be read"),
        ({"format": "new"}, "its description cannot be read"),
    ],
)
def test_other_descriptions_are_refused(made: Path, changes: dict, words: str) -> None:
    rewrite(made, **changes)
    with pytest.raises(DamagedFile, match=words):
        load_bundle(made)


def test_weights_of_another_network_are_refused(made: Path, plan) -> None:
    for other in (plan(base=4), plan(residual=True), plan(num_classes=3, class_names=(), class_weights=())):
        rewrite(made, plan=other.model_dump(mode="json"))
        with pytest.raises(DamagedFile, match="the weights do not fit the plan in the same file"):
            load_bundle(made)


def test_a_network_too_large_for_any_memory_is_refused_without_making_it(made: Path, plan) -> None:
    rewrite(made, plan=plan(base=10**6, max_width=10**6).model_dump(mode="json"))
    with pytest.raises(DamagedFile, match="do not fit"):
        load_bundle(made)
