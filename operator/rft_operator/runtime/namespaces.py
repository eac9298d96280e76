"""Which of the watched namespaces the operator may read: one that is deleted takes the operator's Role with it.

Invariant: a namespace that cannot be read holds up none of the others. It is left out of watches and sweeps, and said
to be, until it can be read: watches are made at the start, so the operator starts anew when the answer changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from rft_operator.api import KIND
from rft_operator.errors import Rejected
from rft_operator.runtime.kube_client import KubeClient

LEFT_OUT = "a watched namespace cannot be read and is left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """The watched namespaces; both empty: the whole cluster is watched."""

    readable: tuple[str, ...]
    barred: tuple[str, ...]


async def check_readable(kube: KubeClient, *, kind: str, namespace: str | None) -> None:
    """Raise KubeError unless the objects of a kind can be listed; one is read, however many there are."""
    async with contextlib.aclosing(kube.pages(kind=kind, namespace=namespace, size=1)) as pages:
        async for _ in pages:
            return


async def look(kube: KubeClient, names: Sequence[str]) -> Namespaces:
    """Ask which namespaces can be read; raises KubeError for any answer that is neither yes nor a plain no.

    Where none can be read, which is no matter of one namespace, it raises what the API server said of the last one.
    """
    readable: list[str] = []
    barred: list[str] = []
    for name in names:
        try:
            await check_readable(kube, kind=KIND, namespace=name)
        except Rejected as error:
            if error.status != HTTPStatus.FORBIDDEN or (not readable and name == names[-1]):
                raise
            barred.append(name)
        else:
            readable.append(name)
    return Namespaces(readable=tuple(readable), barred=tuple(barred))
