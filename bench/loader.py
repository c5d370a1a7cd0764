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

from useg import let_threads_sleep

let_threads_sleep()

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


def measure(root: Path, *sets: str, **asked: Any) -> dict[str, Any]:
    from useg.config import load_config
    from useg.experiments.prepare import prepare
    from useg.train.batches import Batches, threads_beside
    from useg.train.loop import Trainer

    prepared = prepare(root / "dsb2018", load_config(None, sets, **asked), Path("out/bench/home"))
    samples, plan = prepared.samples, prepared.plan
    objects = {
        i: len(samples.sample(i).labels) / (samples.space(i)[0] * samples.space(i)[1]) for i in range(len(samples))
    }
    densest = sorted(objects, key=lambda i: -objects[i])[:IMAGES]
    batches = Batches(plan, samples, densest, workers=threads_beside(plan.threads))
    trainer = Trainer(plan)

    def steps_a_second(source: Any) -> float:
        trainer.stop = trainer.step + STEPS
        started = time.perf_counter()
        for _ in trainer.steps(source):
            pass
        return STEPS / (time.perf_counter() - started)

    Ready(batches, 0)  # decode every image once
    steps_a_second(Ready(batches, 0))
    rounds = [(steps_a_second(batches), steps_a_second(Ready(batches, trainer.step))) for _ in range(ROUNDS)]
    started = time.thread_time()
    for step in range(STEPS):
        batches.micro_batch(step, 0)
    return {
        "base": plan.base,
        "dtype": plan.dtype,
        "steps_a_second": statistics.median(loaded for loaded, _ in rounds),
        "share_of_speed": statistics.median(loaded / ready for loaded, ready in rounds),
        "shares": [loaded / ready for loaded, ready in rounds],
        "patch_core_s": (time.thread_time() - started) / STEPS / plan.micro_batch,
        "objects_per_image": statistics.median(len(samples.sample(i).labels) for i in densest),
    }


def main() -> None:
    root = Path(os.environ.get("USEG_TEST_DATA") or sys.exit("USEG_TEST_DATA must name the folder of data sets"))
    record = {
        "planned for 15 minutes": measure(root, "train.micro_batch=4", minutes=15),
        "smallest": measure(root, "network.base=16", "train.micro_batch=4", steps=10_000),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
