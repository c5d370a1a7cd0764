"""Trains on real data sets by the commands a user types, and scores the part that was held out.

The data lie in folders below the one that USEG_TEST_DATA names (see docs/results.md for their sources). A row is
a data set, a seed and minutes; the models stay in out/bench/home.

    python bench/training.py isbi --seed 1 --minutes 15
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path("out/bench")
Rows = list[dict[str, str]]

ROWS = {
    **{f"isbi seed {seed}": ["isbi", "--seed", seed] for seed in range(3)},
    "drive": ["drive"],
    "hippocampus": ["hippocampus"],
    "dsb2018": ["dsb2018"],
    "dsb2018 without border separation": [
        "dsb2018", "--set", "instances.mode=weights", "--set", "loss.border_weight=false",
    ],
    "dsb2018 with border weights only": ["dsb2018", "--set", "instances.mode=weights"],
    **{
        name: [name, "--minutes", 3]
        for name in ("camvid", "kvasir", "water", "acdc", "cwfid", "wbc", "nuclei3d", "stardist2d", "stardist3d")
    },
}  # fmt: skip


def isbi(root: Path) -> Rows:
    """Slices 0-15 to train (and tune) on, 16-19 held out."""
    place = root / "isbi2012_em" / "train"
    return [
        {"image": str(place / "image" / f"{n}.png"), "label": str(place / "label" / f"{n}.png"),
         "key": f"slice{n:02d}", "split": "train" if n < 16 else "test"}
        for n in range(20)
    ]  # fmt: skip


def drive(root: Path) -> Rows:
    """The official training pictures: 21-36 to train on, 37-40 held out, inside the field of view."""
    place = root / "drive" / "training"
    return [
        {"image": str(place / "images" / f"{n}_training.tif"), "label": str(place / "1st_manual" / f"{n}_manual1.gif"),
         "region": str(place / "mask" / f"{n}_training_mask.gif"), "split": "train" if n < 37 else "test"}
        for n in range(21, 41)
    ]  # fmt: skip


def hippocampus(root: Path) -> Rows:
    """Every fifth volume held out."""
    images = sorted((root / "hippocampus" / "images").glob("*.nii.gz"))
    return [
        {"image": str(p), "label": str(p.parent.parent / "labels" / p.name), "split": "test" if i % 5 == 0 else "train"}
        for i, p in enumerate(images)
    ]


def dsb2018(root: Path) -> Rows:
    """Every fifth picture of each kind and size held out; only fluorescence is scored (split test)."""
    from PIL import Image

    kinds: dict[tuple[str, tuple[int, int]], list[Path]] = {}
    for folder in sorted((root / "dsb2018" / "stage1_train").iterdir()):
        with Image.open(next((folder / "images").glob("*.png"))) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.int16)
        grey = np.abs(pixels[..., 0] - pixels[..., 1]).max() < 8
        kind = "fluorescence" if grey and np.median(pixels) < 100 else "other"
        kinds.setdefault((kind, pixels.shape[:2]), []).append(folder)
    rows = []
    for (kind, _), folders in kinds.items():
        for number, folder in enumerate(folders):
            held_out = number % 5 == 4
            rows.append(
                {
                    "image": str(next((folder / "images").glob("*.png"))),
                    "objects": ";".join(map(str, sorted((folder / "masks").glob("*.png")))),
                    "split": ("test" if kind == "fluorescence" else "") if held_out else "train",
                    "kind": kind,
                }
            )
    return [row for row in rows if row["split"]]


def acdc(root: Path) -> Rows:
    """Patient 090 held out; the frames of a patient are one group."""
    files = sorted((root / "acdc").glob("*.h5"))
    return [
        {"image": f"{p}#image", "label": f"{p}#label", "group": p.name[:10],
         "split": "test" if p.name.startswith("patient090") else "train"}
        for p in files
    ]  # fmt: skip


def cwfid(root: Path) -> Rows:
    """036 and 056 held out."""
    place = root / "cwfid"
    return [
        {"image": str(p), "label": str(place / "annotations" / p.name.replace("image", "annotation")),
         "split": "test" if p.name[:3] in ("036", "056") else "train"}
        for p in sorted((place / "images").glob("*.png"))
    ]  # fmt: skip


def camvid(root: Path) -> Rows:
    """The parts as given; the validation part is the one held out."""
    place = root / "camvid"
    return [
        {"image": str(p), "label": str(place / f"{part}annot" / p.name), "split": split}
        for part, split in (("train", "train"), ("val", "test"))
        for p in sorted((place / part).glob("*.png"))
    ]


def one_pair(folder: str, image: str, label: str) -> Callable[[Path], Rows]:
    return lambda root: [{"image": str(root / folder / image), "label": str(root / folder / label)}]


PAIRS: dict[str, Callable[[Path], Rows]] = {
    "isbi": isbi,
    "drive": drive,
    "hippocampus": hippocampus,
    "dsb2018": dsb2018,
    "acdc": acdc,
    "cwfid": cwfid,
    "camvid": camvid,
    "stardist2d": one_pair("stardist_sample", "img2d.tif", "mask2d.tif"),
    "stardist3d": one_pair("stardist_sample", "img3d.tif", "mask3d.tif"),
}
FOLDERS = {"kvasir": "kvasir_seg", "water": "water12band", "wbc": "wbc", "nuclei3d": "nuclei3d_napari"}
SETTINGS = {"camvid": 'kind = "values"\nignore = [11]\n'}


def prepare(name: str, root: Path) -> tuple[Path, list[str]]:
    """The data as one gives it to `useg train`, and further arguments."""
    if name in FOLDERS:
        return root / FOLDERS[name], []
    rows = PAIRS[name](root)
    place = OUT / "data" / name
    place.mkdir(parents=True, exist_ok=True)
    with (place / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if name in SETTINGS:
        (place / "classes.toml").write_text(SETTINGS[name])
    return place, []


def useg(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "useg", *arguments, "--json"]
    print("$ useg", *arguments, file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"useg {arguments[0]} ended with status {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def short(scores: dict[str, Any]) -> dict[str, Any]:
    """The figures of one evaluation."""
    objects = scores.get("instances") or {}
    return {
        "images": scores["images"],
        "dice": {name: row["dice"] for name, row in scores["classes"].items()},
        "mean_dice": scores["mean_dice"],
        "mean_iou": scores["mean_iou"],
        "pixel_error": scores["pixel_error"],
        "operating_points": scores["operating_points"],
        "instances": {key: objects.get(key) for key in ("ap50", "ap_mean", "pq", "seg", "merges", "splits")}
        if objects
        else None,
    }


def steadiness(run: Path, data: Path, split: list[str]) -> dict[str, Any]:
    """V_rand of the last five checkpoints, averaged symmetries, at the operating point of the finished model."""
    from dataclasses import replace

    from useg.experiments.evaluate_model import evaluate_model
    from useg.train.bundle import load_bundle, save_bundle

    final = load_bundle(run / "model.useg")
    found = []
    for path in sorted((run / "snapshots").glob("*.useg")):
        kept = replace(load_bundle(path), tuning=final.tuning)
        place = OUT / "snapshot.useg"
        save_bundle(place, kept.plan, kept.mapping, kept.tensors, tuning=kept.tuning)
        scores = evaluate_model([place], data, split=split[-1], tta=True, surface=False, lines=False)
        found.append(scores["membranes"]["v_rand"])
    return {"v_rand_of_last_checkpoints": found, "spread": max(found) - min(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted({*PAIRS, *FOLDERS}))
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    given = parser.parse_args()
    root = Path(os.environ.get("USEG_TEST_DATA") or sys.exit("USEG_TEST_DATA must name the folder of data sets"))
    data, more = prepare(given.name, root)
    sets = [word for pair in given.sets for word in ("--set", pair)]
    began = time.perf_counter()
    result = useg(
        "train", str(data), "--minutes", str(given.minutes), "--seed", str(given.seed), "--name", given.name,
        "--home", str(OUT / "home"), *sets, *more,
    )  # fmt: skip
    record: dict[str, Any] = {
        "data": given.name,
        "seed": given.seed,
        "minutes": given.minutes,
        "settings": given.sets,
        "wall_s": round(time.perf_counter() - began, 1),
        "run": result["run"],
        "weights": result["weights"],
        "part": result["scores"]["part"],
        "scores": short(result["scores"]),
    }
    split = ["--split", "test"] if given.name in PAIRS and "stardist" not in given.name else []
    if split:
        for tta in (False, True):
            flags = ["--tta"] if tta else []
            scores = useg("evaluate", result["bundle"], str(data), *split, *flags, "--no-lines", "--no-surface")
            record["held_out_tta" if tta else "held_out"] = short(scores)
    if given.name == "isbi":
        record |= steadiness(Path(result["folder"]), data, split)
        record["v_rand_spread_median"] = statistics.median(record["v_rand_of_last_checkpoints"])
    print(json.dumps(record))


if __name__ == "__main__":
    main()
