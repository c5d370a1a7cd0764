"""Memory and time of predicting a tiled 20,000 x 20,000 TIFF by the default network under a limit of 2 GB."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROWS = {
    f"predict_large_{colour}_{compression}": ["--colour", colour, "--compression", compression]
    for colour in ("grey", "rgb")
    for compression in ("deflate", "jpeg")
}
TILE_PX = 512


def tiles(height: int, width: int, channels: int) -> Iterator[np.ndarray]:
    """Bright discs with noise on a dark ground, other ones in each tile of the file."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:TILE_PX, :TILE_PX]
    grounds = []
    for _ in range(8):
        ground = np.full((TILE_PX, TILE_PX), 30.0)
        for _ in range(60):
            row, column, radius = *rng.uniform(0, TILE_PX, 2), rng.uniform(5, 20)
            ground[(y - row) ** 2 + (x - column) ** 2 < radius**2] = rng.uniform(100, 220)
        grounds.append(ground + rng.normal(0, 6, ground.shape))
    for number in range(-(-height // TILE_PX) * -(-width // TILE_PX)):
        tile = np.roll(grounds[number % 8], 37 * number, axis=1)
        colours = [np.clip(tile * share, 0, 255) for share in (1.0, 0.8, 0.6)[:channels]]
        yield np.stack(colours, axis=-1).astype(np.uint8) if channels > 1 else colours[0].astype(np.uint8)


def write_image(path: Path, space: tuple[int, int], channels: int, compression: str | None) -> None:
    import tifffile

    tifffile.imwrite(
        path,
        tiles(*space, channels),
        shape=(*space, channels) if channels > 1 else space,
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb" if channels == 3 else "minisblack",
        compression="zlib" if compression == "deflate" else compression,
        bigtiff=True,
    )


def write_bundle(path: Path, channels: int, base: int, mode: str) -> None:
    """The default network with weights as before training: memory and time do not depend on them."""
    import torch

    from useg.data.labels import LabelClass, LabelMapping
    from useg.segmentation.normalise import ChannelNorm
    from useg.segmentation.unet import UNet
    from useg.train.bundle import save_bundle
    from useg.train.plan import Plan
    from useg.train.probe import cores, machine

    torch.manual_seed(0)
    plan = Plan(
        stored_channels=channels,
        num_classes=2,
        instance_mode=mode,
        patch=(256, 256),
        strides=((2, 2),) * 4,
        base=base,
        light_top=True,
        normalisation=(ChannelNorm("image"),) * channels,
        steps=1,
        dtype="bfloat16" if machine()["bfloat16"] else "float32",
        threads=cores(),
    )
    classes = (LabelClass(name="background", values=(0,)), LabelClass(name="object", values=(255,)))
    network = UNet(**plan.network_arguments())
    save_bundle(path, plan, LabelMapping(kind="values", classes=classes), network.state_dict())


def measured(command: list[str]) -> tuple[float, float, int]:
    """Seconds, peak resident bytes and exit status of a command, as the kernel counted them."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - begin, usage.ru_maxrss * unit, process.returncode


def main() -> None:
    """Print what was measured as JSON; exit status 1 if the limit was exceeded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--colour", choices=("grey", "rgb"), default="grey")
    parser.add_argument("--compression", choices=("deflate", "jpeg", "none"), default="deflate")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--height", type=int, help="rows, if not as many as columns; for a quick look")
    parser.add_argument("--base", type=int, default=16, help="width of the network; 16 is the default network")
    parser.add_argument("--limit", default="2GB")
    parser.add_argument("--instances", action="store_true", help="also separate objects (border class)")
    parser.add_argument("--overlay", action="store_true")
    asked = parser.parse_args()
    channels = 3 if asked.colour == "rgb" else 1
    space = (asked.height or asked.side, asked.side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compression = None if asked.compression == "none" else asked.compression
        write_image(folder / "large.tif", space, channels, compression)
        write_bundle(folder / "model.useg", channels, asked.base, "border" if asked.instances else "none")
        extra = [f"--{name}" for name in ("instances", "overlay") if getattr(asked, name)]
        program = "from useg.cli import main; main()"
        command = [
            sys.executable,
            "-c",
            program,
            "predict",
            str(folder / "model.useg"),
            str(folder / "large.tif"),
        ]
        command += ["--out", str(folder / "out"), "--memory-limit", asked.limit, "--json", *extra]
        seconds, peak, status = measured(command)
        result = {
            "peak_gb": round(peak / 1e9, 3),
            "seconds": round(seconds, 1),
            "megapixels_per_s": round(space[0] * space[1] / 1e6 / seconds, 2),
            "file_mb": round((folder / "large.tif").stat().st_size / 1e6, 1),
            "space_px": space,
            "base": asked.base,
            "limit": asked.limit,
            "exit_status": status,
            "written": (folder / "out" / "large.tif").is_file(),
        }
    print(json.dumps(result))
    from useg.home.amounts import parse_bytes

    sys.exit(status or (0 if peak <= parse_bytes(asked.limit) else 1))


if __name__ == "__main__":
    main()
