"""The client for notebooks and scripts: the same methods as :class:`AsyncClient`, without ``await``.

Invariant: it works inside a running event loop too (as notebooks have one), for it has a thread with a loop of its own;
an interrupt (Ctrl-C) ends the call and leaves the client usable.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.client.aio import Applied, AsyncClient
from rft_operator.client.conditions import Condition
from rft_operator.client.log_lines import LogLine, LogQuery
from rft_operator.client.manifests import Source, parsed
from rft_operator.client.watching import Happened
from rft_operator.domain.cost import By, CostTable
from rft_operator.domain.figures import Figures
from rft_operator.domain.top_up import TopUp

T = TypeVar("T")


class Client:
    """Runs of one cluster.

    ::

        from rft_operator.client import Client

        with Client() as client:
            client.apply(Path("finetune.yaml"))
            run = client.wait("my-model", timeout_seconds=86_400, on_progress=print_progress)
    """

    def __init__(
        self, *, kubeconfig: Path | None = None, context: str | None = None, namespace: str | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rft-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(AsyncClient.connect(kubeconfig=kubeconfig, context=context, namespace=namespace))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread; the client cannot be used any more."""
        if not self._loop.is_closed():
            self._run(self._client.close())
            self._stop()

    @property
    def namespace(self) -> str:
        """Where runs are when a method is told no namespace."""
        return self._client.namespace

    def get(self, name: str, *, namespace: str | None = None) -> ReasoningFinetune:
        """Return a run; raises RunNotFound."""
        return self._run(self._client.get(name, namespace=namespace))

    def list(
        self, *, namespace: str | None = None, all_namespaces: bool = False, label_selector: str | None = None
    ) -> Sequence[ReasoningFinetune]:
        """Return all runs of a namespace or of the cluster, by namespace and name."""
        return self._run(
            self._client.list(namespace=namespace, all_namespaces=all_namespaces, label_selector=label_selector)
        )

    def apply(
        self, source: Source, *, name: str | None = None, force: bool = False, dry_run: bool = False
    ) -> Sequence[Applied]:
        """Apply everything that a source holds: a file, YAML as text, a mapping, or a typed Spec with a name."""
        return self._run(self._client.apply(source, name=name, force=force, dry_run=dry_run))

    def create(self, source: Source, *, name: str | None = None) -> ReasoningFinetune:
        """Create a run; raises Conflict if one of its name exists."""
        return self._run(self._client.create(source, name=name))

    def suspend(self, name: str, *, namespace: str | None = None) -> bool:
        """Ask for a stop with a checkpoint; return whether anything changed."""
        return self._run(self._client.suspend(name, namespace=namespace))

    def resume(self, name: str, *, namespace: str | None = None) -> bool:
        """Let a suspended run go on; return whether anything changed."""
        return self._run(self._client.resume(name, namespace=namespace))

    def top_up(self, name: str, amount: str | int, *, namespace: str | None = None, dry_run: bool = False) -> TopUp:
        """Raise the limit to ``120``, or by ``"+20"``; return what it was, is, and buys; raises Refused."""
        return self._run(self._client.top_up(name, amount, namespace=namespace, dry_run=dry_run))

    def cost(
        self, runs: Sequence[ReasoningFinetune] | None = None, *, by: By | str = By.RUN, label: str | None = None
    ) -> CostTable:
        """Return the bill of runs (all of the namespace if None), split; it is the ledger's to the micro-dollar."""
        return self._run(self._client.cost(runs, by=by, label=label))

    def figures(self, run: ReasoningFinetune) -> Figures:
        """Return where a run is now: time left, money to the second, time to the stop line."""
        return self._client.figures(run)

    def wait(
        self,
        name: str,
        condition: Condition = "Complete",
        *,
        namespace: str | None = None,
        timeout_seconds: float | None = None,
        on_progress: Callable[[ReasoningFinetune], object] = lambda _: None,
    ) -> ReasoningFinetune:
        """Wait until a condition holds; return the run. ``on_progress`` is called at every change, in another thread.

        Raises RunFailed when it can no longer hold, WaitTimeout, and RunNotFound when the run is deleted.
        """
        return self._run(
            self._client.wait(
                name, condition, namespace=namespace, timeout_seconds=timeout_seconds, on_progress=on_progress
            )
        )

    def watch(
        self,
        name: str | None = None,
        *,
        namespace: str | None = None,
        all_namespaces: bool = False,
        label_selector: str | None = None,
    ) -> Iterator[ReasoningFinetune]:
        """Yield the runs that are there, then each again whenever it changes; a deleted run ends a watch by name."""
        changes = self._client.watch(
            name, namespace=namespace, all_namespaces=all_namespaces, label_selector=label_selector
        )
        for change in self._iterate(changes):
            if change.happened is Happened.DELETED:
                if name is not None:
                    return
                continue
            yield parsed(change.raw)

    def logs(
        self,
        name: str,
        query: LogQuery | None = None,
        *,
        namespace: str | None = None,
        follow: bool = False,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> Iterator[LogLine]:
        """Yield the lines of all ranks by time; ``follow`` goes on until the run is over."""
        return self._iterate(self._client.logs(name, query, namespace=namespace, follow=follow, on_note=on_note))

    # -- inside -----------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _iterate(self, stream: AsyncGenerator[T, None]) -> Iterator[T]:
        end = object()

        async def following() -> object:
            return await anext(stream, end)

        try:
            while (item := self._run(following())) is not end:
                yield item  # type: ignore[misc]
        finally:
            self._run(stream.aclose())

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
