"""``python -m rft_operator.uninstall``: what must happen before the operator goes (the chart's pre-delete hook).

Invariant: when it succeeds, nothing of ours holds an object in the cluster, and no run holds a GPU whose bill nobody
would close. The operator, which still works, does it in order: runs are suspended (a checkpoint is saved and the GPUs
are free) or, where the CRDs go too, deleted. Only then the Lease is taken from it, so that it puts no finalizer back,
and the finalizers of suspended runs come off; an operator that is installed later puts them on again. The one exception
is a run that cannot be read and whose bill cannot be closed: it is named and passed over once its pods have ended, with
the finalizers that keep its bill.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import ConditionType
from rft_operator.client.api import UserApi, connect
from rft_operator.config import Config
from rft_operator.domain.draft import is_over, is_true
from rft_operator.domain.facts import FINALIZER, LABEL_FINETUNE, PodPhase
from rft_operator.domain.partial import PartialRun, read_partly
from rft_operator.domain.plan import CONTROLLER_NAME
from rft_operator.errors import Conflict, NotFound, RftError, Unavailable
from rft_operator.runtime.lease import LeaseElector
from rft_operator.runtime.namespaces import look

POLL_SECONDS = 2.0
SAY_SECONDS = 20.0
NAMED = 5
PATIENCE_SECONDS = 30.0
"""So long after its last pod ended the operator may close the bill of a run that cannot be read."""
IDENTITY = "uninstall"
LEASE_SECONDS = 30
"""So long no operator takes over again after the end: Helm deletes its Deployment well before."""

Say = Callable[[str], None]


class Elector(Protocol):
    """What is needed of the Lease."""

    async def take_over(self) -> None:
        """Return when nobody else works any more."""
        ...

    async def hold(self) -> None:
        """Renew until cancelled."""
        ...

    async def release(self) -> None:
        """Let the operator work again."""
        ...


class Uninstall:
    """Lets go of everything the operator holds."""

    def __init__(
        self,
        api: UserApi,
        *,
        elector: Elector,
        namespaces: Sequence[str],
        say: Say,
        poll_seconds: float = POLL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Work in some namespaces, or in all if none is named."""
        self._api = api
        self._elector = elector
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._say = say
        self._poll_seconds = poll_seconds
        self._monotonic = monotonic
        self._ended_since: dict[str, float] = {}
        """Since when no pod of a run that cannot be read runs any more."""
        self._passed: set[str] = set()

    async def keep_runs(self) -> None:
        """Suspend every run that is not over, and let go of it when it holds nothing any more."""
        await self._until(self._busy)
        await self._elector.take_over()
        while await self._busy():  # somebody resumed or made a run while the operator still worked
            await self._elector.release()
            await self._until(self._busy)
            await self._elector.take_over()
        hold = asyncio.create_task(self._elector.hold())
        try:
            for run in await self._runs():
                if _name(run) not in self._passed:
                    await self._let_go(run)
            if hold.done():
                raise Unavailable(
                    "the Lease was lost, and an operator may have put finalizers back: do this step again"
                )
        finally:
            hold.cancel()
            await asyncio.gather(hold, return_exceptions=True)
        self._say("nothing is held any more; the runs stay, and go on when an operator is there and they are resumed")

    async def delete_runs(self) -> None:
        """Delete every run, and wait until the operator has closed the last bill."""
        self._say(f"{len(await self._runs())} runs are being deleted")
        await self._until(self._present)
        self._say("all runs are gone")

    # -- one run ----------------------------------------------------------------------------------------------

    async def _suspend(self, run: Mapping[str, Any]) -> None:
        meta, found = run["metadata"], _parsed(run)
        if isinstance(found, PartialRun):  # the operator stops it by itself
            return
        if found.spec.suspend or "deletionTimestamp" in meta or is_over(found.status):
            return
        where = {"kind": KIND, "namespace": meta["namespace"], "name": meta["name"]}
        with contextlib.suppress(NotFound):
            await self._api.change(**where, body={"spec": {"suspend": True}})
            self._say(f"suspending {_name(run)}: a checkpoint is saved first")

    async def _let_go(self, run: Mapping[str, Any]) -> None:
        while FINALIZER in (run["metadata"].get("finalizers") or ()):
            meta = run["metadata"]
            where = {"kind": KIND, "namespace": meta["namespace"], "name": meta["name"]}
            rest = [each for each in meta["finalizers"] if each != FINALIZER]
            try:
                await self._api.set_finalizers(**where, finalizers=rest, resource_version=meta["resourceVersion"])
            except NotFound:
                return
            except Conflict:
                run = await self._api.get(**where)
            else:
                return

    # -- what there is ----------------------------------------------------------------------------------------

    async def _runs(self) -> list[Mapping[str, Any]]:
        found = [each for where in self._namespaces for each in await self._api.list(kind=KIND, namespace=where)]
        return [each for each in found if (each.get("spec") or {}).get("managedBy") in (None, CONTROLLER_NAME)]

    async def _present(self) -> list[str]:
        """Delete what is there, also what somebody made meanwhile; return it."""
        runs = await self._runs()
        for run in runs:
            meta = run["metadata"]
            if "deletionTimestamp" not in meta:
                await self._api.delete(kind=KIND, namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
        return [f"{_name(run)} ({_stage(run)})" for run in runs]

    async def _busy(self) -> list[str]:
        """Suspend what is at work; return what still needs the operator: such runs, and pods whose bill is open."""
        working = [run for run in await self._runs() if not _is_at_rest(run)]
        for run in working:
            await self._suspend(run)
        pods = [each for where in self._namespaces for each in await self._api.list(kind="Pod", namespace=where)]
        for run in working:
            self._pass_over(run, [pod for pod in pods if _owner(pod) == _name(run)])
        runs = [f"{_name(run)} ({_stage(run)})" for run in working if _name(run) not in self._passed]
        held = [each for each in pods if FINALIZER in (each["metadata"].get("finalizers") or ())]
        return runs + [f"pod {_name(pod)}" for pod in held if _owner(pod) not in self._passed]

    def _pass_over(self, run: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> None:
        """Wait no longer for a run that cannot be read once nothing of it spends money any more; say so."""
        name, found, now = _name(run), _parsed(run), self._monotonic()
        if not isinstance(found, PartialRun) or any(_runs_on_a_node(pod) for pod in pods):
            self._ended_since.pop(name, None)
            self._passed.discard(name)
            return
        if name in self._passed or now < self._ended_since.setdefault(name, now) + PATIENCE_SECONDS:
            return
        self._passed.add(name)
        self._say(
            f"passing over {name}, which cannot be read and whose bill cannot be closed: {found.words}. It runs no pod "
            "and keeps its finalizers, and with them its bill, which the operator of the version that wrote it can "
            f"close. To throw the bill away, remove the finalizer {FINALIZER} from the run and its pods by hand"
        )

    async def _until(self, left: Callable[[], Awaitable[list[str]]]) -> None:
        said_at = self._monotonic()
        while names := await left():
            if self._monotonic() >= said_at + SAY_SECONDS:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                self._say(f"waiting for {', '.join(names[:NAMED])}{more}")
                said_at = self._monotonic()
            await asyncio.sleep(self._poll_seconds)


def _parsed(run: Mapping[str, Any]) -> ReasoningFinetune | PartialRun:
    try:
        return ReasoningFinetune.parse(dict(run))
    except ValidationError:
        return read_partly(run)


def _is_at_rest(run: Mapping[str, Any]) -> bool:
    """Tell whether a run needs the operator no more."""
    meta = run["metadata"]
    if FINALIZER not in (meta.get("finalizers") or ()):
        return True
    found = _parsed(run)
    status = found.resource.status if isinstance(found, PartialRun) else found.status
    if "deletionTimestamp" in meta or (isinstance(found, PartialRun) and not found.ledger_known):
        return False
    ledger = status.ledger
    ended = is_over(status) or is_true(status, ConditionType.SUSPENDED)
    return ended and not ledger.open and not ledger.uncounted


def _owner(pod: Mapping[str, Any]) -> str:
    """Return namespace and name of the run that a pod belongs to."""
    meta = pod["metadata"]
    return f"{meta['namespace']}/{(meta.get('labels') or {}).get(LABEL_FINETUNE)}"


def _runs_on_a_node(pod: Mapping[str, Any]) -> bool:
    ended = (pod.get("status") or {}).get("phase") in (PodPhase.SUCCEEDED, PodPhase.FAILED)
    return bool((pod.get("spec") or {}).get("nodeName")) and not ended


def _name(found: Mapping[str, Any]) -> str:
    return f"{found['metadata']['namespace']}/{found['metadata']['name']}"


def _stage(run: Mapping[str, Any]) -> str:
    return str((run.get("status") or {}).get("stage") or "new")


async def amain(mode: str) -> None:
    """Work with the environment's settings; raises RftError."""
    config = Config.from_environment(os.environ)
    api, _ = await connect()
    async with api:
        elector = LeaseElector(
            api, namespace=config.namespace, name=config.lease_name, identity=IDENTITY, lease_seconds=LEASE_SECONDS
        )
        found = await look(api, config.watch_namespaces)
        for name in found.barred:
            _print(f"passing over namespace {name}, which cannot be read: it was deleted, or the operator's Role there")
        work = Uninstall(api, elector=elector, namespaces=found.readable, say=_print)
        await (work.delete_runs() if mode == "delete" else work.keep_runs())


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``keep`` or ``delete``; exit code 1 if the cluster refused, 2 for a wrong word."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words not in (["keep"], ["delete"]):
        sys.stderr.write("usage: python -m rft_operator.uninstall keep|delete\n")
        return 2
    try:
        asyncio.run(amain(words[0]))
    except RftError as error:
        sys.stderr.write(f"error: {error}. Without this step: helm uninstall --no-hooks\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
