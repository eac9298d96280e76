"""Which proxy the API server is asked through: what the environment says, read as kubectl reads it.

Invariants: a proxy that the kubeconfig names wins; without one, nothing on this machine and nothing in a network that
NO_PROXY names is asked through the environment's, which knows the way to neither.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio import client

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def settle_proxy(configuration: client.Configuration) -> None:
    """Look the environment's proxy up once: the session would read it, and ~/.netrc in a thread, for every request."""
    server = urlsplit(configuration.host)
    if configuration.proxy is None and not _is_direct(server):
        configuration.proxy = getproxies().get(server.scheme)
    configuration.client_session_kwargs = {"trust_env": False}


def _is_direct(server: SplitResult) -> bool:
    """Return whether no proxy is asked. Python's own rule compares names: it knows no networks and no loopback."""
    host = server.hostname or ""
    if host == "localhost" or proxy_bypass(server.netloc):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _networks())


def _networks() -> Iterator[Network]:
    for word in getproxies().get("no", "").split(","):
        try:
            yield ipaddress.ip_network(word.strip(), strict=False)
        except ValueError:  # a name
            continue
