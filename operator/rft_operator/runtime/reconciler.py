"""One reconcile: read, plan, write status once if it changed, act, emit, say when to look again.

Invariant: the status write comes first and carries the resourceVersion that was read; only when it succeeded do
actions and Events follow. So nothing is ever done that is not on record, and a crash anywhere repeats safely. The one
exception: where the API server takes no status of a run, GPUs that should be given back are given back all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.actions import Plan
from rft_operator.domain.facts import LABEL_FINETUNE, ChildKind, Key, Settings
from rft_operator.domain.manifests import references
from rft_operator.domain.observe import KIND, can_be_shared
from rft_operator.domain.partial import PartialRun, read_partly
from rft_operator.domain.plan import CONTROLLER_NAME, plan
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.release import letting_go_of
from rft_operator.domain.stops import UNREADABLE
from rft_operator.domain.unread import hold, is_told, merged, words_of
from rft_operator.domain.view import View
from rft_operator.errors import Conflict, InvalidResource, NotFound, Rejected
from rft_operator.metrics import Metrics
from rft_operator.runtime.budget_cache import BudgetCache
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.executor import Executor, fields_of
from rft_operator.runtime.kube import JsonObject, Kube
from rft_operator.runtime.node_evidence import node_evidence

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Referred:
    """What the objects are like that a spec refers to, as :class:`View` has it."""

    missing: tuple[tuple[str, str], ...] = ()
    unshared: tuple[str, ...] = ()


class Reconciler:
    """Brings runs one step on."""

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        settings: Callable[[], Settings],
        catalogue: Callable[[], PriceCatalogue],
        now: Callable[[], int],
        metrics: Metrics,
        emit: Callable[..., Awaitable[None]] | None = None,
        budgets: BudgetCache | None = None,
    ) -> None:
        """``emit`` takes Events in the place of ``kube``, to write them later."""
        self._kube = kube
        self._emit = emit or kube.emit
        self._executor = Executor(kube=kube, cache=cache, emit=self._emit)
        self._cache = cache
        self._budgets = budgets or BudgetCache()
        self._settings = settings
        self._catalogue = catalogue
        self._now = now
        self._metrics = metrics
        self._listening_since: int | None = None
        self._told: dict[Key, str] = {}
        """What was said of runs that cannot be read."""

    async def reconcile(self, key: Key) -> float | None:
        """Bring a run one step on; return in how many seconds to look again, or None.

        Raises KubeError when the API server refuses or cannot be reached; the caller repeats with a back-off.
        """
        raw = self._cache.resource(key)
        if raw is None:
            self._told.pop(key, None)
            return await self._release_orphans(key)
        try:
            resource = ReasoningFinetune.parse(dict(raw))
        except ValidationError:
            return await self._hold(key, raw)
        self._told.pop(key, None)
        try:
            decided = await self._decide(key, resource)
        except InvalidResource as error:
            await self._emit(regarding=raw, type_="Warning", reason=error.reason, message=str(error))
            return None
        except Rejected as error:
            await self._executor.tell_refused(raw, error)
            raise
        try:
            recorded = await self._write_status(raw, resource, decided)
        except Rejected as error:
            await self._executor.tell_refused(raw, error)
            await self._stop_without_record(key, resource, decided)
            raise
        return await self._executor.execute(raw, decided, recorded=recorded)

    async def _stop_without_record(self, key: Key, resource: ReasoningFinetune, decided: Plan) -> None:
        """Take the GPUs back, if that was to go on record; the bill stays open, and its pods are held to prove it."""
        if decided.status is None:
            return
        as_if = resource.model_copy(update={"status": decided.status})
        await self._executor.take_gpus_back(plan(await self._view(key, as_if, _Referred()), self._now()))

    async def _decide(self, key: Key, resource: ReasoningFinetune) -> Plan:
        referred = _Referred()
        if resource.status.start_time is None and resource.metadata.deletion_timestamp is None:
            referred = await self._referred(resource)
        decided = plan(await self._view(key, resource, referred), self._now())
        if decided.claims_gpus and await self._pods_differ(key):
            decided = plan(await self._view(key, resource, referred), self._now())
        return decided

    async def _hold(self, key: Key, raw: JsonObject) -> float | None:
        """Stop a run that cannot be read and close its bill, as far as the API server takes its status."""
        found = read_partly(raw)
        resource = found.resource
        if resource.spec.managed_by not in (None, CONTROLLER_NAME):
            return None
        view = await self._view(key, resource, _Referred())
        decided, recorded = hold(view, found, self._now()), False
        try:
            recorded = await self._write_status(raw, resource, decided, partly=True)
        except Rejected as error:
            decided = hold(view, found, self._now(), recordable=False)
            if error.status == HTTPStatus.FORBIDDEN:  # a right that is missing, and may be given: the bill waits for it
                await self._executor.tell_refused(raw, error)
                await self._executor.take_gpus_back(decided)
                raise
            log.warning(
                "the status of a run that cannot be read is refused", extra={**fields_of(raw), **describe(error)}
            )
        await self._tell(key, raw, found)
        return await self._executor.execute(raw, decided, recorded=recorded)

    async def _tell(self, key: Key, raw: JsonObject, found: PartialRun) -> None:
        """Say once why a run cannot be read: its conditions say so from then on, or we remember it."""
        message = words_of(found)
        if is_told(found.resource.status, message) or self._told.get(key) == message:
            return
        log.warning("a run cannot be read: %s", found.words, extra=fields_of(raw))
        await self._emit(regarding=raw, type_="Warning", reason=UNREADABLE, message=message)
        self._told[key] = message

    async def _pods_differ(self, key: Key) -> bool:
        """Read the run's pods once more; a watch that lost the pods of a former gang would let a second one start."""
        before = {(pod.namespace, pod.name): pod.uid for pod in self._cache.children(key).pods}
        selector = f"{LABEL_FINETUNE}={key.name}"
        listed = await self._kube.list(kind="Pod", namespace=key.namespace, label_selector=selector)
        present = {raw["metadata"]["uid"] for raw in listed}
        changed = self._cache.drop_missing("Pod", before=before, present=present, version=listed.version)
        for raw in listed:
            changed += self._cache.put(raw)
        return bool(changed)

    async def _view(self, key: Key, resource: ReasoningFinetune, referred: _Referred) -> View:
        if self._listening_since is None:  # the first look after this operator began to lead, and to take reports
            self._listening_since = self._now()
        nodes = self._cache.nodes()
        evidence = await node_evidence(self._kube, resource.status.ledger, nodes)
        return View(
            resource=resource,
            children=self._cache.children(key),
            nodes=nodes,
            last_seen=evidence.last_seen,
            gone_nodes=evidence.gone,
            report=self._cache.report(key),
            missing=referred.missing,
            unshared=referred.unshared,
            catalogue=self._catalogue(),
            settings=self._settings(),
            listening_since=self._listening_since,
            budgets=self._budgets.for_runs(resource.metadata.namespace),
            unreadable_budgets=self._budgets.unreadable(resource.metadata.namespace),
            unbooked=self._budgets.unreadable(resource.metadata.namespace, holding=resource.metadata.uid),
        )

    async def _referred(self, resource: ReasoningFinetune) -> _Referred:
        absent: list[tuple[str, str]] = []
        unshared: list[str] = []
        for kind, name in references(resource.spec):
            try:
                found = await self._kube.get(kind=kind, namespace=resource.metadata.namespace, name=name)
            except NotFound:
                absent.append((kind, name))
            else:
                if kind == ChildKind.CLAIM and not can_be_shared(found):
                    unshared.append(name)
        return _Referred(missing=tuple(absent), unshared=tuple(unshared))

    async def _write_status(
        self, raw: JsonObject, resource: ReasoningFinetune, decided: Plan, *, partly: bool = False
    ) -> bool:
        """Put a plan's status on record; return whether anything of it is new."""
        if decided.status is None or decided.status == resource.status:
            return False
        meta, status = resource.metadata, decided.status.to_wire()
        if partly:  # what is not understood stays: its author will
            status = merged(raw.get("status"), before=resource.status.to_wire(), after=status)
        written = await self._kube.apply_status(
            namespace=meta.namespace,
            name=meta.name,
            status=status,
            resource_version=meta.resource_version,
        )
        self._cache.put({**written, "kind": KIND, "apiVersion": raw["apiVersion"]})
        self._metrics.status_writes.inc()
        return True

    async def _release_orphans(self, key: Key) -> float | None:
        """Take our finalizer off pods whose resource is gone, after asking the API server once more.

        Return in how many seconds to look again, or None; at once at a resource that the watch has not told of.
        """
        held = [pod for pod in self._cache.children(key).pods if pod.has_finalizer]
        if not held:
            return None
        try:
            found = self._cache.put(await self._kube.get(kind=KIND, namespace=key.namespace, name=key.name))
        except NotFound:
            log.info("releasing pods of a deleted run", extra={"namespace": key.namespace, "finetune": key.name})
        else:
            return 0.0 if found else None
        changed_meanwhile: Conflict | None = None
        for pod in held:
            try:
                await self._executor.act(letting_go_of(pod))
            except Conflict as error:
                changed_meanwhile = error
        if changed_meanwhile is not None:
            raise changed_meanwhile
        return None


def describe(error: Exception) -> dict[str, Any]:
    """Return the log fields of a failed reconcile."""
    return {"error": f"{type(error).__name__}: {error}"}
