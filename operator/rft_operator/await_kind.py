"""``python -m rft_operator.await_kind KIND``: wait until the API server serves one of our kinds (a hook of the chart).

Helm makes the CRDs of a first install and goes on at once; what is of their kinds is refused until the API server has
taken them up. Invariant: it needs no right but to ask what is served, and changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from rft_operator.api import API_VERSION, BUDGET_KIND, KIND
from rft_operator.client.api import connect
from rft_operator.errors import KubeError, NotFound, RftError

DEADLINE_SECONDS = 240.0
PAUSE_SECONDS = 1.0
IN_A_ROW = 3
"""Several API servers take a CRD up one after the other, and each look may reach another one."""

Look = Callable[[str], Awaitable[dict[str, object]]]


async def served(kind: str, *, look: Look, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Return once a kind is served, as several looks in a row say."""
    seen = 0
    while seen < IN_A_ROW:
        if seen:
            await asyncio.sleep(pause_seconds)
        found = await _kinds(look)
        seen = seen + 1 if kind in found else 0
        if not seen:
            await asyncio.sleep(pause_seconds)


async def _kinds(look: Look) -> set[str]:
    try:
        answer = await look(f"/apis/{API_VERSION}")
    except NotFound:
        return set()  # the first kind of the group is not there yet
    except KubeError as error:
        _say(f"asking again: {error}")
        return set()
    resources = answer.get("resources")
    rows = resources if isinstance(resources, list) else []
    return {str(row.get("kind")) for row in rows if isinstance(row, dict)}


async def amain(kind: str) -> bool:
    """Tell whether the kind is served before the deadline."""
    api, _ = await connect()
    async with api:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await served(kind, look=api.look)
        except TimeoutError:
            return False
    return True


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if it is served, 1 if not, 2 for a word that is none of our kinds."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 1 or words[0] not in (KIND, BUDGET_KIND):
        sys.stderr.write(f"usage: python -m rft_operator.await_kind {KIND}|{BUDGET_KIND}\n")
        return 2
    begun = time.monotonic()
    try:
        done = asyncio.run(amain(words[0]))
    except RftError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if not done:
        waited = f"{DEADLINE_SECONDS:.0f} s"
        sys.stderr.write(f"error: {words[0]} is not served after {waited}; kubectl describe crd says why\n")
        return 1
    _say(f"{words[0]} is served, after {time.monotonic() - begun:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
