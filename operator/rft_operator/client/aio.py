"""The client's core, for programs with an event loop of their own.

Invariant: every method either does what it says or raises an error of :mod:`rft_operator.errors` that says what to do;
an edit rests on the version that was read, so that two at once never undo one another.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.client.api import UserApi, connect
from rft_operator.client.conditions import Condition, goal_of, why_lost
from rft_operator.client.explain import explaining
from rft_operator.client.log_lines import LogLine, LogQuery
from rft_operator.client.logs import LogReader
from rft_operator.client.manifests import Source, billed, manifests, one_manifest, parsed
from rft_operator.client.watching import Change, Happened, Watch
from rft_operator.domain.cost import By, CostTable, cost_table
from rft_operator.domain.figures import Figures, figures
from rft_operator.domain.top_up import TopUp, limit_value, parse_amount, top_up
from rft_operator.errors import Conflict, KubeError, NotFound, Refused, RunFailed, RunNotFound, WaitTimeout

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
TRIES = 10
"""An edit is repeated so often when somebody else, the operator above all, wrote in between."""


class Result(StrEnum):
    """What an apply did."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """An object after an apply."""

    kind: str
    namespace: str
    name: str
    result: Result
    raw: Mapping[str, Any]


class AsyncClient:
    """Runs of one cluster; use :meth:`connect`, and ``async with`` to close the connections."""

    def __init__(self, api: UserApi, *, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        """Where runs are when a method is told no namespace."""

    @classmethod
    async def connect(
        cls, *, kubeconfig: Path | None = None, context: str | None = None, namespace: str | None = None
    ) -> AsyncClient:
        """Connect by the kubeconfig, or inside a pod by its service account; raises ConfigError."""
        if namespace:
            _check_name(namespace, "a namespace")
        api, home = await connect(kubeconfig=kubeconfig, context=context)
        return cls(api, namespace=namespace or home)

    async def __aenter__(self) -> AsyncClient:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.api.__aexit__(None, None, None)

    # -- reading ----------------------------------------------------------------------------------------------

    async def read(self, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        """Return a run as the API server has it; raises RunNotFound."""
        where = namespace or self.namespace
        _check_name(name, "a run")
        _check_name(where, "a namespace")
        async with explaining(self.api, namespace=where, name=name):
            return dict(await self.api.get(kind=KIND, namespace=where, name=name))

    async def get(self, name: str, *, namespace: str | None = None) -> ReasoningFinetune:
        """Return a run; raises RunNotFound."""
        return parsed(await self.read(name, namespace=namespace))

    async def read_all(
        self, *, namespace: str | None = None, all_namespaces: bool = False, label_selector: str | None = None
    ) -> Sequence[dict[str, Any]]:
        """Return all runs as the API server has them, by namespace and name."""
        where = self._chosen(namespace, all_namespaces=all_namespaces)
        selectors = {"labelSelector": label_selector} if label_selector else {}
        async with explaining(self.api, namespace=where or self.namespace):
            items, _ = await self.api.listing(kind=KIND, namespace=where, selectors=selectors)
        return sorted(items, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"]))

    def _chosen(self, namespace: str | None, *, all_namespaces: bool) -> str | None:
        """Return the namespace to look into; None for all of them."""
        if all_namespaces:
            return None
        where = namespace or self.namespace
        _check_name(where, "a namespace")
        return where

    async def list(
        self, *, namespace: str | None = None, all_namespaces: bool = False, label_selector: str | None = None
    ) -> Sequence[ReasoningFinetune]:
        """Return all runs of a namespace or of the cluster, by namespace and name."""
        found = await self.read_all(namespace=namespace, all_namespaces=all_namespaces, label_selector=label_selector)
        return [parsed(each) for each in found]

    async def cost(
        self, runs: Sequence[ReasoningFinetune] | None = None, *, by: By | str = By.RUN, label: str | None = None
    ) -> CostTable:
        """Return the bill of runs (all of the namespace if None), split; it is the ledger's to the micro-dollar."""
        chosen = [billed(each) for each in await self.read_all()] if runs is None else runs
        return cost_table(chosen, by=By(by), label=label, now=self.api.clock.now())

    def figures(self, run: ReasoningFinetune) -> Figures:
        """Return where a run is now: time left, money to the second, time to the stop line."""
        return figures(run, now=self.api.clock.now())

    # -- following --------------------------------------------------------------------------------------------

    async def watch(
        self,
        name: str | None = None,
        *,
        namespace: str | None = None,
        all_namespaces: bool = False,
        label_selector: str | None = None,
        on_trouble: Callable[[KubeError], None] = lambda _: None,
    ) -> AsyncGenerator[Change, None]:
        """Yield the runs that are there, then every change of them, through breaks, time-outs and 410."""
        where = self._chosen(namespace, all_namespaces=all_namespaces)
        selectors = {"labelSelector": label_selector} if label_selector else {}
        if name is not None:
            _check_name(name, "a run")
            selectors["fieldSelector"] = f"metadata.name={name}"
        watch = Watch(
            api=self.api,
            namespace=where,
            selectors=selectors,
            on_trouble=on_trouble,
            must_exist=name is not None,
        )
        async with (
            explaining(self.api, namespace=where or self.namespace, name=name),
            contextlib.aclosing(watch.changes()) as changes,
        ):
            async for change in changes:
                yield change

    async def wait(
        self,
        name: str,
        condition: Condition = "Complete",
        *,
        namespace: str | None = None,
        timeout_seconds: float | None = None,
        on_progress: Callable[[ReasoningFinetune], object] = lambda _: None,
    ) -> ReasoningFinetune:
        """Wait until a condition holds; return the run.

        Raises RunFailed when it can no longer hold, WaitTimeout, and RunNotFound when the run is deleted.
        """
        goal = goal_of(condition)
        where = namespace or self.namespace
        last = "nothing yet"
        try:
            async with asyncio.timeout(timeout_seconds):
                async with contextlib.aclosing(self.watch(name, namespace=where)) as changes:
                    async for change in changes:
                        run = parsed(change.raw)
                        if change.happened is Happened.DELETED:
                            break
                        on_progress(run)
                        if goal.holds(run):
                            return run
                        if goal.is_lost(run):
                            raise RunFailed(why_lost(run, goal))
                        last = run.status.stage.value if run.status.stage is not None else "New"
        except TimeoutError as error:
            words = f"{where}/{name}: {goal.words} did not come within {timeout_seconds:g} s (it is {last}); it goes on"
            raise WaitTimeout(words) from error
        raise RunNotFound(f"{where}/{name} was deleted while {goal.words} was waited for", status=404)

    def logs(self, name: str, query: LogQuery | None = None, **options: Any) -> AsyncGenerator[LogLine, None]:
        """Yield the lines of all ranks by time; options: namespace, follow, on_note."""
        return self._logs(name, query or LogQuery(), **options)

    async def _logs(
        self,
        name: str,
        query: LogQuery,
        *,
        namespace: str | None = None,
        follow: bool = False,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> AsyncGenerator[LogLine, None]:
        where = namespace or self.namespace
        await self.read(name, namespace=where)
        reader = LogReader(api=self.api, namespace=where, name=name, query=query, on_note=on_note)
        async with (
            explaining(self.api, namespace=where, name=name),
            contextlib.aclosing(reader.followed() if follow else reader.written()) as lines,
        ):
            async for line in lines:
                yield line

    # -- writing ----------------------------------------------------------------------------------------------

    async def apply(
        self, source: Source, *, name: str | None = None, force: bool = False, dry_run: bool = False
    ) -> Sequence[Applied]:
        """Apply everything that a source holds; raises Refused, Rejected with a line a field, Conflict with owners.

        The first that is not taken ends it; the error then also says what was applied before it.
        """
        applied: list[Applied] = []
        for each in manifests(source, namespace=self.namespace, name=name):
            try:
                applied.append(await self._apply(each, force=force, dry_run=dry_run))
            except KubeError as error:
                if applied and not dry_run:
                    done = ", ".join(f"{it.namespace}/{it.name} ({it.result.value})" for it in applied)
                    error.args = (f"{error}\nApplied before it: {done}",)
                raise
        return applied

    async def _apply(self, manifest: Mapping[str, Any], *, force: bool, dry_run: bool) -> Applied:
        kind, meta = str(manifest["kind"]), manifest["metadata"]
        where, name = str(meta["namespace"]), str(meta["name"])
        async with explaining(self.api, namespace=where, name=name, kind=kind):
            try:
                before: Mapping[str, Any] | None = await self.api.get(kind=kind, namespace=where, name=name)
            except NotFound:
                before = None
            raw = await self.api.apply_as_user(manifest, force=force, dry_run=dry_run)
        return Applied(kind=kind, namespace=where, name=name, result=_result(before, raw), raw=raw)

    async def create(self, source: Source, *, name: str | None = None) -> ReasoningFinetune:
        """Create a run; raises Conflict if one of its name exists."""
        manifest = one_manifest(source, namespace=self.namespace, name=name)
        meta = manifest["metadata"]
        async with explaining(self.api, namespace=meta["namespace"], name=meta["name"]):
            try:
                return parsed(await self.api.create_as_user(manifest))
            except Conflict as error:
                words = f"{meta['namespace']}/{meta['name']} exists already; choose another name, or apply the change"
                raise Conflict(words, status=409) from error

    async def suspend(self, name: str, *, namespace: str | None = None) -> bool:
        """Ask for a stop with a checkpoint; return whether anything changed."""
        return await self._set_suspend(name, wanted=True, namespace=namespace)

    async def resume(self, name: str, *, namespace: str | None = None) -> bool:
        """Let a suspended run go on; return whether anything changed."""
        return await self._set_suspend(name, wanted=False, namespace=namespace)

    async def _set_suspend(self, name: str, *, wanted: bool, namespace: str | None) -> bool:
        where = namespace or self.namespace
        if (await self.get(name, namespace=where)).spec.suspend is wanted:
            return False
        async with explaining(self.api, namespace=where, name=name):
            await self.api.change(kind=KIND, namespace=where, name=name, body={"spec": {"suspend": wanted}})
        return True

    async def top_up(
        self, name: str, amount: str | int, *, namespace: str | None = None, dry_run: bool = False
    ) -> TopUp:
        """Raise the limit to ``120``, or by ``"+20"``; return what it was, is, and buys; raises Refused.

        The edit rests on the version that was read: two top-ups at once both count.
        """
        where, asked = namespace or self.namespace, parse_amount(str(amount))
        for left in reversed(range(TRIES)):
            run = await self.get(name, namespace=where)
            found = top_up(run, asked, now=self.api.clock.now())
            if dry_run or not found.added_micro_usd:
                return found
            body = {
                "metadata": {"resourceVersion": run.metadata.resource_version},
                "spec": {"budget": {"limitUSD": limit_value(found.after_micro_usd)}},
            }
            try:
                async with explaining(self.api, namespace=where, name=name):
                    await self.api.change(kind=KIND, namespace=where, name=name, body=body)
                return found
            except Conflict:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")


def _check_name(name: str, what: str) -> None:
    """Refuse what would be another path: nothing in the cluster has such a name."""
    if not _NAME.fullmatch(name):
        raise Refused(f"{name!r} is no name of {what}: names have letters, digits, - and . only")


def _result(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Result:
    """Return what an apply changed of what users see: ownership of fields alone is no change."""

    def shown(raw: Mapping[str, Any]) -> tuple[Any, ...]:
        meta = raw["metadata"]
        return raw.get("spec"), meta.get("labels"), meta.get("annotations")

    if before is None:
        return Result.CREATED
    return Result.UNCHANGED if shown(before) == shown(after) else Result.CONFIGURED
