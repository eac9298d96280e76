"""An operator in the test's own process: the same code from ``serve`` on, without the interpreter's start.

It has a thread and an event loop of its own: when kopf stops, it cancels every task of its loop that is younger than
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
from collections.abc import AsyncIterator, Callable

from rft_operator.__main__ import serve
from rft_operator.api import BUDGET_KIND
from rft_operator.config import Config
from support.live_run import LiveRun
from support.operator_process import LEADING, STOP_SECONDS, Operator, OperatorError
from support.polling import eventually

Settings = Callable[..., Config]
"""Makes settings of an operator from its name and what shall be other than usual."""
SWEPT = f"list {BUDGET_KIND}"
"""A sweep's last call, made once in each (that of the runs is made twice where namespaces are watched)."""
RECONCILES = "rft_reconciles_total"


class OperatorThread(Operator):
    """A running operator."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.metrics_port)
        self.config = config
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._stop = asyncio.Event()
        self._outcome: int | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=config.pod_name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                outcome = runner.run(serve(self.config, self._stop))
                runner.run(self._connections_closed())
                self._outcome = outcome
        except BaseException as error:  # handed to whoever asks
            self._outcome = error

    async def _connections_closed(self) -> None:
        """Wait for the server's goodbye on connections whose request was cancelled; else the loop warns of them."""

        async def closed() -> bool:
            return len(self._selector.get_map()) == 1  # what wakes the loop

        await eventually(closed, what="the operator's connections to be closed")

    def check_alive(self) -> None:
        """Raise OperatorError if it has ended."""
        if not self._thread.is_alive():
            raise OperatorError(f"the operator ended: {self._outcome!r}")

    async def stop(self) -> None:
        """Ask it to end, and wait until it has; raises OperatorError unless it ends in order."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)
        if self._outcome != 0:
            raise OperatorError(f"the operator ended with {self._outcome!r}")


@contextlib.asynccontextmanager
async def operating(config: Config, *, until: str = LEADING) -> AsyncIterator[OperatorThread]:
    """Run an operator, ready when it is given; no reconcile may crash, and it must end in order."""
    operator = OperatorThread(config)
    try:
        await operator.ready(until)
        yield operator
        assert (await operator.metrics()).total(RECONCILES, result="crash") == 0
    finally:
        await operator.stop()


async def sweeps(operator: Operator, *, count: int = 2) -> None:
    """Wait until an operator has listed everything ``count`` times more, and asked for a look at every run."""
    goal = (await operator.metrics()).calls().get(SWEPT, 0.0) + count

    async def swept() -> bool:
        return (await operator.metrics()).calls().get(SWEPT, 0.0) >= goal

    await eventually(swept, what=f"{count} sweeps")


async def idle(operator: Operator, run: LiveRun) -> None:
    """Fail unless everything stays as it is while the operator lists and reconciles everything again."""
    await sweeps(operator, count=1)
    before, began = await run.versions(), await operator.metrics()
    await sweeps(operator)

    async def reconciled() -> bool:
        return (await operator.metrics()).total(RECONCILES, result="ok") > began.total(RECONCILES, result="ok")

    await eventually(reconciled, what="a reconcile")
    after, ended = await run.versions(), await operator.metrics()
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert not changed, f"written: {sorted(changed)}"
    assert ended.writes() == began.writes()
