"""What no proxy is asked for: a proxy is there for downloads, and none knows the way to a cluster of this machine.

``python -m rft_local.proxy`` prints the list, for ``NO_PROXY`` and ``no_proxy`` of those who talk to a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rft_local.layout import MOST_CLUSTERS, NETWORK, api_address

VARIABLES = ("NO_PROXY", "no_proxy")
"""Go reads the first one first, curl and Python the second."""
# Python's urllib compares names and knows no networks: each API server stands there by itself.
DIRECT = (
    "127.0.0.1",
    "localhost",
    NETWORK,
    *(api_address(number) for number in range(MOST_CLUSTERS)),
    ".svc",
    ".cluster.local",
)


def no_proxy(environment: Mapping[str, str]) -> str:
    """Return what an environment says that no proxy is asked for, and the local clusters."""
    words = [word.strip() for name in VARIABLES for word in environment.get(name, "").split(",")]
    if "*" in words:
        return "*"  # Python takes it for everything only where it stands alone
    return ",".join(dict.fromkeys(word for word in (*words, *DIRECT) if word))


def direct(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose programs reach the local clusters without its proxy."""
    return {**environment, **dict.fromkeys(VARIABLES, no_proxy(environment))}


def has_proxy(environment: Mapping[str, str]) -> bool:
    """Return whether programs of an environment ask a proxy for https."""
    return any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))


if __name__ == "__main__":
    print(no_proxy(os.environ))  # noqa: T201 - it is asked for
