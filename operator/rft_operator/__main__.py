"""``python -m rft_operator``: starts the operator and stops it in order.

Exit codes: 0 after SIGTERM or SIGINT, 1 when the lease was lost or a part died (restart me), 2 for a wrong setting.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from dataclasses import replace
from urllib.parse import urlsplit

import kopf
from aiohttp import web

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.config import Config
from rft_operator.errors import ConfigError, KubeError, NotFound
from rft_operator.handlers import build_registry, build_settings
from rft_operator.logs import configure_logging
from rft_operator.metrics import Metrics
from rft_operator.runtime.app import Runtime
from rft_operator.runtime.kube_client import KubeClient, load_configuration
from rft_operator.runtime.lease import LeaseElector
from rft_operator.runtime.namespaces import LEFT_OUT, Namespaces, check_readable, look
from rft_operator.runtime.probes import Probes
from rft_operator.runtime.progress import ProgressServer
from rft_operator.runtime.tls import load_authority, server_context

log = logging.getLogger("rft_operator")

STOP_SECONDS = 20.0
IDLE_SECONDS = 75.0
"""A connection without a request is closed after so long, not after the library's hour: each over TLS holds 290 kB."""


async def serve(config: Config, stop: asyncio.Event, watching: asyncio.Event | None = None) -> int:
    """Run the operator until ``stop`` is set; return the exit code. ``watching`` is set once kopf has started."""
    metrics = Metrics()
    async with KubeClient(await load_configuration(), metrics, instance=config.pod_name) as kube:
        found = await _check_crds(kube, config)
        runtime = Runtime(replace(config, watch_namespaces=found.readable), kube, metrics, barred=found.barred)
        runtime.prices.reload()
        async with contextlib.AsyncExitStack() as stack:
            await _listen(stack, Probes(runtime).application(), name="METRICS", port=config.metrics_port)
            if config.progress_url is not None:
                await _serve_progress(stack, runtime)
            return await _run(runtime, stop, watching or asyncio.Event())


async def _check_crds(kube: KubeClient, config: Config) -> Namespaces:
    """Return where the operator can work; fail at once, and clearly, when a CRD is not installed.

    kopf would wait for it in silence.
    """
    kind = KIND
    try:
        found = await look(kube, config.watch_namespaces)
        for kind in (KIND, BUDGET_KIND):
            await check_readable(kube, kind=kind, namespace=next(iter(found.readable), None))
    except NotFound as error:
        words = "is not installed: install the Helm chart, or apply the folder crds"
        msg = f"the custom resource {kind} {words} ({error})"
        raise ConfigError(msg) from error
    for name in found.barred:
        log.error(LEFT_OUT, extra={"namespace": name})
    return found


async def _listen(
    stack: contextlib.AsyncExitStack, app: web.Application, *, name: str, port: int, **tls: object
) -> None:
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, None, port, **tls).start()  # type: ignore[arg-type]  # only ssl_context is passed
    except OSError as error:
        msg = f"RFT_{name}_PORT={port}: cannot listen there: {error}"
        raise ConfigError(msg) from error


async def _serve_progress(stack: contextlib.AsyncExitStack, runtime: Runtime) -> None:
    config = runtime.config
    authority = await load_authority(runtime.kube, namespace=config.namespace, name=config.progress_secret)
    host = urlsplit(config.progress_url or "").hostname or "localhost"
    server = ProgressServer(
        store=runtime.kube,
        cache=runtime.cache,
        wake=runtime.wake,
        now=runtime.kube.clock.now,
        leading=lambda: runtime.leading,
        metrics=runtime.metrics,
    )
    context = server_context(authority, hostnames=(host, f"{host}.cluster.local"))
    await _listen(stack, server.application(), name="PROGRESS", port=config.progress_port, ssl_context=context)
    runtime.progress_ca = authority.certificate


async def _run(runtime: Runtime, stop: asyncio.Event, watching: asyncio.Event) -> int:
    config = runtime.config
    watches_stop = asyncio.Event()
    watches = kopf.operator(
        registry=build_registry(runtime),
        settings=build_settings(),
        clusterwide=not config.watch_namespaces,
        namespaces=config.watch_namespaces,
        standalone=True,
        # Else kopf asks for the name of the account, which in an image need not have one.
        identity=config.pod_name,  # type: ignore[arg-type]  # a NewType of a private module
        stop_flag=watches_stop,
        ready_flag=watching,
    )
    elector = LeaseElector(runtime.kube, namespace=config.namespace, name=config.lease_name, identity=config.pod_name)
    parts = {
        asyncio.create_task(watches, name="watches"),
        asyncio.create_task(runtime.watch_loop_lag(), name="pulse"),
        asyncio.create_task(runtime.follow_prices(), name="prices"),
        asyncio.create_task(_lead(runtime, elector), name="leader"),
    }
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait({*parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in done if task is not stopping]
    for task in failed:
        error = task.exception() if not task.cancelled() else None
        log.error("a part of the operator ended", extra={"part": task.get_name()}, exc_info=error)
    await _stop(parts, watches_stop)
    stopping.cancel()
    if config.leader_election:
        await elector.release()
    log.info("stopped")
    return 1 if failed else 0


async def _lead(runtime: Runtime, elector: LeaseElector) -> None:
    if not runtime.config.leader_election:
        await runtime.lead()
        return
    await elector.acquire()
    work = asyncio.create_task(runtime.lead())
    hold = asyncio.create_task(elector.hold())
    try:
        done, _ = await asyncio.wait({work, hold}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (work, hold):
            task.cancel()
        await asyncio.gather(work, hold, return_exceptions=True)


async def _stop(parts: set[asyncio.Task[None]], watches_stop: asyncio.Event) -> None:
    watches_stop.set()
    for task in parts:
        if task.get_name() != "watches":
            task.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.gather(*parts, return_exceptions=True)


async def amain() -> int:
    """Run with the environment's settings until a signal comes."""
    config = Config.from_environment(os.environ)
    configure_logging(log_format=config.log_format, level=config.log_level)
    log.info("starting", extra={"namespace": config.namespace, "trainer_image": config.trainer_image})
    stop, watching = asyncio.Event(), asyncio.Event()
    signals = asyncio.create_task(_handle_signals(stop, watching))
    try:
        return await serve(config, stop, watching)
    finally:
        signals.cancel()


async def _handle_signals(stop: asyncio.Event, watching: asyncio.Event) -> None:
    """Stop at a signal. kopf takes the signals for itself when it starts, and would end its own part only."""
    loop = asyncio.get_running_loop()
    while True:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if watching.is_set():
            return
        await watching.wait()


def spare_the_collector() -> None:
    """Leave what is loaded by now out of every collection, and collect less often.

    Every watch event is a large tree of dicts that dies at once without a cycle; looking for cycles among them at the
    default rate took an eighth of the operator's CPU time, in pauses of 50 to 70 ms (measured with 300 runs).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def main() -> int:
    """Start the operator."""
    spare_the_collector()
    try:
        return asyncio.run(amain())
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KubeError as error:
        sys.stderr.write(f"error: the API server cannot be used: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
