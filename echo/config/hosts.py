"""Names and addresses that lead to this machine and to no other."""

from __future__ import annotations

import ipaddress

# Whoever answers DNS queries, these are this machine; the last is Docker Desktop's.
_LOOPBACK_NAMES = ("localhost", "host.docker.internal")


def is_loopback(host: str) -> bool:
    """Whether ``host``, an address or a name, is this machine for itself only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def leads_here(name: str) -> bool:
    """Whether a client that asks for ``name``, in lower case, can mean this machine only."""
    return is_loopback(name) or name in _LOOPBACK_NAMES or name.endswith(".localhost")


def name_of(host: str) -> str:
    """The name in a Host header, in lower case, without port and brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")
