"""Samples fetched from a served home into caches: 200 MB over loopback, a second time, and by several nodes at once.

python bench/fetching.py              one node, one process of a server
python bench/fetching.py --nodes 8    so many nodes that start at the same time
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = {"fetching": [], "fetching 8 nodes": ["--nodes", 8]}
BYTES = 200 * 10**6
EACH = 60_000

NODE = """
import sys, time
from pathlib import Path
from useg.home.cache import Cache
from useg.home.fetching import Fetcher
from useg.home.objects import Objects
from useg.home.opening import open_home
home, folder = sys.argv[1], Path(sys.argv[2])
objects = Objects(open_home(home)[0])
wanted = [(digest, ".raw") for digest in Path(sys.argv[3]).read_text().split()]
fetcher = Fetcher(objects, Cache(folder, max_bytes=10**9))
print("ready", flush=True)
sys.stdin.readline()
begin = time.perf_counter()
fetcher.files(wanted)
print(time.perf_counter() - begin, flush=True)
"""


def fill(home: Path) -> list[str]:
    """A home with so many bytes in objects of so many, and their digests."""
    from useg.home.objects import Objects
    from useg.home.opening import open_home

    with Objects(open_home(str(home))[0]).writer() as writer:
        digests = [writer.put(os.urandom(EACH)) for _ in range(BYTES // EACH)]
        writer.commit()
    return digests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "digests").write_text("\n".join(fill(place / "home")))
        serve = [sys.executable, "-m", "useg", "serve", "--home", str(place / "home"), "--port", "0", "--json"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            address = json.loads(server.stdout.readline())["address"]  # type: ignore[union-attr]
            command = [sys.executable, "-c", NODE, address]
            nodes = [
                subprocess.Popen([*command, str(place / f"cache{n}"), str(place / "digests")], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
                for n in range(given.nodes)
            ]  # fmt: skip
            for node in nodes:
                node.stdout.readline()  # type: ignore[union-attr]
            for node in nodes:
                node.stdin.write("\n")  # type: ignore[union-attr]
                node.stdin.flush()  # type: ignore[union-attr]
            seconds = [float(node.stdout.readline()) for node in nodes]  # type: ignore[union-attr]
            server.terminate()
    print(json.dumps({"nodes": given.nodes, "seconds": seconds, "mb_per_s": BYTES / 1e6 / max(seconds)}))


if __name__ == "__main__":
    main()
