"""One run on a real cluster: applied, followed, broken, and looked at from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from click.testing import CliRunner

from rft_local.cluster import Cluster
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt, Condition, Status
from rft_operator.cli.main import main
from rft_operator.domain.money import micro_usd, usd_text
from rft_operator.domain.timestamps import epoch
from rft_operator.runtime.kube_client import KubeClient
from support.api_server import ApiServer
from support.builders import merged
from support.helm import CHART, NAMESPACE, RELEASE, Helm
from support.local_machine import container_processes, processes_of
from support.pod_history import PodHistory
from support.polling import eventually

LOCAL_VALUES = CHART / "values-local.yaml"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tiny-local.yaml"
KIND = "ReasoningFinetune"
OWNED = ("Pod", "Job", "Service", "ConfigMap", "PersistentVolumeClaim")
SHORT = {
    "model": {"uri": "init://tiny-qwen2?hidden=32&layers=1"},
    "dataset": {"maxSamples": 2_000},
    "training": {"globalBatchSize": 16, "microBatchSize": 8},
    "evaluation": {
        "benchmarks": [{"name": "sums", "uri": "gym://chain_sum?seed=10000000", "limit": 20, "maxTokens": 48}],
        "budgetForcing": None,
    },
}
"""Changes to the example that make it quick to prepare and to evaluate, where the score does not matter."""


@dataclass(frozen=True, slots=True)
class Product:
    """The cluster with the operator on it."""

    server: ApiServer
    history: PodHistory
    cluster: Cluster | None
    """None: the cluster of the current kubeconfig, whose machines are not ours to break."""
    helm: Helm | None = None
    """None: somebody else installed the operator."""

    def install(self, chart: Path = CHART, *more: str) -> None:
        """Install the chart, or upgrade to it, and wait until the operator works."""
        assert self.helm is not None
        self.helm.run("upgrade", "--install", RELEASE, chart, "--values", LOCAL_VALUES, *more)
        self.until_rolled_out()

    def until_rolled_out(self) -> None:
        """Wait until the newest operator is ready."""
        self.server.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")

    def kill_operator(self) -> None:
        """SIGKILL the operator's process; its pod, or the next one, starts it again."""
        if self.cluster is None:
            selector = ("-A", "-l", "app.kubernetes.io/name=rft-operator")
            self.server.kubectl("delete", "pods", *selector, "--force", "--grace-period=0")
            return
        [operator] = self.operators()
        operator.kill()
        operator.wait(10)

    def operators(self) -> list[psutil.Process]:
        """Return the processes of the operator on our machines."""
        found = []
        for process in processes_of(self.cluster.layout) if self.cluster is not None else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[-2:] == ["-m", "rft_operator"]:
                    found.append(process)
        return found

    def catalogue(self) -> str:
        """Return the admin's price catalogue."""
        found = self.server.kubectl("-n", "rft-system", "get", "configmap", "rft-operator-prices", "-o", "json").stdout
        text: str = json.loads(found)["data"]["prices.yaml"]
        return text

    def scale_operator(self, replicas: int) -> None:
        """Take the operator away for good, or give it back."""
        self.server.kubectl("-n", "rft-system", "scale", "deployment/rft-operator", f"--replicas={replicas}")
        if replicas:
            self.until_rolled_out()
            return
        for operator in self.operators():  # one that is told to go may be gone already
            with contextlib.suppress(psutil.NoSuchProcess):
                operator.kill()


@dataclass(slots=True)
class Finetune:
    """A run in a namespace of its own."""

    product: Product
    kube: KubeClient
    namespace: str
    name: str = "tiny-local"
    seen: list[Status] = field(default_factory=list)
    """Every status that was read, oldest first."""
    limit_micro_usd: int = 0
    """What the run's user last wrote as its limit."""

    def kubectl(self, *arguments: str, manifest: Mapping[str, Any] | None = None) -> str:
        """Run kubectl in the run's namespace."""
        return self.product.server.kubectl("-n", self.namespace, *arguments, manifest=manifest).stdout

    def kubectl_json(self, *arguments: str) -> Any:
        """Run kubectl and read its JSON."""
        return json.loads(self.kubectl(*arguments))

    def apply(self, **change: Any) -> None:
        """Apply the example, as it is or changed, as a user does."""
        manifest = yaml.safe_load(EXAMPLE.read_text())
        if self.product.cluster is None:  # its catalogue need not have the local pool's price
            manifest["spec"]["budget"]["usdPerGpuHour"] = "2.95"
        manifest["spec"] = merged(manifest["spec"], change)
        self.limit_micro_usd = micro_usd(str(manifest["spec"]["budget"]["limitUSD"]))
        self.kubectl("apply", "-f", "-", manifest=manifest)

    def edit(self, **change: Any) -> None:
        """Change the spec as a user does."""
        self.kubectl("patch", "rft", self.name, "--type=merge", "-p", json.dumps({"spec": change}))

    def limit(self, *, micro: int) -> None:
        """Change the budget."""
        self.edit(budget={"limitUSD": usd_text(micro)})
        self.limit_micro_usd = micro

    async def status(self) -> Status:
        """Read the status."""
        raw = await self.kube.get(kind=KIND, namespace=self.namespace, name=self.name)
        status = ReasoningFinetune.parse(dict(raw)).status
        self.seen.append(status)
        return status

    async def until(self, holds: Callable[[Status], bool], *, what: str, seconds: float) -> Status:
        """Poll the status until something holds; fails at once when the run ended instead."""

        async def look() -> Status | None:
            status = await self.status()
            if holds(status):
                return status
            ended = condition(status, "Failed"), condition(status, "Complete")
            for end in ended:
                assert end is None or end.status != "True", (
                    f"waiting for {what}: {end.type} {end.reason}: {end.message}"
                )
            return None

        return await eventually(look, what=what, seconds=seconds, every_seconds=0.5)

    async def until_step(self, step: int, *, attempt: int = 1) -> Status:
        """Wait until training attempt ``attempt`` has reported a step."""

        def trained(status: Status) -> bool:
            at = status.progress
            return at is not None and (at.stage, at.attempt) == ("train", attempt) and (at.step or 0) >= step

        return await self.until(trained, what=f"step {step} of attempt {attempt}", seconds=300)

    async def until_running(self, stage: str) -> None:
        """Wait until a pod of a stage runs."""

        def runs(_: Status) -> bool:
            pods = self.kubectl_json("get", "pods", "-l", f"rft.dev/stage={stage}", "-o", "json")["items"]
            return any(pod["status"]["phase"] == "Running" for pod in pods)

        await self.until(runs, what=f"stage {stage}", seconds=300)

    async def until_complete(self, *, seconds: float = 300) -> Status:
        """Wait for the end of a run that must succeed."""
        return await self.until(lambda status: holds(status, "Complete"), what="completion", seconds=seconds)

    def pod(self, *, stage: str, attempt: int = 1, rank: int = 0) -> dict[str, Any]:
        """Return a pod of the run."""
        labels = {"rft.dev/stage": stage, "rft.dev/attempt": str(attempt)}
        if stage == "train":
            labels["batch.kubernetes.io/job-completion-index"] = str(rank)
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found: dict[str, Any] = self.kubectl_json("get", "pods", "-l", selector, "-o", "json")["items"][0]
        return found

    def kill_rank(self, machines: Cluster, rank: int, *, attempt: int = 1) -> None:
        """SIGKILL the process of a rank, as the kernel does when memory runs out."""
        uid = self.pod(stage="train", attempt=attempt, rank=rank)["metadata"]["uid"]
        for process in ranks(machines, [uid]):
            process.kill()

    def pods(self, *, attempt: int) -> list[dict[str, Any]]:
        """Return the pods of a training attempt, by name."""
        selector = f"rft.dev/stage=train,rft.dev/attempt={attempt}"
        found: list[dict[str, Any]] = self.kubectl_json("get", "pods", "-l", selector, "-o", "json")["items"]
        return found

    def gang(self, *, attempt: int = 1) -> list[str]:
        """Return the UIDs of the pods of a training attempt."""
        return [pod["metadata"]["uid"] for pod in self.pods(attempt=attempt)]

    def deadlines(self, *, attempt: int) -> list[int]:
        """Return the epoch seconds at which the kubelets end the pods of a training attempt."""
        return [
            epoch(pod["status"]["startTime"]) + int(pod["spec"]["activeDeadlineSeconds"])
            for pod in self.pods(attempt=attempt)
        ]

    @contextlib.contextmanager
    def ranks_asleep(self, uids: Sequence[str]) -> Iterator[None]:
        """Stop the ranks of these pods for a while, and let them go on; on machines not ours they stay awake."""
        found = ranks(self.product.cluster, uids) if self.product.cluster is not None else []
        for process in found:
            process.suspend()
        try:
            yield
        finally:
            for process in found:
                process.resume()

    async def rft(self, *arguments: str) -> str:
        """Run ``rft`` on the cluster and return what it says; it has an event loop of its own."""
        server = self.product.server
        where = [] if server.kubeconfig is None else ["--kubeconfig", str(server.kubeconfig)]
        words = [*arguments, "-n", self.namespace, *where]
        result = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def audit(self, folder: Path) -> Any:
        """Dump the namespace as a user does, and let ``rft audit`` compute its bill; fails unless the status agrees."""
        dump, prices = folder / "dump.json", folder / "prices.yaml"
        kinds = "pods,nodes,jobs,reasoningfinetunes"
        dump.write_text(self.kubectl("get", kinds, "-o", "json", "--show-managed-fields"), encoding="utf-8")
        arguments = ["audit", "-f", str(dump), "-o", "json"]
        if self.product.cluster is not None:
            prices.write_text(self.product.catalogue(), encoding="utf-8")
            arguments += ["--prices", str(prices)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def trainer_runs(self, machines: Cluster, uids: Sequence[str]) -> bool:
        """Tell whether a process of the trainer is left in any of the pods; asks the machines, not the API server."""
        return any(container_processes(machines.layout, pod_uid=uid, word="rft_trainer") for uid in uids)

    async def delete(self) -> None:
        """Delete the run; fails unless nothing of it is left soon after."""
        self.kubectl("delete", "rft", self.name, "--ignore-not-found", "--wait=false")

        async def gone() -> bool:
            return not await self.leftovers()

        await eventually(gone, what="everything of the run to be gone", seconds=90, every_seconds=0.5)

    async def leftovers(self) -> list[str]:
        """Return what is left in the namespace of a run, but for what the next run of its base model may take over."""
        found = [
            f"{kind} {each['metadata']['name']}"
            for kind in (KIND, *OWNED)
            for each in await self.kube.list(kind=kind, namespace=self.namespace)
        ]
        kept = ("ConfigMap kube-root-ca.crt", "ConfigMap rft-baseline-")
        return [each for each in found if not each.startswith(kept)]


def ranks(machines: Cluster, uids: Sequence[str]) -> list[psutil.Process]:
    """Return the processes of the ranks in these pods; fails where one has none."""
    found: list[psutil.Process] = []
    for uid in uids:
        of_pod = container_processes(machines.layout, pod_uid=uid, word="rft_trainer.train.main")
        assert of_pod, "the rank does not run"
        found += of_pod
    return found


def condition(status: Status, type_: str) -> Condition | None:
    """Return a condition by type."""
    return next((each for each in status.conditions if each.type == type_), None)


def holds(status: Status, type_: str) -> bool:
    """Return whether a condition is True."""
    found = condition(status, type_)
    return found is not None and found.status == "True"


def attempts(status: Status, stage: str) -> list[Attempt]:
    """Return the attempts of a stage, oldest first."""
    return [attempt for attempt in status.attempts if attempt.stage == stage]
