"""The border weights of 778 objects in 512x512 pixels, against one distance transform an object, stacked and sorted."""

import json
import statistics
import time

import cv2
import numpy as np
from scipy import ndimage

from useg.segmentation.weights import border_weights_2015

SIDE = 512
OBJECTS = 778
ROUNDS = 50
W0, SIGMA_PX = 10.0, 5.0


def crowd() -> np.ndarray:
    """Draw discs and polygons on a jittered grid, so that most touch or nearly touch a neighbour."""
    rng = np.random.default_rng(0)
    instances = np.zeros((SIDE, SIDE), np.int32)
    columns = int(np.ceil(np.sqrt(OBJECTS)))
    step = SIDE / columns
    for number, place in enumerate(rng.permutation(columns * columns)[:OBJECTS], start=1):
        middle = (np.array(divmod(int(place), columns)) + 0.5) * step + rng.uniform(-3, 3, 2)
        corners = 24 if number % 2 else int(rng.integers(4, 8))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 24 else np.linspace(0, 2 * np.pi, corners)
        radius = rng.uniform(0.4, 0.55) * step
        outline = middle + radius * np.column_stack([np.sin(angles), np.cos(angles)])
        cv2.fillPoly(instances, [np.rint(outline).astype(np.int32)[:, ::-1].copy()], number)
    return instances


def stacked(instances: np.ndarray) -> np.ndarray:
    numbers = np.unique(instances)[1:]
    distances = np.stack([ndimage.distance_transform_edt(instances != number) for number in numbers], axis=-1)
    distances = np.sort(distances, axis=-1)
    return W0 * np.exp(-((distances[..., 0] + distances[..., 1]) ** 2) / (2 * SIGMA_PX**2))


def main() -> None:
    cv2.setNumThreads(1)
    instances = crowd()
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        ours = border_weights_2015(instances, w0=W0, sigma_px=SIGMA_PX)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    theirs = stacked(instances)
    slow = time.perf_counter() - begin
    # objects that touch have weight on their rims, too, which the stacked transforms have as well; inside there is none
    counted = (instances == 0) | (ours > 0)
    record = {
        "objects": len(np.unique(instances)) - 1,
        "share_covered": float(np.mean(instances > 0)),
        "milliseconds": 1e3 * statistics.median(seconds),
        "seconds_stacked": slow,
        "times_faster": slow / statistics.median(seconds),
        "difference_of_w0": float(np.abs(ours - theirs)[counted].max() / W0),
        "pixels_compared": float(np.mean(counted)),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
