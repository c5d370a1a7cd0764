"""Whether an address leads to this machine and no further."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, so that nobody else can listen or answer."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__ = ["is_loopback"]
