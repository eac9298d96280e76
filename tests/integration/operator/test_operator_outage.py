"""What the operator does when the API server goes away, or never knew its resource; on a control plane of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rft_local.cluster import Cluster
from rft_operator.api.status import ConditionType
from rft_operator.config import Config
from rft_trainer.contract import Stage
from support.api_server import CRD, ApiServer, api_server, install_crds
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_process import LEADING, OperatorProcess
from support.operator_thread import Settings, operating
from support.polling import eventually


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the control plane of this module keeps its state."""
    return tmp_path_factory.mktemp("outage") / "state"


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[ApiServer]:
    """A control plane that may be broken."""
    with api_server(state) as found:
        if found.kubeconfig is None:
            pytest.skip("breaks the control plane, so it must be the embedded one")
        yield found


async def test_run_goes_on_when_the_api_server_was_away_for_some_seconds(
    state: Path, settings: Settings, kubelet: Kubelet, run: LiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster.load(state)
    # How long an API server takes to start is the machine's affair: no lease shall be lost by it.
    async with operating(settings(leader_election=False)) as operator:
        await run.apply()
        await kubelet.work(Stage.PREPARE)
        await kubelet.start(Stage.TRAIN)
        await run.until_condition(ConditionType.RUNNING)
        assert await operator.get("/livez") == (200, "ok\n")
        await asyncio.to_thread(cluster.fault, "stop-apiserver")

        async def stale() -> bool:
            code, words = await operator.get("/livez")
            return code == 500 and words.startswith("the last sweep is ")

        await eventually(stale, what="liveness to fail for want of a sweep")
        assert await operator.get("/readyz") == (200, LEADING)
        await asyncio.to_thread(cluster.fault, "start-apiserver")

        async def alive() -> bool:
            return await operator.get("/livez") == (200, "ok\n")

        await eventually(alive, what="a sweep to succeed")
        await kubelet.complete(Stage.TRAIN)
        await kubelet.work(Stage.EVALUATE)
        await run.until_condition(ConditionType.COMPLETE)
    assert [(each.number, each.outcome) for each in await run.attempts(Stage.TRAIN)] == [(1, "Succeeded")]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_operator_ends_with_2_and_says_what_to_install_when_the_crd_is_missing(
    server: ApiServer, settings: Settings, spawn: Callable[[Config], OperatorProcess]
) -> None:
    server.kubectl("delete", "crd", CRD)
    try:
        async with spawn(settings()) as operator:
            code, line = await operator.ended(), operator.words().splitlines()[-1]
    finally:
        install_crds(server)
    assert code == 2
    assert line.startswith("error: the custom resource ReasoningFinetune is not installed: install the Helm chart")
    assert "Traceback" not in operator.words()
