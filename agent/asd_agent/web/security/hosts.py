"""The names that the page answers to: a stranger's name that resolves to us (DNS rebinding) is refused."""

from __future__ import annotations

import ipaddress
import socket

from asd_agent import config


def allowed_hosts(web: config.Web) -> frozenset[str]:
    """Lower-case names without a port. Beyond this machine its own host name is one of them."""
    names = {"localhost", web.host, *web.hosts}
    if not web.loopback:
        own = socket.gethostname()
        names |= {own, f"{own}.local", socket.getfqdn()}
    return frozenset(name.lower() for name in names)


def is_allowed(header: str, names: frozenset[str], web: config.Web) -> bool:
    """`header` is the request's Host. An address is no name that somebody else could own; it is refused only where
    nothing but this machine's own addresses can be right."""
    host = _without_port(header.lower())
    if host in names:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or not web.local


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header
