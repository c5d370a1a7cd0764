"""Which samples a training learns from, and that two trainings plan alike."""

from pathlib import Path

import numpy as np
import orjson
import pytest
import tifffile
from PIL import Image

from useg.config import Config, load_config
from useg.errors import ConfigError, DataError
from useg.experiments.prepare import Prepared, estimated_minutes, prepare, recall
from useg.train import probe
from useg.train.plan import Plan

SETS = ("network.base=2", "network.depth=2", "train.micro_batch=1", "train.threads=1", "train.dtype=float32")


def config(*sets: str, **given: object) -> Config:
    return load_config(None, [*SETS, *sets], **{"steps": 2, **given})


def picture(seed: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """An image with bright discs and its mask of 0 and 255."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((side, side), bool)
    for cy, cx in random.uniform(4, side - 4, (3, 2)):
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < 30
    image = (60 + 120 * mask + random.normal(0, 25, mask.shape)).clip(0, 255).astype(np.uint8)
    return image, (255 * mask).astype(np.uint8)


def save(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for kind, array in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        if array.ndim == 2:
            Image.fromarray(array).save(folder / kind / f"{name}.png")
        else:
            tifffile.imwrite(folder / kind / f"{name}.tif", array, photometric="minisblack")


def folder_of(root: Path, count: int, side: int = 32) -> Path:
    for seed in range(count):
        save(root, str(seed), *picture(seed, side))
    return root


def volume(seed: int, depth: int = 6) -> tuple[np.ndarray, np.ndarray]:
    planes = [picture(100 * seed + z) for z in range(depth)]
    return np.stack([image for image, _ in planes]), np.stack([mask for _, mask in planes])


def splits_of(found: Prepared) -> dict[str, str]:
    (splits,) = found.fold_splits
    return dict(zip(found.samples.keys, splits, strict=True))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


# ---- splits ----


def test_given_splits_are_kept(tmp_path: Path, home: Path) -> None:
    data = folder_of(tmp_path / "data", 6)
    given = ["test", "train", "val", "train", "val", "test"]
    rows = [f"images/{i}.png,masks/{i}.png,{split}" for i, split in enumerate(given)]
    (data / "pairs.csv").write_text("\n".join(["image,label,split", *rows]))
    assert list(splits_of(prepare(data, config(), home)).values()) == given
    folds = prepare(data, config(folds=2), home).fold_splits
    assert [s[0] for s in folds] == [s[5] for s in folds] == ["test", "test"]
    held_out = [[i for i, split in enumerate(splits) if split == "val"] for splits in folds]
    assert sorted(held_out[0] + held_out[1]) == [1, 2, 3, 4]


def test_one_fold_alone_is_that_fold_and_a_split_has_its_own_seed(tmp_path: Path, home: Path) -> None:
    data = folder_of(tmp_path / "data", 6)
    every = prepare(data, config(folds=3), home).fold_splits
    assert [prepare(data, config(folds=3, fold=k), home).fold_splits for k in range(3)] == [(each,) for each in every]
    plain = [splits_of(prepare(data, config(seed=seed), home)) for seed in range(4)]
    assert len({str(each) for each in plain}) > 1
    for seed in range(4):
        fixed = config(seed=seed, data={"split_seed": 2})
        assert splits_of(prepare(data, fixed, home)) == plain[2]


def test_nothing_to_learn_from(tmp_path: Path, home: Path) -> None:
    for count in (1, 3):
        data = folder_of(tmp_path / str(count), count)
        rows = [f"images/{i}.png,masks/{i}.png,test" for i in range(count)]
        (data / "pairs.csv").write_text("\n".join(["image,label,split", *rows]))
        with pytest.raises(DataError, match="every one is given as val or test"):
            prepare(data, config(), home)
    assert not home.exists()


@pytest.mark.parametrize("seed", range(4))
def test_duplicates_stay_together(tmp_path: Path, home: Path, seed: int) -> None:
    data = folder_of(tmp_path / "data", 5)
    for seed_of_copy in range(5):
        save(data, f"copy{seed_of_copy}", *picture(seed_of_copy))
    splits = splits_of(prepare(data, config(seed=seed), home))
    assert set(splits.values()) == {"train", "val"}
    for number in range(5):
        assert splits[f"{number}"] == splits[f"copy{number}"]


@pytest.mark.parametrize("seed", range(3))
def test_equal_volumes_stay_together_as_planes(tmp_path: Path, home: Path, seed: int) -> None:
    data = tmp_path / "data"
    for number in range(3):
        for name in (f"a{number}", f"b{number}"):
            save(data, name, *volume(number))
    splits = splits_of(prepare(data, config(seed=seed), home))
    for number in range(3):
        assert len({splits[f"{name}{number}#{z}"] for name in "ab" for z in range(6)}) == 1


def stack(root: Path, count: int, *, twice: tuple[int, int] | None = None, side: int = 32) -> Path:
    """Slices of a slowly changing scene; perhaps two of them alike."""
    random = np.random.default_rng(0)
    scene = random.normal(0, 1, (count + 30, 32, 32)).repeat(side // 32, 1).repeat(side // 32, 2)
    slow = np.stack([scene[k : k + 12].mean(0) for k in range(count)])
    if twice:
        slow[twice[1]] = slow[twice[0]]
    for number, plane in enumerate(slow):
        save(root, f"{number:03}", (120 + 150 * plane).clip(0, 255).astype(np.uint8), np.uint8(255) * (plane > 0.1))
    return root


@pytest.mark.parametrize("twice", [None, (10, 11)])
def test_a_sequence_is_held_out_as_one_block_with_a_gap(tmp_path: Path, home: Path, twice) -> None:
    notes: list[str] = []
    found = prepare(stack(tmp_path / "data", 20, twice=twice), config(), home, note=notes.append)
    assert found.fingerprint.sequence
    splits = list(splits_of(found).values())
    held_out = [i for i, split in enumerate(splits) if split == "val"]
    assert held_out == list(range(held_out[0], held_out[0] + 4))
    for beside in (held_out[0] - 1, held_out[-1] + 1):
        assert beside in (-1, 20) or splits[beside] == "gap"
    assert any("neighbouring samples look alike" in line for line in notes)


def area(found: Prepared, kind: str) -> dict[str, set[int]]:
    """Rows or columns of each slice that belong to a part of the split."""
    rows: dict[str, set[int]] = {}
    for key, split in splits_of(found).items():
        name, _, window = key.rstrip("]").partition("[")
        start, stop = max((tuple(map(int, part.split(":"))) for part in window.split(",")), key=lambda p: p != (0, 256))
        if split == kind:
            rows.setdefault(name, set()).update(range(start, stop))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_a_short_stack_holds_out_the_same_band_of_every_slice(tmp_path: Path, home: Path, seed: int) -> None:
    found = prepare(stack(tmp_path / "data", 20, side=256), config(seed=seed), home)
    held_out, learned = area(found, "val"), area(found, "train")
    assert list(held_out) == list(learned) == [f"{number:03}" for number in range(20)]
    (band,) = {frozenset(rows) for rows in held_out.values()}
    (rest,) = {frozenset(rows) for rows in learned.values()}
    assert len(band) == 51
    assert min(abs(one - other) for one in band for other in rest) == 13
    assert any("the same band of each" in line for line in found.notes)
    again = recall(found.reading.samples, config(seed=seed), found.plan, found.mapping, found.fingerprint)
    assert again.fold_splits == found.fold_splits
    assert again.samples.keys == found.samples.keys


def test_given_slices_for_testing_stay_whole(tmp_path: Path, home: Path) -> None:
    data = stack(tmp_path / "data", 20, side=256)
    rows = [f"images/{n:03}.png,masks/{n:03}.png,{'test' if n > 15 else 'train'}" for n in range(20)]
    (data / "pairs.csv").write_text("\n".join(["image,label,split", *rows]))
    splits = splits_of(prepare(data, config(), home))
    assert [split for key, split in splits.items() if "[" not in key] == ["test"] * 4
    assert [split for key, split in splits.items() if "[" in key] == ["train", "val"] * 16


def test_planes_of_one_short_volume_hold_out_a_band(tmp_path: Path, home: Path) -> None:
    planes = [picture(7, side=256) for _ in range(5)]
    image, mask = np.stack([i for i, _ in planes]), np.stack([m for _, m in planes])
    save(tmp_path / "data", "only", image, mask)
    found = prepare(tmp_path / "data", config(), home)
    assert list(area(found, "val")) == [f"only#{z}" for z in range(5)]
    for index, key in enumerate(found.samples.keys):
        loaded = found.samples[index]
        z = int(key.partition("#")[2].partition("[")[0])
        window = tuple(slice(*map(int, p.split(":"))) for p in key.partition("[")[2].rstrip("]").split(","))
        assert np.array_equal(loaded.image[0], image[z][window])
        assert loaded.space == found.samples.space(index)


def test_folds_of_a_sequence_are_blocks_with_gaps(tmp_path: Path, home: Path) -> None:
    folds = prepare(stack(tmp_path / "data", 12), config(folds=3), home).fold_splits
    assert [[i for i, s in enumerate(splits) if s == "val"] for splits in folds] == [
        list(range(4)), list(range(4, 8)), list(range(8, 12))
    ]  # fmt: skip
    assert [[i for i, s in enumerate(splits) if s == "gap"] for splits in folds] == [[4], [3, 8], [7]]


def test_a_test_part_is_kept_from_every_fold(tmp_path: Path, home: Path) -> None:
    data = folder_of(tmp_path / "data", 10)
    folds = prepare(data, config("data.test=0.3", folds=2), home).fold_splits
    apart = [{i for i, split in enumerate(splits) if split == "test"} for splits in folds]
    assert apart[0] == apart[1] != set()
    held_out = [i for splits in folds for i, split in enumerate(splits) if split == "val"]
    assert sorted(held_out) == sorted(set(range(10)) - apart[0])


def test_a_single_image_is_cut_with_a_gap_and_a_warning(tmp_path: Path, home: Path) -> None:
    notes: list[str] = []
    found = prepare(folder_of(tmp_path / "data", 1, side=96), config(), home, note=notes.append)
    splits = splits_of(found)
    assert sorted(splits.values()) == ["train", "val"]
    assert any("single image" in line and "optimistic" in line for line in notes)
    pixels = sum(found.samples[i].image.size for i in range(2))
    assert 0.9 * 96 * 96 <= pixels < 96 * 96
    learned, held = (found.samples.keys[list(splits.values()).index(kind)] for kind in ("train", "val"))
    assert learned.split("[")[0] == held.split("[")[0] == "0"
    with pytest.raises(DataError, match="2 folds were wanted"):
        prepare(tmp_path / "data", config(folds=2), home)


def test_two_images_are_one_for_each_part(tmp_path: Path, home: Path) -> None:
    assert sorted(splits_of(prepare(folder_of(tmp_path / "data", 2), config(), home)).values()) == ["train", "val"]


# ---- planes ----


def test_thin_volumes_are_trained_on_as_planes(tmp_path: Path, home: Path) -> None:
    for number in range(4):
        save(tmp_path / "data", str(number), *volume(number))
    found = prepare(tmp_path / "data", config(), home)
    assert (found.plan.dims, found.plan.planes, len(found.samples)) == (2, True, 24)
    splits = splits_of(found)
    for number in range(4):  # planes of one volume stay together
        assert len({splits[f"{number}#{z}"] for z in range(6)}) == 1
    solid = prepare(tmp_path / "data", config("data.dims=3"), home)
    assert (solid.plan.dims, solid.plan.planes, len(solid.samples)) == (3, False, 4)


def test_planes_of_one_volume_are_a_sequence(tmp_path: Path, home: Path) -> None:
    save(tmp_path / "data", "only", *volume(1, depth=10))
    splits = list(splits_of(prepare(tmp_path / "data", config(), home)).values())
    assert {"train", "val", "gap"} == set(splits)
    held_out = [i for i, split in enumerate(splits) if split == "val"]
    assert held_out == list(range(held_out[0], held_out[-1] + 1))


# ---- plans ----


def test_what_was_probed_is_remembered_so_plans_are_equal(tmp_path: Path, home: Path, monkeypatch) -> None:
    data, asked = folder_of(tmp_path / "data", 4), []

    def clock(*args: object, **more: object) -> float:
        asked.append(args)
        return 0.01 * len(asked)  # a machine that never answers twice the same

    monkeypatch.setattr(probe, "step_seconds", clock)
    sets = config(steps=None, minutes=1)
    first = prepare(data, sets, home).plan
    count = len(asked)
    assert count > 0
    second = prepare(data, sets, home).plan
    assert len(asked) == count
    steady = {"steps", "warmup_steps", "cooldown_steps", "validate_every", "reasons"}
    assert first.model_dump(exclude=steady) == second.model_dump(exclude=steady)
    assert abs(first.steps - second.steps) <= 0.1 * first.steps  # the reading of the folder took of the minute
    assert estimated_minutes(first) == pytest.approx(first.steps * 0.01 * count / 60, abs=0.2)
    memory = next((home / "machines").glob("*.json"))
    assert orjson.loads(memory.read_bytes())
    memory.write_bytes(b"{ damaged")
    assert prepare(data, sets, home).plan.patch == first.patch
    assert len(asked) == 2 * count


def test_a_plan_file_is_used_as_it_is(tmp_path: Path, home: Path) -> None:
    data = folder_of(tmp_path / "data", 4)
    plan: Plan = prepare(data, config(), home).plan
    plan.save(tmp_path / "plan.toml")
    again = prepare(data, config("network.base=8"), home, plan_file=tmp_path / "plan.toml").plan
    assert again.model_dump(mode="json") == plan.model_dump(mode="json")
    changes = {"stored_channels": 2, "normalisation": plan.normalisation * 2, "dims": 3, "strides": ((2, 2, 2),) * 2,
               "patch": (16, 16, 16)}  # fmt: skip
    plan.model_copy(update=changes).save(tmp_path / "other.toml")
    with pytest.raises(ConfigError, match=r"made for other data: it has 2 channels.* 1 and 3 dimensions.* has 2"):
        prepare(data, config(), home, plan_file=tmp_path / "other.toml")


def test_recalled_is_as_prepared(tmp_path: Path, home: Path) -> None:
    found = prepare(folder_of(tmp_path / "data", 1, side=96), config(), home)
    again = recall(found.reading.samples, config(), found.plan, found.mapping, found.fingerprint)
    assert (again.fold_splits, again.samples.keys) == (found.fold_splits, found.samples.keys)
    (tmp_path / "data" / "masks" / "0.png").unlink()
    with pytest.raises(DataError, match=r"masks/0\.png: was part of this run and is gone"):
        recall(found.reading.samples, config(), found.plan, found.mapping, found.fingerprint)


# ---- what a run cannot keep ----


def test_names_that_are_not_utf_8(tmp_path: Path, home: Path) -> None:
    data = folder_of(tmp_path / "data", 4)
    for folder in ("images", "masks"):
        try:
            (data / folder / "2.png").rename(data / folder / "n\udcffme.png")
        except (OSError, UnicodeEncodeError):
            pytest.skip("this file system has names in UTF-8 only")
    with pytest.raises(DataError, match=r"(?s)2 files have names.*images/n\\udcffme\.png: its name is not UTF-8"):
        prepare(data, config(), home)


def test_more_classes_than_a_label_map_holds(tmp_path: Path, home: Path) -> None:
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64)).astype(np.uint8)
        save(tmp_path / "data", str(number), noise, noise)
    with pytest.raises(DataError, match="255 different label values; at most 254 classes"):
        prepare(tmp_path / "data", config(), home)


@pytest.mark.parametrize(("seconds", "minutes", "told"), [(3.0, 1, True), (3.0, 4, False), (0.01, 1, False)])
def test_too_few_steps_for_the_time_are_said_before(
    tmp_path: Path, home: Path, monkeypatch, seconds: float, minutes: float, told: bool
) -> None:
    monkeypatch.setattr(probe, "step_seconds", lambda *_args, **_more: seconds)
    found = prepare(folder_of(tmp_path / "data", 4), config(steps=None, minutes=minutes), home)
    words = [note for note in found.notes if "steps fit into the time" in note]
    assert len(words) == told
    if told:
        assert f"only {found.plan.steps} steps" in words[0]
        assert "--minutes 4 or more" in words[0]
