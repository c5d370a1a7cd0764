"""The file that lists the machines of a cluster: TOML that people write, checked."""

import ipaddress
from pathlib import Path

from pydantic import Field, ValidationError, field_validator, model_validator

from useg.config import Checked, read_toml
from useg.errors import ConfigError
from useg.experiments.hosts.ssh import Host

TEMPLATE = """\
# Machines of your own as one Ray cluster: `useg cluster up FILE`. They share no folder.
name = "lab"                  # of the cluster; its token is kept under this name

head = "10.0.0.1"             # its address as the others reach it
workers = ["10.0.0.2", "10.0.0.3"]

user = ""                     # for ssh; "" where your ssh knows it
key = ""                      # file of the private key; "" where your ssh or its agent knows it
ssh_port = 22
# ssh_config = "~/.ssh/config"  # whatever else ssh needs to know, such as a host to jump over

python = "python3"            # there; the same 3.N as here
folder = "~/.useg-cluster"    # there: token, log, cache of data
# environments = "/srv/envs"  # there, by default in folder; hosts that share it make each environment once
# wheelhouse = "/srv/wheels"  # a folder there, from which packages come instead of the index
free_gb = 8.0                 # wanted there before an environment is made; with CUDA it takes about that much

ray_port = 6379               # of the head; open to the other hosts alone
head_works = true             # false: the head steers, and trains nothing

# Only where a host differs:
# [hosts."10.0.0.3"]
# user = "ubuntu"
# python = "/opt/python3.11/bin/python3"
# folder = "/scratch/useg"
# cpus = 8                    # that it gives, by default all it has
# gpus = 1
"""


class Own(Checked):
    """What one host has that the others do not."""

    user: str | None = None
    key: str | None = None
    ssh_port: int | None = Field(default=None, ge=1, le=65535)
    python: str | None = None
    folder: str | None = None
    environments: str | None = None
    cpus: int | None = Field(default=None, ge=0)
    gpus: int | None = Field(default=None, ge=0)


class Listed(Checked):
    """A cluster of machines that are reached by ssh; what each means stands in `TEMPLATE`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")
    head: str
    workers: tuple[str, ...] = ()
    user: str = ""
    key: str = ""
    ssh_port: int = Field(default=22, ge=1, le=65535)
    ssh_config: str = ""
    python: str = "python3"
    folder: str = "~/.useg-cluster"
    environments: str = ""
    wheelhouse: str = ""
    free_gb: float = Field(default=8.0, ge=0)
    ray_port: int = Field(default=6379, ge=1024, le=65535)
    head_works: bool = True
    hosts: dict[str, Own] = Field(default_factory=dict)

    @field_validator("head", "workers")
    @classmethod
    def _are_addresses(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for each in (given,) if isinstance(given, str) else given:
            try:
                ipaddress.ip_address(each)
            except ValueError:
                raise ValueError("wanted addresses such as 10.0.0.1, by which the hosts reach each other") from None
        return given

    @model_validator(mode="after")
    def _are_each_one(self) -> "Listed":
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("a host is listed twice")
        if unknown := set(self.hosts) - set(self.addresses):
            raise ValueError(f"[hosts] names {', '.join(sorted(unknown))}, which is neither head nor worker")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all hosts, the head first."""
        return (self.head, *self.workers)

    @property
    def ray(self) -> str:
        """HOST:PORT of the head, for `--on`."""
        host = f"[{self.head}]" if ":" in self.head else self.head
        return f"{host}:{self.ray_port}"

    def host(self, address: str) -> Host:
        """How a host is entered."""
        own = self.hosts.get(address, Own())
        return Host(
            address, own.user or self.user or None, own.key or self.key or None, own.ssh_port or self.ssh_port,
            own.python or self.python, self.ssh_config or None,
        )  # fmt: skip

    def folders(self, address: str) -> tuple[str, str]:
        """A host's folder, and that of its environments."""
        own = self.hosts.get(address, Own())
        folder = own.folder or self.folder
        return folder, own.environments or self.environments or f"{folder}/environments"

    def options(self, address: str) -> list[str]:
        """What `ray start` is told on a host."""
        own = self.hosts.get(address, Own())
        given = ["--head", f"--port={self.ray_port}", "--dashboard-host=127.0.0.1"]
        cpus = 0 if address == self.head and not self.head_works else own.cpus
        return [
            *(given if address == self.head else [f"--address={self.ray}"]), f"--node-ip-address={address}",
            *([] if cpus is None else [f"--num-cpus={cpus}"]),
            *([] if own.gpus is None else [f"--num-gpus={own.gpus}"]),
        ]  # fmt: skip


def read_list(path: Path) -> Listed:
    """A cluster file.

    Raises:
        ConfigError: it is no TOML, or a setting is unknown, missing or out of range; all of them are named.
    """
    try:
        return Listed.model_validate(read_toml(path))
    except ValidationError as error:
        told = [f"  - {'.'.join(map(str, each['loc'])) or 'the list'}: {each['msg']}" for each in error.errors()]
        head = f"{path} is not a list of machines as `useg cluster init ssh` writes it"
        raise ConfigError("\n".join([head, *told])) from None


__all__ = ["TEMPLATE", "Listed", "read_list"]
