"""A real operator on a real control plane with runs that come and go, scraped by a real Prometheus for some minutes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from kubernetes.aio import client

from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.api_server import api_server
from support.helm import CHART
from support.kubelet import Kubelet, kubelets
from support.live_run import LiveRun
from support.operator_process import OperatorProcess, free_port
from support.prometheus import Prometheus, configuration, serving
from support.reporter import Reporter

NAMESPACE = "pictures"
SCRAPE_SECONDS = 5
EVERY_SECONDS = 10
"""A run is applied so often."""
REPORTS = 8
REPORT_SECONDS = 3
PRICES = 'version: 1\nprices:\n- {name: h100, match: {instanceType: rft-local}, usdPerHour: "2.95", asOf: 2026-01-01}\n'


@contextlib.asynccontextmanager
async def watched(folder: Path, *, seconds: int) -> AsyncIterator[tuple[Prometheus, int, int]]:
    """Yield a Prometheus that has watched an operator at work, and the span it saw."""
    prices = folder / "prices.yaml"
    await asyncio.to_thread(prices.write_text, PRICES)
    with api_server(folder / "state") as server:
        async with (
            KubeClient(await server.configuration(), Metrics()) as kube,
            client.ApiClient(await server.configuration()) as api,
        ):
            await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            server.kubectl("wait", "--for=create", "--timeout=30s", "-n", NAMESPACE, "serviceaccount/default")
            core = client.CoreV1Api(api)
            port = free_port()
            environment = {
                "RFT_PROGRESS_URL": f"https://127.0.0.1:{port}",
                "RFT_PROGRESS_PORT": str(port),
                "KUBECONFIG": str(server.kubeconfig),
                "RFT_TRAINER_IMAGE": "rft-trainer:dev",
                "RFT_NAMESPACE": NAMESPACE,
                "RFT_WATCH_NAMESPACES": NAMESPACE,
                "RFT_PRICES_FILE": str(prices),
                "RFT_SWEEP_SECONDS": "60",
            }
            async with (
                kubelets(core, kube, namespace=NAMESPACE, nodes=8) as kubelet,
                OperatorProcess(environment=environment, log=folder / "operator.log") as operator,
            ):
                await operator.leading()
                scrape = configuration(
                    targets=[f"127.0.0.1:{operator.port}"],
                    rules=[CHART / "files" / "rules.yaml"],
                    every_seconds=SCRAPE_SECONDS,
                )
                async with serving(folder, scrape) as prometheus:
                    began = int(time.time())
                    await come_and_go(kube, core, kubelet, until=began + seconds)
                    yield prometheus, began + 30, int(time.time())


async def come_and_go(kube: KubeClient, core: client.CoreV1Api, kubelet: Kubelet, *, until: int) -> None:
    """Apply runs until then, and let their pods do their work; what is under way at the end is left as it is."""
    lives: list[asyncio.Task[None]] = []
    while time.time() < until:
        run = LiveRun(kube, NAMESPACE, f"run-{len(lives) + 1}")
        await run.apply(budget={"usdPerGpuHour": None})
        lives.append(asyncio.create_task(live(run, kube, core, kubelet)))
        await asyncio.sleep(EVERY_SECONDS)
    for task in lives:
        task.cancel()
    for outcome in await asyncio.gather(*lives, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def live(run: LiveRun, kube: KubeClient, core: client.CoreV1Api, kubelet: Kubelet) -> None:
    """Play the pods of one run: prepare, train with reports, evaluate."""
    await kubelet.work(Stage.PREPARE, run=run.name)
    rank_0, *_ = await kubelet.start(Stage.TRAIN, run=run.name)
    reporter = await Reporter.of(rank_0, kube=kube, core=core)
    token = await reporter.token()
    for number in range(1, REPORTS + 1):
        metrics = {
            "step": 6 * number,
            "total_steps": 6 * REPORTS,
            "loss": 1 / number,
            "tokens_per_second": 900 + number,
        }
        status = {
            "lastUpdatedTime": "2026-01-01T00:00:00Z",
            "progressPercentage": 100 * number // REPORTS,
            "estimatedRemainingSeconds": REPORT_SECONDS * (REPORTS - number),
            "metrics": [{"name": name, "value": str(value)} for name, value in metrics.items()],
        }
        await reporter.post(token, {"trainerStatus": status})
        await asyncio.sleep(REPORT_SECONDS)
    await kubelet.complete(Stage.TRAIN, run=run.name)
    await kubelet.work(Stage.EVALUATE, run=run.name, seconds=3)
