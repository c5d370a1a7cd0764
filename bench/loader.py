"""Training steps fed by the real loader, on the densest DSB2018 images, against the same steps on ready batches.

USEG_TEST_DATA names the folder of data sets.
"""

import json
import os
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STEPS = 12
ROUNDS = 4
IMAGES = 12


class Ready:
    """The batches of a loader, prepared before the clock starts."""

    def __init__(self, batches: Any, start: int) -> None:
        with closing(batches.ahead(start, start + STEPS, [0])) as stream:
            self._made = list(stream)

    def ahead(self, start: int, stop: int, numbers: list[int]) -> Any:
        yield from self._made


def main() -> None:
    from useg.config import load_config
    from useg.experiments.prepare import prepare
    from useg.train.batches import Batches, threads_beside
    from useg.train.loop import Trainer

    root = Path(os.environ.get("USEG_TEST_DATA") or sys.exit("USEG_TEST_DATA must name the folder of data sets"))
    config = load_config(None, ["network.base=16", "train.micro_batch=4"], steps=10_000)
    prepared = prepare(root / "dsb2018", config, Path("out/bench/home"))
    samples = prepared.samples
    objects = {
        i: len(samples.sample(i).labels) / (samples.space(i)[0] * samples.space(i)[1]) for i in range(len(samples))
    }
    densest = sorted(objects, key=lambda i: -objects[i])[:IMAGES]
    batches = Batches(prepared.plan, samples, densest, workers=threads_beside(prepared.plan.threads))
    trainer = Trainer(prepared.plan)

    def steps_a_second(source: Any) -> float:
        trainer.stop = trainer.step + STEPS
        started = time.perf_counter()
        for _ in trainer.steps(source):
            pass
        return STEPS / (time.perf_counter() - started)

    Ready(batches, 0)  # decode every image once
    steps_a_second(Ready(batches, 0))
    ratios = []
    for _ in range(ROUNDS):
        loaded = steps_a_second(batches)
        ready = steps_a_second(Ready(batches, trainer.step))
        ratios.append(loaded / ready)
    per_image = statistics.median(len(samples.sample(i).labels) for i in densest)
    print(json.dumps({"share_of_speed": statistics.median(ratios), "ratios": ratios, "objects_per_image": per_image}))


if __name__ == "__main__":
    main()
