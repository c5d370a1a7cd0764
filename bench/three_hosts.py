"""Three hosts on this machine: network namespaces with addresses, sshd and folders of their own, as a Ray cluster.

`make cluster-test` runs it, as root, where there are `ip` and `sshd` (Debian: iproute2, openssh-server). It brings the
hosts up over ssh, from wheels that are fetched first, as they reach no network but their own; serves a home from the
first one, trains on two, sweeps on all, kills one in the middle, and checks results, records and bytes moved.
`--keep FOLDER` keeps wheels and environments for the next time.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOSTS = ("10.77.0.1", "10.77.0.2", "10.77.0.3")
HERE = "10.77.0.254"
BRIDGE = "useg-bridge"
HOME = f"http://{HOSTS[0]}:8765"
SMALL = ["--set", "network.base=4", "--set", "network.depth=2", "--set", "network.patch=[32,32]",
         "--set", "train.micro_batch=1", "--set", "train.threads=1", "--set", "train.dtype=float32"]  # fmt: skip
SWEEP = """\
data = "{data}"
method = "grid"
seeds = {seeds}
metric = "score.dice"

[settings]
steps = {steps}
data.validation = 0.05
network.base = 4
network.depth = 2
network.patch = [32, 32]
train.micro_batch = 1
train.threads = 1
train.checkpoint_seconds = 2
train.dtype = "float32"

[search]
train.lr = [0.01, 0.001]
"""


def call(*command: str, check: bool = True, timeout_s: float = 60) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def name_of(host: str) -> str:
    return f"useg-host-{HOSTS.index(host) + 1}"


def end_all(host: str) -> None:
    """Kill whatever runs on a host."""
    for each in call("ip", "netns", "pids", name_of(host), check=False).split():
        with suppress(OSError):
            os.kill(int(each), signal.SIGKILL)


def start_sshd(host: str, folder: Path) -> None:
    """Its sshd, and /tmp/ray of its own, where Ray has its sockets, for all that is started by it."""
    own = folder / name_of(host) / "ray"
    for each in (own, Path("/tmp/ray")):
        each.mkdir(parents=True, exist_ok=True)
    options = {"ListenAddress": host, "AuthorizedKeysFile": folder / "user_key.pub", "StrictModes": "no",
               "UsePAM": "no", "PidFile": folder / f"{name_of(host)}.pid"}  # fmt: skip
    given = " ".join(f"-o {name}={value}" for name, value in options.items())
    start = f"mount --bind {own} /tmp/ray && exec /usr/sbin/sshd -f /dev/null -h {folder / 'host_key'} {given}"
    call("ip", "netns", "exec", name_of(host), "sh", "-c", start)


@contextmanager
def hosts(folder: Path) -> Iterator[None]:
    Path("/run/sshd").mkdir(exist_ok=True)
    for key in ("host_key", "user_key"):
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    options = ["UserKnownHostsFile /dev/null", "StrictHostKeyChecking no", "LogLevel ERROR"]
    (folder / "ssh_config").write_text("\n".join(options) + "\n")
    try:
        call("ip", "link", "add", BRIDGE, "type", "bridge")
        call("ip", "addr", "add", f"{HERE}/24", "dev", BRIDGE)
        call("ip", "link", "set", BRIDGE, "up")
        for number, host in enumerate(HOSTS, 1):
            inside, link = name_of(host), f"useg-veth{number}"
            call("ip", "netns", "add", inside)
            call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", inside)
            call("ip", "link", "set", link, "master", BRIDGE, "up")
            call("ip", "-n", inside, "addr", "add", f"{host}/24", "dev", "eth0")
            for each in ("lo", "eth0"):
                call("ip", "-n", inside, "link", "set", each, "up")
            start_sshd(host, folder)
        yield
    finally:
        for host in HOSTS:
            end_all(host)
            call("ip", "netns", "del", name_of(host), check=False)
        call("ip", "link", "del", BRIDGE, check=False)


def sent(host: str) -> int:
    """Bytes that a host has sent to others."""
    lines = call("ip", "netns", "exec", name_of(host), "cat", "/proc/net/dev").splitlines()
    return int(next(line for line in lines if line.strip().startswith("eth0:")).split()[9])


def useg(*arguments: object, status: int = 0, timeout_s: float = 900) -> dict[str, Any]:
    """What `--json` says."""
    command = [sys.executable, "-m", "useg", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != status:
        raise SystemExit(f"useg {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1])) if "--json" in arguments and done.stdout.strip() else {}


def make_pictures(folder: Path, count: int, size: int) -> None:
    """Bright discs on noise, and their masks."""
    rows, columns = np.mgrid[:size, :size]
    for number in range(count):
        random = np.random.default_rng(number)
        y, x, radius = [*random.integers(size // 4, 3 * size // 4, 2).tolist(), size // 6]
        mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        picture = np.clip(random.normal(60, 20, (size, size)) + 110 * mask, 0, 255)
        for kind, pixels in (("images", picture), ("masks", mask * 255)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{number:04}.png")


def fetch_wheels(folder: Path) -> None:
    """All that the hosts will need."""
    from useg.experiments.hosts.parcel import pack

    parcel = pack()
    if (folder / parcel.environment).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text(parcel.requirements)
    call(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "-d", str(folder), "-r",
         str(folder / "requirements.txt"), timeout_s=1800)  # fmt: skip
    (folder / parcel.environment).touch()


def cluster_file(folder: Path, kept: Path) -> Path:
    path = folder / "cluster.toml"
    each = "".join(f'[hosts."{host}"]\nfolder = "{folder / name_of(host)}"\ncpus = 1\n' for host in HOSTS)
    path.write_text(
        f'name = "three"\nhead = "{HOSTS[0]}"\nworkers = {json.dumps(HOSTS[1:])}\nuser = "root"\n'
        f'key = "{folder / "user_key"}"\nssh_config = "{folder / "ssh_config"}"\npython = "{sys._base_executable}"\n'
        f'environments = "{kept / "environments"}"\nwheelhouse = "{kept / "wheels"}"\nfree_gb = 3\n{each}'
    )
    return path


@contextmanager
def served(folder: Path) -> Iterator[None]:
    """A home on the first host; its token is in USEG_TOKEN."""
    place = str(folder / name_of(HOSTS[0]) / "home")
    os.environ["USEG_TOKEN"] = useg("users", "token", "tester", "--role", "writer", "--home", place, "--json")["token"]
    command = ["ip", "netns", "exec", name_of(HOSTS[0]), sys.executable, "-m", "useg", "serve"]
    with subprocess.Popen([*command, "--home", place, "--host", HOSTS[0]], stdout=subprocess.PIPE) as server:
        assert_told = server.stdout.readline() if server.stdout else b""
        if not assert_told:
            raise SystemExit("the home is not served")
        try:
            yield
        finally:
            server.terminate()


def check(claim: str, holds: bool, told: object = "") -> None:
    print(f"{'yes' if holds else 'NO '}  {claim}  {told}", flush=True)
    if not holds:
        raise SystemExit(f"not so: {claim}")


def bring_up(file: Path) -> None:
    begun = time.monotonic()
    found = useg("cluster", "up", file, "--json")
    states = [each.get("problem", "fine") for each in found["hosts"].values()]
    check("three hosts are brought up over ssh", states == ["fine"] * 3, f"{time.monotonic() - begun:.1f} s")
    begun = time.monotonic()
    again = useg("cluster", "up", file, "--json")
    untouched = not any("started" in each or "made" in each for each in again["hosts"].values())
    check("a second time nothing is done", untouched, f"{time.monotonic() - begun:.1f} s")


def train_on_two(file: Path) -> None:
    before, begun = {host: sent(host) for host in HOSTS}, time.monotonic()
    useg("cluster", "run", file, "--", "train", "cells@main", "--workers", 2, "--steps", 20, "--home", HOME, *SMALL)
    moved = {host: sent(host) - before[host] for host in HOSTS}
    runs = useg("runs", "list", "--home", HOME, "--json")["runs"]
    ended = [each["status"] for each in runs]
    check("one training on two hosts is one run", ended == ["finished"], f"{time.monotonic() - begun:.1f} s, {moved}")


def sweep(
    file: Path, folder: Path, seeds: int, steps: int, victim: str | None = None, data: str = "cells"
) -> dict[str, Any]:
    """A sweep, given here and steered by the head; one host may die in the middle."""
    asked = folder / f"{data}-{seeds}-{steps}.toml"
    asked.write_text(SWEEP.format(seeds=seeds, steps=steps, data=data))
    before, known = {host: sent(host) for host in HOSTS}, useg("runs", "list", "--home", HOME, "--json")["runs"]
    command = [sys.executable, "-m", "useg", "cluster", "run", str(file), "--", "sweep", str(asked), "--home", HOME,
               "--json"]  # fmt: skip
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while victim and process.poll() is None:
            work = useg("cluster", "status", file, "--json")["hosts"][victim].get("node") or {}
            if work.get("cpus_used"):
                time.sleep(12)
                end_all(victim)
                print(f"     killed everything on {victim} after {time.monotonic() - begun:.0f} s", flush=True)
                break
        out, said = process.communicate(timeout=900)
    if process.returncode:
        raise SystemExit(f"the sweep ended with {process.returncode}:\n{said}")
    result = dict(json.loads(out.splitlines()[-1]))
    runs = [each for each in useg("runs", "list", "--home", HOME, "--json")["runs"] if each not in known]
    return {"result": result, "runs": runs, "seconds": time.monotonic() - begun,
            "sent": {host: sent(host) - before[host] for host in HOSTS}}  # fmt: skip


def change_little(file: Path, folder: Path) -> None:
    """Bytes that a sweep of eight trials moves when one mask in a hundred was changed."""
    place, home = folder / "large", folder / name_of(HOSTS[0]) / "home"
    make_pictures(place, 100, 1024)
    size = sum(path.stat().st_size for path in place.rglob("*.png"))
    useg("data", "add", place, "--name", "large", "--home", home)
    cold = sweep(file, folder, seeds=3, steps=400, data="large")  # long enough that each host has met all pictures
    print(f"     cold start, six trials on {size:,} bytes: {cold['seconds']:.1f} s, sent {cold['sent']}", flush=True)
    changed = place / "masks" / "0007.png"
    with Image.open(changed) as mask:
        mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    useg("data", "add", place, "--name", "large", "--home", home)
    before = came(file)
    warm = sweep(file, folder, seeds=4, steps=60, data="large")
    moved = came(file) - before
    told = f"{moved:,} bytes of data, copying {8 * size:,}: 1/{8 * size / max(1, moved):.0f}"
    print(f"     eight trials after 1 % of masks changed: {warm['seconds']:.1f} s, {told}; with runs and "
          f"all else sent {warm['sent']}", flush=True)  # fmt: skip
    check("at most 1/100 of copying is moved", moved <= 8 * size / 100)


def came(file: Path) -> int:
    """Bytes of data that came to the hosts so far, from the home or from each other."""
    hosts = useg("cluster", "status", file, "--json")["hosts"].values()
    return sum(each["from_home_bytes"] + each["from_nodes_bytes"] for each in hosts)


def cut_off(file: Path) -> None:
    """A host that does not answer keeps nobody waiting."""
    call("ip", "link", "set", f"useg-veth{len(HOSTS)}", "down")
    begun = time.monotonic()
    lost = useg("cluster", "status", file, "--json", status=2)["hosts"]
    check("status tells a host that is cut off", "problem" in lost[HOSTS[2]], f"{time.monotonic() - begun:.1f} s")
    call("ip", "link", "set", f"useg-veth{len(HOSTS)}", "up")
    time.sleep(10)  # Ray gives the node up, or has it back
    back = useg("cluster", "up", file, "--json")["hosts"]
    check("and up has it back afterwards", not any("problem" in each for each in back.values()))


def test(folder: Path, kept: Path, *, is_measured: bool) -> None:
    file = cluster_file(folder, kept)
    try:
        bring_up(file)
        with served(folder):
            make_pictures(folder / "pictures", 24, 64)
            useg("data", "add", folder / "pictures", "--name", "cells", "--home", HOME)
            train_on_two(file)
            first = sweep(file, folder, seeds=2, steps=20)
            done = first["result"]["trials"]["finished"]
            check("a sweep of four trials on three hosts", done == 4, f"{first['seconds']:.1f} s, {first['sent']}")
            second = sweep(file, folder, seeds=3, steps=1200, victim=HOSTS[2])
            done = second["result"]["trials"]["finished"]
            ended = sorted(each["status"] for each in second["runs"])
            check("with one host killed, all six trials finish", done == 6, f"{second['seconds']:.1f} s")
            check("each of them once", ended == ["finished"] * 6, ended)
            attempts = [len([*path.glob("attempts/*")]) for path in (folder / name_of(HOSTS[0])).glob("home/runs/*")]
            check("what ran there went on as a second attempt", max(attempts) > 1, attempts)
            lost = useg("cluster", "up", file, "--json", status=2)["hosts"][HOSTS[2]]["problem"]
            check("up says what is wrong with the host", "refused" in lost, lost)
            start_sshd(HOSTS[2], folder)
            back = useg("cluster", "up", file, "--json")["hosts"]
            check("and takes it in when it is back", [h for h, e in back.items() if "started" in e] == [HOSTS[2]])
            cut_off(file)
            if is_measured:
                change_little(file, folder)
    finally:
        said = useg("cluster", "down", file, "--json")["hosts"]
        print(f"     down: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder where environments stay")
    parser.add_argument("--measure", action="store_true", help="also the bytes moved after a small change, on 90 MB")
    given = parser.parse_args()
    lacking = [each for each in ("ip", "/usr/sbin/sshd", "ssh", "ssh-keygen") if not shutil.which(each)]
    if os.geteuid() or lacking:
        wanted = f"{', '.join(lacking)} (Debian: apt-get install iproute2 openssh-server)" if lacking else "root"
        raise SystemExit(f"three hosts on one machine need {wanted}")
    with tempfile.TemporaryDirectory(prefix="useg-") as name:
        folder = Path(name)
        os.environ |= {"XDG_CONFIG_HOME": f"{folder}/config", "USEG_STATE": f"{folder}/state",
                       "USEG_CACHE": f"{folder}/cache"}  # fmt: skip
        kept = (given.keep or folder / "kept").absolute()
        fetch_wheels(kept / "wheels")
        with hosts(folder):
            test(folder, kept, is_measured=given.measure)


if __name__ == "__main__":
    main()
