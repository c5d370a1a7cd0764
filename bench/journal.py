"""What one `log` call costs, beside a bare append of the same line: percentiles of many calls, values a second."""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

ROWS = {"journal": []}
CALLS = 100_000


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Microseconds of a call."""
    ordered = sorted(seconds)
    return {
        name: round(1e6 * ordered[int(share * (len(ordered) - 1))], 2)
        for name, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))
    }


def timed(call, count: int) -> tuple[list[float], float]:
    """Seconds of each call, and of all together."""
    clock, found = time.perf_counter, []
    begun = clock()
    for step in range(count):
        before = clock()
        call(step)
        found.append(clock() - before)
    return found, clock() - begun


def main() -> None:
    from useg import runs

    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        with runs.start(home=Path(folder) / "home") as run:
            for _ in range(3):
                each, whole = timed(
                    lambda step: run.log(step, loss=0.5, dice=0.9, lr=1e-3, norm=2.5, seconds=0.01), CALLS
                )
                rounds.append({**percentiles(each), "values_per_s": round(5 * CALLS / whole)})
        line = b'{"event":"step","step":1,"time":1.0,"loss":0.5,"dice":0.9,"lr":0.001,"norm":2.5,"seconds":0.01}\n'
        file = os.open(Path(folder) / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        bare = percentiles(timed(lambda step: os.write(file, line), CALLS)[0])
        os.close(file)
    middle = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    print(json.dumps({**middle, "bare_append": bare, "rounds": rounds}))


if __name__ == "__main__":
    main()
