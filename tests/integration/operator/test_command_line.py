"""Command line and Python client against the real API server: admission, ownership, rights, watches, kubectl."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.client import CoreV1Api

from rft_operator.api import KIND, PLURAL
from rft_operator.api.status import ConditionType
from rft_operator.client import (
    AsyncClient,
    By,
    Conflict,
    Forbidden,
    LogQuery,
    NotInstalled,
    Rejected,
    Result,
    RunNotFound,
)
from rft_operator.client import api as client_api
from rft_operator.errors import NotFound
from rft_operator.runtime.kinds import ENDPOINTS, Endpoint
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.api_server import ApiServer
from support.builders import NAME, resource
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.log_kubelet import serving
from support.operator_thread import OperatorThread
from support.polling import eventually
from support.team import team_budget

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
async def client(server: ApiServer, namespace: str) -> AsyncIterator[AsyncClient]:
    """The client of a user who may do everything."""
    async with await AsyncClient.connect(kubeconfig=server.kubeconfig, namespace=namespace) as found:
        yield found


class Shell:
    """A user's terminal: rft and kubectl on PATH, KUBECONFIG set."""

    def __init__(self, server: ApiServer, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self._environment = dict(os.environ)
        self._environment["PATH"] = f"{PROGRAMS}:{server.program.parent}:{os.environ['PATH']}"
        if server.kubeconfig is not None:
            self._environment["KUBECONFIG"] = str(server.kubeconfig)

    async def run(self, *words: str | Path, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        """Run a command in the namespace; return exit code, stdout and stderr."""
        environment = {**self._environment, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig is not None else {})}
        process = await asyncio.create_subprocess_exec(
            *map(str, words),
            env=environment,
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 90)
        return process.returncode or 0, out.decode(), err.decode()

    async def rft(self, *words: str | Path, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        """Run rft."""
        return await self.run("rft", *words, "-n", self.namespace, kubeconfig=kubeconfig)


@pytest.fixture
def shell(server: ApiServer, namespace: str, tmp_path: Path) -> Shell:
    return Shell(server, namespace, tmp_path)


def file_of(folder: Path, manifest: dict[str, Any]) -> Path:
    file = folder / "finetune.yaml"
    del manifest["metadata"]["namespace"]
    file.write_text(yaml.safe_dump(manifest))
    return file


# -- admission and ownership ---------------------------------------------------------------------------------------


async def test_apply_is_judged_field_by_field_by_the_api_server(client: AsyncClient, namespace: str) -> None:
    with pytest.raises(Rejected) as caught:
        await client.apply(resource(namespace=namespace, budget={"limitUSD": 0}, training={"globalBatchSize": 3}))
    words = str(caught.value)
    assert words.startswith(f"{KIND} {NAME} is not accepted:\n")
    assert "  spec.budget.limitUSD: " in words
    assert "  spec.training.globalBatchSize: " in words
    with pytest.raises(Rejected, match=r"spec.budget.limitUsd is no field of ReasoningFinetune; did you mean limitUSD"):
        await client.apply(resource(namespace=namespace, budget={"limitUsd": 3}))


async def test_apply_creates_configures_and_leaves_as_it_is(client: AsyncClient, namespace: str) -> None:
    manifest = resource(namespace=namespace)
    assert (await client.apply(manifest, dry_run=True))[0].result is Result.CREATED
    with pytest.raises(RunNotFound):
        await client.get(NAME)
    assert (await client.apply(manifest))[0].result is Result.CREATED
    assert (await client.apply(manifest))[0].result is Result.UNCHANGED
    changed = resource(namespace=namespace, budget={"limitUSD": 20})
    assert (await client.apply(changed))[0].result is Result.CONFIGURED
    with pytest.raises(Conflict, match="exists already"):
        await client.create(manifest)
    again = await client.apply(yaml.safe_dump(await client.read(NAME)))
    assert again[0].result is Result.UNCHANGED


async def test_old_file_does_not_take_back_what_was_topped_up_since(client: AsyncClient, namespace: str) -> None:
    manifest = resource(namespace=namespace)
    await client.apply(manifest)
    found = await client.top_up(NAME, "+2.50")
    assert (found.before_micro_usd, found.after_micro_usd) == (10_000_000, 12_500_000)
    with pytest.raises(Conflict, match=r"spec.budget.limitUSD is set by rft\n.*--force-conflicts"):
        await client.apply(manifest)
    assert (await client.get(NAME)).spec.budget.limit_usd == "12.5"
    await client.apply(manifest, force=True)
    assert (await client.get(NAME)).spec.budget.limit_usd == 10


async def test_top_ups_at_once_all_count(client: AsyncClient, namespace: str) -> None:
    await client.apply(resource(namespace=namespace))
    await asyncio.gather(*(client.top_up(NAME, "+5") for _ in range(4)))
    assert (await client.get(NAME)).spec.budget.limit_usd == 30


# -- errors that help ----------------------------------------------------------------------------------------------


async def test_unknown_names_are_answered_with_what_there_is(client: AsyncClient, namespace: str) -> None:
    name = f"only-{uuid.uuid4().hex[:8]}"
    await client.apply(resource(name, namespace=namespace))
    with pytest.raises(RunNotFound, match=f"did you mean {name}"):
        await client.get(f"{name}s")
    with pytest.raises(RunNotFound, match=f"there is one in namespace {namespace}: add -n {namespace}"):
        await client.get(name, namespace="default")


async def test_namespace_that_is_not_there_is_told_when_something_is_applied_into_it(client: AsyncClient) -> None:
    with pytest.raises(NotFound, match=r"there is no namespace nowhere; .* kubectl create namespace nowhere"):
        await client.apply(resource(namespace="nowhere"))


async def test_cluster_without_the_operator_is_told_from_a_run_that_is_not_there(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENDPOINTS, KIND, Endpoint("absent.rft.dev/v1", PLURAL))
    for act in (client.get(NAME), client.list(), client.wait(NAME)):
        with pytest.raises(NotInstalled, match="helm install rft-operator"):
            await act


@pytest.fixture(scope="module")
def roles(server: ApiServer) -> Iterator[None]:
    """The roles that the chart adds to the cluster's view and edit."""
    rendered = yaml.safe_load_all((ROOT / "helm" / "rendered" / "rft-operator-local.yaml").read_text())
    wanted = [
        each
        for each in rendered
        if each and each["kind"] == "ClusterRole" and each["metadata"]["name"].endswith(("-view", "-edit"))
    ]
    assert len(wanted) == 2
    for each in wanted:
        server.kubectl("apply", "-f", "-", manifest=each)
    yield
    for each in wanted:
        server.kubectl("delete", "clusterrole", each["metadata"]["name"], "--ignore-not-found")


@pytest.fixture
def viewer(server: ApiServer, namespace: str, tmp_path: Path, roles: None) -> Path:
    """A kubeconfig of somebody who may look and do nothing else."""
    account = f"viewer-{uuid.uuid4().hex[:6]}"
    where = ("-n", namespace)
    server.kubectl("create", "serviceaccount", account, *where)
    server.kubectl(
        "create", "rolebinding", "look", "--clusterrole=view", f"--serviceaccount={namespace}:{account}", *where
    )
    token = server.kubectl("create", "token", account, *where).stdout.strip()
    config = json.loads(server.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    file = tmp_path / "viewer.kubeconfig"
    file.write_text(json.dumps(config))
    return file


async def test_who_may_only_look_is_told_the_role_that_allows_more_and_it_does(
    shell: Shell, client: AsyncClient, viewer: Path, namespace: str
) -> None:
    await client.apply(resource(namespace=namespace))
    code, out, _ = await shell.rft("get", kubeconfig=viewer)
    assert code == 0
    assert NAME in out
    code, _, err = await shell.rft("suspend", NAME, kubeconfig=viewer)
    assert code == 2
    assert f"may not patch reasoningfinetunes.rft.dev in namespace {namespace}" in err
    grant = shlex.split(err[err.index("kubectl create rolebinding") :])
    code, _, err = await shell.run(*grant)
    assert code == 0, err
    code, out, err = await shell.rft("suspend", NAME, kubeconfig=viewer)
    assert (code, out.startswith(f"{namespace}/{NAME}: suspending")) == (0, True), err


@pytest.fixture
def stranger(viewer: Path) -> Path:
    """A kubeconfig with a token that nobody knows."""
    config = json.loads(viewer.read_text())
    config["users"][0]["user"]["token"] = "nobody"
    viewer.write_text(json.dumps(config))
    return viewer


async def test_token_that_nobody_knows_is_told_to_log_in(stranger: Path, namespace: str) -> None:
    async with await AsyncClient.connect(kubeconfig=stranger, namespace=namespace) as client:
        with pytest.raises(Forbidden, match="log in to the cluster again"):
            await client.list()


# -- a run under an operator ---------------------------------------------------------------------------------------


async def test_run_is_applied_waited_for_suspended_and_told_with_its_exact_bill(
    operator: OperatorThread,
    kubelet: Kubelet,
    run: LiveRun,
    shell: Shell,
    client: AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_api, "WATCH_SECONDS", 1)  # every watch is ended again and again
    file = file_of(tmp_path, resource(namespace=run.namespace))
    code, out, err = await shell.rft("apply", "-f", file, "--accept-seconds", "60")
    assert code == 0, err
    assert f"{run.namespace}/{NAME}: created\n{run.namespace}/{NAME}: accepted. " in out
    await kubelet.work(Stage.PREPARE)
    await kubelet.hold(await kubelet.start(Stage.TRAIN), seconds=2)
    code, out, err = await shell.rft("suspend", NAME, "--wait", "--timeout", "60")
    assert code == 0, err
    assert f"{run.namespace}/{NAME}: suspended, checkpoint of step 20" in out
    assert await client.resume(NAME)
    seen: list[str] = []
    waiting = asyncio.create_task(
        client.wait(NAME, timeout_seconds=120, on_progress=lambda run: seen.append(str(run.status.stage)))
    )
    await kubelet.start(Stage.TRAIN, 2)
    await kubelet.complete(Stage.TRAIN, 2)
    await kubelet.work(Stage.EVALUATE, seconds=1)
    assert (await waiting).status.evaluation is not None
    assert len(set(seen)) > 1
    await run.until(lambda status: not status.ledger.open and not status.ledger.uncounted, what="the last bill")
    spent = (await run.status()).cost.spent_micro_usd
    assert spent >= 5_000
    for by in By:
        assert (await client.cost(by=by, label="team")).total.share.micro_usd == spent, by
    code, out, err = await shell.rft("cost", "--by", "waste", "-o", "json")
    assert code == 0, err
    assert json.loads(out)["total"]["microUSD"] == spent
    code, _, err = await shell.rft("report", NAME, "-o", tmp_path / "report.html")
    assert code == 0, err
    assert "train 2" in (tmp_path / "report.html").read_text()


async def test_top_up_beyond_the_money_of_the_team_says_what_is_free(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, shell: Shell, client: AsyncClient, kube: KubeClient
) -> None:
    await kube.create(team_budget(namespace=run.namespace, limitUSD=15))
    await run.apply(evaluation=None)
    await run.until_condition(ConditionType.ACCEPTED)
    assert (await client.top_up(NAME, "+2")).after_micro_usd == 12_000_000
    await run.until(lambda status: status.observed_generation == 2, what="the raise to be taken over")
    code, _, err = await shell.rft("top-up", NAME, "+20", "--accept-seconds", "60")
    assert code == 0
    assert err.startswith("  team       the old limit holds until the money is there. ")
    assert "free $3.00" in err


async def test_logs_of_all_ranks_go_through_the_api_server_and_outlive_a_broken_stream(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, client: AsyncClient, core: CoreV1Api
) -> None:
    async with serving(core, kubelet.nodes) as logs:
        await run.apply()
        await kubelet.work(Stage.PREPARE)
        first, second = (str(pod["metadata"]["name"]) for pod in await kubelet.start(Stage.TRAIN))
        logs.logs[first] = [("2026-01-01T00:00:01.5Z", "zero"), ("2026-01-01T00:00:03Z", "two")]
        logs.logs[second] = [("2026-01-01T02:00:02.000000001+02:00", "one")]
        query = LogQuery(stage="train")
        written = [line async for line in client.logs(NAME, query)]
        assert [(line.origin.rank, line.text) for line in written] == [(0, "zero"), (1, "one"), (0, "two")]
        tail = [line.text async for line in client.logs(NAME, LogQuery(stage="train", rank=0, tail=1))]
        assert tail == ["two"]
        told: list[str] = []

        async def follow() -> None:
            async for line in client.logs(NAME, query, follow=True):
                told.append(line.text)  # noqa: PERF401 - it is looked at while it grows

        async def until(text: str) -> None:
            async def look() -> bool:
                if following.done():
                    following.result()
                return text in told

            await eventually(look, what=f"the line {text!r}")

        following = asyncio.create_task(follow())
        await until("two")
        logs.logs[second].append(("2026-01-01T00:00:04Z", "three"))
        await until("three")
        logs.cut()
        logs.logs[second].append(("2026-01-01T00:00:04Z", "four, in the same instant"))
        await until("four, in the same instant")
        assert any(each.get("sinceTime") == "2026-01-01T00:00:04Z" for each in logs.queries)
        logs.ended |= {first, second}
        await kubelet.complete(Stage.TRAIN)
        await kubelet.work(Stage.EVALUATE)
        await asyncio.wait_for(following, 60)
        assert told == ["zero", "one", "two", "three", "four, in the same instant"]


# -- kubectl -------------------------------------------------------------------------------------------------------


async def test_kubectl_finds_runs_and_completes_the_plugin(shell: Shell, client: AsyncClient, namespace: str) -> None:
    await client.apply(resource(namespace=namespace))
    code, out, err = await shell.run("kubectl", "plugin", "list")
    assert code == 0, err
    assert str(PROGRAMS / "kubectl-rft") in out
    code, out, err = await shell.run("kubectl", "rft", "get", "-n", namespace, "-o", "name")
    assert (code, out) == (0, f"reasoningfinetune.rft.dev/{NAME}\n"), err
    code, _, err = await shell.run("kubectl", "rft", "get", "nobody", "-n", namespace)
    assert code == 2
    assert "no ReasoningFinetune 'nobody'" in err

    async def completed() -> bool:  # nothing is offered when the cluster does not answer at once
        code, out, err = await shell.run("kubectl", "__complete", "rft", "top-up", "-n", namespace, "de")
        assert code == 0, err
        return out.splitlines() == [NAME, ":4"]

    await eventually(completed, what="the name of the run to be offered", seconds=60)


async def test_version_says_what_the_cluster_serves(shell: Shell, kube: KubeClient) -> None:
    code, out, err = await shell.run("rft", "version", "-o", "json")
    assert code == 0, err
    cluster = json.loads(out)["cluster"]
    assert cluster["kubernetes"].startswith("v1.")
    assert cluster["served"] == ["rft.dev/v1alpha1"]
    assert cluster["operators"] == []
