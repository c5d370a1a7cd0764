"""Samples fetched from a served home into caches: 200 MB over loopback, by one node or by several at once.

Each node is a process with a cache of its own, that shares with the others what it has; what the home sends is counted
by the nodes. How long a bare loop takes to write as many files of that size is measured before and after: ext4 passes
over what was deleted in the last minutes, so that after other work every file takes several times longer to make.

python bench/fetching.py              one node, one process of a server
python bench/fetching.py --nodes 8    so many nodes that start at the same time
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
from useg.home.offering import offered
from useg.home.opening import open_home
from useg.home.peers import Peers

name, home, folder, wanted = sys.argv[1], open_home(sys.argv[2])[0], Path(sys.argv[3]), Path(sys.argv[4])
sent, get = [], home.get
def counted(key, start=0, end=None):
    content = get(key, start, end)
    sent.append(len(content))
    return content
home.get = counted
objects, cache = Objects(home), Cache(folder, max_bytes=10**9)
objects.refresh()
wanted = [(digest, ".raw") for digest in wanted.read_text().split()]
with offered(Fetcher(objects, cache), "127.0.0.1", "token") as address:
    print(f"{name}={address}", flush=True)
    peers = Peers(dict(word.split("=") for word in sys.stdin.readline().split()), name, "token")
    for _ in range(2):
        before, begin = sum(sent), time.perf_counter()
        Fetcher(objects, cache, peers).files(wanted)
        print(time.perf_counter() - begin, sum(sent) - before, flush=True)
        sys.stdin.readline()
"""


def fill(home: Path) -> list[str]:
    """A home with so many bytes in objects of so many, and their digests."""
    from useg.home.objects import Objects
    from useg.home.opening import open_home

    with Objects(open_home(str(home))[0]).writer() as writer:
        digests = [writer.put(os.urandom(EACH)) for _ in range(BYTES // EACH)]
        writer.commit()
    return digests


def bare(folder: Path) -> float:
    """Seconds in which a loop writes files as large as the objects, and as many."""
    folder.mkdir()
    content = os.urandom(EACH)
    begin = time.perf_counter()
    for number in range(BYTES // EACH):
        (folder / str(number)).write_bytes(content)
    return round(time.perf_counter() - begin, 2)


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
            command = [sys.executable, "-c", NODE]
            nodes = [
                subprocess.Popen([*command, f"n{n}", address, str(place / f"cache{n}"), str(place / "digests")],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for n in range(given.nodes)
            ]  # fmt: skip
            names = " ".join(node.stdout.readline().strip() for node in nodes)  # type: ignore[union-attr]
            rounds, bare_s = [], [bare(place / "before")]
            for word in (names, "again"):
                for node in nodes:
                    node.stdin.write(f"{word}\n")  # type: ignore[union-attr]
                    node.stdin.flush()  # type: ignore[union-attr]
                told = [[float(x) for x in node.stdout.readline().split()] for node in nodes]  # type: ignore[union-attr]
                seconds = max(took for took, _ in told)
                rounds.append({
                    "seconds": round(seconds, 2), "mb_per_s_and_node": round(BYTES / 1e6 / seconds, 1),
                    "home_sent_share": round(sum(sent for _, sent in told) / BYTES, 3),
                })  # fmt: skip
            bare_s.append(bare(place / "after"))
            for node in nodes:
                node.communicate("\n")
            server.terminate()
    print(json.dumps({"nodes": given.nodes, "first": rounds[0], "again": rounds[1], "bare_writes_s": bare_s}))


if __name__ == "__main__":
    main()
