"""Other tools' recipes on ISBI 2012, each for the same minutes, and how soon useg is as good.

The recipes are written anew here, after what their authors publish:

    monai     the 2D segmentation tutorial: residual U-Net of 16-256 channels, Adam 1e-3, Dice, 8 crops of 96x96,
              turns by 90 degrees
    milesial  Pytorch-UNet's defaults: the U-Net of 31 M weights (padded, batch normalisation), RMSprop 1e-5 with
              momentum 0.999, cross-entropy and Dice, one image of half the size a step, no augmentation
    smp       segmentation-models-pytorch: U-Net on a ResNet34 without pretrained weights, Adam 2e-4, Dice, 8 crops of
              320x320, flips, zoom and noise
    useg      `useg train --minutes M` for rising M, until it is as good as the goal with V_rand >= 0.95

The clock of a recipe counts training alone; that of useg counts the whole command. The threshold of a recipe is the
best one on the test slices, as in the challenge; that of useg comes from its validation slices. MONAI is among the
development packages; segmentation-models-pytorch is installed into an environment of its own, out/bench/smp-env.

    python bench/peers.py monai --seed 0 --minutes 15
    python bench/peers.py useg --seed 0 --goal 0.0796
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from training import OUT, isbi, prepare, useg

ROWS = {f"peer {n} seed {seed}": [n, "--seed", seed] for n in ("monai", "milesial", "smp") for seed in range(3)}
MINUTES = (2, 3, 4, 5, 7.5, 10, 15)
Pairs = list[tuple[np.ndarray, np.ndarray]]
Steps = Iterator[tuple[Any, Any]]


def slices(root: Path, split: str) -> Pairs:
    """Images 0..1 and labels 0 (membrane) or 1 (cell), both (512, 512) float32."""
    from PIL import Image

    rows = [row for row in isbi(root) if row["split"] == split]
    return [tuple(np.asarray(Image.open(row[key]), np.float32) / 255 for key in ("image", "label")) for row in rows]  # type: ignore[misc]


def monai(pairs: Pairs, draw: np.random.Generator) -> tuple[Any, Steps, Callable[[Any, Any], Any], Any]:
    import torch
    from monai.losses import DiceLoss
    from monai.networks.nets import UNet

    network = UNet(2, 1, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)

    def steps() -> Steps:
        while True:
            images, labels = [], []
            for number in draw.choice(len(pairs), 2, replace=False):
                for _ in range(4):
                    top, left = draw.integers(0, 512 - 96, 2)
                    turns = int(draw.integers(4)) if draw.random() < 0.5 else 0
                    cut = [np.rot90(part[top : top + 96, left : left + 96], turns).copy() for part in pairs[number]]
                    images.append(cut[0])
                    labels.append(cut[1])
            yield torch.from_numpy(np.stack(images)[:, None]), torch.from_numpy(np.stack(labels)[:, None])

    return network, steps(), DiceLoss(sigmoid=True), torch.optim.Adam(network.parameters(), 1e-3)


def milesial(pairs: Pairs, draw: np.random.Generator) -> tuple[Any, Steps, Callable[[Any, Any], Any], Any]:
    import cv2
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from useg.segmentation.unet import UNet

    network = UNet(channels=1, outputs=1, base=64, depth=4, max_width=1024)
    half = [
        (cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC), label[::2, ::2].copy()) for image, label in pairs
    ]

    def steps() -> Steps:
        while True:
            for number in draw.permutation(len(half)):
                yield tuple(torch.from_numpy(part[None, None]) for part in half[number])  # type: ignore[misc]

    def loss(logits: Any, labels: Any) -> Any:
        chance = torch.sigmoid(logits)
        overlap = 2 * (chance * labels).sum() / (chance.sum() + labels.sum())
        return binary_cross_entropy_with_logits(logits, labels) + 1 - overlap

    optimizer = torch.optim.RMSprop(network.parameters(), 1e-5, weight_decay=1e-8, momentum=0.999)
    return network, steps(), loss, optimizer


def smp(pairs: Pairs, draw: np.random.Generator) -> tuple[Any, Steps, Callable[[Any, Any], Any], Any]:
    import cv2
    import torch

    # the wheel of torchvision is made for CUDA: without these it cannot be imported beside the CPU build of torch
    vision = torch.library.Library("torchvision", "DEF")
    for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
        vision.define(f"{name}(Tensor a) -> Tensor")
        vision.define(f"_{name}_backward(Tensor a) -> Tensor")
    for name in ("nms", "qnms"):
        vision.define(f"{name}(Tensor a) -> Tensor")
    import segmentation_models_pytorch as models

    network = models.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)

    def crop(image: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
        side = int(320 / draw.uniform(0.8, 1.25))
        top, left = draw.integers(0, 512 - side + 1, 2)
        cut = [
            cv2.resize(part[top : top + side, left : left + side], (320, 320), interpolation=how)
            for part, how in ((image, cv2.INTER_LINEAR), (label, cv2.INTER_NEAREST))
        ]
        for axis in (0, 1):
            cut = [np.flip(part, axis) for part in cut] if draw.random() < 0.5 else cut
        return [cut[0] + draw.normal(0, 0.05, cut[0].shape).astype(np.float32), cut[1].copy()]

    def steps() -> Steps:
        while True:
            cuts = [crop(*pairs[number]) for number in draw.integers(0, len(pairs), 8)]
            yield tuple(torch.from_numpy(np.stack([cut[part] for cut in cuts])[:, None]) for part in (0, 1))  # type: ignore[misc]

    loss = models.losses.DiceLoss("binary")
    return network, steps(), loss, torch.optim.Adam(network.parameters(), 2e-4)


def in_own_environment() -> None:
    """Go on in the environment of segmentation-models-pytorch, which is made on first use, on top of this one."""
    python = OUT.absolute() / "smp-env" / "bin" / "python"
    if Path(sys.prefix) == python.parent.parent:
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        place = next(python.parent.parent.glob("lib/*/site-packages"))
        ours = [str(Path(__file__).parents[1] / "src"), *(path for path in sys.path if path.endswith("site-packages"))]
        (place / "below.pth").write_text("\n".join(ours))
        packages = [
            "segmentation-models-pytorch==0.6.0", "timm", "torchvision", "huggingface_hub", "tqdm",
            "httpx2", "httpcore2", "truststore",
        ]  # fmt: skip
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *packages], check=True)
    os.execv(python, [str(python), *sys.argv])


def judge(network: Any, pairs: Pairs, *, halved: bool) -> dict[str, float]:
    """Lowest pixel error and highest V_rand over thresholds, on the test slices."""
    import torch
    from torch.nn.functional import interpolate

    from useg.segmentation.flooding import components
    from useg.segmentation.membranes import count_regions, thin

    network.eval()
    chances = []
    with torch.no_grad():
        for image, _ in pairs:
            given = torch.from_numpy(image[None, None])
            logits = network(interpolate(given, scale_factor=0.5, mode="bicubic") if halved else given)
            logits = logits[0] if isinstance(logits, tuple | list) else logits
            logits = interpolate(logits, size=(512, 512), mode="bilinear") if halved else logits
            chances.append(torch.sigmoid(logits)[0, 0].numpy())
    network.train()
    truth = np.stack([label for _, label in pairs]) > 0.5
    errors = [float(((np.stack(chances) >= t) != truth).mean()) for t in np.arange(0.02, 1.0, 0.02)]
    rands = [
        float(np.mean([count_regions(components(c), thin(p, t)).v_rand for c, p in zip(truth, chances, strict=True)]))
        for t in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
    ]
    return {"pixel_error": min(errors), "v_rand": max(rands)}


def train(name: str, root: Path, seed: int, minutes: float, steps: int | None = None) -> dict[str, Any]:
    """Train one recipe for `minutes` of pure training, or for so many steps."""
    import torch

    torch.manual_seed(seed)
    train_on, test_on = slices(root, "train"), slices(root, "test")
    recipe = {"monai": monai, "milesial": milesial, "smp": smp}[name]
    network, batches, loss, optimizer = recipe(train_on, np.random.default_rng(seed))
    spent, count, curve, fast = 0.0, 0, [], float("inf")
    end = steps or minutes
    marks = [end * share for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)]
    while (count if steps else spent / 60) < end:
        begin = time.perf_counter()
        images, labels = next(batches)
        optimizer.zero_grad()
        logits = network(images)
        value = loss(logits[0] if isinstance(logits, tuple | list) else logits, labels)
        value.backward()
        optimizer.step()
        took = time.perf_counter() - begin
        spent, count, fast = spent + took, count + 1, min(fast, took)
        if marks and (count if steps else spent / 60) >= marks[0]:
            del marks[0]
            seen = judge(network, test_on, halved=name == "milesial")
            curve.append({"minutes": round(spent / 60, 2), "steps": count} | seen)
            print(curve[-1], file=sys.stderr)
    final = judge(network, test_on, halved=name == "milesial")
    return {"steps": count, "curve": curve, "least_step_s": round(fast, 4)} | final


def reach(root: Path, seed: int, goal: float) -> dict[str, Any]:
    """Train with useg for rising minutes until the pixel error is at most `goal` and V_rand at least 0.95."""
    data, _ = prepare("isbi", root)
    tried = []
    for minutes in MINUTES:
        begin = time.perf_counter()
        run = useg("train", str(data), "--minutes", str(minutes), "--seed", str(seed), "--home", str(OUT / "home"))
        seconds = time.perf_counter() - begin
        scores = useg("evaluate", run["bundle"], str(data), "--split", "test", "--no-lines", "--no-surface")
        points = scores["operating_points"]
        found = {"pixel_error": points["pixel_error"]["pixel_error"], "v_rand": points["v_rand"]["v_rand"]}
        tried.append({"minutes": minutes, "seconds": round(seconds, 1)} | found)
        print(tried[-1], file=sys.stderr)
        if found["pixel_error"] <= goal and found["v_rand"] >= 0.95:
            break
    return {"goal": goal, "tried": tried, "reached": tried[-1]["pixel_error"] <= goal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["monai", "milesial", "smp", "useg"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--steps", type=int, help="instead of minutes, where a machine does other work, too")
    parser.add_argument("--goal", type=float, default=0.0796, help="useg: the pixel error to reach")
    given = parser.parse_args()
    if given.name == "smp":
        in_own_environment()
    root = Path(os.environ.get("USEG_TEST_DATA") or sys.exit("USEG_TEST_DATA must name the folder of data sets"))
    if given.name == "useg":
        result = reach(root, given.seed, given.goal)
    else:
        result = train(given.name, root, given.seed, given.minutes, given.steps)
    print(json.dumps({"recipe": given.name, "seed": given.seed, "minutes": given.minutes} | result))


if __name__ == "__main__":
    main()
