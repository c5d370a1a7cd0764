"""How long `useg --help` takes: the best and the median of 20 runs."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Print the seconds as JSON."""
    useg = Path(sys.executable).with_name("useg")
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        subprocess.run([str(useg), "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"median_s": round(statistics.median(seconds), 3), "best_s": round(min(seconds), 3)}))


if __name__ == "__main__":
    main()
