"""The warp of a 512x512 image and label map on one core: crop, turn, scale, shear, flip and elastic field together."""

import json
import statistics
import time

import cv2
import numpy as np

from useg.segmentation.augment import AugmentSettings, draw
from useg.segmentation.warp import warp

SIDE = 512
ROUNDS = 200
SETTINGS = AugmentSettings(shear=0.1)


def main() -> None:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, SIDE, SIDE)).astype(np.float32)
    classes = (cv2.GaussianBlur(image[0], (0, 0), 4) > 0).astype(np.uint8)
    milliseconds = []
    for index in range(ROUNDS):
        begin = time.perf_counter()
        change = draw(0, 0, index, settings=SETTINGS, ndim=2)
        warp(image, classes, None, change, patch=(SIDE, SIDE))
        milliseconds.append(1e3 * (time.perf_counter() - begin))
    ordered = sorted(milliseconds)
    record = {
        "side_px": SIDE,
        "rounds": ROUNDS,
        "milliseconds": statistics.median(milliseconds),
        "milliseconds_least": ordered[0],
        "milliseconds_95_percent": ordered[int(0.95 * ROUNDS)],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
