"""What happens before the operator is uninstalled: nothing of ours holds an object afterwards, and no run is lost."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from rft_operator.api import KIND
from rft_operator.api.status import ConditionType
from rft_operator.client.api import UserApi
from rft_operator.config import Config
from rft_operator.domain.facts import FINALIZER
from rft_operator.metrics import Metrics
from rft_operator.runtime.lease import LeaseElector
from rft_operator.uninstall import Uninstall, main
from rft_trainer.contract import Stage
from support.api_server import ApiServer
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_process import LEADING, OperatorError
from support.operator_thread import OperatorThread, Settings, operating


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[UserApi]:
    found = UserApi(await server.configuration(), Metrics())
    async with found:
        yield found


@contextlib.asynccontextmanager
async def ousted(config: Config) -> AsyncIterator[None]:
    """Run an operator that must lose its lease before the end: it puts nothing back."""
    operator = OperatorThread(config)
    try:
        await operator.ready(LEADING)
        yield
    finally:
        with pytest.raises(OperatorError, match="ended with 1"):
            await operator.stop()


def uninstall(api: UserApi, namespace: str, said: list[str]) -> Uninstall:
    elector = LeaseElector(
        api,
        namespace=namespace,
        name="rft-operator",
        identity="uninstall",
        lease_seconds=2,
        renew_deadline_seconds=5,  # the operator stops within two seconds of a lost lease
    )
    return Uninstall(api, elector=elector, namespaces=[namespace], say=said.append, poll_seconds=0.1)


async def finalizers(api: UserApi, namespace: str) -> list[str]:
    return [
        f"{kind}/{each['metadata']['name']}"
        for kind in (KIND, "Pod", "Job")
        for each in await api.list(kind=kind, namespace=namespace)
        if FINALIZER in (each["metadata"].get("finalizers") or ())
    ]


async def test_runs_are_suspended_and_let_go_and_go_on_under_the_next_operator(
    settings: Settings, kubelet: Kubelet, run: LiveRun, api: UserApi
) -> None:
    said = list[str]()
    async with ousted(settings()):
        await run.apply()
        await kubelet.work(Stage.PREPARE)
        await kubelet.hold(await kubelet.start(Stage.TRAIN))
        await uninstall(api, run.namespace, said).keep_runs()
    assert said[0] == f"suspending {run.namespace}/{run.name}: a checkpoint is saved first"
    status = await run.status()
    assert (status.ledger.open, status.ledger.uncounted) == ([], [])
    assert status.checkpoint is not None
    assert await finalizers(api, run.namespace) == []

    async with operating(settings("operator-2")):
        await run.edit(suspend=False)
        await kubelet.start(Stage.TRAIN, 2)
        second = (await run.attempts(Stage.TRAIN))[1]
        assert second.start_step == status.checkpoint.step
        assert f"{KIND}/{run.name}" in await finalizers(api, run.namespace)


async def test_run_can_be_deleted_when_the_operator_was_uninstalled(
    settings: Settings, kubelet: Kubelet, run: LiveRun, api: UserApi
) -> None:
    async with ousted(settings()):
        await run.apply()
        await kubelet.work(Stage.PREPARE)
        await kubelet.hold(await kubelet.start(Stage.TRAIN))
        await uninstall(api, run.namespace, []).keep_runs()
    await run.delete()
    assert await api.list(kind=KIND, namespace=run.namespace) == []


async def test_runs_are_deleted_by_the_operator_and_waited_for_when_the_crds_go_too(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, api: UserApi
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    await kubelet.start(Stage.TRAIN)
    said = list[str]()
    await uninstall(api, run.namespace, said).delete_runs()
    assert said == ["1 runs are being deleted", "all runs are gone"]
    assert await api.list(kind=KIND, namespace=run.namespace) == []
    deleted = [each for each in await run.events_until("Deleted") if each.reason == "Deleted"]
    assert len(deleted) == 1, "its bill was closed"


async def test_run_that_was_never_started_is_left_alone(settings: Settings, run: LiveRun, api: UserApi) -> None:
    await run.apply()
    await uninstall(api, run.namespace, []).keep_runs()
    assert not (await run.raw())["spec"].get("suspend")
    assert (await run.status()).start_time is None
    assert not any(each.type is ConditionType.SUSPENDED for each in (await run.status()).conditions)


def test_uninstall_refuses_a_word_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["everything"]) == 2
    assert "keep|delete" in capsys.readouterr().err
