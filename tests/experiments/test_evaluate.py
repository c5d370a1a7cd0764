"""Folders of predictions against labels: pairing, mapping, sizes, and every problem at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from useg.errors import DataError, InputError
from useg.experiments.evaluate import evaluate_folders


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def blob(seed: int, shape: tuple[int, int] = (48, 56)) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    return field > np.quantile(field, 0.7)


def mask(seed: int) -> np.ndarray:
    return np.where(blob(seed), 255, 0).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Four label maps of 0 and 255, predicted perfectly but for the last, which is empty."""
    for seed in range(4):
        save(tmp_path / "labels" / f"{seed}.png", mask(seed))
        save(tmp_path / "found" / f"{seed}.png", mask(seed) if seed < 3 else np.zeros_like(mask(0)))
    return tmp_path / "found", tmp_path / "labels"


def test_two_folders_of_label_maps(folders: tuple[Path, Path]) -> None:
    scores = evaluate_folders(*folders)
    foreground = scores["classes"]["foreground"]
    assert (foreground["dice_mean"], foreground["images_missed"], scores["images"]) == (0.75, 1, 4)
    assert scores["surface"]["classes"]["foreground"]["hd95"] == pytest.approx(np.hypot(48, 56) / 4)
    assert list(scores["samples"]) == ["0", "1", "2", "3"]
    assert scores["task"] == {"classes": ["background", "foreground"], "membrane": None, "unit": "px"}
    assert scores["mean_over"] == ["foreground"]
    assert any("0, 255" in note for note in scores["notes"])


def test_a_data_set_is_paired_by_the_names_of_its_images(tmp_path: Path) -> None:
    for seed in range(3):
        save(
            tmp_path / "data" / "images" / f"{seed}_photo.png",
            np.random.default_rng(seed).integers(0, 255, (48, 56)).astype(np.uint8),
        )
        save(tmp_path / "data" / "masks" / f"{seed}_truth.png", mask(seed))
        save(tmp_path / "found" / f"{seed}_photo.png", mask(seed))
        save(tmp_path / "found" / "overlays" / f"{seed}_photo.png", mask(seed + 9))
    scores = evaluate_folders(tmp_path / "found", tmp_path / "data")
    assert (scores["mean_dice"], scores["images"]) == (1.0, 3)


@pytest.mark.parametrize("name", ["{} copy", "seg {}", "{}_mask_final"])
def test_names_that_differ_by_the_same_piece_all_along_belong_together(tmp_path: Path, name: str) -> None:
    for seed in range(3):
        save(tmp_path / "found" / f"IMG_{seed}7.png", mask(seed))
        save(tmp_path / "truth" / f"{name.format(f'IMG_{seed}7')}.png", mask(seed))
    scores = evaluate_folders(tmp_path / "found", tmp_path / "truth")
    assert (scores["mean_dice"], scores["images"]) == (1.0, 3)
    (tmp_path / "found" / "IMG_17.png").unlink()
    with pytest.raises(DataError, match="do not belong together"):
        evaluate_folders(tmp_path / "found", tmp_path / "truth")


def test_class_ids_are_read_where_the_labels_hold_other_values(folders: tuple[Path, Path]) -> None:
    for path in folders[0].iterdir():
        save(path, (np.asarray(Image.open(path)) > 0).astype(np.uint8))
    scores = evaluate_folders(*folders)
    assert scores["classes"]["foreground"]["dice_mean"] == 0.75
    assert any("class ids 0..1" in note for note in scores["notes"])


def test_objects_come_from_the_instances_folder_or_from_connected_parts(tmp_path: Path) -> None:
    for seed in range(2):
        truth = np.zeros((48, 56), dtype=np.uint16)
        for index in range(12):  # pairs of touching objects
            row, column = 12 * (index // 4), 12 * (index % 4) - 2 * (index % 2)
            truth[row + 1 : row + 9, column + 1 : column + 11] = 3 + 2 * index
        save(tmp_path / "labels" / f"{seed}.tif", truth)
        save(tmp_path / "both" / f"{seed}.tif", (truth > 0).astype(np.uint8))
        save(tmp_path / "one" / f"{seed}.tif", (truth > 0).astype(np.uint8))
        save(tmp_path / "both" / "instances" / f"{seed}.tif", truth * 7)
    (tmp_path / "labels" / "classes.toml").write_text('kind = "instances"\n')
    both = evaluate_folders(tmp_path / "both", tmp_path / "labels")
    one = evaluate_folders(tmp_path / "one", tmp_path / "labels")
    assert (both["instances"]["ap_mean"], both["instances"]["truths"]) == (1.0, 24)
    assert (one["instances"]["predictions"], one["instances"]["merges"]) == (12, 12)
    assert any("connected parts" in note for note in one["notes"])


def test_all_problems_are_told_together(folders: tuple[Path, Path]) -> None:
    found, labels = folders
    (found / "0.png").rename(found / "zero.png")
    save(labels / "9.png", mask(9))
    with pytest.raises(DataError, match="do not belong together") as caught:
        evaluate_folders(found, labels)
    told = {Path(problem.where).name: problem.what for problem in caught.value.problems}
    assert told == {
        "zero.png": "no label map has this name",
        "0.png": "no prediction has this name",
        "9.png": "no prediction has this name",
    }
    partial = evaluate_folders(found, labels, partial=True)
    assert (partial["images"], len(partial["left_out"])) == (3, 3)


def test_two_predictions_of_one_image_are_refused(folders: tuple[Path, Path]) -> None:
    save(folders[0] / "1.tif", mask(1))
    with pytest.raises(DataError, match="1 has two predictions"):
        evaluate_folders(*folders)


def test_labels_that_cannot_be_read_are_told(folders: tuple[Path, Path]) -> None:
    (folders[1] / "2.png").write_bytes(b"no picture at all")
    with pytest.raises(DataError, match="cannot be read") as caught:
        evaluate_folders(*folders)
    assert any("2.png" in problem.where for problem in caught.value.problems)


def test_sizes_and_values_are_told_together(folders: tuple[Path, Path]) -> None:
    found, labels = folders
    save(found / "0.png", mask(0)[:40])
    save(found / "1.png", np.where(blob(1), 77, 0).astype(np.uint8))
    (found / "2.png").write_bytes(b"no picture at all")
    with pytest.raises(DataError, match="3 files cannot be scored") as caught:
        evaluate_folders(found, labels)
    told = {Path(problem.where).name: problem.what for problem in caught.value.problems}
    assert told["0.png"] == "is of another size than its label: 40 x 56, wanted 48 x 56"
    assert "77" in told["1.png"]
    assert set(told) == {"0.png", "1.png", "2.png"}


def test_a_name_that_two_samples_have_is_not_guessed(tmp_path: Path) -> None:
    for part in ("train", "val"):
        save(tmp_path / "data" / part / "1.png", mask(1))
        save(tmp_path / "found" / part / "1.png", mask(1))
    assert evaluate_folders(tmp_path / "found", tmp_path / "data")["images"] == 2
    save(tmp_path / "flat" / "1.png", mask(1))
    with pytest.raises(DataError, match="several label maps have this name"):
        evaluate_folders(tmp_path / "flat", tmp_path / "data")


def test_membranes_are_seen_or_named(tmp_path: Path) -> None:
    grid = np.indices((90, 90))
    cells = np.where(((grid % 15) > 2).all(axis=0), 255, 0).astype(np.uint8)
    save(tmp_path / "labels" / "1.png", cells)
    cells[30:60, 40:50] = 255
    save(tmp_path / "found" / "1.png", cells)
    folders = tmp_path / "found", tmp_path / "labels"
    seen = evaluate_folders(*folders)
    assert seen["task"]["membrane"] == "background"
    assert seen["mean_over"] == ["background", "foreground"]
    assert 0.5 < seen["membranes"]["v_rand"] < 1
    assert evaluate_folders(*folders, membrane="background")["membranes"] == seen["membranes"]
    assert evaluate_folders(*folders, membrane="none")["membranes"] is None
    with pytest.raises(InputError, match="no membrane class 'cell' of two: the labels have background, foreground"):
        evaluate_folders(*folders, membrane="cell")


def test_nothing_to_score(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    save(tmp_path / "other" / "x.png", mask(0))
    with pytest.raises(InputError, match="nothing to score"):
        evaluate_folders(tmp_path / "other", folders[1], partial=True)
    with pytest.raises(InputError, match="a folder of predicted label maps was wanted"):
        evaluate_folders(tmp_path / "nowhere", folders[1])
