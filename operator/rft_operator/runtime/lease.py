"""Leader election by a Lease: one replica reconciles, the others stand by.

Why our own: the client library's elector keeps a lease whose work has crashed, ends on a network error without
ending the work, and does not release on exit. Invariants: the holder stops working before its lease can expire for
others (renew deadline < lease duration, counted from before a renewal is sent, and an answer that does not come is not
waited for); a clean exit releases the lease, so a successor need not wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rft_operator.errors import Conflict, KubeError, NotFound
from rft_operator.runtime.kube import JsonObject, ObjectStore

log = logging.getLogger(__name__)


class LeaseElector:
    """Acquires, renews and releases one Lease."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        namespace: str,
        name: str,
        identity: str,
        lease_seconds: int = 15,
        renew_deadline_seconds: float = 10,
        retry_seconds: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._lease_seconds = lease_seconds
        self._renew_deadline_seconds = renew_deadline_seconds
        self._retry_seconds = retry_seconds
        self._monotonic = monotonic
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed_at = -math.inf

    async def acquire(self) -> None:
        """Return once this replica holds the lease."""
        await self._win(by_force=False)
        log.info("became the leader", extra={"identity": self._identity})

    async def take_over(self) -> None:
        """Take the lease from whoever holds it; return when that one must have stopped working, by its own deadline.

        It is renewed meanwhile, so that :meth:`hold` finds it held.
        """
        await self._win(by_force=True)
        log.info("took the lease over", extra={"identity": self._identity})
        stopped_at = self._monotonic() + self._renew_deadline_seconds
        while (left := stopped_at - self._monotonic()) > 0:
            await asyncio.sleep(min(self._retry_seconds, left))
            await self._renew(within_seconds=self._renew_deadline_seconds, by_force=True)

    async def _win(self, *, by_force: bool) -> None:
        won = await self._renew(within_seconds=self._renew_deadline_seconds, by_force=by_force)
        while not won:
            await asyncio.sleep(self._retry_seconds)
            won = await self._renew(within_seconds=self._renew_deadline_seconds, by_force=by_force)

    async def hold(self) -> None:
        """Renew until the lease is lost, then return: the caller must stop all work at once."""
        while (left := self._left()) > 0:
            await asyncio.sleep(min(self._retry_seconds, left))
            await self._renew(within_seconds=self._left())
        log.error("lost the lease", extra={"identity": self._identity})

    def _left(self) -> float:
        return self._renewed_at + self._renew_deadline_seconds - self._monotonic()

    async def _renew(self, *, within_seconds: float, by_force: bool = False) -> bool:
        sent = self._monotonic()
        try:
            async with asyncio.timeout(within_seconds):
                renewed = await self._try(by_force=by_force)
        except TimeoutError:
            log.warning("no answer about the lease in time", extra={"identity": self._identity})
            return False
        if renewed:
            self._renewed_at = sent
        return renewed

    async def release(self) -> None:
        """Give the lease up so that a successor can take it at once."""
        try:
            lease = dict(await self._read())
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._store.replace({**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        except KubeError as error:
            log.warning("could not release the lease", extra={"error": str(error)})

    async def _read(self) -> JsonObject:
        return await self._store.read(kind="Lease", namespace=self._namespace, name=self._name)

    async def _try(self, *, by_force: bool = False) -> bool:
        try:
            lease = await self._read()
        except NotFound:
            return await self._write(self._store.create, self._manifest({}, {}))
        except KubeError as error:
            log.warning("cannot read the lease", extra={"error": str(error)})
            return False
        spec = dict(lease["spec"])
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity and not by_force and not self._expired(lease):
            self._renewed_at = -math.inf  # never mine until won anew: hold() must not wait for its deadline
            return False
        return await self._write(self._store.replace, self._manifest(dict(lease["metadata"]), spec))

    def _expired(self, lease: JsonObject) -> bool:
        """Judge expiry by our own clock since the record last changed: no clock of another machine is trusted."""
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, self._monotonic())
        duration = lease["spec"].get("leaseDurationSeconds") or self._lease_seconds
        return self._monotonic() - self._seen[1] > duration

    async def _write(self, write: Callable[[JsonObject], Any], manifest: JsonObject) -> bool:
        try:
            await write(manifest)
        except Conflict:
            return False
        except KubeError as error:
            log.warning("cannot write the lease", extra={"error": str(error)})
            return False
        return True

    def _manifest(self, metadata: dict[str, Any], spec: dict[str, Any]) -> JsonObject:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        taken = spec.get("holderIdentity") != self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {**metadata, "name": self._name, "namespace": self._namespace},
            "spec": {
                **spec,
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._lease_seconds,
                "renewTime": now,
                "acquireTime": now if taken else spec.get("acquireTime", now),
                "leaseTransitions": spec.get("leaseTransitions", 0) + (1 if taken and spec else 0),
            },
        }
