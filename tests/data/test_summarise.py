import cv2
import nibabel
import numpy as np
import pytest
from PIL import Image

from useg.data.inspect import inspect


def blob_series(root, number=12):
    """Slices of one volume: smooth noise that changes slowly from slice to slice."""
    random = np.random.default_rng(2)
    coarse = random.normal(size=(number // 3 + 2, 16, 16))
    for i in range(number):
        before, part = divmod(i / 3, 1)
        plane = coarse[int(before)] * (1 - part) + coarse[int(before) + 1] * part
        plane = cv2.resize(plane, (96, 96), interpolation=cv2.INTER_CUBIC)
        for name, array in {"images": 120 + 40 * plane, "labels": (plane > 0.4) * 1}.items():
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(np.clip(array, 0, 255).astype(np.uint8)).save(root / name / f"{i}.png")


def test_a_stack_cut_in_slices_is_a_series(tmp_path):
    blob_series(tmp_path)
    found = inspect(tmp_path)
    assert found.fingerprint.sequence
    assert any("slices of a stack" in warning for warning in found.warnings)


def test_a_region_is_where_classes_are_counted(tmp_path):
    for i in range(4):
        random = np.random.default_rng(i)
        image = random.integers(0, 255, (50, 50, 3)).astype(np.uint8)
        field = np.zeros((50, 50), np.uint8)
        cv2.circle(field, (25, 25), 20, 255, -1)
        vessels = (random.random((50, 50)) < 0.2).astype(np.uint8) * 255
        for folder, name, array in (
            ("images", f"{i}.png", image), ("labels", f"{i}.png", vessels), ("fov", f"{i}.png", field),
        ):  # fmt: skip
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / name)
    rows = "\n".join(f"images/{i}.png,labels/{i}.png,fov/{i}.png" for i in range(4))
    (tmp_path / "pairs.csv").write_text(f"image,label,region\n{rows}\n")
    found = inspect(tmp_path)
    assert all(sample.region for sample in found.reading.samples)
    inside = int((field > 0).sum())
    assert sum(c.pixels for c in found.fingerprint.classes) == 4 * inside
    assert found.fingerprint.ignored_share == pytest.approx(1 - inside / 2500)


def test_spacing_of_volumes(tmp_path):
    for i, step in enumerate((1.0, 1.0, 2.5)):
        for name in ("images", "labels"):
            (tmp_path / name).mkdir(exist_ok=True)
            array = np.random.default_rng(i).integers(0, 2, (12, 14, 16)).astype(np.int16)
            image = nibabel.Nifti1Image(array, np.diag([0.5, 0.5, step, 1.0]))
            nibabel.save(image, tmp_path / name / f"{i}.nii.gz")
    found = inspect(tmp_path).fingerprint
    assert found.spacing == (1.0, 0.5, 0.5)
    assert found.spacing_varies
